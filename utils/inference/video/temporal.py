"""Removing the residual flicker of restored frames from static areas, also while the camera moves.

A streak is at a place for one frame only, so the median of three frames removes what is left of it.
The two neighbours of a frame are first aligned with it: an affine motion of the camera is estimated
(Evangelidis and Psarakis, Parametric Image Alignment Using Enhanced Correlation Coefficient
Maximization, TPAMI 2008) and undone where that makes the frames agree better. The median would blur
whatever moves otherwise, so it is used only where four signs say that nothing does:

- Patches of two aligned frames agree best without a shift. If something had moved, a shifted patch
  would agree much better, however strong the flicker. Slow motion is tried at full size, fast
  motion at a quarter.
- The previous and the next frame agree with each other in every small patch. Where something moves
  through, they do not.
- Patches of the frames differ little more than most patches of these frames do. Those of something
  that has moved farther than the tried shifts differ much more.
- The frames as a whole agree much better as they are than shifted far: they are aligned.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

# How many frames before a frame its result depends on.
LOOK_BACK = 2

# Frames are reduced to this longer side to estimate the camera's motion, in pixels.
MOTION_SIDE = 480
MIN_MOTION_SIDE = 16  # the shorter side; smaller frames are not aligned
# A neighbour is aligned if this divides the squared difference by at least so much.
MOTION_GAIN = 1.05
# Chosen on restored rain over still and moving pictures (test_temporal.py).
SEARCHES = ((1, 2, 21), (4, 3, 11))  # reduction, largest shift, side of a patch
# Limits come in pairs: the median has full weight below the first and none above the second.
# How many times better a shifted patch agrees.
MOVED = (1.5, 2.2)
# Squared difference of patches of two sizes, over the upper quartile of all patches.
SMALL_DIFFERENCE = (4.8, 11.2)
LARGE_DIFFERENCE = (3.6, 8.4)
SMALL, LARGE = 5, 17  # sides of those patches
# Squared difference of the frames, over that of the frames shifted by FAR pixels.
FAR = 24
ALIGNED = (0.3, 0.5)
# Root mean square differences that are never taken for motion.
SHIFT_NOISE = 4 / 255
NOISE = 3 / 255
BORDER = cv2.BORDER_REFLECT_101


def remove_flicker(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The restored frames, (H, W, 3) float32 in [0, 1], without flicker in static areas.

    The first and the last frame use the two frames next to them. Fewer than three frames stay as
    they are.
    """
    window: deque[np.ndarray] = deque(maxlen=3)
    num_frames = 0
    for frame in frames:
        window.append(frame)
        num_frames += 1
        if num_frames == 3:
            yield _without_flicker(window[0], window[1], window[2])
        if num_frames >= 3:
            yield _without_flicker(window[1], window[0], window[2])
    if num_frames >= 3:
        yield _without_flicker(window[2], window[1], window[0])
    else:
        yield from window


def _without_flicker(frame: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """``frame``, replaced by the median of all three aligned frames where nothing moves."""
    one, other = _align(frame, one), _align(frame, other)
    middle = np.maximum(np.minimum(frame, one), np.minimum(np.maximum(frame, one), other))
    gray, before, after = map(_gray, (frame, one, other))
    signs = [_alike(before, after, SMALL, SMALL_DIFFERENCE)]
    for neighbour in (before, after):
        signs.append(_alike(gray, neighbour, LARGE, LARGE_DIFFERENCE))
        signs += (_is_static(gray, neighbour, *search) for search in SEARCHES)
        signs.append(np.full_like(gray, _are_aligned(gray, neighbour)))
    still = cv2.erode(np.minimum.reduce(signs), np.ones((3, 3)))
    still = cv2.GaussianBlur(still, (0, 0), 1.5)
    return frame + still[..., None] * (middle - frame)


def _align(frame: np.ndarray, neighbour: np.ndarray) -> np.ndarray:
    """The neighbour as the camera of ``frame`` would see it, if that makes the two agree better.

    What it does not show is filled with its mirror image, which does not pass for static.
    """
    gray, beside = _gray(frame), _gray(neighbour)
    motion = _camera_motion(gray, beside)
    if motion is None:
        return neighbour
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    aligned = cv2.warpAffine(neighbour, motion, gray.shape[::-1], flags=flags, borderMode=BORDER)
    aligned = aligned.clip(0, 1)
    before, after = (np.square(gray - other).mean() for other in (beside, _gray(aligned)))
    return aligned if before > MOTION_GAIN * after else neighbour


def _camera_motion(gray: np.ndarray, neighbour: np.ndarray) -> np.ndarray | None:
    """The affine map, (2, 3), from a frame to its neighbour in (x, y); None if none is found."""
    reduction = -(-max(gray.shape) // MOTION_SIDE)
    one, other = _reduced(gray, reduction), _reduced(neighbour, reduction)
    if min(one.shape) < MIN_MOTION_SIDE:
        return None
    window = cv2.createHanningWindow(one.shape[::-1], cv2.CV_32F)
    # Copies, since OpenCV 5.0 applies the window to the frames themselves.
    (right, down), _ = cv2.phaseCorrelate(one.copy(), other.copy(), window)
    start = np.array([[1, 0, right], [0, 1, down]], np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-4)
    try:
        _, motion = cv2.findTransformECC(
            one.copy(), other.copy(), start, cv2.MOTION_AFFINE, criteria
        )
    except cv2.error:  # frames of different scenes, or without any structure
        return None
    # From the centres of the reduced pixels to those of the frame's own.
    shift = (reduction - 1) / 2
    motion = np.asarray(motion, np.float64)
    motion[:, 2] = reduction * motion[:, 2] + shift - motion[:, :2] @ (shift, shift)
    return motion


def _is_static(
    one: np.ndarray, other: np.ndarray, reduction: int, reach: int, side: int
) -> np.ndarray:
    """0 to 1: how surely no shift of ``other`` agrees better with ``one``; (H, W) float32, gray."""
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


def _are_aligned(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """0 to 1: how surely the frames agree better as they are than shifted far."""
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
    return _falling(np.square(one - other).mean() / (shifted + NOISE**2), ALIGNED)


def _gray(frame: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)


def _reduced(gray: np.ndarray, reduction: int) -> np.ndarray:
    height, width = gray.shape
    size = (-(-width // reduction), -(-height // reduction))
    return gray if reduction == 1 else cv2.resize(gray, size, interpolation=cv2.INTER_AREA)


def _alike(
    one: np.ndarray, other: np.ndarray, side: int, limits: tuple[float, float]
) -> np.ndarray:
    """0 to 1: how surely patches differ no more than most patches of these frames."""
    difference = _patches((one - other) ** 2, side)
    return _falling(difference / (np.quantile(difference, 0.75) + NOISE**2), limits)


def _patches(values: np.ndarray, side: int) -> np.ndarray:
    """The mean over the patch around each pixel."""
    return cv2.boxFilter(values, -1, (side, side), borderType=BORDER)


def _falling(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """1 below the first limit, 0 above the second, a ramp between them; float32."""
    low, high = limits
    return ((high - values) / (high - low)).clip(0, 1).astype(np.float32)
