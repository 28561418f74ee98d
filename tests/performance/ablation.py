"""What each part of selective forgetting adds: which weights shrink, by how much, and what is taught afterwards.

By hand: `python tests/performance/ablation.py CONFIG FOLDER [arguments of benchmark]`, such as `benchmark/cifar10_small`.
Every variant is `selective_forgetting` with one part changed, and the same with the targets of `imitate_unseen` in place of
its fine-tuning. The table pairs variants by forget set and original: difference to the method as it ships, mean and standard
error over forget sets. Finished cells are kept in FOLDER.
"""

import copy
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import torch
import yaml

from lightning_unlearn.chain.methods import load_method
from lightning_unlearn.cli import main
from lightning_unlearn.functional.masks import share_on
from lightning_unlearn.functional.pruning import largest
from lightning_unlearn.random import generator
from lightning_unlearn.stages import UnlearningStage
from lightning_unlearn.stages.gradient_passes import mean_gradient

FIGURES = ("gap/avg", "js/forget", "relearn/gap", "retain/acc", "cost/share")


class OtherMask(UnlearningStage):
    """Puts another mask with as many ones in the place of a learned one.

    Args:
        kind: `random`, in each tensor as many ones as before; `gradient`, the largest |gradient of the forget loss| of all
            tensors together (SalUn's choice).
    """

    view = "none"
    requires = ("mask",)
    provides = ("mask",)
    train_mode = False

    def __init__(self, kind: str) -> None:
        super().__init__(max_epochs=0)
        self.kind = kind

    def choose(self, classifier: torch.nn.Module) -> list[str]:
        """See `UnlearningStage.choose`: what the learned mask covers."""
        return list(self.artifacts["mask"])

    def on_fit_start(self) -> None:
        """Replace the mask."""
        learned = self.artifacts["mask"]
        if self.kind == "gradient":
            gradient = mean_gradient(self, "forget")
            masks = largest({name: gradient[name].abs() for name in learned}, float(share_on(learned.values())))
        else:
            source = generator("ablation: random mask")
            masks = {n: m.flatten()[torch.randperm(m.numel(), generator=source)].view_as(m) for n, m in learned.items()}
        self.artifacts["mask"] = masks


def variants() -> dict[str, list[dict]]:
    """Chains by name; the first is the method as it ships."""
    learn, decay, repair = load_method("selective_forgetting").content["stages"]
    *estimate, imitate = load_method("imitate_unseen").content["stages"]
    reset, again = load_method("eu_k").content["stages"]

    def changed(stage: dict, **arguments: object) -> dict:
        other = copy.deepcopy(stage)
        other["init_args"] |= arguments
        return other

    here = Path(__file__).stem
    other = {kind: {"class_path": f"{here}.OtherMask", "init_args": {"kind": kind}} for kind in ("random", "gradient")}
    chains = {
        "learned_mask": [learn, decay],
        "exclusive_mask": [changed(learn, exclusive=True), decay],
        "random_mask": [learn, other["random"], decay],
        "gradient_mask": [learn, other["gradient"], decay],
        "whole_stage": [decay],
        **{f"decay_{factor}": [learn, changed(decay, factor=factor)] for factor in (0.0, 0.1, 0.5, 0.9)},
        "no_decay": [],
    }
    taught = {f"{name}_targets": [*estimate, *chain, imitate] for name, chain in chains.items()}
    return {
        **{name: [*chain, repair] for name, chain in chains.items()},
        "eu_k": [reset, again],
        **taught,
        # The last stage and the head, as the targets are taught there.
        "eu_k_targets": [*estimate, changed(reset, last_blocks=2), imitate],
    }


def table(report: Path) -> None:
    """Print means, and paired differences to the first variant."""
    # What a learned mask costs is counted for those, too, that then take another one.
    rows = [row for row in json.loads(report.read_text())["rows"] if row["role"] == "method"]
    cells: dict[str, dict[tuple[str, int], dict[str, float]]] = defaultdict(dict)
    for row in rows:
        if row["metrics"]:
            cells[row["method"]][row["request"], row["seed"]] = row["metrics"]
    first = cells[next(iter(variants()))]
    print(f"{'':24s}  n " + "".join(f"{name:>14s}" for name in FIGURES) + "    gap, JS against the first, paired")
    for name in variants():
        found = cells[name]
        if not found or not first:
            print(f"{name:24s}  failed on every forget set, or the first variant did")
            continue
        means = [statistics.mean(metrics.get(figure, float("nan")) for metrics in found.values()) for figure in FIGURES]
        against = []
        for figure in FIGURES[:2]:
            differences = [found[key][figure] - first[key][figure] for key in found if key in first]
            error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else float("nan")
            against.append(f"{statistics.mean(differences):+.3f} ± {error:.3f}")
        print(f"{name:24s} {len(found):2d} " + "".join(f"{mean:14.3f}" for mean in means) + "    " + ", ".join(against))


if __name__ == "__main__":
    config, folder, *rest = sys.argv[1:]
    sys.path.insert(0, str(Path(__file__).parent))
    methods = Path(folder) / "methods"
    methods.mkdir(parents=True, exist_ok=True)
    for name, chain in variants().items():
        (methods / f"{name}.yaml").write_text(f"# Ablation: {name}.\n{yaml.safe_dump({'stages': chain}, sort_keys=False)}")
    listed = str([str(methods / f"{name}.yaml") for name in variants()])
    code = main(["benchmark", "-c", config, "--methods", listed, "--output", folder, *rest])
    if code == 0:
        table(Path(folder) / "report.json")
    sys.exit(code)
