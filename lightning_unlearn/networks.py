"""Small networks for small images, in plain torch.

This file imports nothing but torch, so that `lightning-unlearn export` can put it beside the exported weights and the model
can be rebuilt without this package.
"""

from functools import partial
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["batch", "group"]

__all__ = ["MLP", "ResNet", "SmallCNN"]


def _norm(kind: Norm, channels: int) -> nn.Module:
    """A normalisation layer for `channels` channels; groups of eight channels (or fewer) for `group`."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        return nn.GroupNorm(max(1, channels // 8), channels)
    raise ValueError(f"norm is {kind!r}; needed: 'batch' or 'group'.")


class MLP(nn.Module):
    """A multi-layer perceptron with ReLU on flattened images.

    Args:
        num_classes: Number of classes.
        in_chans: Channels of the input.
        image_size: Height and width of the input.
        hidden: Widths of the hidden layers.
    """

    def __init__(
        self, num_classes: int = 10, in_chans: int = 1, image_size: int = 8, hidden: tuple[int, ...] = (64, 64)
    ) -> None:
        super().__init__()
        widths = [in_chans * image_size * image_size, *hidden]
        self.flatten = nn.Flatten()
        self.layers = nn.Sequential(*(nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(widths)))
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W)."""
        logits: Tensor = self.fc(self.layers(self.flatten(x)))
        return logits


class SmallCNN(nn.Module):
    """Plain convolutions with ReLU, a hidden layer and a head; no normalisation.

    The default is the network of the digits benchmarks: conv 16, conv 32 with stride 2, 64 hidden units.

    Args:
        num_classes: Number of classes.
        in_chans: Channels of the input.
        image_size: Height and width of the input.
        widths: Channels of the 3x3 convolutions; all but the first have stride 2.
        hidden: Units of the hidden layer.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 1,
        image_size: int = 8,
        widths: tuple[int, ...] = (16, 32),
        hidden: int = 64,
    ) -> None:
        super().__init__()
        channels = [in_chans, *widths]
        layers: list[nn.Module] = []
        size = image_size
        for i, (a, b) in enumerate(pairwise(channels)):
            stride = 1 if i == 0 else 2
            layers += [nn.Conv2d(a, b, 3, stride, 1), nn.ReLU()]
            size = (size - 1) // stride + 1
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(channels[-1] * size * size, hidden), nn.ReLU())
        self.fc = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W)."""
        logits: Tensor = self.fc(self.hidden(self.features(x)))
        return logits


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    The shortcut of a wider block is a strided 1x1 convolution or, as in He et al. (2016) for CIFAR-10, sub-sampling with zero
    padding of the channels ("option A").
    """

    def __init__(self, a: int, b: int, stride: int, norm: Norm, shortcut: Literal["conv", "pad"]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(a, b, 3, stride, 1, bias=False)
        self.bn1 = _norm(norm, b)
        self.conv2 = nn.Conv2d(b, b, 3, 1, 1, bias=False)
        self.bn2 = _norm(norm, b)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or a != b:
            if shortcut == "conv":
                self.shortcut = nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), _norm(norm, b))
            else:
                self.shortcut = _PadShortcut(stride, (b - a) // 2)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class _PadShortcut(nn.Module):
    """Sub-sample by `stride` and pad the channels with zeros on both sides."""

    def __init__(self, stride: int, padding: int) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))


class ResNet(nn.Module):
    """The narrow residual network of He et al. (2016, CVPR, section 4.2) for small images.

    `depth` is 6n + 2 for `blocks` = (n, n, n): (1, 1, 1) is ResNet-8, (3, 3, 3) is ResNet-20.

    Args:
        num_classes: Number of classes.
        in_chans: Channels of the input.
        blocks: Residual blocks in each of the stages; every stage after the first halves the image and doubles the width.
        width: Channels of the first stage.
        norm: `batch` (BatchNorm) or `group` (GroupNorm, whose result does not depend on the rest of the batch).
        shortcut: `pad` as in the paper for CIFAR-10, or `conv` (a 1x1 convolution).
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        blocks: tuple[int, ...] = (1, 1, 1),
        width: int = 16,
        norm: Norm = "batch",
        shortcut: Literal["conv", "pad"] = "conv",
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, width, 3, 1, 1, bias=False)
        self.bn1 = _norm(norm, width)
        block = partial(_BasicBlock, norm=norm, shortcut=shortcut)
        a = width
        stages: list[nn.Module] = []
        for i, count in enumerate(blocks):
            b = width * 2**i
            strides = [1 if i == 0 else 2] + [1] * (count - 1)
            stages.append(nn.Sequential(*(block(a if j == 0 else b, b, s) for j, s in enumerate(strides))))
            a = b
        for i, stage in enumerate(stages, start=1):
            self.add_module(f"layer{i}", stage)
        self.stages = len(stages)
        self.linear = nn.Linear(a, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W)."""
        x = F.relu(self.bn1(self.conv1(x)))
        for i in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{i}")(x)
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits
