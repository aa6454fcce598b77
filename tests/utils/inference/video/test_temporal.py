"""--temporal removes flicker from static areas, even if the camera moves, and smears nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage

from utils.inference.video.temporal import LOOK_BACK, remove_flicker

COUNT = 7


def photo(name: str) -> np.ndarray:
    """A photograph from scikit-image, float32 RGB."""
    image = getattr(skimage.data, name)()
    return np.ascontiguousarray(image, np.float32) / 255


def flicker(height: int, width: int, seed: int) -> np.ndarray:
    """Rain that a network leaves: soft streaks, brighter or darker, different in every frame.

    (COUNT, height, width, 1); 5.7 levels of deviation over time, as the shipped network leaves.
    """
    rng = np.random.default_rng(seed)
    drops = rng.normal(size=(COUNT, height, width)) * (rng.random((COUNT, height, width)) < 0.01)
    streaks = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.2, sigmaY=7) for frame in drops])
    streaks *= 5.7 / 255 / streaks.std(0).mean()
    return streaks[..., None].astype(np.float32)


def psnr(restored: np.ndarray, clean: np.ndarray) -> float:
    return -10 * np.log10(((restored - clean) ** 2).mean() + 1e-12)


def steadied(frames: np.ndarray) -> np.ndarray:
    return np.stack(list(remove_flicker(frames)))


@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_flicker_is_removed_from_a_static_scene(name: str) -> None:
    clean = photo(name)[50:250, 60:260]
    flickering = (clean + flicker(200, 200, 1)).clip(0, 1)
    calm = steadied(flickering)
    assert calm.shape == flickering.shape and calm.dtype == np.float32
    assert 255 * calm.std(0).mean() < 2.6 < 5.0 < 255 * flickering.std(0).mean()
    assert psnr(calm, clean) > psnr(flickering, clean) + 2.4


def moving(name: str, step: float, turn: float = 0.0, zoom: float = 1.0) -> np.ndarray:
    """A camera that pans by ``step`` pixels, turns by ``turn`` degrees and zooms, per frame."""
    image = photo(name)
    frames = []
    for i in range(COUNT):
        motion = cv2.getRotationMatrix2D((130, 120), turn * i, zoom**i)
        motion[:, 2] -= (30 + step * i, 40 + step * i / 2)
        frames.append(cv2.warpAffine(image, motion, (200, 160), flags=cv2.INTER_CUBIC))
    return np.stack(frames).clip(0, 1)


@pytest.mark.parametrize(
    ("step", "turn", "zoom", "gain"),
    [
        (0.5, 0, 1, 4.2),
        (2, 0, 1, 4.5),
        (8, 0, 1, 4),
        (25, 0, 1, 1.5),  # a third of the frame is missing in one of the neighbours
        (1, 0.8, 1.01, 4.3),
    ],
)
@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_flicker_is_removed_while_the_camera_moves(
    name: str, step: float, turn: float, zoom: float, gain: float
) -> None:
    clean = moving(name, step, turn, zoom)
    assert psnr(steadied(clean), clean) > 40
    flickering = (clean + flicker(160, 200, 2)).clip(0, 1)
    assert psnr(steadied(flickering), clean) > psnr(flickering, clean) + gain


def test_a_large_frame_is_aligned_with_subpixel_accuracy() -> None:
    """The motion is estimated in frames reduced to a third of the size."""
    image = cv2.resize(photo("coffee"), None, fx=2.5, fy=2.5, interpolation=cv2.INTER_CUBIC)
    clean = np.stack([image[3 * i : 600 + 3 * i, 4 * i : 1300 + 4 * i] for i in range(3)])
    clean = clean.clip(0, 1)
    rng = np.random.default_rng(7)
    noise = cv2.GaussianBlur(rng.normal(size=(600, 1300)), (0, 0), 2)[..., None]
    flickering = clean.copy()
    flickering[1] = (clean[1] + 0.02 / noise.std() * noise).clip(0, 1)
    calm = steadied(flickering)[1]
    assert psnr(calm[30:-30, 30:-30], clean[1, 30:-30, 30:-30]) > 40 > psnr(flickering[1], clean[1])


@pytest.mark.parametrize("shape", [(40, 40), (16, 200), (1, 1)])
def test_frames_without_structure_are_unchanged(shape: tuple[int, int]) -> None:
    flat = np.full((COUNT, *shape, 3), 0.4, np.float32)
    np.testing.assert_allclose(steadied(flat), flat, atol=1e-6)


@pytest.mark.parametrize("step", [1, 3, 8, 24])
def test_objects_that_move_over_a_static_background_are_not_smeared(step: int) -> None:
    clean = np.repeat(photo("astronaut")[None, 50:250, 60:260], COUNT, axis=0)
    places = np.zeros(clean.shape[:3], bool)
    for i in range(COUNT):
        left = 5 + step * i
        clean[i, 80:130, left : left + 40] = photo("coffee")[100:150, 100:140]
        places[i, 80:130, left : left + 40] = True
    near = cv2.dilate(places.any(0).astype(np.uint8), np.ones((9, 9))) > 0
    assert psnr(steadied(clean)[:, near], clean[:, near]) > 40
    flickering = (clean + flicker(200, 200, 3)).clip(0, 1)
    before, after = (
        psnr(frames[:, near], clean[:, near]) for frames in (flickering, steadied(flickering))
    )
    assert after > before - 0.2
    assert psnr(steadied(flickering), clean) > psnr(flickering, clean) + 0.8  # the background


def test_a_cut_keeps_both_scenes() -> None:
    scenes = [photo("astronaut")[50:178, 60:188], photo("coffee")[50:178, 60:188]]
    clean = np.stack([scenes[i >= 3] for i in range(COUNT)])
    assert psnr(steadied(clean), clean) > 40


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_frames_are_unchanged(count: int) -> None:
    frames = list(np.random.default_rng(0).random((count, 9, 9, 3), np.float32))
    calm = list(remove_flicker(frames))
    assert len(calm) == count
    for before, after in zip(frames, calm, strict=True):
        np.testing.assert_array_equal(after, before)


def test_frames_depend_on_two_previous_frames() -> None:
    frames = (photo("coffee")[:64, :64] + flicker(64, 64, 4)).clip(0, 1)
    whole = steadied(frames)
    for start in range(1, COUNT):
        first = max(start - LOOK_BACK, 0)
        np.testing.assert_array_equal(steadied(frames[first:])[start - first :], whole[start:])
