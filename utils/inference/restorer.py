"""Restoring images of any size and type with a network that has size requirements.

    image -> tiles (utils/inference/tiling.py) -> network -> tiles blended -> image's own type

Small images are one tile. Larger ones are cut into overlapping tiles that are blended with smooth
ramps, so that memory is bounded by the tile and no seam shows. Operations over the whole map
(spectra, attention, means) see one tile at a time, so the result depends slightly on the tile.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from utils.devices import PRECISIONS, bf16_warning
from utils.errors import UserError
from utils.inference.memory import MemoryPlan, out_of_memory_suppressed
from utils.inference.options import RestoringOptions
from utils.inference.tiling import (
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
# An image of at most so many pixels is restored without measuring the memory it takes.
ALWAYS_FITS = 256**2


class Restorer:
    """Restores images of any size with one network and fixed options.

    options: how (``RestoringOptions``); its fields may also be given by name, as in
        ``Restorer(network, device="cuda", tile=256)``.

    The network restores in eval mode and is left in the mode it was in. Where the device runs out
    of memory, smaller tiles are taken, also for the images that follow. ``options`` may be replaced
    between images, except for the device and the memory.
    """

    def __init__(
        self, network: Network, options: RestoringOptions | None = None, **named: Any
    ) -> None:
        self.options = replace(options or RestoringOptions(), **named)
        self.network = network
        self.device = self.options.device
        if self.options.precision == "bf16" and (warning := bf16_warning(self.device)):
            self.options.notify(warning)
        self._memory = MemoryPlan(network, self.device, self.options.memory, self._probe)
        self._largest_batch = MAX_BATCH  # what the device turned out to hold
        # Kept by what decides them: the frames of a video share their tiles and one report.
        self._grids: dict[tuple[Tile, int | None, tuple[int, ...]], Grid] = {}

    @overload
    def __call__(self, image: np.ndarray) -> np.ndarray: ...
    @overload
    def __call__(self, image: Tensor) -> Tensor: ...
    def __call__(self, image: np.ndarray | Tensor) -> np.ndarray | Tensor:
        """The restored image, with the size, channels and type of the one given.

        An array is gray (H, W), RGB (H, W, 3) or RGBA (H, W, 4); a tensor has the channels first,
        (C, H, W) or (B, C, H, W), and the result is on its device. Values are uint8, uint16, or
        float32 or float64 in [0, 1]. Gray is restored as RGB and averaged back; alpha stays as it
        is. Raises UserError for anything else.
        """
        if not isinstance(image, Tensor):
            return self._restore_array(image)
        if (
            image.is_nested  # such a tensor has no shape to look at
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
            grid = self.choose_grid(colours)
            # One context for all tiles, so that the weights are cast once.
            with _evaluating(self.network), self._autocast(), out_of_memory_suppressed():
                restored = self._restore_tiled(colours, grid)
            # Out here the exception no longer holds the tensors.
            if restored is None:
                self._make_smaller(grid)
        if image.ndim == 2:
            return restored[..., 0]
        return np.dstack([restored, image[..., 3:]])

    def _checked(self, image: np.ndarray) -> np.ndarray:
        """The image, with float values clipped. Raises UserError for anything but an image."""
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
            raise UserError("The image holds values that are NaN or infinite.")
        if low >= 0 and high <= 1:
            return image
        self.options.notify(
            f"The image holds values from {low:g} to {high:g}; those outside 0 to 1 are clipped."
        )
        return image.clip(0, 1)

    def _restore_tiled(self, image: np.ndarray, grid: Grid) -> np.ndarray:
        """(H, W, 1 or 3) to the same, tile by tile.

        Tiles are converted, blended and rounded on the device, where a row of them is held in
        float32. Copies to and from a GPU are queued, so that the one wait is at the end.
        """
        batch = self._tiles_at_a_time(grid)
        height, width, channels = image.shape
        rows, columns = grid.rows, grid.columns
        source = self._on_host(image)
        # What is not pinned is uploaded before the first computation, for which it would wait.
        all_rows = reflect_indices(height, rows[-1].stop)
        needed = [all_rows[row.start : row.stop] for row in rows]
        bands = [(part.min(), part.max() + 1, self._uploaded(part - part.min())) for part in needed]
        column_indices = self._uploaded(reflect_indices(width, columns[-1].stop))
        row_weights = [self._uploaded(row.weight)[:, None, None] for row in rows]
        column_weights = [self._uploaded(column.weight)[:, None] for column in columns]

        restored = torch.empty(image.shape, dtype=source.dtype, pin_memory=self._is_cuda)
        strip = torch.zeros(
            (grid.tile_height, columns[-1].stop, channels), device=self.device, dtype=torch.float32
        )
        self.options.progress(0, grid.num_tiles)
        is_finite = torch.ones((), dtype=torch.bool, device=self.device)
        for i, row in enumerate(rows):
            first, stop, indices = bands[i]
            band = source[first:stop].to(self.device, non_blocking=self._is_cuda)[indices]
            for j in range(0, len(columns), batch):
                group = range(j, min(j + batch, len(columns)))
                rainy = [band[:, column_indices[columns[k].start : columns[k].stop]] for k in group]
                parts = self._restore(torch.stack(rainy))
                is_finite &= parts.isfinite().all()
                for k, part in zip(group, parts, strict=True):
                    place = strip[:, columns[k].start : columns[k].stop]
                    place += row_weights[i] * column_weights[k] * part
                self.options.progress(i * len(columns) + group.stop, grid.num_tiles)
            # Rows above the next tile are done; those that it shares wait for it.
            done = (rows[i + 1].start if i + 1 < len(rows) else height) - row.start
            restored[row.start : row.start + done].copy_(
                _to_type(strip[:done, :width], image.dtype, source.dtype),
                non_blocking=self._is_cuda,
            )
            strip = torch.cat([strip[done:], torch.zeros_like(strip[:done])])
        if not is_finite:  # waits for all that was queued
            precision = self.options.precision
            hint = "are these weights broken?" if precision == "float32" else "take float32."
            raise UserError(f"The network's result in {precision} is NaN or infinite; {hint}")
        return restored.numpy().astype(image.dtype, copy=False)

    @property
    def _is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def _on_host(self, image: np.ndarray) -> Tensor:
        """An image as it travels to the device: bytes, or float32 in [0, 1]; pinned for CUDA."""
        if image.dtype == np.uint16:
            image = image.astype(np.float32) / 65535
        elif image.dtype != np.uint8:
            image = image.astype(np.float32, copy=False)
        image = np.require(image, requirements=["C", "W"])  # what PyTorch shares
        tensor = torch.from_numpy(image)
        return tensor.pin_memory() if self._is_cuda else tensor

    def _uploaded(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def _restore(self, rainy: Tensor) -> Tensor:
        """Tiles of a legal size on the device, (B, h, w, 1 or 3), to float32 of the same shape."""
        x = rainy.float() / 255 if rainy.dtype == torch.uint8 else rainy
        x = x.permute(0, 3, 1, 2)
        x = x.expand(-1, 3, -1, -1).contiguous()  # gray: three equal channels
        restored = self._ensemble(x).float()
        if self.options.strength != 1:
            restored = x + float(self.options.strength) * (restored - x)
        if rainy.shape[-1] == 1:
            restored = restored.mean(1, keepdim=True)
        return restored.permute(0, 2, 3, 1)

    def _ensemble(self, rainy: Tensor) -> Tensor:
        """The network's result, or its mean over the eight flips and quarter turns."""
        if self.options.ensemble == 1:
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
        dtype = PRECISIONS[self.options.precision]
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)

    def settings_for(self, height: int, width: int) -> dict[str, object]:
        """All that decides the pixels of a result besides network and image, by name.

        Neither the device nor the memory is among them, but the tile that they lead to is.
        """
        options, grid = self.options, self.choose_grid(np.empty((height, width, 3), np.float32))
        return {
            "tile": f"{grid.tile_height}x{grid.tile_width}",
            "rows": [row.start for row in grid.rows],
            "columns": [column.start for column in grid.columns],
            "overlap": options.overlap,
            "ensemble": options.ensemble,
            "strength": float(options.strength),
            "precision": options.precision,
        }

    def choose_grid(self, image: np.ndarray) -> Grid:
        """How an image (H, W, 1 or 3) is cut; the same for all images of its shape."""
        key = (self.options.tile, self.options.overlap, image.shape)
        if key not in self._grids:
            self._grids[key] = self._new_grid(image)
        return self._grids[key]

    def _new_grid(self, image: np.ndarray) -> Grid:
        network, (height, width) = self.network, image.shape[:2]
        overlap = self.options.overlap
        if self.options.tile.word == "released":
            return released_grid(network, height, width)
        whole = whole_grid(network, height, width)
        usual_overlap = DEFAULT_OVERLAP if overlap is None else overlap
        if self.options.tile.word == "auto":
            if network.best_tile is not None:
                overlap = network.best_tile // 8 if overlap is None else overlap
                most = min(1.25 * network.best_tile**2, self._memory.limit)
                return cheapest_grid(network, height, width, overlap, most)
            if whole.tile_pixels <= min(ALWAYS_FITS, self._memory.limit):
                return whole
            return self._fast_grid(image, whole, usual_overlap)
        grid = whole
        if self.options.tile.word != "whole":
            grid = fixed_grid(network, height, width, self.options.tile, usual_overlap)
        if grid.tile_pixels > self._memory.limit:
            return cheapest_grid(network, height, width, usual_overlap, self._memory.limit)
        return grid

    def _fast_grid(self, image: np.ndarray, whole: Grid, overlap: int) -> Grid:
        """The fastest tiles that fit into memory; reports if that makes them smaller."""
        height, width = image.shape[:2]
        fitting = self._memory.pixels(image.nbytes)
        wanted = CPU_TILE_PIXELS if self.device.type == "cpu" else math.inf
        if whole.tile_pixels <= min(wanted, fitting):
            return whole
        grid = cheapest_grid(self.network, height, width, overlap, min(wanted, fitting))
        if fitting < min(wanted, self._memory.limit):
            self.options.notify(
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
        """Remember that a grid does not fit into the device's memory.

        Fewer tiles at a time are tried first, then smaller ones. Raises UserError where the tile
        cannot be smaller.
        """
        batch = self._tiles_at_a_time(grid)
        if batch > 1:
            self._memory.empty_cache()
            self._largest_batch = batch // 2
            return
        if self.options.tile.word == "released" and self.network.released_window is not None:
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
        self.options.notify("The device ran out of memory; continuing with smaller tiles.")


def _refusal(image: object) -> UserError:
    described = type(image).__name__
    if isinstance(image, Tensor) and image.is_nested:
        described = f"nested {described}"
    elif isinstance(image, (np.ndarray, Tensor)):
        described += f" of {image.dtype} and shape {tuple(image.shape)}"
    if isinstance(image, Tensor) and (image.is_meta or image.layout != torch.strided):
        described += " without values" if image.is_meta else f" ({image.layout})"
    return UserError(
        f"A {described} is not an image; it must hold uint8, uint16, float32 or float64 as an "
        "array (H, W), (H, W, 3) or (H, W, 4), or as a tensor (C, H, W) or (B, C, H, W)."
    )


def _to_type(values: Tensor, dtype: np.dtype, stored: torch.dtype) -> Tensor:
    """Float values clipped to [0, 1] and rounded to an image type, in the type they travel as."""
    values = values.clamp(0, 1)
    if dtype.kind != "f":
        values = (values * np.iinfo(dtype).max).round()
    return values.to(stored)


@contextlib.contextmanager
def _evaluating(network: object) -> Iterator[None]:
    """Eval mode; afterwards every part is in the mode it was in."""
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
