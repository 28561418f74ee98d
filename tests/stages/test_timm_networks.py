"""Selective forgetting and imitation on networks that people use: a few steps of a ViT and of a ResNet-50 of timm."""

import copy

import pytest
import torch
import yaml

from lightning_unlearn.chain.methods import load_method
from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.classifier import Classifier
from lightning_unlearn.config.shipped import find_config
from lightning_unlearn.data.datamodule import UnlearningDataModule
from lightning_unlearn.data.forget import RandomCount
from lightning_unlearn.data.vision import Samples, VisionData

# Network, its arguments, and what of its forward cost lies behind the cut, at most.
NETWORKS = {
    "vit_tiny_patch16_224": ({"img_size": 32, "patch_size": 4}, 0.25),
    # Untrained blocks that end in zeros would give their weights no gradient, and the mask nothing to learn from.
    "resnet50": ({"zero_init_last": False}, 0.4),
}
# At most so much of everything in the shipped methods. A mask's scores need 6 steps to cross their threshold.
SMALL = {
    "max_epochs": 8,
    "penalty": 0.0,
    "passes": 1,
    "class_passes": 1,
    "batch_size": 8,
    "forget_batch_size": 4,
    "unseen_samples": 8,
    "bank_samples": 16,
    "count": 2,
}


def shrunk(settings):
    """The same settings within `SMALL`."""
    if isinstance(settings, dict):
        return {key: min(value, SMALL[key]) if key in SMALL else shrunk(value) for key, value in settings.items()}
    return [shrunk(value) for value in settings] if isinstance(settings, list) else settings


def random_data():
    draw = torch.Generator().manual_seed(0)
    parts = []
    for name, n in (("train", 36), ("test", 4)):
        images = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8, generator=draw)
        parts.append(Samples(images, torch.arange(n) % 4, [f"{name}{i}" for i in range(n)]))
    return VisionData("random", *parts, list("abcd"), [0.5] * 3, [0.3] * 3)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["selective_forgetting", "imitate_unseen", "imitate_unseen_surrogate"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_few_steps_change_the_last_stage_alone(name, method, fresh, tmp_path):
    arguments, most = NETWORKS[name]
    torch.manual_seed(0)
    model = Classifier(name, 4, 3, image_size=32, network_args=arguments)
    before = copy.deepcopy(model.state_dict())
    data = UnlearningDataModule(random_data(), RandomCount(8), unseen=8, batch_size=8, num_workers=0, seed=0)
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(shrunk(yaml.safe_load(find_config(f"method/{method}").read_text()))))
    stages = load_method(str(path))()
    results = run_chain(fresh, model, data, stages)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    last = ("blocks.10.", "blocks.11.", "norm.", "head.") if name.startswith("vit") else ("layer4.", "fc.")
    assert changed
    assert all(key.startswith(tuple(f"network.{part}" for part in last)) for key in changed)
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())
    # The beginning ran once per sample: the trained stage knows that only the rest of the network runs.
    assert 0 < stages[-1].work.backward_share <= most
    assert all(result.work >= 0 for result in results)
