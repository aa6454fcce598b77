"""What is particular to DCSFN: its blocks against their formulas, its unused weights."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.dcsfn import (
    DCSFN,
    VARIANTS,
    Cell,
    DCSFNConfig,
    DenseChain,
    FirstCell,
    FusionConv,
    InnerScaleUnit,
)
from models.fast import reference_ops
from models.published import from_published, to_published
from tests.reference import golden_weights


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    return golden_weights("dcsfn")


def golden_network(published: dict[str, Tensor]) -> DCSFN:
    network = DCSFN(VARIANTS["dcsfn"])
    network.load_state_dict(from_published(network, published))
    return network


def close(actual: Tensor, expected: Tensor, tolerance: float = 2e-6) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def test_published_weights_survive_the_way_there_and_back(published: dict[str, Tensor]) -> None:
    back = to_published(golden_network(published))
    assert back.keys() == published.keys()
    pattern = re.compile(r"fusion_[12]_2_2\..*|(rec1_4|rec2_1)\.conv_(xr|hz|hr|hn)\..*")
    unused = {name for name in published if pattern.fullmatch(name)}
    assert len(unused) == 20
    for name, value in published.items():
        expected = torch.zeros_like(value) if name in unused else value
        assert torch.equal(back[name], expected), name


# The blocks, each against its formula


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
        [(66, 64), (66, 64), (33, 32), (33, 32)],  # large ones apart, small ones joined
    ],
)
def test_fusion_is_a_convolution_over_the_concatenation(sizes: list[tuple[int, int]]) -> None:
    widths = [3, 2, 4, 1][: len(sizes)]
    fusion = FusionConv(sum(widths), 5)
    parts = [torch.randn(2, c, *size) for c, size in zip(widths, sizes, strict=True)]
    expected = plain_fusion(fusion, parts)
    close(fusion(*parts), expected)
    with reference_ops():
        close(fusion(*parts), expected)


def plain_unit(unit: InnerScaleUnit, x: Tensor) -> Tensor:
    """The inner-scale connection block, step by step."""

    def act(y: Tensor) -> Tensor:
        return F.leaky_relu(y, 0.2)

    def four_convs(branch: nn.Sequential, y: Tensor) -> Tensor:
        for conv, _ in branch:
            y = act(F.conv2d(y, conv.weight, conv.bias, padding=1))
        return y

    scale8, scale4, scale2, scale1 = unit.branches
    fusion84, fusion42, fusion21 = unit.connections
    s8 = four_convs(scale8, F.max_pool2d(x, 8))
    s4 = four_convs(scale4, act(plain_fusion(fusion84, [F.max_pool2d(x, 4), s8])))
    s2 = four_convs(scale2, act(plain_fusion(fusion42, [F.max_pool2d(x, 2), s4])))
    s1 = four_convs(scale1, act(plain_fusion(fusion21, [x, s2])))
    return x + act(plain_fusion(unit.fusion, [s1, s2, s4, s8]))


@pytest.mark.parametrize("size", [(8, 16), (27, 37), (22, 31)])
def test_unit_and_its_gradients_equal_the_plain_form(size: tuple[int, int]) -> None:
    unit = InnerScaleUnit(4)
    x = torch.randn(2, 4, *size, requires_grad=True)
    actual, expected = unit(x), plain_unit(unit, x)
    close(actual, expected)
    gradients = [
        torch.autograd.grad(output.square().sum(), [x, *unit.parameters()])
        for output in (actual, expected)
    ]
    for actual, expected in zip(*gradients, strict=True):
        close(actual, expected, 1e-4)


def test_the_chain_leaves_its_skips_alone() -> None:
    chain = DenseChain(4, num_units=2)
    x, skips = torch.randn(1, 4, 8, 8), [torch.randn(1, 4, 8, 8) for _ in range(2)]
    given = list(skips)
    out, unit_outputs = chain(x, skips)
    assert len(skips) == 2 and all(a is b for a, b in zip(skips, given, strict=True))
    first = chain.units[0](x + skips[0])
    close(unit_outputs[0], first)
    middle = F.leaky_relu(plain_fusion(chain.fusions[0], [x, first]), 0.2)
    close(unit_outputs[1], chain.units[1](middle + skips[1]))
    close(out, F.leaky_relu(plain_fusion(chain.fusions[1], [x, *unit_outputs]), 0.2))


def test_first_cell_is_a_cell_whose_state_says_nothing() -> None:
    first, cell = FirstCell(4), Cell(4)
    with torch.no_grad():
        for x in cell.conv_state, cell.conv_reset_state:
            x.weight.zero_()
            x.bias.zero_()
        for part in ("weight", "bias"):
            update, candidate = getattr(first.conv, part).chunk(2)
            unused_reset = torch.randn_like(update)
            getattr(cell.conv_input, part).copy_(torch.cat([update, unused_reset, candidate]))
    x = torch.randn(2, 4, 6, 5)
    close(cell(x, torch.zeros_like(x)), first(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"width": 0}, "width is 0"), ({"num_units": 0}, "num_units is 0")],
)
def test_impossible_sizes_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DCSFNConfig(**options)
