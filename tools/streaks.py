"""Filters for the streaks of rain in a photograph: their direction, and steps across and along.

Angles are in degrees from the vertical; positive rain falls towards the left, as in ``Rain.angle``.
Images are (H, W) float32 in gray levels from 0 to 255.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

# Sigma of the step filters across the streaks, pixels: streaks of about 2, 4 and 8 pixels.
SCALES = (0.7, 1.4, 2.8)
# Along the streaks the step filters average over this many times as much as across them, so that
# they respond to what is long.
ELONGATION = 3.0
# Gray levels at which a step stops counting more: edges of the scene are often higher.
LARGEST_STEP = 24.0
# Side of the squares whose median step counts: a single edge in one of them does not matter.
CELL = 24
# Candidates for the direction of the rain.
ANGLES = tuple(range(-45, 46, 5))


def rain_angle(gray: np.ndarray) -> float:
    """The direction in which fine streaks stand out most."""
    return float(max(ANGLES, key=lambda angle: excess_at(gray, angle)))


def excess_at(gray: np.ndarray, angle: float) -> float:
    """How much steps across lines of this direction exceed those along them, gray levels."""
    across, along = steps(gray, 1.0, angle), steps(gray, 1.0, angle + 90)
    return float((cell_medians(across) - cell_medians(along)).mean())


def steps(
    gray: np.ndarray, scale: float, angle: float, elongation: float = ELONGATION
) -> np.ndarray:
    """Absolute steps across lines of ``angle``, (H, W), at most LARGEST_STEP."""
    kernel = step_filter(scale, angle, elongation)
    response = cv2.filter2D(gray, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT_101)
    return np.minimum(np.abs(response), LARGEST_STEP)


def step_filter(scale: float, angle: float, elongation: float) -> np.ndarray:
    """The kernel of a derivative across lines of ``angle``, averaged along them.

    ``scale`` is its sigma across the lines in pixels. A step of one gray level gives 1.
    """
    reach = int(np.ceil(3 * scale * elongation))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    turn = np.radians(angle)
    across, along = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    kernel = across * np.exp(-((across / scale) ** 2 + (along / (scale * elongation)) ** 2) / 2)
    return (kernel / kernel[across > 0].sum()).astype(np.float32)


def turn_upright(gray: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """The image rotated until lines of ``angle`` are vertical, and a mask: 1 inside the image.

    Both are (H', W') float32; outside, the image is mirrored.
    """
    gray = np.asarray(gray, np.float32)
    inside = np.ones_like(gray)
    if angle == 0:
        return gray, inside
    height, width = gray.shape
    sine, cosine = abs(np.sin(np.radians(angle))), abs(np.cos(np.radians(angle)))
    size = (
        int(np.ceil(width * cosine + height * sine)),
        int(np.ceil(height * cosine + width * sine)),
    )
    centre = ((width - 1) / 2, (height - 1) / 2)
    turn = np.asarray(cv2.getRotationMatrix2D(centre, angle, 1), np.float64)
    turn[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    return (
        cv2.warpAffine(gray, turn, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101),
        cv2.warpAffine(inside, turn, size, flags=cv2.INTER_LINEAR),
    )


def cell_medians(values: np.ndarray) -> np.ndarray:
    """Medians of the squares of CELL pixels, (rows, columns); a smaller image has one square."""
    return per_cell(values, min(CELL, *values.shape), lambda x: np.median(x, axis=-1))


def per_cell(
    values: np.ndarray, cell: int, reduce: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """``reduce`` over the last axis of (rows, columns, cell * cell), the pixels of each square.

    Incomplete squares at the right and at the bottom are left out.
    """
    rows, columns = values.shape[0] // cell, values.shape[1] // cell
    whole = values[: rows * cell, : columns * cell].reshape(rows, cell, columns, cell)
    return reduce(whole.swapaxes(1, 2).reshape(rows, columns, cell * cell))


def to_gray(image: np.ndarray) -> np.ndarray:
    """Luma of (H, W, 3) uint8 RGB as (H, W) float32 from 0 to 255."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
