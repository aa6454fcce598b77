"""The rain model: what a parameter says is what the picture shows."""

from __future__ import annotations

import numpy as np
import pytest

from data.rain import (
    Rain,
    add_rain,
    compose_layer,
    extract_layer,
    fade_layer,
    lay_over,
    random_downpour,
    random_fine_rain,
    random_rain,
    random_soft_rain,
    store_as_jpeg,
    streak_layer,
    vary_layer,
)

# One depth without gusts, defocus, fading ends or uneven light: everything can be counted.
PLAIN = Rain(num_layers=1, depth=1, spread=0, taper=0, blur=0, unevenness=0)


def plain(**changes) -> Rain:
    return Rain(**{**vars(PLAIN), **changes})


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def photo(height: int, width: int, low: int = 0, high: int = 256) -> np.ndarray:
    return generator(9).integers(low, high, (height, width, 3), dtype=np.uint8)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    error = np.mean((first.astype(np.float64) - second) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


@pytest.mark.parametrize("shape", [(40, 56, 3), (1, 7, 3), (33, 1, 3)])
def test_same_generator_same_rain_and_shape_is_kept(shape):
    clean = photo(*shape[:2])
    rain = random_rain(generator(3))
    first, again, other = (add_rain(clean, rain, generator(seed)) for seed in (5, 5, 6))
    assert first.shape == shape and first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert shape[0] == 1 or shape[1] == 1 or not np.array_equal(first, other)


def test_without_rain_the_photograph_is_untouched():
    clean = photo(30, 40)
    assert np.array_equal(add_rain(clean, Rain(density=0), generator()), clean)


@pytest.mark.parametrize("width", [1.0, 2.0, 3.5])
@pytest.mark.parametrize("length", [12.0, 80.0])
def test_density_is_the_area_of_the_streaks(width, length):
    rain = plain(density=0.1, width=width, length=length, brightness=0.5)
    layers = [streak_layer(300, 300, rain, generator(seed)) for seed in range(12)]
    # Streaks have 0.4 to 1 of the brightness, 0.7 on the average.
    area = np.mean(layers) / (0.7 * 0.5)
    # A streak's rounded ends and its crossings with others are worth some per cent.
    assert area == pytest.approx(0.1, rel=0.18)


def test_borders_are_as_wet_as_the_middle():
    rain = plain(density=0.3, length=80, angle=30)
    mean = np.mean([streak_layer(120, 120, rain, generator(seed)) for seed in range(60)], axis=0)
    middle = mean[40:80, 40:80].mean()
    for border in (mean[:6], mean[-6:], mean[:, :6], mean[:, -6:]):
        assert border.mean() == pytest.approx(middle, rel=0.2)


def test_length_is_the_mean_length():
    for length in (15, 60):
        rain = plain(density=0.01, width=1, length=length, brightness=1)
        rows = []
        for seed in range(8):
            wet = streak_layer(600, 600, rain, generator(seed)) > 0.15
            # Thin vertical streaks: each has one upper end.
            ends = wet[1:] & ~(wet[:-1] | np.roll(wet[:-1], 1, 1) | np.roll(wet[:-1], -1, 1))
            rows.append(wet.sum() / max(ends.sum(), 1))
        # From its first pixel to its last a line has one pixel more than its length.
        assert np.mean(rows) == pytest.approx(length + 1, rel=0.04)


@pytest.mark.parametrize("angle", [-40, -15, 15, 40])
def test_positive_angles_fall_towards_the_left(angle):
    layer = streak_layer(200, 200, plain(density=0.1, length=50, angle=angle), generator())

    def alike(slope: float) -> float:
        """How well the layer matches itself 12 rows lower along a direction."""
        shift = round(12 * np.tan(np.radians(slope)))
        moved = np.roll(layer, (12, -shift), (0, 1))[30:-30, 30:-30]
        return float(np.corrcoef(moved.ravel(), layer[30:-30, 30:-30].ravel())[0, 1])

    scores = {slope: alike(slope) for slope in (-40, -15, 15, 40)}
    assert max(scores, key=scores.__getitem__) == angle


@pytest.mark.parametrize("width", [1.0, 2.0, 3.0, 4.5])
def test_width_is_the_mean_width(width):
    widths = []
    for seed in range(20):
        rain = plain(density=0.02, width=width, length=100, brightness=0.5)
        layer = streak_layer(300, 300, rain, generator(seed))
        wet = layer > 0.05
        streaks = (wet[:, 1:] & ~wet[:, :-1]).sum()  # in how many rows each begins
        widths.append(layer.sum() / (0.7 * 0.5) / streaks)
    assert np.mean(widths) == pytest.approx(width, rel=0.2)


def test_streaks_thinner_than_a_pixel_are_fainter_instead():
    thin, thick = (
        streak_layer(80, 80, plain(width=width, length=20), generator()) for width in (0.25, 1)
    )
    assert thick.max() > 0.2
    assert np.allclose(thin, 0.25 * thick, atol=1e-6)


def test_far_layers_are_smaller_and_fainter():
    rain = plain(density=0.05, width=1, length=60, num_layers=2, depth=6)
    near, both = (
        streak_layer(200, 200, plain(**{**vars(rain), **only}), generator(1))
        for only in ({"num_layers": 1, "density": 0.025}, {})
    )
    far = both - near  # the first layer draws the same random numbers
    assert far.min() > -1e-6
    assert 0 < far.max() < 0.5 * near.max()

    def height_of_streaks(layer: np.ndarray) -> float:
        wet = layer > 0.3 * layer.max()
        return wet.sum() / (wet[1:] & ~wet[:-1]).sum()

    assert height_of_streaks(far) < 0.5 * height_of_streaks(near)


def test_the_same_gray_is_added_to_every_channel_and_clipped():
    clean = photo(80, 80, high=120)
    rain = plain(density=0.2, brightness=0.4)
    added = add_rain(clean, rain, generator()).astype(int) - clean
    assert added.max() > 60
    assert np.array_equal(added[..., 0], added[..., 1])
    assert np.array_equal(added[..., 0], added[..., 2])

    white = np.full((80, 80, 3), 250, np.uint8)
    assert add_rain(white, rain, generator()).max() == 255
    assert add_rain(white, rain, generator()).min() == 250


def test_screen_spares_what_is_bright():
    scene = np.full((80, 80, 3), 102, np.uint8)  # 0.4
    added, screened = (
        add_rain(scene, plain(brightness=0.15, screen=screen), generator()).astype(int) - scene
        for screen in (0, 1)
    )
    assert np.abs(screened - 0.6 * added).max() <= 1
    assert added.max() > 20


def test_veil_pulls_towards_the_airlight():
    rain = Rain(density=0, veil=0.5, airlight=0.8)
    black, white = np.zeros((60, 60, 3), np.uint8), np.full((60, 60, 3), 255, np.uint8)
    on_black, on_white = (add_rain(scene, rain, generator()) / 255 for scene in (black, white))
    assert 0.3 * 0.5 * 0.8 - 0.01 <= on_black.min() < on_black.max() <= 0.5 * 0.8 + 0.01
    # White loses a quarter of what black wins, everywhere.
    assert np.abs((1 - on_white) * 4 - on_black).max() < 0.02


def test_jpeg_keeps_the_colours():
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 200
    red[::2, ::2, 1] = 90
    stored = add_rain(red, Rain(density=0, jpeg_quality=50), generator())
    assert not np.array_equal(stored, red)
    assert stored[..., 0].mean() > 150 and stored[..., 2].mean() < 60


def test_extract_layer_inverts_the_adding():
    clean = photo(90, 70, high=200)
    clean[..., 0] = 255  # red tells nothing about the rain
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


def test_random_rain_reaches_from_drizzle_to_cloudburst():
    clean = np.full((120, 160, 3), 90, np.uint8)
    rains = [random_rain(generator(seed)) for seed in range(120)]
    strengths = [
        psnr(add_rain(clean, rain, generator(seed)), clean) for seed, rain in enumerate(rains)
    ]
    assert np.percentile(strengths, 5) < 12 and np.percentile(strengths, 95) > 25
    # No gap: every 3 dB between them are somebody's weather.
    filled, _ = np.histogram(strengths, bins=np.arange(11, 26, 3))
    assert (filled >= 4).all()
    angles = [rain.angle for rain in rains]
    assert min(angles) < -25 and max(angles) > 25 and abs(np.mean(angles)) < 8
    assert {rain.num_layers for rain in rains} == {1, 2, 3, 4, 5}
    for name in ("veil", "screen", "jpeg_quality"):
        share = np.mean([getattr(rain, name) > 0 for rain in rains])
        assert 0.05 < share < 0.5, name


def test_downpours_wet_nearly_everything_and_leave_the_scene_visible():
    layers = []
    for seed in range(30):
        rain = random_downpour(generator(seed))
        layers.append(streak_layer(120, 160, rain, generator(seed)))
    assert np.mean([layer.mean() for layer in layers]) == pytest.approx(0.25, abs=0.1)
    assert max(layer.mean() for layer in layers) < 0.5
    assert np.median([(layer > 0.04).mean() for layer in layers]) > 0.7


def widths_and_lengths(layer: np.ndarray) -> tuple[float, float]:
    """Mean runs of wet pixels along rows and along columns."""
    wet = layer > 0.3 * layer.max()
    across, along = (wet[:, 1:] & ~wet[:, :-1]).sum(), (wet[1:] & ~wet[:-1]).sum()
    return wet.sum() / across, wet.sum() / along


def test_fine_rain_is_short_and_soft_rain_wide_and_both_reach_faint_streaks():
    sizes = {}
    for draw in (random_fine_rain, random_soft_rain):
        rains = [draw(generator(seed)) for seed in range(60)]
        brightness = [rain.brightness for rain in rains]
        assert min(brightness) < 0.08 and max(brightness) > 0.4
        runs = []
        for seed, rain in enumerate(rains[:20]):
            upright = Rain(**{**vars(rain), "angle": 0.0, "spread": 0.0, "density": 0.03})
            runs.append(widths_and_lengths(streak_layer(200, 200, upright, generator(seed))))
        sizes[draw] = np.median(runs, axis=0)
    assert 1 <= sizes[random_fine_rain][0] < 4 and sizes[random_fine_rain][1] < 18
    assert sizes[random_soft_rain][0] > 1.6 * sizes[random_fine_rain][0]
    assert sizes[random_soft_rain][1] > 2 * sizes[random_fine_rain][1]


def test_composed_layers_have_no_seams():
    """Mirror images join: a crop that brightens evenly gives a layer without a single jump."""
    ramp = np.outer(np.linspace(0.1, 0.3, 24), np.linspace(0.5, 1, 16)).astype(np.float32)
    steepest = np.abs(np.gradient(ramp)).max()
    for seed in range(12):
        layer = compose_layer([ramp], 90, 70, generator(seed))
        # up to three crops, up to three times as strong, made smaller at most by half
        assert np.abs(np.diff(layer, axis=0)).max() < 3 * 3 * 2.1 * steepest
        assert np.abs(np.diff(layer, axis=1)).max() < 3 * 3 * 2.1 * steepest


def test_streaks_of_composed_layers_stand_upright_on_the_average():
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


def test_jpeg_of_quality_0_is_the_image_itself():
    image = np.repeat(photo(16, 24)[..., :1], 3, axis=2)
    assert store_as_jpeg(image, 0) is image
    coarse, fine = (store_as_jpeg(image, quality) for quality in (20, 95))
    assert coarse.shape == image.shape
    assert psnr(coarse, image) < psnr(fine, image) - 3
