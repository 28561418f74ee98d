import pytest
import torch

from lightning_unlearn.artifacts import Artifacts
from lightning_unlearn.exceptions import ChainError


def test_what_is_left_can_be_taken():
    artifacts = Artifacts()
    assert "mask" not in artifacts
    weight = torch.ones(2, requires_grad=True)
    artifacts["mask"] = {"w": weight * 2}
    assert "mask" in artifacts
    assert list(artifacts) == ["mask"]
    assert not artifacts["mask"]["w"].requires_grad
    assert artifacts["mask"]["w"].tolist() == [2, 2]


def test_a_missing_one_is_named():
    artifacts = Artifacts({"fisher": {}})
    with pytest.raises(ChainError, match=r"'mask' is needed and only \['fisher'\] are there.*name it in `requires`"):
        artifacts["mask"]


def test_a_copy_is_one():
    artifacts = Artifacts({"mask": {"w": torch.ones(1)}})
    state = artifacts.state_dict()
    state["mask"].clear()
    assert "w" in artifacts["mask"]
    assert Artifacts(artifacts.state_dict())["mask"]["w"].tolist() == [1]


def test_features_are_there_for_those_who_know_them():
    artifacts = Artifacts()
    table = artifacts.features("network 1", 5)
    assert artifacts.features("network 1", 5) is table
    other = artifacts.features("network 2", 5)
    assert other is not table
    assert artifacts.features("network 1", 5) is not table  # let go when others took their place
    assert artifacts.state_dict() == {}
    kept = artifacts.features("network 1", 5)
    artifacts.drop_features()
    assert artifacts.features("network 1", 5) is not kept
