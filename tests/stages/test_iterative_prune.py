import copy

import pytest
import torch
from helpers import sgd

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.pruning import shares_of_rounds
from lightning_unlearn.stages import FineTune, IterativePrune


class Recorded(IterativePrune):
    """Keeps state and rate at the beginning and at the end of every epoch, before any rewinding."""

    def on_train_epoch_start(self):
        self.begins = [*getattr(self, "begins", []), self.now()]

    def on_train_epoch_end(self):
        self.ends = [*getattr(self, "ends", []), self.now()]
        super().on_train_epoch_end()

    def now(self):
        state = {name: value.clone() for name, value in self.classifier.state_dict().items()}
        optimizer = self.trainer.optimizers[0]
        momentum = [s["momentum_buffer"].clone() for s in optimizer.state.values() if s.get("momentum_buffer") is not None]
        return state, optimizer.param_groups[0]["lr"], momentum


def kernels(state):
    return {name: value for name, value in state.items() if value.dim() == 4}


def test_shares_of_rounds():
    assert shares_of_rounds(0.488, 0.2) == pytest.approx([0.8, 0.64, 0.512])
    assert shares_of_rounds(0.2, 0.2) == [0.8]
    assert shares_of_rounds(0.1, 0.2) == [0.9]
    paper = shares_of_rounds(0.95, 0.2)
    assert len(paper) == 14
    assert paper[-1] == pytest.approx(0.05)
    assert paper[:-1] == pytest.approx([0.8**k for k in range(1, 14)])
    with pytest.raises(ValueError, match="rate 1"):
        shares_of_rounds(0.5, 1)


@pytest.mark.parametrize("rewind_epoch", [0, 1])
def test_rounds_end_with_rewinding_to_the_early_epoch(rewind_epoch, trained_resnet, make_data, fresh):
    optimizer = sgd(0.1, momentum=0.9, weight_decay=1e-3)
    stage = Recorded(0.6, 0.3, epochs=2, rewind_epoch=rewind_epoch, optimizer=optimizer, schedule="one_cycle")
    before = {name: value.clone() for name, value in trained_resnet.state_dict().items()}
    tune = FineTune(optimizer=sgd(0.05, momentum=0.9, weight_decay=1e-3))
    run_chain(fresh, trained_resnet, make_data(), [stage, tune])
    length = 2 - rewind_epoch
    assert len(stage.begins) == stage.max_epochs == 2 + 3 * length
    assert not any(torch.equal(v, before[k]) for k, v in kernels(stage.begins[0][0]).items())  # a new network
    early, rate, momentum = stage.begins[0] if rewind_epoch == 0 else stage.begins[1]
    masks = {name: torch.ones_like(value, dtype=torch.bool) for name, value in kernels(early).items()}
    total = sum(mask.numel() for mask in masks.values())
    for k, share in enumerate([0.7, 0.49, 0.4]):
        end, begin = stage.ends[1 + k * length], stage.begins[2 + k * length]
        # What is pruned: the smallest of what was there, over all kernels together.
        values = torch.cat([torch.where(masks[n], v.abs(), -1.0).flatten() for n, v in kernels(end[0]).items()])
        limit = values.sort(descending=True).values[round(share * total) - 1]
        new = {n: masks[n] & (v.abs() >= limit) for n, v in kernels(end[0]).items()}
        assert sum(int(mask.sum()) for mask in new.values()) == round(share * total)
        assert all((mask <= masks[n]).all() for n, mask in new.items())
        masks = new
        # Where training goes on: everything as it was early on, BatchNorm, rate and momentum too, without what is pruned.
        for name, value in early.items():
            expected = torch.where(masks[name], value, 0) if name in masks else value
            assert torch.equal(begin[0][name], expected), name
        assert begin[1] == pytest.approx(rate)
        assert len(begin[2]) == len(momentum)
        assert all(torch.equal(a, b) for a, b in zip(begin[2], momentum, strict=True))
    state = trained_resnet.state_dict()
    assert all(torch.equal(state[name] != 0, mask) for name, mask in masks.items())  # after the stage behind it too
    assert all(torch.equal(~mask, stage.artifacts["pruned"][name]) for name, mask in masks.items())


def test_what_is_pruned_learns_something(trained_resnet, make_data, fresh):
    data = make_data()
    stage = IterativePrune(0.5, 0.3, epochs=4, rewind_epoch=1, optimizer=sgd(0.1, momentum=0.9))
    [result] = run_chain(fresh, trained_resnet, data, [stage])
    right = [(trained_resnet(b.input).argmax(1) == b.target).float().mean() for b in data.evaluation_loader("retain")]
    assert torch.stack(right).mean() > 0.5
    assert result.work == 3 * stage.max_epochs * sum(len(data.part(p)[1]) for p in ("retain", "forget"))
    assert stage.max_epochs == 4 + 2 * 3


class Failing(IterativePrune):
    """Ends once at the beginning of an epoch."""

    fails_at = 3

    def on_train_epoch_start(self):
        if self.current_epoch == self.fails_at:
            self.fails_at = -1
            raise OSError("the disk is gone")


def test_after_a_failed_fit_a_stage_begins_anew(trained_resnet, make_data, fresh):
    failing, plain = (Failing(0.5, 0.3, epochs=2, rewind_epoch=1, optimizer=sgd(0.1, momentum=0.9)) for _ in range(2))
    plain.fails_at = -1
    with pytest.raises(OSError, match="the disk is gone"):
        run_chain(fresh, copy.deepcopy(trained_resnet), make_data(batch_size=16), [failing])
    assert failing.summary() == {}
    models = copy.deepcopy(trained_resnet), trained_resnet
    [found], [expected] = (run_chain(fresh, m, make_data(), [s]) for m, s in zip(models, (failing, plain), strict=True))
    assert found.summary == expected.summary
    assert found.summary["weights_kept"]
    assert all(torch.equal(value, models[1].state_dict()[name]) for name, value in models[0].state_dict().items())


def test_arguments_are_checked():
    with pytest.raises(ChainError, match="rewind_epoch is 3 of 3 epochs"):
        IterativePrune(epochs=3, rewind_epoch=3)
    with pytest.raises(ChainError, match="IterativePrune: sparsity is 1"):
        IterativePrune(sparsity=1)


def test_a_network_of_one_layer_is_refused_and_left_as_it_was(make_data, fresh):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10), torch.nn.BatchNorm1d(10))
    with pytest.raises(ChainError, match="no weight of a convolution or hidden linear layer"):
        run_chain(fresh, model, make_data(), [IterativePrune(epochs=1, rewind_epoch=0)])
    assert all(p.requires_grad for p in model.parameters())
