"""The faster form of the shared blocks. Proven by tests/models/test_nerd_rain.py (pixelwise)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.fast import fast_form, on_cpu
from models.layers import pixelwise

_HAS_ONEDNN = torch.backends.mkldnn.is_available()  # asked once: torch.compile cannot trace it


def _on_cpu_with_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    return _HAS_ONEDNN and on_cpu(x)


@fast_form(of=pixelwise, when=_on_cpu_with_onednn)
def dilated_pixelwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``pixelwise`` two to three times as fast on a CPU.

    PyTorch computes 1x1 convolutions of fewer than 16 images in one thread without oneDNN, unless
    they are dilated. A dilation spreads the taps of a kernel; a single tap stays where it is.
    """
    return F.conv2d(x, weight, bias, dilation=2)
