"""Video frames between their stored form, Y'CbCr in 8 to 16 bits, and RGB in [0, 1].

FFmpeg's converter is off by up to one level in some cases (full range, 16 bits), so this file uses
the formula of the standards in float32:

    Y' = kr R' + (1 - kr - kb) G' + kb B'
    Cb = (B' - Y') / (2 - 2 kb),  Cr = (R' - Y') / (2 - 2 kr)

Limited range stores Y' in 16..235 and colours in 16..240, full range both in 0..255, times
2^(bits - 8). Subsampled colours are interpolated linearly on reading. Writing takes the samples
whose interpolation is closest to the picture, so writing what was read changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.linalg import solveh_banded
from scipy.sparse import csr_matrix

# Matrix number in H.264, H.265 and FFmpeg (ITU-T H.273, table 4) -> (kr, kb).
MATRICES = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.601, 625 lines
    6: (0.299, 0.114),  # BT.601, 525 lines
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020
    10: (0.2627, 0.0593),  # BT.2020 with constant luminance, which FFmpeg reads the same way
}
BT709, BT601 = 1, 5


@dataclass(frozen=True)
class Layout:
    """How a frame is stored.

    matrix: a key of MATRICES.
    full: full range; else limited.
    bits: per value, 8 to 16.
    across, down: luma samples per colour sample along a row and along a column; 1, 2 or 4.
    """

    matrix: int
    full: bool
    bits: int = 8
    across: int = 2
    down: int = 2

    @property
    def pixel_format(self) -> str:
        """FFmpeg's name."""
        kind = {(1, 1): "444", (1, 2): "440", (2, 1): "422", (2, 2): "420", (4, 1): "411"}
        depth = "" if self.bits == 8 else f"{self.bits}le"
        return f"yuv{kind[self.across, self.down]}p{depth}"

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8 if self.bits == 8 else np.uint16)


def to_rgb(planes: list[np.ndarray], layout: Layout) -> np.ndarray:
    """Stored planes, Y (H, W) and Cb, Cr (ceil(H / down), ceil(W / across)), as RGB.

    A single plane is a gray picture. Returns (H, W, 3) float32, clipped to [0, 1].
    """
    offset, luma_size, colour_size = _scales(layout)
    luma = (planes[0].astype(np.float32) - offset) / luma_size
    if len(planes) == 1:
        return np.repeat(luma[..., None], 3, axis=2).clip(0, 1)
    kr, kb = MATRICES[layout.matrix]
    middle = np.float32(128 << (layout.bits - 8))
    height, width = luma.shape
    down = _interpolation(height, layout.down, cosited=False)
    across = _interpolation(width, layout.across, cosited=True)
    blue, red = (
        (across @ (down @ ((plane.astype(np.float32) - middle) / colour_size)).T).T
        for plane in planes[1:3]
    )
    rgb = np.empty((height, width, 3), np.float32)
    rgb[..., 0] = luma + (2 - 2 * kr) * red
    rgb[..., 2] = luma + (2 - 2 * kb) * blue
    rgb[..., 1] = (luma - kr * rgb[..., 0] - kb * rgb[..., 2]) / (1 - kr - kb)
    return rgb.clip(0, 1)


def from_rgb(rgb: np.ndarray, layout: Layout) -> list[np.ndarray]:
    """(H, W, 3) float32 in [0, 1] as the three planes, rounded; see ``to_rgb``."""
    kr, kb = MATRICES[layout.matrix]
    offset, luma_size, colour_size = _scales(layout)
    luma = kr * rgb[..., 0] + (1 - kr - kb) * rgb[..., 1] + kb * rgb[..., 2]
    blue = (rgb[..., 2] - luma) / (2 - 2 * kb)
    red = (rgb[..., 0] - luma) / (2 - 2 * kr)
    middle = 128 << (layout.bits - 8)
    planes = [luma * luma_size + offset]
    for colour in (blue, red):
        fewer = _fit(_fit(colour, layout.down, cosited=False).T, layout.across, cosited=True).T
        planes.append(fewer * colour_size + middle)
    top = (1 << layout.bits) - 1
    return [np.rint(plane).clip(0, top).astype(layout.dtype) for plane in planes]


def _scales(layout: Layout) -> tuple[float, float, float]:
    """The value of black, the range of luma, and the range of colours (-1/2 to 1/2)."""
    if layout.full:
        return 0, (1 << layout.bits) - 1, (1 << layout.bits) - 1
    step = 1 << (layout.bits - 8)
    return 16 * step, 219 * step, 224 * step


@lru_cache(maxsize=8)
def _interpolation(length: int, factor: int, *, cosited: bool) -> csr_matrix:
    """The matrix (length, ceil(length / factor)) that interpolates colours linearly to all samples.

    H.264 and its relatives place a colour sample on the first of its luma samples along a row
    (``cosited``), and in the middle of them along a column. At the borders, the outermost sample is
    repeated.
    """
    num = -(-length // factor)
    start = 0 if cosited else (factor - 1) / 2
    position = ((np.arange(length) - start) / factor).clip(0, num - 1)
    left = position.astype(int)
    right = np.minimum(left + 1, num - 1)
    weight = (position - left).astype(np.float32)
    samples = np.arange(length)
    return csr_matrix(
        (np.r_[1 - weight, weight], (np.r_[samples, samples], np.r_[left, right])), (length, num)
    )


def _fit(colour: np.ndarray, factor: int, *, cosited: bool) -> np.ndarray:
    """The (ceil(H / factor), W) samples whose interpolation is closest to ``colour``, (H, W).

    Least squares: the normal matrix couples only neighbours, so it has two distinct diagonals.
    """
    if factor == 1:
        return colour
    wanted = _interpolation(len(colour), factor, cosited=cosited).T @ colour
    bands = _normal_bands(len(colour), factor, cosited=cosited)
    return solveh_banded(bands, wanted) if len(wanted) > 1 else wanted / bands[1]


@lru_cache(maxsize=8)
def _normal_bands(length: int, factor: int, *, cosited: bool) -> np.ndarray:
    """Upper and main diagonal of the normal matrix of ``_interpolation``, (2, num)."""
    matrix = _interpolation(length, factor, cosited=cosited)
    normal = (matrix.T @ matrix).toarray()
    return np.stack([np.r_[0, np.diag(normal, 1)], np.diag(normal)]).astype(np.float32)
