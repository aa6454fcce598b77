"""Variations of clean scenes before rain is added."""

from __future__ import annotations

import numpy as np
import pytest

from data.scenes import dim_scene, draw_pattern, vary_light
from tests.helpers import smooth_image


@pytest.mark.parametrize("shape", [(64, 48), (7, 90), (33, 5)])
@pytest.mark.parametrize("vary", [dim_scene, draw_pattern, vary_light])
def test_size_and_type_stay_and_the_given_scene_is_untouched(vary, shape) -> None:
    scene = smooth_image(1, *shape)
    before = scene.copy()
    for seed in range(30):
        varied = vary(scene, np.random.default_rng(seed))
        assert varied.shape == scene.shape and varied.dtype == np.uint8
        again = vary(scene, np.random.default_rng(seed))
        assert np.array_equal(varied, again)
    assert np.array_equal(scene, before)


def test_light_reaches_white_skies_dark_scenes_and_other_colours() -> None:
    scene = np.full((8, 8, 3), (60, 130, 190), np.uint8)
    varied = [vary_light(scene, np.random.default_rng(seed))[0, 0] for seed in range(200)]
    brightness = np.array([colour.mean() for colour in varied])
    assert brightness.min() < 65 and brightness.max() > 195
    assert any(colour[0] > colour[2] for colour in varied)  # reddish now
    assert any(colour.max() == 255 for colour in varied)


def test_dim_scenes_are_dark_or_have_little_contrast() -> None:
    scene = smooth_image(2, 60, 80)
    dark = misty = 0
    for seed in range(100):
        dimmed = dim_scene(scene, np.random.default_rng(seed))
        is_dark = dimmed.max() <= 0.5 * scene.max() + 1 and dimmed.min() <= 0.5 * scene.min() + 1
        contrast = dimmed.std(axis=(0, 1)).mean() / scene.std(axis=(0, 1)).mean()
        assert contrast < 0.75 or is_dark
        dark += is_dark
        misty += not is_dark
    assert 25 < dark < 60 and misty == 100 - dark


def test_mist_keeps_the_order_of_gray_levels() -> None:
    """In even mist, a brighter pixel stays brighter."""
    scene = np.zeros((4, 4, 3), np.uint8)
    scene[:, 2:] = 200
    for seed in range(30):
        dimmed = dim_scene(scene, np.random.default_rng(seed)).astype(int)
        assert (dimmed[:, 2] - dimmed[:, 1] >= 10).all()


def test_bars_are_regular() -> None:
    """Many patterns on a black scene are bright lines at equal distances."""
    scene = np.zeros((96, 96, 3), np.uint8)
    regular = 0
    for seed in range(120):
        spectrum = np.abs(np.fft.fft2(draw_pattern(scene, np.random.default_rng(seed))[..., 1]))
        spectrum[:2, :2] = spectrum[-1:, :2] = spectrum[:2, -1:] = 0
        # one frequency and its mirror image stand out
        regular += spectrum.max() > 20 * np.median(spectrum) > 0
    assert regular > 40


def test_many_bars_are_bright_and_upright_in_a_dark_room() -> None:
    """These look most like rain; a network trained without them removed those of one direction."""
    scene = np.full((96, 96, 3), 200, np.uint8)
    dark = upright = 0
    for seed in range(200):
        drawn = draw_pattern(scene, np.random.default_rng(seed))[..., 1]
        if drawn.min() > 70 or np.median(drawn) == 200:
            continue
        bright = drawn.max() > 130 and np.percentile(drawn, 99) - drawn.min() > 60
        dark += bright
        spectrum = np.abs(np.fft.fft2(drawn.astype(float) - drawn.mean()))
        row, column = np.unravel_index(spectrum[:48].argmax(), (48, 96))
        column = min(column, 96 - column)
        upright += bright and column >= row * np.tan(np.radians(60))
    assert 30 <= dark <= 90
    assert upright > 0.42 * dark  # a third if all directions were equally likely


def test_fur_has_local_colours() -> None:
    """The strokes of fur on a green scene are green, not gray."""
    green = np.full((64, 64, 3), (20, 160, 20), np.uint8)
    greenish = 0
    for seed in range(80):
        drawn = draw_pattern(green, np.random.default_rng(seed)).reshape(-1, 3).astype(int)
        changed = drawn[np.abs(drawn - green[0, 0]).max(axis=1) > 12]
        greenish += len(changed) > 100 and bool((changed[:, 1] > 2 * changed[:, 0]).all())
    assert 5 <= greenish <= 40
