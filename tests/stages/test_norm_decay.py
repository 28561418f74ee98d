import copy

import pytest
import torch

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.stages import MaskLearning, NormDecay
from lightning_unlearn.stages.norm_decay import decay_norm

HEAD = ParameterSelector(parts=["head"])


def test_weights_shrink_where_the_mask_is_on_and_nowhere_else():
    source = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(5, 7, generator=source, dtype=torch.float64) for name in "abc"}
    before = {name: value.clone() for name, value in weights.items()}
    masks = {"a": torch.rand(5, 7, generator=source) < 0.5, "b": torch.zeros(5, 7, dtype=torch.bool)}
    masks["elsewhere"] = torch.ones(1, dtype=torch.bool)
    decay_norm(weights, masks, 0.3)
    for i in range(5):
        for j in range(7):
            expected = before["a"][i, j] * (0.3 if masks["a"][i, j] else 1.0)
            assert weights["a"][i, j] == expected
    assert torch.equal(weights["b"], before["b"])
    assert torch.equal(weights["c"], before["c"])


def test_without_a_mask_all_selected_weights_shrink(trained, make_data, fresh):
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    run_chain(fresh, trained, make_data(), [NormDecay(0.5, parameters=HEAD)])
    for name, value in trained.state_dict().items():
        assert torch.equal(value, before[name] * (0.5 if name.startswith("network.fc.") else 1.0))


@pytest.mark.parametrize("use_mask", [None, True, False])
def test_the_mask_of_the_stage_before_decides(use_mask, trained, make_data, fresh):
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    learnt = MaskLearning(max_epochs=10, parameters=HEAD)
    run_chain(fresh, trained, make_data(), [learnt, NormDecay(0.5, use_mask, HEAD)])
    mask = learnt.artifacts["mask"]["network.fc.weight"]
    assert 0 < mask.sum() < mask.numel()
    on = torch.ones_like(mask) if use_mask is False else mask
    expected = torch.where(on, before["network.fc.weight"] * 0.5, before["network.fc.weight"])
    assert torch.equal(trained.state_dict()["network.fc.weight"], expected)


def test_a_mask_of_other_parameters_is_refused(trained, make_data, fresh):
    before = copy.deepcopy(trained.state_dict())
    chain = [
        MaskLearning(max_epochs=10, parameters=HEAD),
        NormDecay(0.5, parameters=ParameterSelector(patterns=["*.features.0.*"])),
    ]
    with pytest.raises(ChainError, match=r"NormDecay: the mask is of 'network.fc.*Give MaskLearning and NormDecay the same"):
        run_chain(fresh, trained, make_data(), chain)
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())


def test_a_factor_of_zero_warns_and_one_is_refused():
    with pytest.warns(UserWarning, match="factor 0 prunes"):
        NormDecay(0)
    for factor in (1, 1.5, -0.1):
        with pytest.raises(ChainError, match=f"factor is {factor}; needed: 0 < factor < 1"):
            NormDecay(factor)
