import pytest
import torch

from lightning_unlearn.attacks import counted
from lightning_unlearn.attacks.counted import auc_of_counts, counts_of_values, tpr_of_counts
from lightning_unlearn.attacks.threshold import auc, tpr_at_fpr
from lightning_unlearn.audit.statistics import membership


def scores(models, samples, values=50, shift=0.0, seed=0):
    """On a grid, as those of RMIA are, with many ties."""
    drawn = torch.rand(models, samples, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return ((drawn + shift).clamp(max=1) * values).floor() / values


@pytest.mark.parametrize(("models", "others"), [(3, 3), (2, 5), (1, 1)])
@pytest.mark.parametrize("values", [1, 7, 2000])
def test_figures_of_counts_are_those_of_the_sorted_scores(models, others, values):
    a, b = scores(models, 300, values, 0.2), scores(others, 200, values, seed=1)
    counts = counts_of_values(a, b)
    assert [c.sum(1).tolist() for c in counts] == [[300] * models, [200] * others]
    for i, j in (([*range(models)], [*range(others)]), ([0] * 4, [others - 1, 0])):
        m, n = counts[0][i], counts[1][j]
        assert auc_of_counts(m, n) == auc(a[i].flatten(), b[j].flatten())
        for fpr in (0.0, 0.001, 0.01, 0.3, 1.0):
            assert tpr_of_counts(m, n, fpr) == tpr_at_fpr(a[i].flatten(), b[j].flatten(), fpr).tpr


def test_scores_of_too_many_values_are_not_counted():
    assert counts_of_values(scores(2, 5000, 10**9), scores(2, 5000, 10**9, seed=1)) is None
    assert counts_of_values(torch.full((2, 3), torch.nan), torch.zeros(2, 3)) is None


def test_intervals_of_membership_are_the_same_and_no_draw_sorts(monkeypatch):
    members, others = scores(6, 1000, 100, 0.1), scores(5, 1000, 100, seed=1)

    def found():
        metrics = {}
        membership(metrics, "rmia", members, others, torch.Generator().manual_seed(0))
        return metrics

    monkeypatch.setattr(counted, "_MOST_VALUES", 0)
    by_sorting = found()
    monkeypatch.undo()
    for module, name in (("audit.statistics", "auc"), ("attacks.low_fpr", "tpr_at_fpr")):
        monkeypatch.setattr(f"lightning_unlearn.{module}.{name}", None)
    assert found() == by_sorting
    assert len(by_sorting) == 9
