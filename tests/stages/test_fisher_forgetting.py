import pytest
import torch

from lightning_unlearn.chain.run import run_chain
from lightning_unlearn.data.forget import WholeClasses
from lightning_unlearn.exceptions import ChainError
from lightning_unlearn.functional.structure import ParameterSelector
from lightning_unlearn.stages import FisherForgetting
from lightning_unlearn.stages.fisher_forgetting import forgetting_variance

HEAD = ParameterSelector(parts=["head"])


def by_hand(fisher, alpha, head):
    """Entry by entry."""
    limit = 1e2 if head else 1e3
    return [[alpha * min(1 / (f + 1e-8), limit) for f in row] for row in fisher.view(len(fisher), -1).tolist()]


@pytest.mark.parametrize("head", [True, False])
def test_the_variance_entry_by_entry(head):
    torch.manual_seed(0)
    fisher = torch.rand(3, 4, dtype=torch.float64) ** 12  # from 1e-8 to 1: clamped ones and others
    factor = 10 if head else 1
    expected = [[factor * sum(row) / 4] * 4 for row in by_hand(fisher, 2e-6, head)]
    torch.testing.assert_close(forgetting_variance(fisher, 2e-6, head), torch.tensor(expected, dtype=torch.float64))
    expected = [10 * value for row in by_hand(fisher[0], 2e-6, head) for value in row]
    torch.testing.assert_close(forgetting_variance(fisher[0], 2e-6, head), torch.tensor(expected, dtype=torch.float64))
    kernel = fisher.view(3, 2, 2, 1)  # the mean is over input channels alone
    means = (2e-6 * (1 / (kernel + 1e-8)).clamp(max=1e2 if head else 1e3)).mean(1)
    assert torch.equal(forgetting_variance(kernel, 2e-6, head)[:, 0], means * factor)
    assert torch.equal(forgetting_variance(kernel, 2e-6, head)[:, 1], means * factor)


def test_the_deviation_of_the_noise_in_a_network(trained, make_data, make_trainer):
    data = make_data()
    before = trained.network.fc.weight.detach().double()
    runs = []
    for seed in range(30):
        trained.network.fc.weight.data.copy_(before)
        stage = FisherForgetting(alpha=1e-6, kind="empirical", samples=50, parameters=HEAD)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PL_GLOBAL_SEED", str(seed))
            run_chain(make_trainer(precision="64-true").fresh, trained, data, [stage])
        variance = forgetting_variance(stage.artifacts["fisher"]["network.fc.weight"].double(), 1e-6, head=True)
        runs.append((trained.network.fc.weight.detach().double() - before) / variance.sqrt())
    noise = torch.stack(runs)
    # The deviation of n normal numbers has a standard error of 1 / sqrt(2 n) of it.
    assert abs(noise.std() - 1) < 5 / (2 * noise.numel()) ** 0.5
    assert abs(noise.mean()) < 5 / noise.numel() ** 0.5


def test_rows_of_forgotten_classes_become_noise(trained, make_data, fresh):
    with torch.no_grad():
        trained.network.fc.weight.fill_(7)
    stage = FisherForgetting(alpha=1e-9, samples=20, parameters=HEAD)
    run_chain(fresh, trained, make_data(forget=WholeClasses([3])), [stage])
    rows = trained.network.fc.weight.detach()
    others = torch.arange(10) != 3
    assert (rows[others] - 7).abs().max() < 0.1
    assert 0 < rows[3].abs().max() < 0.2
    # The published code sets 1e-4 and multiplies the head by 10 afterwards.
    assert abs(float(rows[3].std()) / 1e-3**0.5 - 1) < 5 / (2 * rows.shape[1]) ** 0.5


def test_arguments_are_checked():
    with pytest.raises(ChainError, match=r"alpha is 0; needed: above 0"):
        FisherForgetting(alpha=0)
