import pytest
import torch

from lightning_unlearn.outputs import Outputs, PartOutputs


@pytest.fixture
def make_part():
    def make(n=100, k=5, first=0, gain=1.0, seed=0):
        """One part of one model: noise, and a true class that stands out by `gain`."""
        generator = torch.Generator().manual_seed(seed)
        targets = torch.randint(k, (n,), generator=generator)
        logits = torch.randn(n, k, generator=generator)
        logits[torch.arange(n), targets] += gain
        return PartOutputs(logits, targets, torch.arange(first, first + n))

    return make


@pytest.fixture
def make_outputs():
    """Outputs of one model: `split` decides on indices and targets, `seed` on the logits."""

    def make(seed=0, *, sizes=(60, 400, 300, 120), k=5, gains=(1.0, 3.0, 1.0, 1.0), gone=(), split=0, unseen=True):
        labels = torch.Generator().manual_seed(1000 + split)
        noise = torch.Generator().manual_seed(seed)
        parts, first = [], 0
        for i, (n, gain) in enumerate(zip(sizes, gains, strict=True)):
            targets = torch.randint(k, (n,), generator=labels)
            if gone and i == 0:
                targets = torch.tensor(gone)[targets % len(gone)]
            if gone and i == 1:
                stay = torch.tensor([c for c in range(k) if c not in gone])
                targets = stay[targets % len(stay)]
            logits = torch.randn(n, k, generator=noise)
            logits[torch.arange(n), targets] += gain
            parts.append(PartOutputs(logits, targets, torch.arange(first, first + n)))
            first = 0 if i == 1 else first + n
        return Outputs(parts[0], parts[1], parts[2], parts[3] if unseen else None)

    return make
