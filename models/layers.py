"""Blocks that several networks share: the same maths, not just the same shape."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """A section without autocast, on devices that know it (the meta device does not)."""
    if torch.amp.is_autocast_available(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return nullcontext()


def pixelwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 1x1 convolution, (B, C, H, W) to (B, O, H, W), with a weight of shape (O, C, 1, 1).

    A dilation spreads the taps of a kernel; a single tap stays where it is. But on a CPU it takes
    PyTorch past its rule to compute 1x1 convolutions of fewer than 16 images in one thread
    without oneDNN, which takes two to three times as long.
    """
    one_dnn = x.device.type == "cpu" and torch.backends.mkldnn.is_available()
    return F.conv2d(x, weight, bias, dilation=2 if one_dnn else 1)


class PixelwiseConv(nn.Conv2d):
    """A 1x1 convolution, (B, C, H, W) to (B, O, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return pixelwise(x, self.weight, self.bias)
