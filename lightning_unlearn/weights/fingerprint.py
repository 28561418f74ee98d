"""What tells one model from another."""

import hashlib

import torch
from torch import nn

__all__ = ["hash_of_weights"]


def hash_of_weights(model: nn.Module) -> str:
    """A hash of all weights and buffers.

    Args:
        model: The model.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + str((value.dtype, tuple(value.shape))).encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
