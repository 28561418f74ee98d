import math
from dataclasses import replace

import pytest
import torch

from lightning_unlearn.attacks.comparison import AUDIT, BENCHMARK, STATISTICS, Comparison, compare_groups, corrected
from lightning_unlearn.attacks.rank_auc import rank_auc
from lightning_unlearn.attacks.ulira import ulira
from lightning_unlearn.exceptions import ConfigError
from lightning_unlearn.metrics.forgetting_score import epsilons, forgetting_score
from lightning_unlearn.metrics.klom import klom


def draws(shift=0.0, models=12, samples=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(models, samples, generator=generator, dtype=torch.float64) for _ in range(2))
    return a + shift, b


def test_values_are_those_of_the_functions():
    a, b = draws(0.5)
    found = compare_groups(a, b, BENCHMARK, permutations=99)
    expected = {
        "rank_auc": rank_auc(a, b).mean(),
        "ulira": ulira(a, b).mean(),
        "klom/median": klom(a, b).quantile(0.5),
        "klom/p95": klom(a, b).quantile(0.95),
        "forgetting_score": forgetting_score(epsilons(a, b)),
    }
    assert {name: c.value for name, c in found.items()} == pytest.approx({k: float(v) for k, v in expected.items()})
    for name, one in found.items():
        assert one.name == name
        assert one.low <= one.value <= one.high
        assert (one.models, one.samples, one.permutations) == ((12, 12), 30, 99)


def test_groups_of_one_distribution_are_not_distinguished():
    for one in compare_groups(*draws()).values():
        assert one.p > 0.05
        assert one.verdict == f"not distinguished at this power (smallest detectable shift {one.detectable:.2g} deviations)"
        assert 0 < one.detectable < 2
        assert abs(one.effect) < 3 * one.null_std


def test_a_leak_is_distinguished():
    found = compare_groups(*draws(3.0), statistics=list(STATISTICS), permutations=999)
    assert max(one.p for one in found.values()) <= 0.003
    assert found["rank_auc"].p <= 0.001
    assert found["rank_auc"].verdict.startswith("distinguishable from retraining (p <= 0.001, effect +0.")
    # The score falls where models are told apart; the effect has its sign.
    assert found["forgetting_score"].effect < 0
    assert all(one.detectable_effect >= 0 for one in found.values())


def test_a_shift_above_the_smallest_detectable_one_is_found_and_far_below_is_not():
    smallest = compare_groups(*draws())["rank_auc"].detectable
    assert compare_groups(*draws(2 * smallest))["rank_auc"].distinguishable
    assert not compare_groups(*draws(0.1 * smallest))["rank_auc"].distinguishable


def test_the_same_seed_gives_the_same_comparison():
    assert compare_groups(*draws(), seed=1) == compare_groups(*draws(), seed=1)
    # Alone or beside others.
    assert compare_groups(*draws())["ulira"] == compare_groups(*draws(), ["ulira"])["ulira"]


def one(p):
    return Comparison("rank_auc", 0.6, 0.58, 0.01, p, 0.58, 0.62, 0.2, 0.03, (16, 16), 100, 999)


def test_strata_are_corrected_together_and_verdicts_follow():
    strata = {"random": one(0.03), "hardest": one(0.001), "memorised": one(0.04)}
    assert all(c.distinguishable for c in strata.values())
    found = corrected(strata)
    assert {name: c.p for name, c in found.items()} == pytest.approx({"random": 0.06, "hardest": 0.003, "memorised": 0.06})
    assert found["random"].verdict.startswith("not distinguished at this power")
    assert found["hardest"].verdict == "distinguishable from retraining (p 0.003, effect +0.02)"
    assert list(found) == list(strata)


def test_no_verdict_certifies():
    for verdict in (one(0.5).verdict, one(0.001).verdict, replace(one(0.5), detectable=math.inf).verdict):
        assert "certified" not in verdict
        assert "forgotten" not in verdict


def test_rows_are_flat():
    row = one(0.5).row()
    assert row["models_a"] == 16
    assert row["effect"] == pytest.approx(0.02)
    assert all(isinstance(value, str | int | float) for value in row.values())


def test_an_unknown_statistic_is_refused():
    with pytest.raises(ConfigError, match="rank_auc"):
        compare_groups(*draws(), statistics=("auc",))
    assert set(AUDIT) <= set(BENCHMARK) <= set(STATISTICS)
