"""Taking the flicker that rain leaves in restored frames out of what does not move.

A streak stands at a place for one frame: the median of three frames removes what is left of it. It
would also blur what moves, so it counts only where four signs say that nothing does:

- Patches of two frames agree best where they stand. Had they moved, a shifted one would agree much
  better, however strong the flicker is. Seen at full size for slow motion, at a quarter for fast.
- The frame before and the one after agree with each other, small place by small place. Where what
  moves passes, they do not.
- Patches of the frames differ hardly more than most patches of these frames do: what has moved
  farther than the shifts reach differs much more.
- The frames as a whole agree much better than they do far shifted: the camera stands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

# Frames before one that its result depends on.
LOOK_BACK = 2

# What decides, found on restored rains over still and moving pictures (test_temporal.py).
SEARCHES = ((1, 2, 21), (4, 3, 11))  # reduction, largest shift, side of a patch
MOVED = (1.5, 2.2)  # times by which a shifted patch agrees better: from the first on the median
# counts less, from the second on not at all; so with the others
SMALL_DIFFERENCE = (4.8, 11.2)  # times what three of four places differ, squared
LARGE_DIFFERENCE = (3.6, 8.4)
SMALL, LARGE = 5, 17  # sides of places and patches for these
# Shift in pixels, and times that the frames differ of what they differ so shifted, squared.
FAR = 24
CAMERA = (0.3, 0.5)
# Differences, as root mean squares, that are never taken for motion.
SHIFT_NOISE = 4 / 255
NOISE = 3 / 255
BORDER = cv2.BORDER_REFLECT_101


def steady(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The restored frames, (H, W, 3) float32 in [0, 1], without flicker where nothing moves.

    The first and the last frame take the two next to them. Fewer than three stay as they are.
    """
    window: deque[np.ndarray] = deque(maxlen=3)
    num_frames = 0
    for frame in frames:
        window.append(frame)
        num_frames += 1
        if num_frames == 3:
            yield _calmed(window[0], window[1], window[2])
        if num_frames >= 3:
            yield _calmed(window[1], window[0], window[2])
    if num_frames >= 3:
        yield _calmed(window[2], window[1], window[0])
    else:
        yield from window


def _calmed(frame: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """``frame`` with the median of all three where nothing moves."""
    middle = np.maximum(np.minimum(frame, one), np.minimum(np.maximum(frame, one), other))
    gray, before, after = (cv2.cvtColor(x, cv2.COLOR_RGB2GRAY) for x in (frame, one, other))
    signs = [_alike(before, after, SMALL, SMALL_DIFFERENCE)]
    for neighbour in (before, after):
        signs.append(_alike(gray, neighbour, LARGE, LARGE_DIFFERENCE))
        signs += (_stands_still(gray, neighbour, *search) for search in SEARCHES)
        signs.append(np.full_like(gray, _camera_stands(gray, neighbour)))
    still = cv2.erode(np.minimum.reduce(signs), np.ones((3, 3)))
    still = cv2.GaussianBlur(still, (0, 0), 1.5)
    return frame + still[..., None] * (middle - frame)


def _stands_still(
    one: np.ndarray, other: np.ndarray, reduction: int, reach: int, side: int
) -> np.ndarray:
    """How far (0 to 1) no shift of ``other`` agrees better with ``one``; gray, (H, W) float32."""
    height, width = one.shape
    one, other = _reduced(one, reduction), _reduced(other, reduction)
    rows, columns = one.shape
    wide = cv2.copyMakeBorder(other, reach, reach, reach, reach, BORDER)
    unmoved = _patches((one - other) ** 2, side)
    best = np.full_like(unmoved, np.inf)
    for down in range(2 * reach + 1):
        for right in range(2 * reach + 1):
            if (down, right) != (reach, reach):
                shifted = wide[down : down + rows, right : right + columns]
                best = np.minimum(best, _patches((one - shifted) ** 2, side))
    still = _falling(unmoved / (best + SHIFT_NOISE**2), MOVED)
    return still if reduction == 1 else cv2.resize(still, (width, height))


def _camera_stands(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How far (0 to 1) the frames agree better as they are than far shifted."""
    one, other = _reduced(one, 4), _reduced(other, 4)
    reach = max(min(FAR // 4, *(side // 3 for side in one.shape)), 1)
    shifted = np.mean(
        [
            np.square(first[reach:] - second[:-reach]).mean()
            for a, b in ((one, other), (other, one))
            for first, second in ((a, b), (a.T, b.T))
            if len(first) > reach
        ]
        or [0.0]
    )
    return _falling(np.square(one - other).mean() / (shifted + NOISE**2), CAMERA)


def _reduced(gray: np.ndarray, reduction: int) -> np.ndarray:
    height, width = gray.shape
    size = (-(-width // reduction), -(-height // reduction))
    return gray if reduction == 1 else cv2.resize(gray, size, interpolation=cv2.INTER_AREA)


def _alike(
    one: np.ndarray, other: np.ndarray, side: int, limits: tuple[float, float]
) -> np.ndarray:
    """How far (0 to 1) patches differ no more than most patches of these frames do."""
    difference = _patches((one - other) ** 2, side)
    return _falling(difference / (np.quantile(difference, 0.75) + NOISE**2), limits)


def _patches(values: np.ndarray, side: int) -> np.ndarray:
    """The mean over the patch around each pixel."""
    return cv2.boxFilter(values, -1, (side, side), borderType=BORDER)


def _falling(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """1 below the first limit, 0 above the second, a ramp between them; float32."""
    low, high = limits
    return ((high - values) / (high - low)).clip(0, 1).astype(np.float32)
