"""Clips: where the camera looks, and what falls in front of it."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from data.clips import Camera, draw_clip, place_camera, smallest_photo
from data.rain import Rain
from tests.helpers import smooth_image

RAIN = Rain(density=0.2, length=30, width=1.5, brightness=0.4, unevenness=0.3)


def clip(photo: np.ndarray, count: int, pan: float, rain: Rain = RAIN, seed: int = 0):
    """Rainy and clean frames of 64 x 80 pixels, each (count, 64, 80, 3)."""
    frames = draw_clip(photo, (64, 80), pan, rain, np.random.default_rng(seed))
    rainy, clean = zip(*itertools.islice(frames, count), strict=True)
    return np.stack(rainy), np.stack(clean)


def texture(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A picture that is known between its pixels too, float32 in [0, 1]."""
    gray = 0.5 + 0.2 * np.sin(columns / 3.7) + 0.2 * np.cos(rows / 4.3 + columns / 11)
    return np.repeat(gray[..., None], 3, axis=-1).astype(np.float32)


def test_the_camera_goes_round_and_zooms_by_the_formula() -> None:
    photo = texture(*np.mgrid[:150, :170].astype(float))
    camera = Camera(height=64, width=80, middle=(40, 35), radius=20, start=1, step=-0.07)
    np.testing.assert_array_equal(camera.view(photo, 0), photo[60:124, 35:115])
    rows, columns = np.mgrid[:64, :80].astype(float)
    for frame in (1, 13, 40):
        turn = -0.07 * frame
        top, left = 40 + 20 * np.cos(turn), 35 - 20 * np.sin(turn)  # from below the middle
        scale = 1 - 0.06 * np.sin(turn / 2) ** 2
        expected = texture(
            top + 31.5 + scale * (rows - 31.5), left + 39.5 + scale * (columns - 39.5)
        )
        np.testing.assert_allclose(camera.view(photo, frame), expected, atol=0.006)


@pytest.mark.parametrize("pan", [2.0, 5.0])
def test_the_scene_moves_by_the_pan_in_every_direction(pan: float) -> None:
    photo = np.random.default_rng(0).random((150, 170), np.float32)
    photo = cv2.GaussianBlur(photo, (0, 0), 1)
    directions = set()
    for seed in range(24):
        camera = place_camera((150, 170), (64, 80), pan, np.random.default_rng(seed))
        one, other = (camera.view(photo, frame).astype(float) for frame in (0, 1))
        (right, down), _ = cv2.phaseCorrelate(one, other, cv2.createHanningWindow((80, 64), 6))
        assert np.hypot(right, down) == pytest.approx(pan, rel=0.1)
        directions.add((round(right / pan), round(down / pan)))
    assert directions == {(1, 0), (-1, 0), (0, 1), (0, -1)}


def test_the_smallest_photograph_is_enough() -> None:
    assert smallest_photo((64, 80), 1.5) == (76, 92)
    assert smallest_photo((64, 80), 0) == (64, 80)
    for pan in (1.5, 0.0):
        photo = smooth_image(0, *smallest_photo((64, 80), pan))
        assert clip(photo, 9, pan)[1].shape == (9, 64, 80, 3)


def test_a_camera_on_a_tripod_shows_one_scene_behind_changing_rain() -> None:
    photo = smooth_image(1, 100, 120) // 2
    rainy, clean = clip(photo, 4, pan=0)
    assert (clean == clean[0]).all()
    places = [photo[top : top + 64, left : left + 80] for top in (0, 18, 36) for left in range(41)]
    assert any(np.array_equal(clean[0], place) for place in places)
    for one, other in itertools.combinations(rainy, 2):
        assert np.abs(one.astype(int) - other).mean() > 3


def test_rain_is_the_same_gray_added_to_the_clean_frame() -> None:
    rainy, clean = clip(smooth_image(2, 100, 120) // 2, 6, pan=1.5)
    gain = rainy.astype(int) - clean
    assert (gain >= 0).all() and gain.max() > 40
    grays = gain[rainy.max(axis=3) < 255]
    assert np.ptp(grays, axis=1).max() <= 1  # rounding
    assert (gain == 0).mean() > 0.3


def test_the_veil_belongs_to_the_scene() -> None:
    """Without a pan it stays, with one it moves; black becomes its share of the airlight."""
    photo = np.zeros((120, 140, 3), np.uint8)
    hazy = Rain(density=0, veil=0.6, airlight=0.9)
    still, moving = (clip(photo, 16, pan, hazy, seed=3)[0].astype(float) for pan in (0, 2))
    for rainy in (still, moving):
        assert 0.3 * 0.6 * 0.9 * 255 - 1 < rainy.min() < rainy.max() < 0.6 * 0.9 * 255 + 1
    assert (still == still[0]).all()
    assert np.abs(moving[0] - moving[15]).mean() > 2


def test_clips_depend_on_the_generator_alone() -> None:
    photo = smooth_image(3, 100, 120) // 2
    first, again, other = (clip(photo, 3, 1.5, seed=seed)[0] for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    longer = clip(photo, 8, 1.5, seed=5)[0]
    np.testing.assert_array_equal(longer[:3], first)
