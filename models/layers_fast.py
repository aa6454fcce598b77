"""The faster form of 1x1 convolutions on CPUs. Proven by tests/models/test_networks.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.fast import fast_form, on_cpu
from models.layers import pixelwise

_HAS_ONEDNN = torch.backends.mkldnn.is_available()  # here, because torch.compile can't trace it


def _on_cpu_with_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    return _HAS_ONEDNN and on_cpu(x)


@fast_form(of=pixelwise, when=_on_cpu_with_onednn)
def dilated_pixelwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``pixelwise`` two to three times as fast on a CPU.

    In one thread PyTorch uses oneDNN for 1x1 convolutions of fewer than 16 images only if they are
    dilated. Dilation changes nothing in a kernel with a single tap.
    """
    return F.conv2d(x, weight, bias, dilation=2)
