"""Restoring images of any size and type with a network that has size requirements.

    image -> padded by reflection -> tiles -> network -> tiles blended -> cropped, image's own type

Small images are one tile. Larger ones are cut into overlapping tiles that are blended with smooth
ramps, so that memory is bounded by the tile and no seam shows. Operations over the whole map
(spectra, attention, means) see one tile at a time, so the result depends on the tile a little.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError
from utils.inference.memory import peak_tensor_bytes

# Tiles start at multiples of this, so that the poolings of every network (DCSFN's reach 32 pixels)
# fall on the same pixels as in the whole image.
TILE_STEP = 32
MIN_TILE = 64
DEFAULT_OVERLAP = 32
DEFAULT_MEMORY = 4 * 2**30
MAX_BATCH = 64  # tiles at a time on a GPU; more of them do not keep it busier

# The side of the image that tells how much memory a network takes a pixel, and the number of pixels
# for which that is not asked.
PROBE_SIZE = 128
ALWAYS_FITS = 256**2

# What a process takes besides the tensors of a network: PyTorch, the weights.
FIXED_MEMORY = 2**29
# Bytes that a network really takes for each byte of its living tensors: scratch memory inside
# operators and gaps in the heap; measured 1.1 to 2.0 over all networks.
MEMORY_FACTOR = 2.0


class Network(Protocol):
    """What restoring needs of a network; ``models.network.DerainingNetwork`` offers it."""

    size_multiple: ClassVar[int]
    min_size: ClassVar[int]
    released_window: ClassVar[int | None]
    best_tile: ClassVar[int | None]

    def restore(self, rainy: Tensor) -> Tensor:
        """(B, 3, H, W), RGB in [0, 1], H and W legal, to the restored images of the same shape."""
        ...


def legal_size(network: Network, size: int) -> int:
    """The smallest height or width of at least ``size`` that the network takes."""
    multiple = network.size_multiple
    return -(-max(size, network.min_size) // multiple) * multiple


def reflect_indices(length: int, wanted: int) -> np.ndarray:
    """The indices that continue ``length`` samples to ``wanted`` by reflection, (wanted,) int64.

    The edge sample is not repeated; where one reflection is too short the samples go on to and
    fro, so any length is enough: 3 samples to 8 are 0 1 2 1 0 1 2 1.
    """
    period = max(2 * (length - 1), 1)
    position = np.arange(wanted) % period
    return np.minimum(position, period - position) if length > 1 else position


@torch.inference_mode()
def restore_tensor(network: Network, rainy: Tensor) -> Tensor:
    """Restored images, (B, 3, H, W), of rainy ones of any size from 1 x 1, RGB in [0, 1].

    Pads by reflection at the bottom and the right to what the network takes and crops back. The
    result is not clipped.
    """
    height, width = rainy.shape[-2:]
    rows = reflect_indices(height, legal_size(network, height))
    columns = reflect_indices(width, legal_size(network, width))
    padded = rainy
    if len(rows) != height:
        padded = padded[..., torch.from_numpy(rows).to(rainy.device), :]
    if len(columns) != width:
        padded = padded[..., torch.from_numpy(columns).to(rainy.device)]
    return network.restore(padded)[..., :height, :width]


def restore_image(network: Network, image: np.ndarray) -> np.ndarray:
    """The restored image: same size, channels and type (``Restorer`` with its defaults)."""
    return Restorer(network)(image)


@dataclass(frozen=True)
class Span:
    """A tile's place along one axis: samples start to stop, and how much it counts in each.

    ``weight`` is (stop - start,) float32; over all spans of an axis the weights of every sample
    add up to 1.
    """

    start: int
    stop: int
    weight: np.ndarray


def blended_spans(length: int, tile: int, overlap: int) -> list[Span]:
    """Evenly spread tiles over ``length`` samples, blended over up to ``overlap`` samples.

    ``length`` and ``tile`` are multiples of TILE_STEP; ``overlap`` is at most half of ``tile``.
    A tile that is as long as the axis is alone.
    """
    if tile >= length:
        return [Span(0, length, np.ones(length, np.float32))]
    stride = max((tile - overlap) // TILE_STEP, 1) * TILE_STEP
    count = -(-(length - tile) // stride)  # of the tiles behind the first
    steps = (length - tile) // TILE_STEP
    starts = [steps * i // count * TILE_STEP for i in range(count + 1)]

    # Where tiles meet, the next one takes over by a half cosine in the middle of what they share.
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

    Where the last one overlaps its neighbour, it gives only the samples that are missing.
    """
    starts = [*range(0, length - window, window), max(length - window, 0)]
    spans, covered = [], 0
    for start in starts:
        weight = (np.arange(start, start + window) >= covered).astype(np.float32)
        spans.append(Span(start, start + window, weight))
        covered = start + window
    return spans


class Restorer:
    """Restores images of any size with one network and fixed options.

    tile: ``"auto"`` takes the network's ``best_tile`` if it has one; else the whole image at once
        where its tensors fit into ``memory`` bytes, and otherwise the largest tile that does;
        ``"whole"`` never cuts; ``"released"`` cuts the windows that the network's authors test
        with; a number is the side of the tiles.
    overlap: samples over which neighbouring tiles are blended, at most half a tile.
    ensemble: 8 averages the results over all flips and quarter turns, 1 does not.
    precision: ``"float32"``, or ``"bf16"`` for matrix products and convolutions in bfloat16.
    memory: bytes that this process may use; by default 4 GiB, or on CUDA 90% of what is free.
    notify: is told in a sentence when tiles were chosen here.
    progress: is called with (tiles done, tiles of this image) after each tile.

    On CUDA a tile that does not fit is halved, also for the images that follow.
    """

    def __init__(
        self,
        network: Network,
        *,
        device: torch.device | str = "cpu",
        tile: int | str = "auto",
        overlap: int = DEFAULT_OVERLAP,
        ensemble: int = 1,
        precision: str = "float32",
        memory: int | None = None,
        notify: Callable[[str], None] = print,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        _check_options(tile, overlap, ensemble, precision)
        self.network = network
        self.device = torch.device(device)
        self.tile = tile
        self.overlap = overlap
        self.ensemble = ensemble
        self.precision = precision
        self.memory = memory
        self.notify = notify
        self.progress = progress
        # What the device turned out to hold.
        self._largest_tile: int | None = None
        self._largest_batch = MAX_BATCH
        self._bytes_per_pixel: float | None = None
        # By an image's shape: the frames of a video take the same tiles, told once.
        self._chosen_tiles: dict[tuple[int, ...], int | str] = {}

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The restored image, of the size, channels and type of the one given.

        ``image`` is gray (H, W), RGB (H, W, 3) or RGBA (H, W, 4) as uint8, uint16, or float32 in
        [0, 1]. Gray is restored as RGB and averaged back; alpha is kept as it is.
        """
        colours = image[..., None] if image.ndim == 2 else image[..., :3]
        tile = self._tile_for(colours)
        restored = None
        while restored is None:
            # One context for all tiles: it casts the weights once.
            with self._autocast(), contextlib.suppress(torch.OutOfMemoryError):
                restored = self._restore_tiled(colours, tile)
            # Out here the exception no longer holds the tensors.
            if restored is None:
                tile = self._halved(tile, colours)
        if image.ndim == 2:
            return restored[..., 0]
        return np.dstack([restored, image[..., 3:]])

    def _restore_tiled(self, image: np.ndarray, tile: int | str) -> np.ndarray:
        """(H, W, 1 or 3) to the same, tile by tile; a row of tiles is held in float32."""
        batch = self._tiles_at_a_time(tile)
        height, width, channels = image.shape
        rows, columns = self._spans(height, tile), self._spans(width, tile)
        row_indices = reflect_indices(height, rows[-1].stop)
        column_indices = reflect_indices(width, columns[-1].stop)

        restored = np.empty_like(image)
        strip = np.zeros((rows[0].stop, columns[-1].stop, channels), np.float32)
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
                self.progress(i * len(columns) + j + len(group), len(rows) * len(columns))
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

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def _spans(self, length: int, tile: int | str) -> list[Span]:
        """The tiles along an axis of ``length`` samples; the last may reach beyond the end."""
        if tile == "released":
            assert self.network.released_window is not None
            return window_spans(length, self.network.released_window)
        whole = legal_size(self.network, length)
        if tile == "whole" or tile >= whole:
            return blended_spans(whole, whole, 0)
        multiple = math.lcm(TILE_STEP, self.network.size_multiple)
        return blended_spans(-(-whole // multiple) * multiple, tile, min(self.overlap, tile // 2))

    def _tile_for(self, image: np.ndarray) -> int | str:
        """The tile for this image: a legal size, "whole" or "released"."""
        if self.tile == "released":
            return "whole" if self.network.released_window is None else "released"
        if isinstance(self.tile, int):
            return self._legal_tile(min(self.tile, self._largest_tile or self.tile))
        height, width = (legal_size(self.network, size) for size in image.shape[:2])
        if self._largest_tile is not None and max(height, width) > self._largest_tile:
            return self._largest_tile
        if self.tile == "whole":
            return "whole"

        if self.network.best_tile is not None:
            return self._legal_tile(self.network.best_tile)
        if height * width <= ALWAYS_FITS:
            return "whole"
        if image.shape not in self._chosen_tiles:
            self._chosen_tiles[image.shape] = self._choose_tile(image, height * width)
        return self._chosen_tiles[image.shape]

    def _choose_tile(self, image: np.ndarray, num_pixels: int) -> int | str:
        """The largest tile that fits, for an image that is padded to ``num_pixels``."""
        pixels = self._pixels_that_fit(image.nbytes)
        if num_pixels <= pixels:
            return "whole"
        tile = self._legal_tile(max(int(math.sqrt(pixels)) // TILE_STEP * TILE_STEP, MIN_TILE))
        self.notify(
            f"{image.shape[1]} x {image.shape[0]} pixels at once do not fit into memory; "
            f"taking tiles of {tile}."
        )
        return tile

    def _tiles_at_a_time(self, tile: int | str) -> int:
        """One on a CPU, which gains nothing from more; elsewhere as many as fit."""
        if self.device.type == "cpu" or tile == "whole":
            return 1
        side = self.network.released_window if tile == "released" else tile
        return max(1, min(int(self._pixels_that_fit(0) / side**2), self._largest_batch))

    def _legal_tile(self, tile: int) -> int:
        """``tile`` rounded up to what both the network and the grid of tiles allow."""
        multiple = math.lcm(TILE_STEP, self.network.size_multiple)
        return -(-max(tile, self.network.min_size) // multiple) * multiple

    def _pixels_that_fit(self, image_bytes: int) -> float:
        """How many pixels the network can take at once."""
        if self._bytes_per_pixel is None:
            side = legal_size(self.network, PROBE_SIZE)
            peak = math.inf  # where not even the probe fits; then the smallest tile may
            with self._autocast(), contextlib.suppress(torch.OutOfMemoryError):
                peak = peak_tensor_bytes(
                    lambda: self.network.restore(torch.rand(1, 3, side, side, device=self.device))
                )
            self._bytes_per_pixel = MEMORY_FACTOR * peak / side**2
        if self.memory is None and self.device.type == "cuda":
            unused = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(
                self.device
            )
            free = 0.9 * (torch.cuda.mem_get_info(self.device)[0] + unused)
        else:
            # The image itself, its result, one that is being read and two being written.
            free = (self.memory or DEFAULT_MEMORY) - FIXED_MEMORY - 5 * image_bytes
        return max(free, 0) / self._bytes_per_pixel

    def _halved(self, tile: int | str, image: np.ndarray) -> int | str:
        """The tile to go on with after the device ran out of memory; remembered.

        Fewer tiles at a time come first. Raises UserError where the tile cannot be smaller.
        """
        torch.cuda.empty_cache()
        batch = self._tiles_at_a_time(tile)
        if batch > 1:
            self._largest_batch = batch // 2
            return tile
        if tile == "released":
            raise UserError(
                f"The released window of {self.network.released_window} pixels does not fit into "
                "the device's memory; close other programs or take --device cpu."
            )
        side = max(image.shape[:2]) if tile == "whole" else tile
        smaller = self._legal_tile(side // 2)
        if smaller >= side:
            raise UserError(
                f"Not even tiles of {side} pixels fit into the device's memory; close other "
                "programs or take --device cpu."
            )
        self._largest_tile = smaller
        self.notify(f"The device ran out of memory; going on with tiles of {smaller}.")
        return smaller


def _check_options(tile: int | str, overlap: int, ensemble: int, precision: str) -> None:
    """Raise UserError for options that cannot be meant."""
    if isinstance(tile, int):
        if tile < MIN_TILE:
            raise UserError(f"A tile of {tile} pixels is too small; take at least {MIN_TILE}.")
        if not 0 <= overlap <= tile // 2:
            raise UserError(
                f"An overlap of {overlap} does not fit tiles of {tile}; it may be 0 to {tile // 2}."
            )
    elif tile not in ("auto", "whole", "released"):
        raise UserError(f"The tile is {tile!r}; it may be auto, whole, released or a number.")
    if overlap < 0:
        raise UserError(f"The overlap is {overlap}; it may not be negative.")
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
