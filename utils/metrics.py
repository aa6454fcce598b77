"""PSNR and SSIM as the field's scoring scripts compute them.

Papers report scores under five protocols that differ by up to 3 dB and 0.03 SSIM on the same
images, so a score without its protocol means nothing:

* ``rain13k``: the MATLAB script of MSPFN and MPRNet, also used by DMSR. Y of ``rgb2ycbcr`` on
  uint8, rounded; peak 255.
* ``did``: the MATLAB scripts of PReNet, RCDNet and NeRD-Rain. Y unrounded; SSIM after the
  automatic downsampling of the SSIM authors' script.
* ``rgb``: DCSFN's eval.py. All three channels, SSIM over zero-padded borders.
* ``hq_rain``: the Python script of HQ-RAIN, 4K-Rain13k, UAV-Rain1k and WeatherBench. Y unrounded,
  without the outermost four pixels.
* ``raindrop``: DeRaindrop's Python script. OpenCV's luma, scikit-image's PSNR and SSIM.

SSIM is Wang, Bovik, Sheikh and Simoncelli 2004 throughout, with an 11x11 Gaussian window except
under ``raindrop``, whose window is 7x7 and uniform. Pixels are scored as the saved 8-bit files hold
them; all arithmetic is float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from utils.errors import UserError
from utils.wording import size_text

# Protocol -> its description in the captions of tables.
PROTOCOLS = {
    "rain13k": "Y channel (BT.601, 16 to 235), rounded to 8 bits; SSIM on Y",
    "did": "Y channel (BT.601, 16 to 235), not rounded; SSIM on Y, downsampled where the shorter "
    "side is 384 px or more",
    "rgb": "R, G and B together; SSIM with zero-padded borders; 100 dB for identical images",
    "hq_rain": "Y channel (BT.601, 16 to 235), not rounded, without the outermost 4 px; SSIM on Y",
    "raindrop": "OpenCV's luma (0 to 255), rounded to 8 bits, sides cut to multiples of 4; SSIM "
    "with a uniform 7x7 window",
}

PEAK = 255.0
HQ_RAIN_BORDER = 4  # pixels that hq_rain cuts off each side
RAINDROP_MULTIPLE = 4  # raindrop cuts the sides to multiples of this many pixels

_C1, _C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
# SSIM is computed in stripes of this many window positions: the temporaries stay in the CPU's cache
# (three times as fast), and memory does not grow with the image's height.
_STRIPE_ROWS = 64

# BT.601's luma weights for channels in 0..255 and output in 0..219, in thousandths of 1/255, so
# that all sums are exact integers: 255 * 1000 * (Y - 16).
_LUMA = (65481.0, 128553.0, 24966.0)
_LUMA_SCALE = 255_000.0


class Score(NamedTuple):
    """PSNR in dB (identical images: ``inf``, or 100 under ``rgb``) and SSIM (at most 1)."""

    psnr: float
    ssim: float


def score(restored: np.ndarray, clean: np.ndarray, protocol: str = "rain13k") -> Score:
    """PSNR and SSIM of a restored image against the clean one.

    Both are uint8, (H, W, 3) RGB or (H, W) gray. A gray pair is scored on its values as they are;
    if only one of the two is gray, it counts as three equal channels. Raises UserError for
    different sizes and, in all protocols but ``rgb``, for sides shorter than SSIM's window (after
    the protocol's own cut); ValueError for other arrays and for an unknown protocol.
    """
    if protocol not in _SCORERS:
        raise ValueError(f"There is no protocol {protocol!r}; choose from {', '.join(PROTOCOLS)}.")
    for image in (restored, clean):
        if image.dtype != np.uint8 or image.shape[2:] not in ((), (3,)) or image.ndim < 2:
            raise ValueError(
                f"An image must be uint8, (H, W, 3) or (H, W), not {image.dtype} {image.shape}."
            )
    if restored.shape[:2] != clean.shape[:2]:
        raise UserError(
            f"the sizes differ: the restored image has {size_text(restored)} px, the clean one "
            f"{size_text(clean)} px"
        )
    if restored.ndim != clean.ndim:
        restored, clean = (
            cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image
            for image in (restored, clean)
        )
    # OpenCV would copy views such as a reversed BGR image in each call.
    return _SCORERS[protocol](np.ascontiguousarray(restored), np.ascontiguousarray(clean))


def _score_rain13k(restored: np.ndarray, clean: np.ndarray) -> Score:
    x, y = _rounded_luma(restored), _rounded_luma(clean)
    return Score(_psnr(x, y), _ssim_valid(x, y))


def _score_did(restored: np.ndarray, clean: np.ndarray) -> Score:
    x, y = _luma(restored), _luma(clean)
    return Score(_psnr(x, y), _ssim_valid(_downsample(x), _downsample(y)))


def _score_rgb(restored: np.ndarray, clean: np.ndarray) -> Score:
    psnr = _psnr(restored, clean)
    # With zeros around a channel, each of its pixels is the centre of a window.
    channels = (
        [np.pad(channel, GAUSSIAN.side // 2) for channel in cv2.split(image)]
        for image in (restored, clean)
    )
    ssim = [
        _ssim(x.astype(np.float64), y.astype(np.float64)) for x, y in zip(*channels, strict=True)
    ]
    return Score(100.0 if np.isinf(psnr) else psnr, float(np.mean(ssim)))


def _score_hq_rain(restored: np.ndarray, clean: np.ndarray) -> Score:
    least = HQ_RAIN_BORDER * 2 + GAUSSIAN.side
    _check_sides(restored, least)
    inside = slice(HQ_RAIN_BORDER, -HQ_RAIN_BORDER)
    x, y = (_luma(image)[inside, inside] for image in (restored, clean))
    return Score(_psnr(x, y), _ssim(x, y))


def _score_raindrop(restored: np.ndarray, clean: np.ndarray) -> Score:
    _check_sides(restored, 2 * RAINDROP_MULTIPLE)  # the smallest multiple that holds a window
    height, width = (side - side % RAINDROP_MULTIPLE for side in restored.shape[:2])
    x, y = (_opencv_luma(image)[:height, :width] for image in (restored, clean))
    return Score(_psnr(x, y), _ssim(x, y, UNIFORM))


_SCORERS: dict[str, Callable[[np.ndarray, np.ndarray], Score]] = {
    "rain13k": _score_rain13k,
    "did": _score_did,
    "rgb": _score_rgb,
    "hq_rain": _score_hq_rain,
    "raindrop": _score_raindrop,
}


def _luma(image: np.ndarray) -> np.ndarray:
    """MATLAB's Y in 16..235, float64 (H, W); a gray image as it is."""
    if image.ndim == 2:
        return image.astype(np.float64)
    weights = np.array([(*_LUMA, 0.0)])
    return cv2.transform(image.astype(np.float64), weights) / _LUMA_SCALE + 16


def _rounded_luma(image: np.ndarray) -> np.ndarray:
    """``_luma`` rounded half up, as ``rgb2ycbcr`` stores it for uint8 images.

    For 194 colours Y is exactly halfway between two levels. Exact integers round them alike on
    every machine; Octave rounds 190 of them the same way.
    """
    if image.ndim == 2:
        return image.astype(np.float64)
    weights = np.array([(*_LUMA, (16 + 0.5) * _LUMA_SCALE)])
    luma = cv2.transform(image.astype(np.float64), weights)  # integers below 2**53: exact
    return np.floor(luma / _LUMA_SCALE)


def _opencv_luma(image: np.ndarray) -> np.ndarray:
    """OpenCV's Y of YCrCb in 0..255, rounded to 8 bits, float64 (H, W); a gray image as it is."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)[..., 0]
    return image.astype(np.float64)


def _downsample(image: np.ndarray) -> np.ndarray:
    """The SSIM script's downsampling: every f-th pixel of an f x f box mean, f = min side / 256.

    Output i averages the inputs from i*f - floor((f - 1) / 2) to i*f + floor(f / 2), mirrored at
    the borders with the edge pixel repeated.
    """
    factor = max(1, (min(image.shape) + 128) // 256)  # MATLAB rounds halves up: 640 px gives 3
    if factor == 1:
        return image
    anchor = (factor - 1) // 2
    means = cv2.blur(
        image, (factor, factor), anchor=(anchor, anchor), borderType=cv2.BORDER_REFLECT
    )
    return means[::factor, ::factor]


def _psnr(x: np.ndarray, y: np.ndarray) -> float:
    """PSNR in dB of images of peak 255; ``inf`` if they are equal."""
    mse = cv2.norm(x, y, cv2.NORM_L2SQR) / x.size
    return float(10 * np.log10(PEAK**2 / mse)) if mse else float("inf")


def _ssim_valid(x: np.ndarray, y: np.ndarray) -> float:
    """Mean SSIM over the window positions inside the image."""
    _check_sides(x, GAUSSIAN.side)
    return _ssim(x, y)


def _check_sides(image: np.ndarray, least: int) -> None:
    if min(image.shape[:2]) < least:
        raise UserError(
            f"the image has {size_text(image)} px; SSIM under this protocol needs at least "
            f"{least}x{least}"
        )


class Window(NamedTuple):
    """SSIM's window: its weights along one axis, and the factor of variances and covariances.

    The factor is 1 for population variances, n / (n - 1) for sample variances of n pixels.
    """

    weights: np.ndarray  # (side, 1), sums to 1
    variance_factor: float = 1.0

    @property
    def side(self) -> int:
        return len(self.weights)

    def mean(self, image: np.ndarray) -> np.ndarray:
        """Means at the window positions inside the image: side - 1 rows and columns fewer."""
        means = cv2.sepFilter2D(image, -1, self.weights, self.weights)
        margin = self.side // 2
        return means[margin:-margin, margin:-margin]


GAUSSIAN = Window(cv2.getGaussianKernel(11, 1.5, cv2.CV_64F))
UNIFORM = Window(np.full((7, 1), 1 / 7), variance_factor=49 / 48)


def _ssim(x: np.ndarray, y: np.ndarray, window: Window = GAUSSIAN) -> float:
    """Mean SSIM over all window positions; float64 (H, W) in 0..255.

    With u = x + y and v = x - y, all five local moments of x and y follow from the means of u, v,
    u^2 and v^2: four filters replace five, and equal images give exactly 1.
    """
    height, width = (side - window.side + 1 for side in x.shape)  # window positions
    total = 0.0
    for top in range(0, height, _STRIPE_ROWS):
        rows = slice(top, min(top + _STRIPE_ROWS, height) + window.side - 1)
        u, v = x[rows] + y[rows], x[rows] - y[rows]
        mean_u, mean_v, var_u, var_v = map(window.mean, (u, v, u * u, v * v))
        mean_u = mean_u * mean_u
        mean_v = mean_v * mean_v
        var_u = (var_u - mean_u) * window.variance_factor
        var_v = (var_v - mean_v) * window.variance_factor
        # (mean_u - mean_v + 2 C1)(var_u - var_v + 2 C2) / ((mean_u + mean_v + 2 C1)(var_u + var_v
        # + 2 C2)), in place: a new array costs as much as the arithmetic on it
        above = mean_u - mean_v
        above += 2 * _C1
        structure = var_u - var_v
        structure += 2 * _C2
        above *= structure
        mean_u += mean_v
        mean_u += 2 * _C1
        var_u += var_v
        var_u += 2 * _C2
        mean_u *= var_u
        above /= mean_u
        total += float(above.sum())
    return total / (height * width)
