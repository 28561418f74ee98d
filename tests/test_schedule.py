from types import SimpleNamespace

import pytest
import torch

from lightning_unlearn.schedule import with_schedule


def course(schedule, steps, lr=0.5):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)
    module = SimpleNamespace(trainer=SimpleNamespace(estimated_stepping_batches=steps))
    configuration = with_schedule(module, optimizer, schedule)
    assert configuration["optimizer"] is optimizer
    if "lr_scheduler" in configuration:
        assert configuration["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(max(1, steps)):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if "lr_scheduler" in configuration:
            configuration["lr_scheduler"]["scheduler"].step()
    return rates, optimizer.param_groups[0]["lr"]


def test_constant():
    rates, last = course("constant", 10)
    assert {*rates, last} == {0.5}


def test_cosine_ends_at_zero():
    rates, last = course("cosine", 10)
    expected = [0.25 * (1 + float(torch.cos(torch.tensor(torch.pi * t / 10)))) for t in range(10)]
    assert rates == pytest.approx(expected, abs=1e-6)
    assert last == pytest.approx(0, abs=1e-9)


def test_one_cycle_peaks_at_the_rate_of_the_optimiser():
    rates, _ = course("one_cycle", 100)
    assert rates[0] == pytest.approx(0.5 / 25)
    assert max(rates) == pytest.approx(0.5, rel=1e-3)
    assert rates.index(max(rates)) in range(27, 32)
    assert rates[-1] < 1e-5


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_a_fit_without_steps_has_a_schedule_too(schedule):
    course(schedule, 0)
