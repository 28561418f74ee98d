import pytest
import torch
import torch.nn.functional as F

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.exceptions import DataError
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.stages import UnlearningStage
from lightning_unlearn.stages.gradient_passes import mean_fisher, mean_gradient


class Passes(UnlearningStage):
    """Computes what a test asks for, and nothing else."""

    view = "none"
    train_mode = False

    def __init__(self, function):
        super().__init__(max_epochs=0, parameters=ParameterSelector(parts=["head"]))
        self.function = function

    def on_fit_start(self):
        self.found = self.function(self)


@pytest.fixture
def found(trained, make_data, make_trainer):
    """Runs a function of a stage in float64; gives its result, and per-sample gradients of a part's samples."""

    def run(function, data=None):
        stage = Passes(function)
        run_chain(make_trainer(precision="64-true").fresh, trained, data or make_data(), [stage])
        return stage.found

    return run


def gradients(model, data, part, index=None):
    """The gradient of the cross-entropy in the head's weight, sample by sample."""
    weight, rows = model.network.fc.weight, []
    for batch in data.evaluation_loader(part, index):
        for x, y in zip(batch.input.double(), batch.target, strict=True):
            rows.append(torch.autograd.grad(F.cross_entropy(model(x[None]), y[None]), weight)[0])
    return torch.stack(rows)


@pytest.mark.parametrize("part", ["retain", "forget", "train"])
def test_the_fisher_is_the_mean_square_of_per_sample_gradients(part, found, trained, make_data):
    data = make_data()
    fisher = found(lambda stage: mean_fisher(stage, part), data)
    expected = gradients(trained, data, part).square().mean(0)
    torch.testing.assert_close(fisher["network.fc.weight"], expected, rtol=1e-6, atol=1e-12)
    assert fisher.keys() == {"network.fc.weight", "network.fc.bias"}


@pytest.mark.parametrize("part", ["retain", "forget", "train"])
def test_the_gradient_is_that_of_the_mean_loss(part, found, trained, make_data):
    data = make_data()
    gradient = found(lambda stage: mean_gradient(stage, part, batch_size=7), data)
    expected = gradients(trained, data, part).mean(0)
    torch.testing.assert_close(gradient["network.fc.weight"], expected, rtol=1e-6, atol=1e-9)


def test_a_count_takes_a_random_part(found, trained, make_data):
    data = make_data()
    fisher = found(lambda stage: mean_fisher(stage, "train", 20, names=["network.fc.weight"]), data)
    chosen = data.random_part("train", 20, "fisher")
    assert len(chosen) == 20
    expected = gradients(trained, data, "train", chosen).square().mean(0)
    torch.testing.assert_close(fisher["network.fc.weight"], expected, rtol=1e-6, atol=1e-12)
    assert fisher.keys() == {"network.fc.weight"}


def test_squares_of_batch_means_are_averaged_over_batches(found, trained, make_data):
    data = make_data()
    fisher = found(lambda stage: mean_fisher(stage, "forget", per_sample=False, batch_size=10), data)
    expected = torch.stack([g.mean(0).square() for g in gradients(trained, data, "forget").split(10)]).mean(0)
    torch.testing.assert_close(fisher["network.fc.weight"], expected, rtol=1e-6, atol=1e-12)


def test_the_network_is_left_as_it_was(found, trained):
    before = {name: value.clone() for name, value in trained.double().state_dict().items()}
    found(lambda stage: (mean_fisher(stage, "forget"), mean_gradient(stage, "forget")))
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    assert all(p.grad is None for p in trained.parameters())


def test_an_empty_part_is_refused(found, make_data):
    with pytest.raises(DataError, match="the part 'unseen' holds no samples"):
        found(lambda stage: mean_gradient(stage, "unseen"), make_data(unseen=0))
