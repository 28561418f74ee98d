import itertools

import pytest

from lightning_unlearn.audit.cells import seeds_of


@pytest.mark.parametrize("forget_set", [0, 1, 7])
def test_no_two_models_of_a_forget_set_share_a_seed(forget_set):
    groups = [seeds_of(group, 300, forget_set) for group in ("original", "reference", "held_out")]
    assert all(len(set(seeds)) == 300 for seeds in groups)
    assert not any(set(a) & set(b) for a, b in itertools.combinations(groups, 2))


def test_forget_sets_share_no_retrained_model():
    numbers = [set(seeds_of(group, 500, i)) for i in range(3) for group in ("reference", "held_out")]
    assert len(set.union(*numbers)) == 3000


@pytest.mark.parametrize("group", ["original", "reference", "held_out"])
def test_a_larger_audit_goes_on_with_the_models_of_a_smaller_one(group):
    assert seeds_of(group, 40, 1)[:16] == seeds_of(group, 16, 1)


def test_unlearned_models_have_the_seeds_of_what_they_were():
    assert seeds_of("unlearned", 5, 3) == seeds_of("original", 5, 3)
    assert seeds_of("shadow", 5, 3) == seeds_of("held_out", 5, 3)
