import itertools

import pytest
from helpers import untrained

from lightning_unlearn.audit.answers import audited_samples
from lightning_unlearn.audit.cells import Cell, Cells, asked, cells_of, seeds_of
from lightning_unlearn.bank.bank import Bank, Recipe


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


@pytest.mark.parametrize(("count", "sizes"), [(3, [3]), (16, [4] * 4), (40, [5] * 8), (7, [3, 4])])
def test_shadows_forget_several_sets_of_other_samples(make_data, fresh, tmp_path, count, sizes):
    found = cells_of("shadow", count, 0)
    assert [len(cell.seeds) for cell in found] == sizes
    assert [seed for cell in found for seed in cell.seeds] == seeds_of("shadow", count, 0)
    cells = Cells(fresh, make_data(), Recipe(untrained, 1, {"accelerator": "cpu"}), Bank(tmp_path), tmp_path, 0)
    drawn = {tuple(cells._without_forgotten(cell.seeds[0]).part("forget")[1].tolist()) for cell in found}
    assert len(drawn) == len(sizes)
    assert len(cells_of("unlearned", count, 0)) == -(-count // 20)


def test_a_cell_is_known_by_the_size_of_forget_batches(make_data, fresh, tmp_path):
    recipe, cell = Recipe(untrained, 1, {"accelerator": "cpu"}), Cell("unlearned", (0,), "scrub")
    made = [Cells(fresh, make_data(forget_batch_size=n), recipe, Bank(tmp_path), tmp_path, 0).path(cell) for n in (4, 8, 8)]
    assert made[0] != made[1] == made[2]


def test_with_other_weights_models_answer_to_the_population_too(make_data, fresh):
    data = make_data(unseen=30)
    answers = asked(fresh, data, audited_samples(data), [untrained(), untrained()], [0, 1], relearn_epochs=1, int8=True)
    again = {f"{part}/{state}" for part in ("forget", "test", "unseen") for state in ("int8", "relearned")}
    assert set(answers.margins) == {"retain", "forget", "test", "unseen"} | again
