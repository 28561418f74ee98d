import torch

from lightning_unlearn.functional.ranks import mid_ranks, share_won, tie_starts


def test_ranks_against_counting():
    values = torch.randn(9, 5, generator=torch.Generator().manual_seed(0)).mul(2).round()
    for n in range(5):
        column = values[:, n].tolist()
        expected = [sum(v < x for v in column) + (sum(v == x for v in column) + 1) / 2 for x in column]
        assert mid_ranks(values)[:, n].tolist() == expected


def test_ties_keep_the_sum_of_ranks():
    values = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 0.0]])
    assert mid_ranks(values).tolist() == [[2, 2.5], [2, 2.5], [2, 1]]


def test_tie_starts_count_what_is_below():
    ordered = torch.tensor([[1.0, 1.0, 2.0, 3.0], [0.0, 1.0, 1.0, 1.0]])
    assert tie_starts(ordered).tolist() == [[0, 0, 2, 3, 4], [0, 1, 1, 1, 4]]


def test_the_share_won_against_all_pairs():
    first, second = torch.randn(43, generator=torch.Generator().manual_seed(0)).mul(2).round().split([30, 13])
    pairs = [1.0 if p > q else 0.5 if p == q else 0.0 for p in first.tolist() for q in second.tolist()]
    assert share_won(first, second) == sum(pairs) / len(pairs)
