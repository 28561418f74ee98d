import pytest
import torch

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.stages import FisherNoise
from lightning_unlearn.stages.fisher_noise import fisher_noise

HEAD = ParameterSelector(parts=["head"])


@pytest.mark.parametrize("fisher", [1e-6, 1e-3, 1.0, 16.0])
def test_the_deviation_of_the_noise_is_the_inverse_fourth_root(fisher):
    n, damping, scale = 40_000, 1e-7, 0.01
    weight = torch.full((n,), 3.0, dtype=torch.float64)
    fisher_noise(weight, torch.full((n,), fisher), scale, damping, torch.Generator().manual_seed(0))
    expected = scale * (fisher + damping) ** -0.25
    # The deviation of n normal numbers has a standard error of 1 / sqrt(2 n) of it.
    assert abs(weight.std() / expected - 1) < 5 / (2 * n) ** 0.5
    assert abs(weight.mean() - 3) < 5 * expected / n**0.5


def test_the_fisher_is_that_of_retained_samples(trained, make_data, fresh):
    reference = {name: value.clone() for name, value in trained.state_dict().items()}
    data = make_data()
    stage = FisherNoise(scale=1e-9, samples=None, parameters=HEAD)
    run_chain(fresh, trained, data, [stage])
    trained.load_state_dict(reference)
    total = torch.zeros_like(trained.network.fc.weight, dtype=torch.float64)
    for batch in data.evaluation_loader("retain"):
        for x, y in zip(batch.input, batch.target, strict=True):
            loss = torch.nn.functional.cross_entropy(trained(x[None]), y[None])
            total += torch.autograd.grad(loss, trained.network.fc.weight)[0].double() ** 2
    expected = total / len(data.part("retain")[1])
    torch.testing.assert_close(stage.artifacts["fisher"]["network.fc.weight"].double(), expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("arguments", [{"scale": 0}, {"damping": 0}, {"samples": 0}])
def test_arguments_are_checked(arguments):
    with pytest.raises(ChainError, match="needed: all above 0"):
        FisherNoise(**arguments)
