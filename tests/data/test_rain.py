"""The rain model: the picture shows what the parameters say."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from data.rain import (
    FallingStreaks,
    Rain,
    add_rain,
    random_downpour,
    random_fine_rain,
    random_rain,
    random_soft_rain,
    store_as_jpeg,
    streak_layer,
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
    # Streaks have 0.4 to 1 of the brightness, 0.7 on average.
    area = np.mean(layers) / (0.7 * 0.5)
    # Rounded ends and crossings change the area by some per cent.
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
    # Everywhere, white loses a quarter of what black gains.
    assert np.abs((1 - on_white) * 4 - on_black).max() < 0.02


def test_jpeg_keeps_the_colours():
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 200
    red[::2, ::2, 1] = 90
    stored = add_rain(red, Rain(density=0, jpeg_quality=50), generator())
    assert not np.array_equal(stored, red)
    assert stored[..., 0].mean() > 150 and stored[..., 2].mean() < 60


def test_random_rain_reaches_from_drizzle_to_cloudburst():
    clean = np.full((120, 160, 3), 90, np.uint8)
    rains = [random_rain(generator(seed)) for seed in range(120)]
    strengths = [
        psnr(add_rain(clean, rain, generator(seed)), clean) for seed, rain in enumerate(rains)
    ]
    assert np.percentile(strengths, 5) < 12 and np.percentile(strengths, 95) > 25
    # No gap: each range of 3 dB in between occurs.
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


def test_jpeg_of_quality_0_is_the_image_itself():
    image = np.repeat(photo(16, 24)[..., :1], 3, axis=2)
    assert store_as_jpeg(image, 0) is image
    coarse, fine = (store_as_jpeg(image, quality) for quality in (20, 95))
    assert coarse.shape == image.shape
    assert psnr(coarse, image) < psnr(fine, image) - 3


def only_streak(layer: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Centre and length (rows, columns) of the streak of a layer; None if there is not just one."""
    wet = layer > 0.1
    count, _ = cv2.connectedComponents(wet.astype(np.uint8))
    if count != 2 or wet[[0, -1]].any() or wet[:, [0, -1]].any():
        return None
    rows, columns = np.nonzero(wet)
    upper, lower = columns[rows == rows.min()].mean(), columns[rows == rows.max()].mean()
    return np.array([rows.mean(), columns.mean()]), np.array([np.ptp(rows), lower - upper])


@pytest.mark.parametrize(("length", "angle"), [(20.0, 0.0), (30.0, -35.0), (45.0, 20.0)])
def test_a_streak_falls_by_twice_its_length_along_its_direction(length, angle):
    """The shutter is open for half of a frame's time."""
    rain = plain(density=1e-4, width=1, length=length, angle=angle, brightness=1)
    seen = 0
    for seed in range(60):
        streaks = FallingStreaks(300, 300, rain, generator(seed))
        before, after = (only_streak(streaks.layer(frame)) for frame in (0, 1))
        if before and after:
            (start, reach), (end, _) = before, after
            # a streak's ends are seen to a pixel or two, and its direction varies by a degree
            assert end - start == pytest.approx(2 * reach, abs=5)
            assert reach[1] == pytest.approx(-np.tan(np.radians(angle)) * reach[0], abs=4)
            seen += 1
    assert seen >= 5


def test_streaks_return_at_the_top_and_the_rain_stays_as_strong():
    rain = plain(density=0.3, length=40, angle=20, width=2)
    streaks = FallingStreaks(160, 200, rain, generator(2))
    layers = np.stack([streaks.layer(frame) for frame in range(0, 400, 7)])
    assert np.array_equal(layers[0], streak_layer(160, 200, rain, generator(2)))
    wetness = layers.mean(axis=(1, 2))
    assert wetness.std() < 0.1 * wetness.mean()
    for border in (layers[:, :8], layers[:, -8:], layers[:, :, :8], layers[:, :, -8:]):
        assert border.mean() == pytest.approx(layers.mean(), rel=0.15)


def test_what_varies_the_strength_stays_in_its_place():
    rain = plain(density=3, length=12, unevenness=0.8)
    streaks = FallingStreaks(90, 120, rain, generator(4))
    first, last = (
        np.mean([streaks.layer(frame) for frame in frames], axis=0)
        for frames in (range(0, 60), range(500, 560))
    )
    coarse = [layer.reshape(3, 30, 4, 30).mean(axis=(1, 3)) for layer in (first, last)]
    assert coarse[0].max() > 1.3 * coarse[0].min()
    np.testing.assert_allclose(*coarse, rtol=0.1)


@pytest.mark.parametrize(
    ("draw", "mean", "moment", "following"),
    [
        (random_rain, 0.0075489, 18.0163, 11794),
        (random_downpour, 0.2233498, 715.7671, 483624),
        (random_fine_rain, 0.2774545, 895.127, 483624),
        (random_soft_rain, 0.1385153, 449.1388, 483624),
    ],
)
def test_a_seed_gives_the_rain_that_it_has_always_given(draw, mean, moment, following):
    """Resumed trainings rely on it: figures of version 0.2.0."""
    rng = generator(11)
    layer = streak_layer(70, 90, draw(rng), rng).astype(np.float64)
    assert layer.mean() == pytest.approx(mean, rel=1e-4)
    assert (layer.ravel() * np.arange(6300)).mean() == pytest.approx(moment, rel=1e-4)
    assert rng.integers(10**6) == following
