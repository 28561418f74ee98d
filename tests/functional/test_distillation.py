import math

import pytest
import torch

from lightning_unlearn.functional.distillation import distillation_loss


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_it_is_the_sum_over_classes(temperature):
    source = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(6, 4, generator=source, dtype=torch.float64) for _ in range(2))
    found = distillation_loss(student, teacher, temperature)
    for i in range(6):
        p, q = ([math.exp(z / temperature) for z in logits[i].tolist()] for logits in (student, teacher))
        expected = sum(b / sum(q) * math.log(b / sum(q) / (a / sum(p))) for a, b in zip(p, q, strict=True))
        assert float(found[i]) == pytest.approx(temperature**2 * expected)


def test_gradients_hardly_depend_on_a_high_temperature():
    teacher = torch.tensor([[1.0, -1.0, 0.5]], dtype=torch.float64)
    sizes = []
    for temperature in (50.0, 100.0):
        student = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
        distillation_loss(student, teacher, temperature).sum().backward()
        sizes.append(float(student.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)
