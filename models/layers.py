"""What several networks share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.fast import replaceable

Module = TypeVar("Module", bound=nn.Module)


def module_list(modules: Iterable[Module]) -> Sequence[Module]:
    """An ``nn.ModuleList`` whose entries keep their type, so that their methods can be checked."""
    return cast("Sequence[Module]", nn.ModuleList(modules))


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """A context without autocast, which some devices do not have (the meta device)."""
    if torch.amp.is_autocast_available(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return nullcontext()


def widened(x: Tensor) -> Tensor:
    """``x`` in float32, or in float64 if it is that already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@replaceable
def pixelwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 1x1 convolution, (B, C, H, W) to (B, O, H, W), with a weight of shape (O, C, 1, 1)."""
    return F.conv2d(x, weight, bias)


class PixelwiseConv(nn.Conv2d):
    """A 1x1 convolution, (B, C, H, W) to (B, O, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return pixelwise(x, self.weight, self.bias)
