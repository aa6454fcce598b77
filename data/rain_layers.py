"""Rain layers that are not drawn: taken from pairs, varied, or composed of crops of real rain.

Images are (H, W, 3) uint8 RGB; layers are (H, W) float32 with 0 for no rain and 1 for the step from
black to white. The same generator gives the same layer. Nothing here touches a disk.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from data.rain import log_uniform


def extract_layer(rainy: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """The rain layer of a pair made by adding gray streaks and clipping, (H, W).

    A channel that is clipped at white hides part of the rain, so the channel that gained most is
    taken. Where all three are white, the layer turned by 180 degrees fills the gap: this turn keeps
    the direction of the streaks.
    """
    gain = (rainy.astype(np.float32) - clean).max(axis=2) / 255
    layer = np.maximum(gain, 0)
    hidden = rainy.min(axis=2) == 255
    turned = layer[::-1, ::-1]
    return np.where(hidden, np.maximum(layer, turned), layer)


def vary_layer(layer: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A layer mirrored, shifted, turned, scaled, and made weaker or stronger at random.

    The result is (height, width), a part of a larger layer or repetitions of a smaller one. Half of
    the layers are neither turned nor scaled, so that hard edges stay hard.
    """
    if rng.random() < 0.5:
        layer = layer[:, ::-1]
    if rng.random() < 0.5:
        layer = layer[::-1]
    resampled = rng.random() < 0.5
    angle, scale = rng.uniform(-15, 15), log_uniform(rng, 0.7, 1.4)
    if resampled:
        # Large enough to fill the picture after turning and scaling.
        side = int(np.ceil(np.hypot(height, width) / scale)) + 2
        patch = _window(layer, side, side, rng)
        centre = ((side - 1) / 2, (side - 1) / 2)
        turn = np.asarray(cv2.getRotationMatrix2D(centre, angle, scale), np.float64)
        turn[:, 2] += np.array([width - side, height - side]) / 2
        varied = cv2.warpAffine(patch, turn, (width, height), flags=cv2.INTER_LINEAR)
    else:
        varied = _window(layer, height, width, rng)
    return varied * np.float32(log_uniform(rng, 0.6, 1.25))


def compose_layer(
    crops: Sequence[np.ndarray], height: int, width: int, rng: np.random.Generator
) -> np.ndarray:
    """A layer, (height, width), of one to three crops of upright real rain, added up.

    Each crop is repeated in mirror images, so that streaks continue across the seams, scaled,
    turned to about the same direction, and made fainter or stronger.
    """
    total = np.zeros((height, width), np.float32)
    angle = float(np.clip(rng.normal(0, 25 if rng.random() < 0.25 else 9), -60, 60))
    base = log_uniform(rng, 0.6, 3)
    for _ in range(rng.choice((1, 2, 3), p=(0.5, 0.3, 0.2))):
        crop = crops[int(rng.integers(len(crops)))]
        scale = base * log_uniform(rng, 0.8, 1.25)
        side = int(np.ceil(np.hypot(height, width) / scale)) + 2
        rows, columns = (
            _mirrored(rng.integers(2 * size) + np.arange(side), size) for size in crop.shape
        )
        centre = ((side - 1) / 2, (side - 1) / 2)
        turn = np.asarray(
            cv2.getRotationMatrix2D(centre, angle + rng.normal(0, 3), scale), np.float64
        )
        turn[:, 2] += np.array([width - side, height - side]) / 2
        patch = crop[np.ix_(rows, columns)]
        gain = np.float32(log_uniform(rng, 0.5, 3))
        total += gain * cv2.warpAffine(patch, turn, (width, height), flags=cv2.INTER_LINEAR)
    return total


def fade_layer(layer: np.ndarray, psnr: float) -> np.ndarray:
    """The layer weakened so that adding it gives a PSNR of ``psnr`` dB, if nothing is clipped.

    A layer that is already weaker stays as it is.
    """
    strength = float(np.sqrt(np.mean(np.square(layer))))
    wanted = 10 ** (-psnr / 20)
    return layer * np.float32(wanted / strength) if strength > wanted else layer


def _window(layer: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A random cut-out, (height, width), of the layer, which is repeated where it is too small.

    The cut-out of a layer that is larger in both directions has no seam, which would break streaks.
    """
    rows, columns = layer.shape
    inside = rows > height and columns > width
    top = rng.integers(rows - height if inside else rows)
    left = rng.integers(columns - width if inside else columns)
    chosen_rows = np.arange(top, top + height) % rows
    chosen_columns = np.arange(left, left + width) % columns
    return layer[np.ix_(chosen_rows, chosen_columns)]


def _mirrored(indices: np.ndarray, size: int) -> np.ndarray:
    """Indices into an axis of ``size`` pixels that is repeated endlessly in mirror images."""
    return np.minimum(indices % (2 * size), (-1 - indices) % (2 * size))
