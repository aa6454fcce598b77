"""How images are restored: every option of ``Restorer``, checked when it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import torch

from utils.devices import check_precision, find_device
from utils.errors import UserError
from utils.inference.tiling import AUTO, Tile

CPU = torch.device("cpu")


def no_progress(done: int, total: int) -> None:
    """Shows nothing."""


@dataclass(frozen=True)
class RestoringOptions:
    """The options of a ``Restorer``.

    device: where the network is; a name such as "cuda:1" will do.
    tile: how images are cut (``Tile``), or the word or number that ``Tile.parse`` takes.
    overlap: samples over which neighbouring tiles are blended, at most half a tile; by default
        32, and an eighth of the tiles of a network that has a ``best_tile``.
    ensemble: 8 averages the results over all flips and quarter turns, 1 does not.
    strength: 1 gives the network's result, 0 the image itself, values between a blend of both.
    precision: ``"float32"``, or ``"bf16"`` for matrix products and convolutions in bfloat16, or
        ``"fp16"`` for those in float16 on GPUs without bfloat16.
    memory: bytes that this process may use; by default 4 GiB, or on CUDA 90% of what is free.
    notify: receives a sentence when memory forces smaller tiles, when values outside [0, 1] are
        clipped, and when the processor emulates bf16.
    progress: called with (tiles done, tiles of this image) before the first tile and after each.

    Raises UserError for values that are not allowed.
    """

    device: torch.device = CPU
    tile: Tile = AUTO
    overlap: int | None = None
    ensemble: int = 1
    strength: float = 1.0
    precision: str = "float32"
    memory: int | None = None
    notify: Callable[[str], object] = print
    progress: Callable[[int, int], object] = no_progress

    def __post_init__(self) -> None:
        tile = self.tile if isinstance(self.tile, Tile) else Tile.parse(self.tile)
        object.__setattr__(self, "tile", tile)  # the dataclass is frozen
        object.__setattr__(self, "device", find_device(self.device))
        _check_overlap(self.overlap, tile)
        if self.ensemble not in (1, 8):
            raise UserError(f"The ensemble is {self.ensemble}; it may be 1 or 8.")
        if not (isinstance(self.strength, Real) and 0 <= self.strength <= 1):
            raise UserError(f"The strength is {self.strength!r}; it may be 0 to 1.")
        if self.memory is not None and not (isinstance(self.memory, Real) and self.memory > 0):
            raise UserError(f"The memory is {self.memory!r}; it must be a number of bytes above 0.")
        check_precision(self.precision, self.device)


def _check_overlap(overlap: Any, tile: Tile) -> None:
    if overlap is None:
        return
    if not isinstance(overlap, Integral):
        raise UserError(f"The overlap is {overlap!r}; it must be a number of pixels.")
    overlap = int(overlap)
    if overlap < 0:
        raise UserError(f"The overlap is {overlap}; it may not be negative.")
    most = min(tile.height, tile.width) // 2
    if not tile.word and overlap > most:
        raise UserError(
            f"An overlap of {overlap} does not fit tiles of {tile.height} x {tile.width}; it may "
            f"be 0 to {most}."
        )
