"""What only DCSFN has: fusions of feature maps of different sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.dcsfn import FusionConv
from models.fast import reference_ops


def plain_fusion(fusion: FusionConv, parts: list[Tensor]) -> Tensor:
    """The 1x1 convolution over the concatenation of the upsampled parts."""
    size = parts[0].shape[-2:]
    together = torch.cat([F.interpolate(part, size=size, mode="nearest") for part in parts], dim=1)
    return F.conv2d(together, fusion.weight, fusion.bias)


@pytest.mark.parametrize(
    "sizes",
    [
        [(9, 12), (9, 12), (9, 12)],
        [(16, 24), (8, 12), (4, 6), (2, 3)],
        [(17, 25), (8, 12), (4, 6), (2, 3)],  # upsampling step by step is still exact
        [(22, 31), (11, 15), (5, 7), (2, 3)],  # here it is not
        [(34, 50), (17, 25), (8, 12), (4, 6)],
        [(16, 31), (8, 15), (4, 7), (2, 3)],  # nor here, in one direction
        [(66, 64), (66, 64), (33, 32), (33, 32)],
    ],
)
def test_fusion_is_a_convolution_over_the_concatenation(sizes: list[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    widths = [3, 2, 4, 1][: len(sizes)]
    fusion = FusionConv(sum(widths), 5)
    parts = [torch.randn(2, c, *size) for c, size in zip(widths, sizes, strict=True)]
    expected = plain_fusion(fusion, parts)
    torch.testing.assert_close(fusion(*parts), expected, rtol=2e-6, atol=2e-6)
    with reference_ops():
        torch.testing.assert_close(fusion(*parts), expected, rtol=2e-6, atol=2e-6)
