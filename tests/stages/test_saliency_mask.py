import pytest
import torch
import torch.nn.functional as F
from helpers import sgd

from lightning_unlearn.chain.run import check_chain, run_chain
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.stages import SaliencyMask, SalientRandomLabel


def test_the_mask_is_on_at_the_largest_summed_gradients(trained_resnet, make_data, make_trainer):
    data, stage = make_data(), SaliencyMask(0.3)
    run_chain(make_trainer(precision="64-true").fresh, trained_resnet, data, [stage])
    parameters = dict(trained_resnet.double().named_parameters())
    total = [torch.zeros_like(p) for p in parameters.values()]
    for batch in data.evaluation_loader("forget"):
        for x, y in zip(batch.input.double(), batch.target, strict=True):
            loss = F.cross_entropy(trained_resnet(x[None]), y[None])
            total = [t + g for t, g in zip(total, torch.autograd.grad(loss, list(parameters.values())), strict=True)]
    flat = torch.cat([t.abs().flatten() for t in total])
    limit = flat.sort(descending=True).values[round(0.3 * len(flat)) - 1]
    for name, gradient in zip(parameters, total, strict=True):
        assert torch.equal(stage.artifacts["saliency"][name], gradient.abs() >= limit * (1 - 1e-9))


def test_weights_outside_the_mask_stay_bit_equal(trained_resnet, make_data, fresh):
    before = {name: p.detach().clone() for name, p in trained_resnet.named_parameters()}
    chain = [SaliencyMask(), SalientRandomLabel(rounds=2, optimizer=sgd(0.05, momentum=0.9, weight_decay=1e-3))]
    run_chain(fresh, trained_resnet, make_data(), chain)
    masks, moved = chain[0].artifacts["saliency"], 0
    for name, parameter in trained_resnet.named_parameters():
        assert torch.equal(parameter[~masks[name]], before[name][~masks[name]])
        moved += int((parameter != before[name]).sum())
    assert moved > 0.95 * sum(int(mask.sum()) for mask in masks.values())


def test_what_is_missing_is_said():
    with pytest.raises(ChainError, match="needs the artifact 'saliency'"):
        check_chain([SalientRandomLabel()])
    with pytest.raises(ChainError, match=r"share is 1.0; needed: between 0 and 1"):
        SaliencyMask(1.0)
