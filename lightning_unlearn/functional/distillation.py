"""What a student loses by answering otherwise than its teacher."""

from torch import Tensor
from torch.nn.functional import kl_div

__all__ = ["distillation_loss"]


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), the sum over classes, one value per sample.

    The factor keeps gradients of one size for all temperatures (Hinton, Vinyals and Dean 2015).

    Args:
        student: Logits, (N, K); gradients pass through it.
        teacher: Logits, (N, K).
        temperature: T > 0; larger ones weigh unlikely classes more.

    Returns:
        (N,), in nats, >= 0 up to rounding.
    """
    log_p = (student / temperature).log_softmax(1)
    log_q = (teacher / temperature).log_softmax(1)
    return temperature**2 * kl_div(log_p, log_q, reduction="none", log_target=True).sum(1)
