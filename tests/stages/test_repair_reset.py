"""Kookmin: re-initialise by gradients, then fine-tune with kept weights held back."""

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_same, sgd, steps

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.stages import RepairReset, ResetByGradient
from lightning_unlearn.stages.reset_by_gradient import reset_smallest


def test_the_smallest_gradients_give_new_weights_of_the_right_size():
    weight = torch.full((64, 32, 3, 3), 9.0)
    gradient = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    mask = reset_smallest(weight, gradient, 0.3, torch.Generator().manual_seed(0))
    assert int(mask.sum()) == int(0.3 * weight.numel())
    assert gradient[mask].abs().max() < gradient[~mask].abs().min()
    assert (weight[~mask] == 9).all()
    assert float(weight[mask].std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)


def test_kookmin_over_two_epochs(trained_resnet, make_data, fresh):
    """In plain code: gradients by backward in eval mode, learning rates by hand, weight decay not scaled."""
    data, model = make_data(), copy.deepcopy(trained_resnet)
    reset = ResetByGradient(share=0.3)
    repair = RepairReset(multipliers=(1 / 3, 1.0), optimizer=sgd(0.05, momentum=0.9, weight_decay=0.01))
    run_chain(fresh, model, data, [reset, repair])

    masks = repair.artifacts["reset"]
    kernels = [name for name, m in trained_resnet.named_modules() if isinstance(m, torch.nn.Conv2d)]
    assert set(masks) == {f"{name}.weight" for name in kernels}
    plain = trained_resnet.eval()
    n_f = len(data.part("forget")[1])
    for part, sign in (("retain", 1), ("forget", -1)):
        chosen = data.random_part(part, n_f, "gradient", 0)
        assert len(chosen) == n_f
        batch = next(iter(data.evaluation_loader(part, chosen, n_f)))
        (sign * F.cross_entropy(plain(batch.input), batch.target)).backward()
    fresh_model = copy.deepcopy(trained_resnet)
    run_chain(fresh, fresh_model, data, [ResetByGradient(share=0.3)])
    for name, weight in plain.named_parameters():
        if name not in masks:
            assert torch.equal(weight, dict(fresh_model.named_parameters())[name])
            continue
        mask = masks[name]
        assert weight.grad[mask].abs().max() <= weight.grad[~mask].abs().min() + 1e-7
        new = dict(fresh_model.named_parameters())[name]
        assert torch.equal(new == weight, ~mask)

    plain = fresh_model.train()
    optimizer = sgd(0.05, momentum=0.9, weight_decay=0.01)(list(plain.parameters()))
    for epoch, multiplier in enumerate((1 / 3, 1.0)):
        optimizer.param_groups[0]["lr"] = 0.05 * multiplier
        for batch in steps(data, repair, epoch, 1):
            optimizer.zero_grad()
            F.cross_entropy(plain(batch["retain"].input), batch["retain"].target).backward()
            for name, weight in plain.named_parameters():
                if name in masks:
                    weight.grad[~masks[name]] *= 0.1
            optimizer.step()
    assert_same(model, plain, rtol=1e-3, atol=1e-5)


def test_the_published_course_of_the_learning_rate(trained, make_data, fresh):
    rates = []

    class Watched(RepairReset):
        def on_train_epoch_start(self):
            rates.append(self.optimizers().param_groups[0]["lr"])

    run_chain(fresh, trained, make_data(), [ResetByGradient(), Watched(optimizer=sgd(0.03))])
    assert rates == pytest.approx([0.01, 0.02, 0.03, 0.02, 0.01])


@pytest.mark.parametrize(
    ("stage", "arguments"), [(ResetByGradient, {"share": 0}), (RepairReset, {"multipliers": ()}), (RepairReset, {"kept": 2})]
)
def test_arguments_are_checked(stage, arguments):
    with pytest.raises(ChainError, match="needed: "):
        stage(**arguments)


def test_a_selection_without_convolutions_is_refused(trained, make_data, fresh):
    with pytest.raises(ChainError, match="no kernel of a 2-D convolution is selected"):
        run_chain(fresh, trained, make_data(), [ResetByGradient(parameters=ParameterSelector(parts=["head"]))])
