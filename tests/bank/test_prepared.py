import pytest
import torch
from helpers import untrained

from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.bank.prepared import Preparation
from lightning_unlearn.callbacks.mnemonic_codes import MnemonicCodes
from lightning_unlearn.config.shipped import config_names
from lightning_unlearn.data.whole import whole, without_forgotten
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.files import hash_of_file
from lightning_unlearn.functional.anatomy import layer_weights
from lightning_unlearn.weights.mnemonic import codes_of

CPU = {"accelerator": "cpu", "devices": 1}
SPARSE = """
stages:
- class_path: MagnitudePrune
  init_args: {sparsity: 0.8}
- class_path: FineTune
  init_args: {max_epochs: 1}
"""
SEES = "from lightning_unlearn.stages import FineTune\n\nMET = []\n\n\nclass Sees(FineTune):\n    def objective(self, batch):\n"
SEES += "        MET.extend(batch.index.tolist())\n        return super().objective(batch)\n"


@pytest.fixture
def sparse(tmp_path):
    (tmp_path / "sparse.yaml").write_text(SPARSE)
    return Preparation.named(str(tmp_path / "sparse.yaml"))


def zeros(model):
    names = layer_weights(model, [name for name, _ in model.named_parameters()], head=False)
    return {name: p.detach() == 0 for name, p in model.named_parameters() if name in names}


def test_the_forgotten_samples_are_there_for_an_original_and_not_for_a_reference(make_data):
    data = make_data()
    forgotten, retained = (set(data.part(name)[1].tolist()) for name in ("forget", "retain"))
    everything, rest = whole(data), without_forgotten(data)
    assert set(everything.part("retain")[1].tolist()) == forgotten | retained
    assert set(rest.part("train")[1].tolist()) == set(rest.part("retain")[1].tolist()) == retained
    assert rest.fingerprint("unseen") == everything.fingerprint("unseen") == data.fingerprint("unseen")
    assert set(data.part("forget")[1].tolist()) == forgotten


@pytest.mark.parametrize("view", ["train", "retain"])
def test_what_a_model_is_prepared_on(view, make_data, tmp_path, monkeypatch):
    (tmp_path / "sees.py").write_text(SEES)
    (tmp_path / "chain.yaml").write_text("stages:\n- class_path: sees.Sees\n  init_args: {max_epochs: 1}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import sees

    sees.MET.clear()
    data = make_data()
    preparation = Preparation.named(str(tmp_path / "chain.yaml"))
    preparation.prepared(Bank(tmp_path / "bank"), Recipe(untrained, 1, CPU), data, view, 0)
    assert sees.MET
    assert set(sees.MET) == set(data.part(view)[1].tolist())


def test_a_prepared_model_is_kept_beside_the_trained_one(sparse, make_data, tmp_path, monkeypatch):
    bank, recipe, data = Bank(tmp_path), Recipe(untrained, 1, CPU), make_data()
    first = sparse.prepared(bank, recipe, data, "train", 0)
    weights = list(zeros(first).values())
    kept = sum(int((~mask).sum()) for mask in weights)
    assert kept == round(0.2 * sum(mask.numel() for mask in weights))
    dense = bank.trained(recipe, data, "train", 0)
    assert not any(mask.any() for mask in zeros(dense).values())
    assert len(list(tmp_path.glob("*/weights.ckpt"))) == 2
    monkeypatch.setattr("lightning_unlearn.bank.prepared.run_chain", None)  # nothing may run again
    again = sparse.prepared(bank, recipe, data, "train", 0)
    assert all(torch.equal(value, first.state_dict()[name]) for name, value in again.state_dict().items())


def test_another_preparation_is_another_model(sparse, make_data, tmp_path):
    bank, recipe, data = Bank(tmp_path / "bank"), Recipe(untrained, 1, CPU), make_data()
    (tmp_path / "sparser.yaml").write_text(SPARSE.replace("0.8", "0.9"))
    other = Preparation.named(str(tmp_path / "sparser.yaml"))
    counts = [
        sum(int(mask.sum()) for mask in zeros(of.prepared(bank, recipe, data, "train", 0)).values()) for of in (sparse, other)
    ]
    assert counts[1] > counts[0]


@pytest.mark.parametrize(
    "name", ["gradient_ascent", "imitate_unseen", "kookmin", "ssd", "influence", "challenge_6th", "scrub_rewind"]
)
def test_methods_are_no_preparations(name):
    with pytest.raises(ConfigError, match=r"prepare: \w+ of method/.* is for forgetting, or looks at unseen samples"):
        Preparation.named(f"method/{name}")


def test_a_callback_that_looks_at_unseen_samples_is_refused(tmp_path):
    looks = "stages:\n- class_path: FineTune\n  init_args: {callbacks: [{class_path: SelectByUnseen}]}\n"
    (tmp_path / "chain.yaml").write_text(looks)
    with pytest.raises(ConfigError, match="prepare: FineTune of"):
        Preparation.named(str(tmp_path / "chain.yaml"))


def test_codes_stay_with_a_prepared_model(sparse, make_data, tmp_path):
    recipe, data = Recipe(untrained, 1, CPU, [MnemonicCodes(0.3)]), make_data()
    first, again = (codes_of(sparse.prepared(Bank(tmp_path / "bank"), recipe, data, "train", 0)) for _ in range(2))
    assert first is not None
    assert torch.equal(first.images, again.images)


def test_limits_of_the_call_do_not_reach_the_bank(make_trainer, make_data, tmp_path):
    (tmp_path / "sparse.yaml").write_text(SPARSE)
    (tmp_path / "decay.yaml").write_text("stages:\n- class_path: NormDecay\n  init_args: {factor: 0.5}\n")
    kept = []
    for limits in ({"limit_train_batches": 1}, {}):
        trainer = make_trainer(max_epochs=1, **limits)
        where = {"output": str(tmp_path / f"out{len(kept)}"), "bank": str(tmp_path / f"bank{len(kept)}")}
        sparse = str(tmp_path / "sparse.yaml")
        trainer.benchmark(untrained(), make_data(), [str(tmp_path / "decay.yaml")], prepare=sparse, relearn_epochs=0, **where)
        kept.append({p.parent.name: hash_of_file(p) for p in (tmp_path / f"bank{len(kept)}").glob("*/weights.ckpt")})
    assert len(kept[0]) == 6
    assert kept[0] == kept[1]


@pytest.mark.parametrize("name", config_names("prepare"))
def test_shipped_preparations_are_for_trained_models(name):
    preparation = Preparation.named(name)
    assert [type(stage).__name__ for stage in preparation.kept()] == ["KeepZeros"]
