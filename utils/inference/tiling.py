"""The geometry of tiles: how an image is cut, and how the results are blended.

    image -> padded by reflection -> a grid of equal tiles that share borders -> weights that add
    up to 1

Tiles start at multiples of ``tile_step``, so that the poolings of a network fall on the same
pixels as in the whole image.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from utils.errors import UserError

MIN_TILE = 64
DEFAULT_OVERLAP = 32
MAX_ASPECT = 2  # longer side of a tile over the shorter


class Network(Protocol):
    """What the restorer needs from a network; ``models.network.DerainingNetwork`` provides it."""

    @property
    def size_multiple(self) -> int: ...
    @property
    def min_size(self) -> int: ...
    @property
    def tile_step(self) -> int: ...
    @property
    def released_window(self) -> int | None: ...
    @property
    def best_tile(self) -> int | None: ...

    def restore(self, rainy: Tensor, /) -> Tensor:
        """(B, 3, H, W), RGB in [0, 1], H and W legal, to the restored images of the same shape."""
        ...


@dataclass(frozen=True)
class Tile:
    """How to cut: a word, or the height and width of the tiles.

    auto: a network's ``best_tile`` if it has one; else the fastest tiles that fit into memory.
    whole: never cut. released: the windows that the network's authors test with.
    """

    word: str = ""
    height: int = 0
    width: int = 0

    @classmethod
    def parse(cls, text: str | int) -> Tile:
        """``auto``, ``whole``, ``released``, a side (256) or HEIGHTxWIDTH (256x384).

        Raises UserError for anything else, and for sides below MIN_TILE.
        """
        if text in ("auto", "whole", "released"):
            return cls(str(text))
        match = re.fullmatch(r"(\d+)(?:x(\d+))?", str(text))
        if match is None:
            raise UserError(
                f"The tile is {text!r}; it may be auto, whole, released, a number of pixels or "
                "HEIGHTxWIDTH."
            )
        tile = cls("", int(match[1]), int(match[2] or match[1]))
        if min(tile.height, tile.width) < MIN_TILE:
            raise UserError(f"A tile of {text} pixels is too small; take at least {MIN_TILE}.")
        return tile


AUTO, WHOLE, RELEASED = Tile("auto"), Tile("whole"), Tile("released")


@dataclass(frozen=True)
class Span:
    """A tile's place along one axis: samples start to stop, and how much it counts in each.

    ``weight`` is (stop - start,) float32; the weights of a sample over all spans of an axis add up
    to 1.
    """

    start: int
    stop: int
    weight: np.ndarray


@dataclass(frozen=True)
class Grid:
    """Equal tiles in rows and columns; the last ones may reach beyond the image."""

    rows: list[Span]
    columns: list[Span]

    @property
    def tile_height(self) -> int:
        return self.rows[0].stop - self.rows[0].start

    @property
    def tile_width(self) -> int:
        return self.columns[0].stop - self.columns[0].start

    @property
    def tile_pixels(self) -> int:
        return self.tile_height * self.tile_width

    @property
    def num_tiles(self) -> int:
        return len(self.rows) * len(self.columns)


def legal_size(network: Network, size: int) -> int:
    """The smallest height or width of at least ``size`` that the network takes."""
    return _round_up(max(size, network.min_size), network.size_multiple)


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def reflect_indices(length: int, wanted: int) -> np.ndarray:
    """The indices that continue ``length`` samples to ``wanted`` by reflection, (wanted,) int64.

    The edge sample is not repeated. Where one reflection is too short the samples go back and
    forth, so any length will do: 3 samples become 8 as 0 1 2 1 0 1 2 1.
    """
    period = max(2 * (length - 1), 1)
    position = np.arange(wanted) % period
    return np.minimum(position, period - position) if length > 1 else position


def whole_grid(network: Network, height: int, width: int) -> Grid:
    """One tile, padded to what the network takes."""
    rows, columns = (
        blended_spans(size, size, 0)
        for size in (legal_size(network, height), legal_size(network, width))
    )
    return Grid(rows, columns)


def released_grid(network: Network, height: int, width: int) -> Grid:
    """The authors' windows; the whole image where they test with whole images."""
    window = network.released_window
    if window is None:
        return whole_grid(network, height, width)
    return Grid(window_spans(height, window), window_spans(width, window))


def fixed_grid(network: Network, height: int, width: int, tile: Tile, overlap: int) -> Grid:
    """Tiles of the size asked for, rounded up to what the network takes."""
    return Grid(
        _axis(network, height, tile.height, overlap), _axis(network, width, tile.width, overlap)
    )


def _axis(network: Network, length: int, tile: int, overlap: int) -> list[Span]:
    """Tiles of ``tile`` samples along an axis; a single one if the axis is not longer than that."""
    whole = legal_size(network, length)
    tile = legal_tile(network, tile)
    if tile >= whole:
        return blended_spans(whole, whole, 0)
    step = _step(network)
    return blended_spans(_round_up(whole, step), tile, min(overlap, tile // 2), step)


def _step(network: Network) -> int:
    return math.lcm(network.tile_step, network.size_multiple)


def legal_tile(network: Network, tile: int) -> int:
    """``tile`` rounded up to what both the network and the grid of tiles allow."""
    return _round_up(max(tile, network.min_size), _step(network))


def cheapest_grid(
    network: Network, height: int, width: int, overlap: int, max_pixels: float
) -> Grid:
    """The grid that computes the fewest pixels with tiles of at most ``max_pixels``.

    The longer side of a tile is at most twice the shorter. If no tile is small enough, the smallest
    one is taken.
    """
    candidates = [
        (tile_h * tile_w, num_rows * num_columns, tile_h, tile_w)
        for tile_h, num_rows in _possible_tiles(network, height, overlap)
        for tile_w, num_columns in _possible_tiles(network, width, overlap)
        if max(tile_h, tile_w) <= MAX_ASPECT * max(min(tile_h, tile_w), MIN_TILE)
    ]
    fitting = [candidate for candidate in candidates if candidate[0] <= max_pixels]
    # Among grids of nearly the same cost, fewer tiles show the network more at once.
    _, _, tile_h, tile_w = (
        min(fitting, key=lambda tile: tile[0] * tile[1] * (1 + tile[1] / 500))
        if fitting
        else min(candidates)
    )
    return fixed_grid(network, height, width, Tile("", tile_h, tile_w), overlap)


def _possible_tiles(network: Network, length: int, overlap: int) -> list[tuple[int, int]]:
    """The sides that a tile may have along an axis, each with the number of tiles it makes."""
    whole, step = legal_size(network, length), _step(network)
    padded = _round_up(whole, step)
    sides = range(legal_tile(network, MIN_TILE), whole, step)
    return [(side, _count(padded, side, min(overlap, side // 2), step)) for side in sides] + [
        (whole, 1)
    ]


def _count(length: int, tile: int, overlap: int, step: int) -> int:
    """How many tiles cover an axis of ``length`` samples if they start at multiples of step."""
    if tile >= length:
        return 1
    stride = max((tile - overlap) // step, 1) * step
    return 1 - (tile - length) // stride


def blended_spans(length: int, tile: int, overlap: int, step: int = 1) -> list[Span]:
    """Evenly spread tiles over ``length`` samples, blended over up to ``overlap`` samples.

    ``length`` and ``tile`` are multiples of ``step``, and so are all starts; ``overlap`` is at
    most half of ``tile``. A tile as long as the axis covers it alone.
    """
    if tile >= length:
        return [Span(0, length, np.ones(length, np.float32))]
    count = _count(length, tile, overlap, step) - 1  # tiles after the first
    steps = (length - tile) // step
    starts = [steps * i // count * step for i in range(count + 1)]

    # Neighbours blend by a half cosine, in the middle of the samples that they share.
    middles = [(start + other + tile) / 2 for start, other in itertools.pairwise(starts)]
    shared = tile - max(np.diff(starts))
    ramp = min([overlap, shared, *np.diff(middles)])  # no ramp reaches into the next
    spans = []
    for start, before, after in zip(starts, [None, *middles], [*middles, None], strict=True):
        position = np.arange(start, start + tile) + 0.5
        weight = np.ones(tile)
        if before is not None:
            weight *= _rise(position - before, ramp)
        if after is not None:
            weight *= _rise(after - position, ramp)
        spans.append(Span(start, start + tile, weight.astype(np.float32)))
    return spans


def _rise(distance: np.ndarray, width: float) -> np.ndarray:
    """From 0 to 1 over ``width`` samples around distance 0, by a half cosine; a step for 0."""
    ramp = np.clip(distance / max(width, 0.5) + 0.5, 0, 1)
    return 0.5 - 0.5 * np.cos(np.pi * ramp)


def window_spans(length: int, window: int) -> list[Span]:
    """The releases' windows: side by side, the last one flush with the end.

    Where the last one overlaps its neighbour, it contributes only the samples that are missing.
    """
    starts = [*range(0, length - window, window), max(length - window, 0)]
    spans, covered = [], 0
    for start in starts:
        weight = (np.arange(start, start + window) >= covered).astype(np.float32)
        spans.append(Span(start, start + window, weight))
        covered = start + window
    return spans
