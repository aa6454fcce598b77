"""Restoring images of any size and type with a network that has size requirements.

    image -> tiles (utils/inference/tiling.py) -> network -> tiles blended -> image's own type

Small images are one tile. Larger ones are cut into overlapping tiles that are blended with smooth
ramps, so that memory is bounded by the tile and no seam shows. Operations over the whole map
(spectra, attention, means) see one tile at a time, so the result depends on the tile a little.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError
from utils.inference.memory import MemoryPlan
from utils.inference.tiling import (
    AUTO,
    DEFAULT_OVERLAP,
    MIN_TILE,
    Grid,
    Network,
    Tile,
    cheapest_grid,
    fixed_grid,
    legal_size,
    reflect_indices,
    released_grid,
    whole_grid,
)

MAX_BATCH = 64  # tiles at a time on a GPU; more of them do not keep it busier
# The largest tile on a CPU: measured, larger ones gain nothing there but take more memory.
CPU_TILE_PIXELS = 512**2
# An image of so few pixels is not asked for its memory.
ALWAYS_FITS = 256**2


def restore_image(network: Network, image: np.ndarray) -> np.ndarray:
    """The restored image: same size, channels and type (``Restorer`` with its defaults)."""
    return Restorer(network)(image)


class Restorer:
    """Restores images of any size with one network and fixed options.

    tile: how images are cut (``Tile``), or the word or number that ``Tile.parse`` takes.
    overlap: samples over which neighbouring tiles are blended, at most half a tile; by default
        32, and an eighth of the tiles of a network that has a ``best_tile``.
    ensemble: 8 averages the results over all flips and quarter turns, 1 does not.
    precision: ``"float32"``, or ``"bf16"`` for matrix products and convolutions in bfloat16.
    memory: bytes that this process may use; by default 4 GiB, or on CUDA 90% of what is free.
    notify: is told in a sentence when memory asks for smaller tiles.
    progress: is called with (tiles done, tiles of this image) after each tile.

    Where the device runs out of memory, smaller tiles are taken, also for the images that follow.
    """

    def __init__(
        self,
        network: Network,
        *,
        device: torch.device | str = "cpu",
        tile: Tile | int | str = AUTO,
        overlap: int | None = None,
        ensemble: int = 1,
        precision: str = "float32",
        memory: int | None = None,
        notify: Callable[[str], None] = print,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.tile = tile if isinstance(tile, Tile) else Tile.parse(tile)
        _check_options(self.tile, overlap, ensemble, precision)
        self.network = network
        self.device = torch.device(device)
        self.overlap = overlap
        self.ensemble = ensemble
        self.precision = precision
        self.notify = notify
        self.progress = progress
        self._memory = MemoryPlan(network, self.device, memory, self._probe)
        self._largest_batch = MAX_BATCH  # what the device turned out to hold
        # By an image's shape: the frames of a video take the same tiles, told once.
        self._grids: dict[tuple[int, ...], Grid] = {}

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The restored image, of the size, channels and type of the one given.

        ``image`` is gray (H, W), RGB (H, W, 3) or RGBA (H, W, 4) as uint8, uint16, or float32 in
        [0, 1]. Gray is restored as RGB and averaged back; alpha is kept as it is.
        """
        colours = image[..., None] if image.ndim == 2 else image[..., :3]
        restored = None
        while restored is None:
            if colours.shape not in self._grids:
                self._grids[colours.shape] = self._choose_grid(colours)
            grid = self._grids[colours.shape]
            # One context for all tiles: it casts the weights once.
            with self._autocast(), contextlib.suppress(torch.OutOfMemoryError):
                restored = self._restore_tiled(colours, grid)
            # Out here the exception no longer holds the tensors.
            if restored is None:
                self._make_smaller(grid)
        if image.ndim == 2:
            return restored[..., 0]
        return np.dstack([restored, image[..., 3:]])

    def _restore_tiled(self, image: np.ndarray, grid: Grid) -> np.ndarray:
        """(H, W, 1 or 3) to the same, tile by tile; a row of tiles is held in float32."""
        batch = self._tiles_at_a_time(grid)
        height, width, channels = image.shape
        rows, columns = grid.rows, grid.columns
        row_indices = reflect_indices(height, rows[-1].stop)
        column_indices = reflect_indices(width, columns[-1].stop)

        restored = np.empty_like(image)
        strip = np.zeros((grid.tile_height, columns[-1].stop, channels), np.float32)
        for i, row in enumerate(rows):
            for j in range(0, len(columns), batch):
                group = columns[j : j + batch]
                rainy = [
                    image[
                        row_indices[row.start : row.stop, None],
                        column_indices[column.start : column.stop],
                    ]
                    for column in group
                ]
                for column, part in zip(group, self._restore(np.stack(rainy)), strict=True):
                    weight = row.weight[:, None, None] * column.weight[:, None]
                    strip[:, column.start : column.stop] += weight * part
                self.progress(i * len(columns) + j + len(group), grid.num_tiles)
            # Rows above the next tile are done; those that it shares wait for it.
            done = (rows[i + 1].start if i + 1 < len(rows) else height) - row.start
            restored[row.start : row.start + done] = _from_float(strip[:done, :width], image.dtype)
            strip = np.concatenate([strip[done:], np.zeros_like(strip[:done])])
        return restored

    def _restore(self, rainy: np.ndarray) -> np.ndarray:
        """Tiles of a legal size, (B, h, w, 1 or 3) in their image's type, to float32."""
        x = torch.from_numpy(_to_float(rainy)).to(self.device).permute(0, 3, 1, 2)
        x = x.expand(-1, 3, -1, -1).contiguous()  # gray: three equal channels
        restored = self._ensemble(x).float()
        if rainy.shape[-1] == 1:
            restored = restored.mean(1, keepdim=True)
        return restored.permute(0, 2, 3, 1).cpu().numpy()

    def _ensemble(self, rainy: Tensor) -> Tensor:
        """The network's result, or its mean over the eight flips and quarter turns."""
        if self.ensemble == 1:
            return self.network.restore(rainy)
        total = torch.zeros_like(rainy)
        for turns in range(4):
            for dims in ([], [3]):
                turned = torch.rot90(rainy, turns, (2, 3)).flip(dims).contiguous()
                restored = self.network.restore(turned).flip(dims)
                total += torch.rot90(restored, -turns, (2, 3))
        return total / 8

    def _probe(self, rainy: Tensor) -> Tensor:
        with self._autocast():
            return self.network.restore(rainy)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def _choose_grid(self, image: np.ndarray) -> Grid:
        """How an image (H, W, 1 or 3) is cut."""
        network, (height, width) = self.network, image.shape[:2]
        if self.tile.word == "released":
            return released_grid(network, height, width)
        whole = whole_grid(network, height, width)
        overlap = DEFAULT_OVERLAP if self.overlap is None else self.overlap
        if self.tile.word == "auto":
            if network.best_tile is not None:
                overlap = network.best_tile // 8 if self.overlap is None else self.overlap
                most = min(1.25 * network.best_tile**2, self._memory.limit)
                return cheapest_grid(network, height, width, overlap, most)
            if whole.tile_pixels <= min(ALWAYS_FITS, self._memory.limit):
                return whole
            return self._fast_grid(image, whole, overlap)
        grid = whole
        if self.tile.word != "whole":
            grid = fixed_grid(network, height, width, self.tile, overlap)
        if grid.tile_pixels > self._memory.limit:
            return cheapest_grid(network, height, width, overlap, self._memory.limit)
        return grid

    def _fast_grid(self, image: np.ndarray, whole: Grid, overlap: int) -> Grid:
        """The fastest tiles that fit into memory; tells where that makes them smaller."""
        height, width = image.shape[:2]
        fitting = self._memory.pixels(image.nbytes)
        wanted = CPU_TILE_PIXELS if self.device.type == "cpu" else math.inf
        if whole.tile_pixels <= min(wanted, fitting):
            return whole
        grid = cheapest_grid(self.network, height, width, overlap, min(wanted, fitting))
        if fitting < min(wanted, self._memory.limit):
            self.notify(
                f"{width} x {height} pixels at once do not fit into memory; "
                f"taking tiles of {grid.tile_width} x {grid.tile_height}."
            )
        return grid

    def _tiles_at_a_time(self, grid: Grid) -> int:
        """One on a CPU, which gains nothing from more; elsewhere as many as fit."""
        if self.device.type == "cpu" or grid.num_tiles == 1:
            return 1
        return max(1, min(int(self._memory.pixels(0) / grid.tile_pixels), self._largest_batch))

    def _make_smaller(self, grid: Grid) -> None:
        """Remember that a grid was too much for the device: fewer tiles at a time come first.

        Raises UserError where the tile cannot be smaller.
        """
        batch = self._tiles_at_a_time(grid)
        if batch > 1:
            self._memory.empty_cache()
            self._largest_batch = batch // 2
            return
        if self.tile.word == "released" and self.network.released_window is not None:
            raise UserError(
                f"The released window of {self.network.released_window} pixels does not fit into "
                "the device's memory; close other programs or take --device cpu."
            )
        smallest = legal_size(self.network, MIN_TILE)
        if grid.tile_pixels <= smallest**2:
            raise UserError(
                f"Not even tiles of {grid.tile_width} x {grid.tile_height} pixels fit into the "
                "device's memory; close other programs or take --device cpu."
            )
        self._memory.halve(grid.tile_pixels)
        self._grids.clear()
        self.notify("The device ran out of memory; going on with smaller tiles.")


def _check_options(tile: Tile, overlap: int | None, ensemble: int, precision: str) -> None:
    """Raise UserError for options that cannot be meant."""
    if overlap is not None and overlap < 0:
        raise UserError(f"The overlap is {overlap}; it may not be negative.")
    most = min(tile.height, tile.width) // 2
    if overlap is not None and not tile.word and overlap > most:
        raise UserError(
            f"An overlap of {overlap} does not fit tiles of {tile.height} x {tile.width}; it may "
            f"be 0 to {most}."
        )
    if ensemble not in (1, 8):
        raise UserError(f"The ensemble is {ensemble}; it may be 1 or 8.")
    if precision not in ("float32", "bf16"):
        raise UserError(f"The precision is {precision!r}; it may be float32 or bf16.")


def _to_float(image: np.ndarray) -> np.ndarray:
    """Image values as float32 in [0, 1]; float values as they are."""
    if image.dtype == np.float32:
        return image
    return image.astype(np.float32) / np.iinfo(image.dtype).max


def _from_float(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Float values clipped to [0, 1] and rounded to an image type."""
    values = np.clip(values, 0, 1)
    if dtype == np.float32:
        return values
    return np.rint(values * np.iinfo(dtype).max).astype(dtype)
