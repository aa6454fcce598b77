"""The faster form of DCSFN's fusions on CPUs. Proven by tests/models/test_dcsfn.py."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from models.dcsfn import FusionConv, resize
from models.fast import fast_form, on_cpu
from models.layers import pixelwise


@fast_form(of=FusionConv.forward, when=on_cpu)
def fuse_part_by_part(conv: FusionConv, *parts: Tensor) -> Tensor:
    """``FusionConv.forward`` without the concatenation.

    A 1x1 convolution over a concatenation is the sum of the parts' own 1x1 convolutions, and a
    nearest upsampling may as well follow a 1x1 convolution as precede it: coarse parts are
    convolved at their own size, and their sum is enlarged from part to part.
    """
    if not upsampling_composes(parts):
        parts = tuple(resize(part, parts[0]) for part in parts)
    weights = conv.weight.split([part.shape[1] for part in parts], dim=1)
    total = None  # of the parts from the coarsest to the one before
    for i in reversed(range(len(parts))):
        term = pixelwise(parts[i], weights[i], conv.bias if i == 0 else None)
        if total is not None:
            term += resize(total, term)
        total = term
    assert total is not None
    return total


def upsampling_composes(parts: tuple[Tensor, ...]) -> bool:
    """Whether upsampling from part to part ends where one step from each to the first does.

    floor(floor(i * a) / k) = floor(i * a / k) for whole k, so all sizes but the first must be
    multiples of the next. That fails only when an odd size has been halved on the way.
    """
    return all(
        finer.shape[dim] % coarser.shape[dim] == 0
        for finer, coarser in pairwise(parts[1:])
        for dim in (-2, -1)
    )
