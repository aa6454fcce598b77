"""What only DCSFN has: fusions of feature maps of different sizes, units at odd sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.dcsfn import FusionConv, InnerScaleUnit
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


def act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def four_convs(branch: nn.Module, x: Tensor) -> Tensor:
    for conv, _ in branch:
        x = act(F.conv2d(x, conv.weight, conv.bias, padding=1))
    return x


@pytest.mark.parametrize("size", [(8, 16), (27, 37), (22, 31)])
def test_unit_is_the_released_block_at_odd_sizes_too(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    unit, x = InnerScaleUnit(4), torch.randn(2, 4, *size)
    scale8, scale4, scale2, scale1 = unit.branches
    fusion84, fusion42, fusion21 = unit.connections
    s8 = four_convs(scale8, F.max_pool2d(x, 8))
    s4 = four_convs(scale4, act(plain_fusion(fusion84, [F.max_pool2d(x, 4), s8])))
    s2 = four_convs(scale2, act(plain_fusion(fusion42, [F.max_pool2d(x, 2), s4])))
    s1 = four_convs(scale1, act(plain_fusion(fusion21, [x, s2])))
    expected = x + act(plain_fusion(unit.fusion, [s1, s2, s4, s8]))
    torch.testing.assert_close(unit(x), expected, rtol=2e-6, atol=2e-6)
