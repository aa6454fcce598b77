"""The faster form of DMSR's pair convolution on CPUs. Proven by tests/models/test_networks.py."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from models.dmsr import PairConv
from models.fast import fast_form, on_cpu


@fast_form(of=PairConv.forward, when=on_cpu)
def pair_conv_by_depthwise(conv: PairConv, x: Tensor, guide: Tensor) -> Tensor:
    """``PairConv.forward`` ten times as fast: the sum of two depthwise convolutions.

    oneDNN has a kernel for depthwise convolutions, but none for groups of two channels.
    """
    of_x, of_guide = conv.weight.split(1, dim=1)  # (C, 1, 7, 7) each
    x, guide = (F.pad(part, (3, 3, 3, 3), mode="reflect") for part in (x, guide))
    y = F.conv2d(x, of_x, conv.bias, groups=conv.groups)
    return y + F.conv2d(guide, of_guide, groups=conv.groups)
