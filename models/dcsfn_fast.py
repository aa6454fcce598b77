"""The faster form of DCSFN's fusions on CPUs. Proven by tests/models/test_dcsfn.py (fusion)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from models.dcsfn import FusionConv, resize
from models.fast import fast_form, on_cpu
from models.layers import pixelwise


@fast_form(of=FusionConv.forward, when=on_cpu)
def fuse_part_by_part(conv: FusionConv, *parts: Tensor) -> Tensor:
    """``FusionConv.forward`` without the concatenation.

    A 1x1 convolution over a concatenation is the sum of 1x1 convolutions of the parts, and nearest
    upsampling gives the same values before and after it. So the parts are convolved at their own
    sizes, and the sum is enlarged from part to part.
    """
    if not upsampling_composes(parts):
        parts = tuple(resize(part, parts[0]) for part in parts)
    weights = conv.weight.split([part.shape[1] for part in parts], dim=1)
    total = None  # the sum over the coarser parts
    for i in reversed(range(len(parts))):
        term = pixelwise(parts[i], weights[i], conv.bias if i == 0 else None)
        if total is not None:
            term += resize(total, term)
        total = term
    assert total is not None
    return total


def upsampling_composes(parts: tuple[Tensor, ...]) -> bool:
    """Whether upsampling from part to part gives the same as upsampling each part to the first.

    floor(floor(i * a) / k) = floor(i * a / k) for whole k, so every size but the first must be a
    multiple of the next. It is not where an odd size was halved.
    """
    return all(
        finer.shape[dim] % coarser.shape[dim] == 0
        for finer, coarser in pairwise(parts[1:])
        for dim in (-2, -1)
    )
