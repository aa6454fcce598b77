"""Blocks that several networks share: the same maths, not just the same shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)

_fast_forms_allowed = True


@contextmanager
def plain_forms() -> Iterator[None]:
    """Within it, every block computes the formula of its docstring, step by step.

    Outside it, some blocks take a faster form with the same values on CPUs: a function beside the
    block, which says what it replaces. tests/models/test_networks.py compares the two for every
    network. Exporters want the plain forms: fewer, larger steps.
    """
    global _fast_forms_allowed
    before = _fast_forms_allowed
    _fast_forms_allowed = False
    try:
        yield
    finally:
        _fast_forms_allowed = before


def takes_fast_form(x: Tensor) -> bool:
    """Whether a block shall use its form for CPUs on features ``x``; see ``plain_forms``."""
    return _fast_forms_allowed and x.device.type == "cpu"


def module_list(modules: Iterable[Module]) -> Sequence[Module]:
    """An ``nn.ModuleList`` whose entries keep their type, so that their methods can be checked."""
    return cast("Sequence[Module]", nn.ModuleList(modules))


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """A section without autocast, on devices that know it (the meta device does not)."""
    if torch.amp.is_autocast_available(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return nullcontext()


def widened(x: Tensor) -> Tensor:
    """``x`` in float32, or in float64 where it is that already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def pixelwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 1x1 convolution, (B, C, H, W) to (B, O, H, W), with a weight of shape (O, C, 1, 1)."""
    if takes_fast_form(x) and torch.backends.mkldnn.is_available():
        return dilated_pixelwise(x, weight, bias)
    return F.conv2d(x, weight, bias)


def dilated_pixelwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``pixelwise`` two to three times as fast on a CPU; its plain form is ``F.conv2d``.

    PyTorch computes 1x1 convolutions of fewer than 16 images in one thread without oneDNN, unless
    they are dilated. A dilation spreads the taps of a kernel; a single tap stays where it is.
    """
    return F.conv2d(x, weight, bias, dilation=2)


class PixelwiseConv(nn.Conv2d):
    """A 1x1 convolution, (B, C, H, W) to (B, O, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return pixelwise(x, self.weight, self.bias)
