import pytest
import torch
from helpers import untrained

from lightning_unlearn.bank.bank import Bank, Recipe
from lightning_unlearn.bank.prepared import Preparation
from lightning_unlearn.data.whole import whole, without_forgotten
from lightning_unlearn.exceptions import ChainError, ConfigError
from lightning_unlearn.functional.anatomy import layer_weights
from lightning_unlearn.shipped import config_names

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
def sparse(make_trainer, tmp_path):
    (tmp_path / "sparse.yaml").write_text(SPARSE)
    return Preparation.named(str(tmp_path / "sparse.yaml"), make_trainer().fresh)


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
def test_what_a_model_is_prepared_on(view, make_trainer, make_data, tmp_path, monkeypatch):
    (tmp_path / "sees.py").write_text(SEES)
    (tmp_path / "chain.yaml").write_text("stages:\n- class_path: sees.Sees\n  init_args: {max_epochs: 1}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import sees

    sees.MET.clear()
    data = make_data()
    preparation = Preparation.named(str(tmp_path / "chain.yaml"), make_trainer().fresh)
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


def test_another_preparation_is_another_model(sparse, make_trainer, make_data, tmp_path):
    bank, recipe, data = Bank(tmp_path / "bank"), Recipe(untrained, 1, CPU), make_data()
    (tmp_path / "sparser.yaml").write_text(SPARSE.replace("0.8", "0.9"))
    other = Preparation.named(str(tmp_path / "sparser.yaml"), make_trainer().fresh)
    counts = [
        sum(int(mask.sum()) for mask in zeros(of.prepared(bank, recipe, data, "train", 0)).values()) for of in (sparse, other)
    ]
    assert counts[1] > counts[0]


def test_a_stage_that_forgets_is_refused(make_trainer, tmp_path):
    (tmp_path / "chain.yaml").write_text("stages:\n- class_path: GradientAscent\n")
    with pytest.raises(ConfigError, match=r"prepare: GradientAscent of .* looks at forgotten"):
        Preparation.named(str(tmp_path / "chain.yaml"), make_trainer().fresh)
    (tmp_path / "chain.yaml").write_text("stages:\n- class_path: ImitateUnseen\n")
    with pytest.raises(ChainError, match="needs the artifact"):
        Preparation.named(str(tmp_path / "chain.yaml"), make_trainer().fresh)


@pytest.mark.parametrize("name", config_names("prepare"))
def test_shipped_preparations_are_for_trained_models(name, make_trainer):
    preparation = Preparation.named(name, make_trainer().fresh)
    assert [type(stage).__name__ for stage in preparation.kept()] == ["KeepZeros"]
