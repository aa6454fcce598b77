"""Rain layers from pairs and from crops of real rain."""

from __future__ import annotations

import numpy as np
import pytest

from data.rain import lay_over, streak_layer
from data.rain_layers import compose_layer, extract_layer, fade_layer, vary_layer
from tests.data.test_rain import PLAIN, generator, photo, plain, psnr


def test_extract_layer_inverts_the_adding():
    clean = photo(90, 70, high=200)
    clean[..., 0] = 255  # red shows no rain
    layer = np.clip(streak_layer(90, 70, plain(brightness=0.2), generator()), 0, 0.2)
    found = extract_layer(lay_over(clean, layer), clean)
    assert found.shape == (90, 70)
    assert np.abs(found - layer).max() <= 0.5 / 255 + 1e-6


def test_extract_layer_fills_white_areas_with_streaks_of_the_same_direction():
    layer = np.zeros((60, 60), np.float32)
    layer[30:55, 30:55] = np.eye(25, dtype=np.float32) * 0.3
    layer[5:30, 5:30] = np.eye(25, dtype=np.float32) * 0.3
    clean = np.full((60, 60, 3), 100, np.uint8)
    clean[:30] = 255  # sky: half of the rain is lost
    rainy = lay_over(clean, layer)
    assert (rainy[:30] == 255).all()
    found = extract_layer(rainy, clean)
    assert np.abs(found - layer).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("seed", range(12))
def test_varied_layers_fill_any_size_and_change_in_strength(seed):
    flat = vary_layer(np.full((40, 60), 0.5, np.float32), 97, 51, generator(seed))
    assert flat.shape == (97, 51) and flat.dtype == np.float32
    assert np.ptp(flat) < 1e-4  # no dry corner after turning and scaling
    assert 0.29 < flat.mean() < 0.63


def test_varied_layers_differ():
    layer = streak_layer(60, 60, PLAIN, generator())
    varied = [vary_layer(layer, 60, 60, generator(seed)) for seed in range(6)]
    for index, first in enumerate(varied):
        for second in varied[:index]:
            assert not np.allclose(first, second, atol=0.05)


@pytest.mark.parametrize("wanted", [15.0, 26.0])
def test_fading_reaches_the_psnr(wanted):
    clean = np.full((100, 100, 3), 60, np.uint8)
    layer = np.minimum(streak_layer(100, 100, plain(density=1, length=20), generator()), 0.7)
    assert psnr(lay_over(clean, layer), clean) < 12
    faded = fade_layer(layer, wanted)
    assert psnr(lay_over(clean, faded), clean) == pytest.approx(wanted, abs=0.2)
    assert np.array_equal(fade_layer(faded, wanted - 3), faded)


def test_composed_layers_have_no_seams():
    """Mirror images join: a crop that brightens evenly gives a layer without any jump."""
    ramp = np.outer(np.linspace(0.1, 0.3, 24), np.linspace(0.5, 1, 16)).astype(np.float32)
    steepest = np.abs(np.gradient(ramp)).max()
    for seed in range(12):
        layer = compose_layer([ramp], 90, 70, generator(seed))
        # up to three crops, up to three times as strong, at most halved in size
        assert np.abs(np.diff(layer, axis=0)).max() < 3 * 3 * 2.1 * steepest
        assert np.abs(np.diff(layer, axis=1)).max() < 3 * 3 * 2.1 * steepest


def test_streaks_of_composed_layers_are_upright_on_average():
    """A crop with one upright line per 8 pixels; most layers change more across than along."""
    crop = np.zeros((64, 64), np.float32)
    crop[:, ::8] = 0.5
    upright = 0
    for seed in range(40):
        layer = compose_layer([crop], 80, 80, generator(seed))
        upright += (
            np.abs(np.diff(layer, axis=1)).mean() > 1.5 * np.abs(np.diff(layer, axis=0)).mean()
        )
    assert upright > 30


@pytest.mark.parametrize("seed", range(8))
def test_composed_layers_fill_any_size_and_differ(seed):
    crops = [np.full((32, 48), 0.1, np.float32), np.full((64, 40), 0.1, np.float32)]
    flat = compose_layer(crops, 97, 51, generator(seed))
    assert flat.shape == (97, 51) and flat.dtype == np.float32
    assert np.ptp(flat) < 1e-4 and 0.05 <= flat.mean() < 0.9  # no dry corner, one to three crops
    rough = [photo(40, 40)[..., 0].astype(np.float32) / 255]
    one, other = (compose_layer(rough, 50, 60, generator(k)) for k in (seed, seed + 100))
    assert not np.allclose(one, other, atol=0.05)
