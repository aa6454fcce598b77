"""Positions of tiles, their blending weights, and the cheapest grid."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from models.registry import NETWORKS
from utils.errors import UserError
from utils.inference.tiling import (
    Network,
    Tile,
    blended_spans,
    cheapest_grid,
    fixed_grid,
    legal_size,
    reflect_indices,
    whole_grid,
)


@pytest.mark.parametrize(("length", "wanted"), [(1, 4), (2, 7), (5, 5), (5, 9), (5, 30), (40, 64)])
def test_reflection_pads_to_any_length(length: int, wanted: int) -> None:
    expected = np.pad(np.arange(length), (0, wanted - length), mode="reflect")
    assert reflect_indices(length, wanted).tolist() == expected.tolist()


@pytest.mark.parametrize("overlap", [0, 1, 31, 32, 64])
@pytest.mark.parametrize("tile", [64, 128, 160])
@pytest.mark.parametrize("length", [32, 64, 96, 160, 192, 1024, 4000 // 32 * 32])
def test_weights_of_tiles_add_up_to_one(length: int, tile: int, overlap: int) -> None:
    overlap = min(overlap, tile // 2)
    spans = blended_spans(length, tile, overlap, step=32)
    total = np.zeros(length)
    for span in spans:
        assert span.start % 32 == 0
        assert span.stop - span.start == min(tile, length)
        assert (span.weight >= 0).all()
        total[span.start : span.stop] += span.weight
    np.testing.assert_allclose(total, 1, atol=1e-6)
    for one, other in itertools.pairwise(spans):
        assert 0 < other.start - one.start <= tile - overlap
        # ... and they have no jumps: each falls from 1 to 0 over the overlap (or two thirds of it,
        # where even spacing brings two borders close together)
        if overlap:
            steps = np.abs(np.diff(one.weight))
            assert steps.max() <= np.pi / 2 / overlap * (1.5 if len(spans) > 2 else 1) + 1e-6


class Multiple16:
    """Sizes from 64 on, in steps of 16."""

    size_multiple = 16
    min_size = 64
    tile_step = 32
    released_window = None
    best_tile = None


def test_legal_sizes() -> None:
    sizes = [legal_size(Multiple16, size) for size in (1, 64, 65, 80)]
    assert sizes == [64, 64, 80, 80]
    grid = whole_grid(Multiple16, 65, 30)
    assert (grid.tile_height, grid.tile_width, grid.num_tiles) == (80, 64, 1)


SIZES = {"1080p": (1080, 1920), "4K": (2160, 3840), "12 megapixels": (3024, 4032)}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["nerd_rain", "nerd_rain_s", "dcsfn", "mspfn", "mspfn_n1"])
def test_rectangles_need_fewer_pixels_than_any_square(name: str, size: str) -> None:
    """The time per pixel hardly depends on the tile, so the number of pixels is the cost."""
    network, (height, width) = NETWORKS[name][0], SIZES[size]
    grid = cheapest_grid(network, height, width, 32, 512**2)
    squares = [
        fixed_grid(network, height, width, Tile("", side, side), 32)
        for side in range(256, 513, network.size_multiple * 16)
    ]
    pixels = grid.num_tiles * grid.tile_pixels
    assert pixels <= min(square.num_tiles * square.tile_pixels for square in squares)
    assert pixels <= 1.16 * height * width
    assert grid.tile_pixels <= 512**2
    assert max(grid.tile_height, grid.tile_width) <= 2 * min(grid.tile_height, grid.tile_width)


@pytest.mark.parametrize("max_pixels", [64 * 64, 100 * 100, 512 * 512])
@pytest.mark.parametrize(("height", "width"), [(7, 3), (64, 900), (300, 300), (433, 1021)])
def test_the_chosen_grid_is_the_cheapest_of_all_grids(
    height: int, width: int, max_pixels: int
) -> None:
    network: Network = Multiple16  # type: ignore[assignment]
    grid = cheapest_grid(network, height, width, 32, max_pixels)
    assert grid.tile_pixels <= max_pixels
    assert grid.rows[-1].stop >= height and grid.columns[-1].stop >= width
    pixels = grid.num_tiles * grid.tile_pixels
    for tile_h, tile_w in itertools.product(range(64, 513, 32), repeat=2):
        other = fixed_grid(network, height, width, Tile("", tile_h, tile_w), 32)
        sides = sorted((other.tile_height, other.tile_width))
        if other.tile_pixels <= max_pixels and sides[1] <= 2 * sides[0]:
            # apart from a preference for fewer tiles
            assert pixels <= other.num_tiles * other.tile_pixels * (1 + other.num_tiles / 500)


@pytest.mark.parametrize(
    ("text", "tile"),
    [
        ("auto", Tile("auto")),
        ("released", Tile("released")),
        ("128", Tile("", 128, 128)),
        (96, Tile("", 96, 96)),
        ("96x160", Tile("", 96, 160)),
    ],
)
def test_tiles_from_text(text: str | int, tile: Tile) -> None:
    assert Tile.parse(text) == tile


@pytest.mark.parametrize("text", ["windows", "", "-64", "128x", "63", "64x63", 0])
def test_invalid_tiles_are_refused(text: str | int) -> None:
    with pytest.raises(UserError, match=r"auto, whole, released, a number|at least 64"):
        Tile.parse(text)
