"""Restoring images of any size and type with a network that has size requirements.

    image -> tiles (utils/inference/tiling.py) -> network -> tiles blended -> image's own type

Small images are one tile. Larger ones are cut into overlapping tiles that are blended with smooth
ramps, so that memory is bounded by the tile and no seam shows. Operations over the whole map
(spectra, attention, means) see one tile at a time, so the result depends on the tile a little.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import overload

import numpy as np
import torch
from torch import Tensor

from utils.devices import PRECISIONS, bf16_warning, find_device
from utils.errors import UserError
from utils.inference.memory import MemoryPlan, out_of_memory_suppressed
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

ARRAY_TYPES = (np.uint8, np.uint16, np.float32, np.float64)
TENSOR_TYPES = (torch.uint8, torch.uint16, torch.float32, torch.float64)
MAX_BATCH = 64  # tiles at a time on a GPU; more of them do not keep it busier
# The largest tile on a CPU: measured, larger ones gain nothing there but take more memory.
CPU_TILE_PIXELS = 512**2
# An image of so few pixels is not asked for its memory.
ALWAYS_FITS = 256**2


class Restorer:
    """Restores images of any size with one network and fixed options.

    device: where the network is.
    tile: how images are cut (``Tile``), or the word or number that ``Tile.parse`` takes.
    overlap: samples over which neighbouring tiles are blended, at most half a tile; by default
        32, and an eighth of the tiles of a network that has a ``best_tile``.
    ensemble: 8 averages the results over all flips and quarter turns, 1 does not.
    strength: 1 gives the network's result, 0 the image itself, values between a blend of both.
    precision: ``"float32"``, or ``"bf16"`` for matrix products and convolutions in bfloat16, or
        ``"fp16"`` for those in float16 on GPUs that compute no bfloat16.
    memory: bytes that this process may use; by default 4 GiB, or on CUDA 90% of what is free.
    notify: is told in a sentence when memory asks for smaller tiles, when values outside of [0, 1]
        are clipped, and when the processor emulates bf16.
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
        strength: float = 1.0,
        precision: str = "float32",
        memory: int | None = None,
        notify: Callable[[str], None] = print,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.tile = tile if isinstance(tile, Tile) else Tile.parse(tile)
        self.device = find_device(device)
        _check_options(self.tile, overlap, ensemble, strength, memory)
        check_precision(precision, self.device)
        if precision == "bf16" and (warning := bf16_warning(self.device)):
            notify(warning)
        self.network = network
        self.overlap = overlap
        self.ensemble = ensemble
        self.strength = strength
        self.precision = precision
        self.notify = notify
        self.progress = progress
        self._memory = MemoryPlan(network, self.device, memory, self._probe)
        self._largest_batch = MAX_BATCH  # what the device turned out to hold
        # By an image's shape: the frames of a video take the same tiles, told once.
        self._grids: dict[tuple[int, ...], Grid] = {}

    @overload
    def __call__(self, image: np.ndarray) -> np.ndarray: ...
    @overload
    def __call__(self, image: Tensor) -> Tensor: ...
    def __call__(self, image: np.ndarray | Tensor) -> np.ndarray | Tensor:
        """The restored image, of the size, channels and type of the one given.

        An array is gray (H, W), RGB (H, W, 3) or RGBA (H, W, 4); a tensor has the channels first,
        (C, H, W) or (B, C, H, W), and comes back on its device. Values are uint8, uint16, or
        float32 or float64 in [0, 1]. Gray is restored as RGB and averaged back; alpha is kept as
        it is. Raises UserError for anything else.
        """
        if not isinstance(image, Tensor):
            return self._restore_array(image)
        if (
            image.is_nested  # such a one has no shape to look at
            or image.layout != torch.strided  # sparse ones
            or image.is_meta
            or image.dtype not in TENSOR_TYPES
            or image.ndim not in (3, 4)
            or image.shape[-3] not in (1, 3, 4)
            or image.numel() == 0
        ):
            raise _refusal(image)
        images = image.detach().cpu().reshape(-1, *image.shape[-3:])
        restored = [
            self._restore_array(one.permute(1, 2, 0).contiguous().numpy()) for one in images
        ]
        stacked = torch.from_numpy(np.stack(restored)).permute(0, 3, 1, 2)
        return stacked.reshape(image.shape).contiguous().to(image.device)

    @torch.inference_mode()
    def _restore_array(self, image: np.ndarray) -> np.ndarray:
        image = self._checked(image)
        colours = image[..., None] if image.ndim == 2 else image[..., :3]
        restored = None
        while restored is None:
            if colours.shape not in self._grids:
                self._grids[colours.shape] = self.choose_grid(colours)
            grid = self._grids[colours.shape]
            # One context for all tiles: it casts the weights once.
            with self._autocast(), out_of_memory_suppressed():
                restored = self._restore_tiled(colours, grid)
            # Out here the exception no longer holds the tensors.
            if restored is None:
                self._make_smaller(grid)
        if image.ndim == 2:
            return restored[..., 0]
        return np.dstack([restored, image[..., 3:]])

    def _checked(self, image: np.ndarray) -> np.ndarray:
        """The image, with float values clipped; raises UserError for what is none."""
        if (
            not isinstance(image, np.ndarray)
            or isinstance(image, np.ma.MaskedArray)  # there is no value where it is masked
            or image.dtype.newbyteorder("=") not in ARRAY_TYPES
            or image.ndim not in (2, 3)
            or image.shape[2:] not in ((), (1,), (3,), (4,))
            or image.size == 0
        ):
            raise _refusal(image)
        # A plain array of this machine's byte order, also of a subclass such as np.matrix.
        image = np.asarray(image, image.dtype.newbyteorder("="))
        if image.dtype.kind != "f":
            return image
        low, high = float(image.min()), float(image.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise UserError("The image holds values that are not numbers or infinite.")
        if low >= 0 and high <= 1:
            return image
        self.notify(
            f"The image holds values from {low:g} to {high:g}; those outside 0 to 1 are clipped."
        )
        return image.clip(0, 1)

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
        if self.strength != 1:
            restored = x + self.strength * (restored - x)
        if not restored.isfinite().all():
            hint = "are these weights broken?" if self.precision == "float32" else "take float32."
            raise UserError(
                f"The network's result in {self.precision} holds values that are no numbers; {hint}"
            )
        if rainy.shape[-1] == 1:
            restored = restored.mean(1, keepdim=True)
        return restored.permute(0, 2, 3, 1).cpu().numpy()

    def _ensemble(self, rainy: Tensor) -> Tensor:
        """The network's result, or its mean over the eight flips and quarter turns."""
        if self.ensemble == 1:
            return self._run(rainy)
        total = torch.zeros_like(rainy)
        for turns in range(4):
            for dims in ([], [3]):
                turned = torch.rot90(rainy, turns, (2, 3)).flip(dims).contiguous()
                restored = self._run(turned).flip(dims)
                total += torch.rot90(restored, -turns, (2, 3))
        return total / 8

    def _run(self, rainy: Tensor) -> Tensor:
        try:
            return self.network.restore(rainy)
        except NotImplementedError as error:
            if self.device.type != "mps":
                raise
            raise UserError(
                "PyTorch cannot compute a part of this network on Apple's GPU; set the environment "
                "variable PYTORCH_ENABLE_MPS_FALLBACK=1, or take --device cpu."
            ) from error

    def _probe(self, rainy: Tensor) -> Tensor:
        with self._autocast():
            return self._run(rainy)

    def _autocast(self) -> torch.autocast:
        dtype = PRECISIONS[self.precision]
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)

    def choose_grid(self, image: np.ndarray) -> Grid:
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


def _check_options(
    tile: Tile, overlap: int | None, ensemble: int, strength: float, memory: int | None
) -> None:
    """Raise UserError for options that cannot be meant."""
    if overlap is not None and not isinstance(overlap, int):
        raise UserError(f"The overlap is {overlap!r}; it must be a number of pixels.")
    if memory is not None and not (isinstance(memory, (int, float)) and memory > 0):
        raise UserError(f"The memory is {memory!r}; it must be a number of bytes above 0.")
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
    if not (isinstance(strength, (int, float)) and 0 <= strength <= 1):
        raise UserError(f"The strength is {strength!r}; it may be 0 to 1.")


def check_precision(precision: str, device: torch.device) -> None:
    """Raise UserError for a precision that the device does not compute in."""
    if precision not in PRECISIONS:
        raise UserError(f"The precision is {precision!r}; it may be {', '.join(PRECISIONS)}.")
    if precision == "fp16" and device.type == "cpu":
        raise UserError("The precision fp16 is for GPUs; take bf16 or float32 on a CPU.")
    if (
        precision == "bf16"
        and device.type == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise UserError(f"{torch.cuda.get_device_name(device)} computes no bf16; take fp16.")


def _refusal(image: object) -> UserError:
    described = type(image).__name__
    if isinstance(image, Tensor) and image.is_nested:
        described = f"nested {described}"
    elif isinstance(image, (np.ndarray, Tensor)):
        described += f" of {image.dtype} and shape {tuple(image.shape)}"
    if isinstance(image, Tensor) and (image.is_meta or image.layout != torch.strided):
        described += " without values" if image.is_meta else f" ({image.layout})"
    return UserError(
        f"A {described} is no image; uint8, uint16, float32 and float64 are taken, as arrays "
        "(H, W), (H, W, 3) or (H, W, 4), or as tensors (C, H, W) or (B, C, H, W)."
    )


def _to_float(image: np.ndarray) -> np.ndarray:
    """Image values as float32 in [0, 1]."""
    if image.dtype.kind == "f":
        return image.astype(np.float32, copy=False)
    return image.astype(np.float32) / np.iinfo(image.dtype).max


def _from_float(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Float values clipped to [0, 1] and rounded to an image type."""
    values = np.clip(values, 0, 1)
    if dtype.kind == "f":
        return values.astype(dtype, copy=False)
    return np.rint(values * np.iinfo(dtype).max).astype(dtype)
