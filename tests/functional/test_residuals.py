import pytest
import torch
import torch.nn.functional as F

from lightning_unlearn.functional.residuals import label_residual


@pytest.mark.parametrize("lead", [0.0, 5.0, 16.0, 25.0])
def test_float32_agrees_with_autograd_in_float64(lead):
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 10), torch.arange(6)
    logits[range(6), labels] += lead
    exact = logits.double().requires_grad_()
    (expected,) = torch.autograd.grad(F.cross_entropy(exact, labels, reduction="sum"), exact)
    torch.testing.assert_close(label_residual(logits, labels).double(), expected, rtol=1e-5, atol=0)
