"""Clips of falling rain: the camera pans over a photograph, and the streaks move in every frame."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from data.rain import FallingStreaks, Rain, add_veil, compose
from utils.images import to_float, to_uint8

# By how much the camera zooms in on its way, and out again.
ZOOM = 0.06
# A circle whose radius is smaller than this many steps would be a jerk, not a pan.
MIN_STEPS = 4


@dataclass(frozen=True)
class Camera:
    """A view that moves over a photograph in a circle, and meanwhile zooms in and out.

    The first view is a crop of the photograph; the pixels of later ones are between its own.

    height, width: of the view, in pixels of the photograph.
    middle: row and column of the upper left corner of a view in the middle of the photograph.
    radius: of the circle.
    start: quarter turns from the right to where the circle starts, 0 to 3.
    step: radians per frame, positive if clockwise.
    """

    height: int
    width: int
    middle: tuple[int, int]
    radius: int
    start: int
    step: float

    def view(self, photo: np.ndarray, frame: int) -> np.ndarray:
        """What the camera shows of a float32 photograph in [0, 1] in a frame, counted from 0."""
        turned = self.step * frame
        direction = turned + self.start * math.pi / 2
        top = self.middle[0] + self.radius * math.sin(direction)
        left = self.middle[1] + self.radius * math.cos(direction)
        scale = 1 - ZOOM * (1 - math.cos(turned)) / 2
        # From the pixels of the view to those of the photograph, about the middle of the view.
        down = top + (1 - scale) * (self.height - 1) / 2
        right = left + (1 - scale) * (self.width - 1) / 2
        shown = cv2.warpAffine(
            photo,
            np.array([[scale, 0, right], [0, scale, down]]),
            (self.width, self.height),
            flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        return np.clip(shown, 0, 1)


def smallest_photo(view: tuple[int, int], pan: float) -> tuple[int, int]:
    """Height and width that a photograph needs for a view that pans by ``pan`` pixels per frame."""
    room = 2 * math.ceil(MIN_STEPS * pan)
    return view[0] + room, view[1] + room


def place_camera(
    photo: tuple[int, int], view: tuple[int, int], pan: float, rng: np.random.Generator
) -> Camera:
    """A camera over a photograph that moves by ``pan`` pixels per frame; sizes are (H, W)."""
    spare = [full - part for full, part in zip(photo, view, strict=True)]
    radius = min(spare) // 2
    start, sense = int(rng.integers(4)), int(rng.choice((-1, 1)))
    step = sense * pan / radius if pan else 0.0
    return Camera(*view, (spare[0] // 2, spare[1] // 2), radius, start, step)


def draw_clip(
    photo: np.ndarray, size: tuple[int, int], pan: float, rain: Rain, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """An endless clip of a clean photograph: rainy and clean frames, (H, W, 3) uint8 RGB.

    size: (H, W) of the frames.
    pan: pixels by which the scene moves per frame; 0 for a camera on a tripod.

    The rain falls in front of the camera, in the same strength all the time; its veil belongs to
    the scene. JPEG compression is left out. The photograph is at least ``smallest_photo``.
    """
    camera = place_camera(photo.shape[:2], size, pan, rng)
    streaks = FallingStreaks(*size, rain, rng)
    clean, veiled = to_float(photo), add_veil(photo, rain, rng)
    for frame in itertools.count():
        rainy = compose(camera.view(veiled, frame), streaks.layer(frame), rain.screen)
        yield rainy, to_uint8(camera.view(clean, frame))
