import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_unlearn.data.batch import Batch
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.stages import GradientAscent, Influence, NegGradPlus


class Table(nn.Module):
    """Logits as parameters: one row per sample."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, x):
        return self.logits[x[:, 0].long()]


def gradients(stage, logits, targets):
    """The stage's gradient for every sample."""
    stage.classifier = Table(logits)
    stage._trainer = SimpleNamespace(datamodule=None)
    loss = stage.objective(Batch(torch.arange(len(targets)).float()[:, None], targets, torch.arange(len(targets))))
    return torch.autograd.grad(loss, stage.classifier.logits)[0]


@pytest.mark.parametrize("ceiling", [0.5, 1.0, math.log(4)])
def test_no_sample_above_the_ceiling_has_a_gradient(ceiling):
    source = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(50, 4, generator=source, dtype=torch.float64)
    targets = torch.randint(4, (50,), generator=source)
    losses = F.cross_entropy(logits, targets, reduction="none")
    above = losses > ceiling
    assert 5 < above.sum() < 45
    assert losses.mean() > 0.5  # a ceiling on the mean would stop all of them, or none
    found = gradients(GradientAscent(ceiling=ceiling), logits, targets)
    expected = -(logits.softmax(1) - F.one_hot(targets, 4)) / 50
    expected[above] = 0
    assert (found[above] == 0).all()
    torch.testing.assert_close(found, expected)


def test_chance_is_the_ceiling_unless_another_is_given(trained, make_data, fresh, monkeypatch):
    from lightning_unlearn.chain.run import run_chain

    ceilings = []

    class Watched(GradientAscent):
        def objective(self, batch):
            loss = super().objective(batch)
            ceilings.append(-loss.item())
            return loss

    data = make_data(batch_size=1)
    run_chain(fresh, trained, data, [Watched(max_epochs=8, max_retain_drop=None)])
    assert max(ceilings) <= math.log(10) + 1e-6
    assert max(ceilings) > 0.9 * math.log(10)


@pytest.mark.parametrize("stage", [GradientAscent, NegGradPlus, Influence])
def test_a_budget_that_is_none_is_refused_before_the_first_stage(stage):
    with pytest.raises(ConfigError, match=f"{stage.__name__}: max_retain_drop is 101; needed: 0 to 100 points"):
        stage(max_retain_drop=101)
