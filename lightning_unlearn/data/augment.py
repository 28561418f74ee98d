"""Random shifts and flips of a whole batch, drawn sample by sample."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_unlearn.data.hashing import uniform

__all__ = ["Augmentation", "shift_and_flip"]


class Augmentation:
    """Zero-padded random shifts ("random crop") and horizontal flips, as is usual for small images.

    Every sample has its own draw, a function of (seed, epoch, sample key): the same on any number of ranks and workers, and
    after other samples were deleted.

    Args:
        shift: Largest shift in pixels, in each direction; 4 is the usual "crop with padding 4". 0: no shift.
        flip: Whether half of the images are mirrored.

    Raises:
        ValueError: `shift` is negative.
    """

    def __init__(self, shift: int = 4, flip: bool = True) -> None:
        if shift < 0:
            raise ValueError(f"shift is {shift}; needed: 0 or more pixels.")
        self.shift = shift
        self.flip = flip

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def __call__(self, images: Tensor, hashes: Tensor, seed: int, epoch: int) -> Tensor:
        """Augmented copies of images.

        Args:
            images: (B, C, H, W).
            hashes: Key hashes of the samples, (B,), int64.
            seed: Seed of the run.
            epoch: Number of the pass over the data.

        Returns:
            (B, C, H, W), the dtype of `images`.
        """
        span = 2 * self.shift + 1
        dy = (uniform(hashes, seed, "augment/y", epoch) * span).long() - self.shift
        dx = (uniform(hashes, seed, "augment/x", epoch) * span).long() - self.shift
        mirrored = uniform(hashes, seed, "augment/flip", epoch) < (0.5 if self.flip else 0.0)
        return shift_and_flip(images, dy, dx, mirrored, self.shift)


def shift_and_flip(images: Tensor, dy: Tensor, dx: Tensor, mirrored: Tensor, limit: int | None = None) -> Tensor:
    """Mirror some images and shift each by its own number of pixels, filling with zeros.

    Args:
        images: (B, C, H, W).
        dy: Rows to shift down, (B,), int64.
        dx: Columns to shift right, (B,), int64.
        mirrored: Which images are mirrored (before the shift), (B,), bool.
        limit: What no shift exceeds in either direction; None: it is looked for, which waits for the device.

    Returns:
        (B, C, H, W), the dtype of `images`.
    """
    if not len(images):
        return images
    height, width = images.shape[-2:]
    p = int(torch.maximum(dy.abs().max(), dx.abs().max())) if limit is None else limit
    padded = F.pad(torch.where(mirrored[:, None, None, None], images.flip(-1), images), (p, p, p, p))
    top, left = p - dy, p - dx
    if images.device.type == "cpu":
        # Copying windows is five times as fast here as gathering pixels by index.
        corners = zip(padded, top.tolist(), left.tolist(), strict=True)
        return torch.stack([image[:, y : y + height, x : x + width] for image, y, x in corners])
    rows = torch.arange(height, device=images.device) + top[:, None]
    columns = torch.arange(width, device=images.device) + left[:, None]
    b = torch.arange(len(images), device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[b, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
