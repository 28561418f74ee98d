import math

import pytest
import torch

from lightning_unlearn.functional.memorisation import memorisation


def by_hand(right, member, i):
    known = [float(r[i]) for r, m in zip(right, member, strict=True) if m[i]]
    other = [float(r[i]) for r, m in zip(right, member, strict=True) if not m[i]]
    return sum(known) / len(known) - sum(other) / len(other) if known and other else math.nan


@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_it_is_the_difference_of_two_means(kind):
    generator = torch.Generator().manual_seed(0)
    right = torch.rand(9, 50, generator=generator)
    right = right < 0.6 if kind == torch.bool else right
    member = torch.rand(9, 50, generator=generator) < 0.5
    member[:, 0], member[:, 1] = True, False
    found = memorisation(right, member)
    assert found.dtype == torch.float64
    assert found[:2].isnan().all()
    torch.testing.assert_close(found, torch.tensor([by_hand(right, member, i) for i in range(50)]).double(), equal_nan=True)


def test_it_converges_to_the_true_difference():
    generator = torch.Generator().manual_seed(0)
    inside, outside = torch.tensor([1.0, 0.9, 0.5]), torch.tensor([0.0, 0.8, 0.5])
    member = torch.rand(40_000, 3, generator=generator) < 0.7
    right = torch.rand(40_000, 3, generator=generator) < torch.where(member, inside, outside)
    assert (memorisation(right, member) - (inside - outside)).abs().max() < 5 * math.sqrt(0.25 / 12_000 + 0.25 / 28_000)


@pytest.mark.parametrize(
    ("right", "member"),
    [
        (torch.ones(3, 4), torch.ones(3, 5, dtype=torch.bool)),
        (torch.ones(3, 4), torch.ones(3, 4)),
        (torch.ones(4), torch.ones(4, dtype=torch.bool)),
    ],
)
def test_bad_shapes(right, member):
    with pytest.raises(ValueError, match="needed: both"):
        memorisation(right, member)
