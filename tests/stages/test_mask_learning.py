import pytest
import torch
import torch.nn.functional as F
from helpers import sgd

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.data.forget import WholeClasses
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.stages import MaskLearning

HEAD = ParameterSelector(parts=["head"])


def test_the_first_step_is_straight_through(trained, make_data, fresh):
    """Where all is on, the gradient of a score is that of its weight times the weight, plus the penalty."""
    data = make_data(forget_batch_size=64)
    weight = trained.network.fc.weight.detach().clone()
    batch = next(iter(data.evaluation_loader("forget")))
    loss = F.cross_entropy(trained(batch.input), batch.target)
    gradient = torch.autograd.grad(loss, trained.network.fc.weight)[0] * weight
    before, scores = trained.state_dict()["network.fc.weight"].clone(), {}

    class Watched(MaskLearning):
        def on_train_batch_end(self, *args):
            super().on_train_batch_end(*args)
            scores.setdefault("first", self.scores["forget"]["network/fc/weight"].detach().clone())

    # Three samples more than a batch would need: the whole forget set is one batch.
    stage = Watched(penalty=1e-3, max_epochs=2, batch_size=64, optimizer=sgd(0.05), parameters=HEAD)
    # Two steps turn nothing off.
    with pytest.raises(ChainError, match=r"is on .* Raise penalty \(0\.001\) or max_epochs \(2\), in a copy"):
        run_chain(fresh, trained, data, [stage])
    torch.testing.assert_close(scores["first"], 0.01 - 0.05 * (gradient + 1e-3), rtol=1e-4, atol=1e-7)
    assert torch.equal(trained.network.fc.weight, before)


def test_the_mask_is_smaller_the_higher_the_penalty_and_keeps_what_it_needs(trained, make_data, fresh):
    data, shares = make_data(), []
    samples, index = data.part("forget")
    for penalty in (1e-5, 1e-2):
        stage = MaskLearning(max_epochs=12, penalty=penalty, parameters=HEAD)
        run_chain(fresh, trained, data, [stage])
        mask = stage.artifacts["mask"]["network.fc.weight"]
        assert mask.dtype == torch.bool
        assert mask.shape == trained.network.fc.weight.shape
        shares.append(float(mask.float().mean()))
        summary = stage.summary()
        assert summary["mask_on"] == {"network.fc.weight": pytest.approx(shares[-1])}
        steps = 12 * -(-len(index) // 32)
        assert list(summary["mask_course"]) == [str(step) for step in range(steps)]
        with torch.no_grad():
            hidden = trained.network.hidden(trained.network.features(next(iter(data.evaluation_loader("forget"))).input))
            answers = F.linear(hidden, trained.network.fc.weight * mask, trained.network.fc.bias).argmax(1)
        whole = (trained.network.fc(hidden).argmax(1) == samples.targets[index]).float().mean()
        assert (answers == samples.targets[index]).float().mean() >= whole - 0.15
    assert shares[1] < shares[0]


def test_exclusive_masks_leave_out_what_retained_samples_use(trained, make_data, fresh):
    masks = {}
    for exclusive in (False, True):
        stage = MaskLearning(max_epochs=10, penalty=1e-4, exclusive=exclusive, parameters=HEAD)
        groups = {}
        stage.on_train_epoch_end = lambda stage=stage, groups=groups: groups.update({
            name: group["network/fc/weight"].detach() > stage.threshold for name, group in stage.scores.items()
        })
        run_chain(fresh, trained, make_data(), [stage])
        masks[exclusive] = stage.artifacts["mask"]["network.fc.weight"]
        expected = groups["forget"] & ~groups["retain"] if exclusive else groups["forget"]
        assert torch.equal(masks[exclusive], expected)
    assert masks[True].sum() < masks[False].sum()


def test_masks_are_learnt_on_weights_not_on_biases_or_norms(trained_resnet, make_data, fresh):
    stage = MaskLearning(max_epochs=10, penalty=1e-4)
    run_chain(fresh, trained_resnet, make_data(), [stage])
    assert all(name.startswith("network.layer3.") and name.endswith("weight") for name in stage.artifacts["mask"])
    assert not any(".bn" in name for name in stage.artifacts["mask"])
    assert not hasattr(stage, "scores")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"initial": 1e-3}, "needed: initial above it"), ({"max_epochs": 0}, "max_epochs is 0; needed: at least 1")],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ChainError, match=message):
        MaskLearning(**arguments)


@pytest.mark.parametrize(("classes", "exclusive", "advised"), [([3], False, True), ([3], True, False), ([3, 4], False, False)])
def test_where_few_weights_may_tell_the_class_the_error_says_what_to_do(trained, make_data, fresh, classes, exclusive, advised):
    data = make_data(forget=WholeClasses(classes))
    with pytest.raises(ChainError, match=r"Lower penalty \(0\.01\) or max_epochs \(40\)") as found:
        run_chain(fresh, trained, data, [MaskLearning(max_epochs=40, penalty=1e-2, batch_size=32, exclusive=exclusive)])
    assert ("A few weights may tell one class" in str(found.value)) == advised


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (50, 1), (51, 2), (101, 3)])
def test_the_course_of_the_mask_has_at_most_fifty_points(steps, every, trained, make_data, fresh):
    stage = MaskLearning(max_epochs=200, max_steps=steps, penalty=0.0, parameters=HEAD)
    stage.on_train_end = lambda: setattr(stage, "_shares", {})  # a mask of this length would be refused
    run_chain(fresh, trained, make_data(), [stage])
    assert list(stage._course) == list(range(0, steps, every))
    assert len(stage._course) <= 50
