import copy

import pytest
import torch
import torch.nn.functional as F
from helpers import sgd

from lightning_unlearn.callbacks.keep_mask import KeepMask, restore
from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.stages import UnlearningStage

NAME = "network.features.0.weight"


class Masked(UnlearningStage):
    """Trains on the retained samples where a mask is on."""

    view = "retain"

    def __init__(self, masks=None, **kwargs):
        super().__init__(**kwargs)
        self.masks = masks

    def objective(self, batch):
        return F.cross_entropy(self.classifier(batch.input), batch.target)

    def configure_callbacks(self):
        return [KeepMask() if self.masks is None else KeepMask(self.masks)]


def adam(params):
    return torch.optim.AdamW(params, lr=1e-2, weight_decay=0.1)


def half(parameter):
    return torch.rand(parameter.shape, generator=torch.Generator().manual_seed(0)) < 0.5


@pytest.mark.parametrize(
    ("optimizer", "precision"),
    [(sgd(0.1, momentum=0.9, weight_decay=0.1, nesterov=True), "32-true"), (adam, "32-true"), (adam, "bf16-mixed")],
)
def test_protected_weights_stay_bit_for_bit(optimizer, precision, trained, make_data, make_trainer):
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    masks = {name: half(value) for name, value in trained.named_parameters() if value.dim() > 1}
    states = []

    class Watched(Masked):
        def on_train_batch_end(self, *_):
            own = dict(self.classifier.named_parameters())
            state = self.optimizers().state
            states.extend(
                value[~masks[name]] for name in masks for value in state[own[name]].values() if value.shape == own[name].shape
            )

    run_chain(make_trainer(precision=precision).fresh, trained, make_data(), [Watched(masks, optimizer=optimizer)])
    after = trained.state_dict()
    for name, mask in masks.items():
        assert torch.equal(after[name][~mask], before[name][~mask])
        assert (after[name][mask] != before[name][mask]).float().mean() > 0.9
    assert all(not torch.equal(after[name], before[name]) for name, p in trained.named_parameters() if name not in masks)
    assert states
    assert all(bool((state == 0).all()) for state in states)


def test_a_zero_gradient_would_not_do(trained, make_data, fresh):
    """What the callback is for: momentum and weight decay move weights whose gradient is zero."""
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    mask = half(before[NAME])

    class Zeroed(Masked):
        def configure_callbacks(self):
            return []

        def on_before_optimizer_step(self, optimizer):
            dict(self.classifier.named_parameters())[NAME].grad.masked_fill_(~mask, 0)

    run_chain(fresh, trained, make_data(), [Zeroed(optimizer=sgd(0.1, weight_decay=0.1))])
    assert not torch.equal(trained.state_dict()[NAME][~mask], before[NAME][~mask])


def test_what_is_trained_is_trained_as_without_a_mask(trained, make_data, fresh):
    """With plain SGD and one step, the weights where the mask is on are those of a step without a mask."""
    other, mask = copy.deepcopy(trained), half(trained.state_dict()[NAME])
    run_chain(fresh, trained, make_data(), [Masked({NAME: mask}, max_steps=1, optimizer=sgd(0.1))])
    run_chain(fresh, other, make_data(), [Masked({}, max_steps=1, optimizer=sgd(0.1))])
    assert torch.equal(trained.state_dict()[NAME][mask], other.state_dict()[NAME][mask])


def test_the_mask_is_read_from_the_artifact(trained, make_data, fresh):
    before = trained.state_dict()[NAME].clone()

    class Leaves(Masked):
        def on_fit_start(self):
            self.artifacts["mask"] = {NAME: torch.zeros_like(before, dtype=torch.bool)}

    run_chain(fresh, trained, make_data(), [Leaves(optimizer=sgd(0.1))])
    assert torch.equal(trained.state_dict()[NAME], before)


@pytest.mark.parametrize("masks", [{"no.such": torch.ones(2)}, {NAME: torch.ones(2)}])
def test_a_mask_that_fits_nothing_is_refused(masks, trained, make_data, fresh):
    with pytest.raises(ChainError, match="KeepMask: the mask of"):
        run_chain(fresh, trained, make_data(), [Masked(masks)])


def test_restore_clears_what_is_not_finite():
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=0.9)
    weight.grad = torch.tensor([float("inf"), 1.0])
    optimizer.step()
    restore(weight, torch.tensor([False, True]), torch.tensor([1.0, 2.0]), optimizer)
    assert weight.tolist() == [1.0, 1.0]
    assert optimizer.state[weight]["momentum_buffer"].tolist() == [0.0, 1.0]
