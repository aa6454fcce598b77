"""The protocols against the figures of their authors' scripts, and against scikit-image."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.ndimage import uniform_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from utils.errors import UserError
from utils.images import read_gray_or_rgb
from utils.metrics import PROTOCOLS, _rounded_luma, score

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())["pairs"]
# Computed with OpenCV and scikit-image alone
EXPECTED_MORE = json.loads((GOLDEN / "expected_more.json").read_text())
COLOURS = json.loads((GOLDEN / "y_colours.json").read_text())
TOLERANCE = {"rain13k": (1e-6, 1e-8), "did": (1e-6, 1e-8), "rgb": (1e-6, 1e-4)}
IN_GOLDEN = {"rain13k": "rain13k", "did": "did", "rgb": "dcsfn_rgb"}


def random_pair(seed: int, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image and the smoother one it came from, uint8."""
    rng = np.random.default_rng(seed)
    clean = np.cumsum(rng.normal(0, 4, shape), axis=1) % 256
    noisy = clean + rng.normal(0, 15, shape)
    return noisy.clip(0, 255).astype(np.uint8), clean.astype(np.uint8)


def reference_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """scikit-image's SSIM of two planes in 0..255, as the authors' script computes it."""
    return structural_similarity(
        x, y, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )


def luma(image: np.ndarray) -> np.ndarray:
    return (image @ np.array([65.481, 128.553, 24.966])) / 255 + 16


@pytest.mark.parametrize("protocol", IN_GOLDEN)
@pytest.mark.parametrize("name", EXPECTED)
def test_scores_are_those_of_the_authors_scripts(name: str, protocol: str):
    pair = EXPECTED[name]
    restored, clean = (read_gray_or_rgb(GOLDEN / pair[side]) for side in ("result", "gt"))
    expected = pair["expected"][IN_GOLDEN[protocol]]
    psnr, ssim = score(restored, clean, protocol)
    psnr_tolerance, ssim_tolerance = TOLERANCE[protocol]
    # np.isclose takes two infinities as equal
    assert np.isclose(psnr, float(expected["psnr"]), rtol=0, atol=psnr_tolerance)
    assert ssim == pytest.approx(expected["ssim"], rel=0, abs=ssim_tolerance)


@pytest.mark.parametrize(
    ("name", "protocol"),
    [(name, protocol) for name, figures in EXPECTED_MORE.items() for protocol in figures],
)
def test_scores_are_those_of_the_later_sets_scripts(name: str, protocol: str):
    restored, clean = (read_gray_or_rgb(GOLDEN / f"{name}_{side}.png") for side in ("result", "gt"))
    expected = EXPECTED_MORE[name][protocol]
    psnr, ssim = score(restored, clean, protocol)
    assert np.isclose(psnr, float(expected["psnr"]), rtol=0, atol=1e-9)
    assert ssim == pytest.approx(expected["ssim"], rel=0, abs=1e-10)


def test_raindrop_is_scikit_image_on_opencvs_luma_of_whole_fours():
    restored, clean = random_pair(8, 83, 62, 3)  # 80 x 60 are left
    x, y = (cv2.cvtColor(i[..., ::-1], cv2.COLOR_BGR2YCrCb)[:80, :60, 0] for i in (restored, clean))
    assert score(restored, clean, "raindrop") == pytest.approx(
        (peak_signal_noise_ratio(y, x, data_range=255), structural_similarity(x, y)), abs=1e-10
    )


def test_hq_rain_leaves_out_four_pixels_of_each_border():
    restored, clean = random_pair(9, 60, 41, 3)
    x, y = luma(restored)[4:-4, 4:-4], luma(clean)[4:-4, 4:-4]
    psnr = 20 * np.log10(255 / np.sqrt(np.mean((x - y) ** 2)))
    assert score(restored, clean, "hq_rain") == pytest.approx(
        (psnr, reference_ssim(x, y)), abs=1e-9
    )
    framed = restored.copy()
    framed[:4] = framed[-4:] = framed[:, :4] = framed[:, -4:] = 7
    assert score(framed, clean, "hq_rain") == score(restored, clean, "hq_rain")


def test_luma_of_colours_is_that_of_matlab():
    for sample in COLOURS["samples"]:
        image = np.array(sample["rgb"], np.uint8).reshape(1, 1, 3)
        assert _rounded_luma(image)[0, 0] == sample["y_uint8"], sample


def test_luma_between_two_levels_is_rounded_up():
    colours = np.array([tie["rgb"] for tie in COLOURS["exact_ties"]], np.uint8)
    exact = np.array([tie["y_exact"] for tie in COLOURS["exact_ties"]])
    octave = np.array([tie["y_octave"] for tie in COLOURS["exact_ties"]])
    rounded = _rounded_luma(colours[None])[0]
    np.testing.assert_array_equal(rounded, exact + 0.5)
    assert np.count_nonzero(rounded != octave) == 4  # Octave's own rounding errors


@pytest.mark.parametrize("shape", [(11, 11), (75, 64), (74, 200), (300, 90)])
def test_ssim_is_that_of_scikit_image(shape: tuple[int, int]):
    # 74, 75 and 300 rows end a stripe of window positions exactly, just begin one, and fill many
    x, y = random_pair(1, *shape)
    psnr, ssim = score(x, y)
    assert ssim == pytest.approx(reference_ssim(x.astype(float), y.astype(float)), rel=0, abs=1e-8)
    mse = np.mean((x.astype(float) - y) ** 2)
    assert psnr == pytest.approx(10 * np.log10(255**2 / mse), rel=0, abs=1e-9)


@pytest.mark.parametrize(
    ("side", "factor"),
    [(383, 1), (384, 2), (500, 2), (639, 2), (640, 3), (700, 3), (895, 3), (896, 4), (1000, 4)],
)
def test_did_shrinks_by_the_rounded_factor(side: int, factor: int):
    restored, clean = random_pair(2, side, side + 7, 3)

    def shrunk(image: np.ndarray) -> np.ndarray:
        # scipy centres an even window half a pixel before ours; origin moves it
        origin = -1 if factor % 2 == 0 else 0
        means = uniform_filter(luma(image), factor, mode="reflect", origin=origin)
        return means[::factor, ::factor]

    expected = reference_ssim(shrunk(restored), shrunk(clean))
    assert score(restored, clean, "did").ssim == pytest.approx(expected, rel=0, abs=1e-8)


@pytest.mark.parametrize(
    ("protocol", "identical"),
    [(protocol, (100 if protocol == "rgb" else np.inf, 1)) for protocol in PROTOCOLS],
)
def test_identical_images(protocol: str, identical: tuple[float, float]):
    image, _ = random_pair(3, 40, 30, 3)
    assert score(image, image.copy(), protocol) == identical


def test_black_against_white_has_no_overflow():
    black = np.zeros((1200, 1200, 3), np.uint8)
    assert score(black, 255 - black, "rgb").psnr == pytest.approx(0, abs=1e-12)
    assert score(black, 255 - black, "rain13k").psnr == pytest.approx(20 * np.log10(255 / 219))


@pytest.mark.parametrize(
    ("protocol", "least"),
    [("rain13k", 11), ("did", 11), ("rgb", 1), ("hq_rain", 19), ("raindrop", 8)],
)
def test_each_protocol_names_the_smallest_size_that_it_scores(protocol: str, least: int):
    restored, clean = random_pair(4, least, 40, 3)
    psnr, ssim = score(restored, clean, protocol)
    assert np.isfinite(psnr) and -1 < ssim < 1
    if least > 1:
        with pytest.raises(UserError, match=rf"40x{least - 1} px.*at least {least}x{least}"):
            score(restored[1:], clean[1:], protocol)


def test_gray_images_are_scored_as_they_are():
    x, y = random_pair(5, 60, 50)
    plain = reference_ssim(x.astype(float), y.astype(float))
    assert score(x, y, "rain13k").ssim == pytest.approx(plain, abs=1e-8)
    assert score(x, y, "did") == pytest.approx(score(x, y, "rain13k"), rel=1e-12)
    stacked = [np.dstack([image] * 3) for image in (x, y)]
    assert score(x, y, "rgb") == pytest.approx(score(*stacked, "rgb"), rel=1e-12)
    # the luma of three equal channels has the smaller range 16..235
    assert score(*stacked, "did").psnr - score(x, y, "did").psnr == pytest.approx(
        20 * np.log10(255 / 219), abs=1e-6
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_gray_image_against_rgb_stands_for_three_channels(protocol: str):
    x, y = random_pair(6, 60, 50)
    stacked = [np.dstack([image] * 3) for image in (x, y)]
    assert score(x, stacked[1], protocol) == score(*stacked, protocol)
    assert score(stacked[0], y, protocol) == score(*stacked, protocol)


def test_reversed_views_count_like_copies():
    restored, clean = random_pair(7, 40, 40, 3)
    for protocol in PROTOCOLS:
        views = (image[..., ::-1][..., ::-1] for image in (restored, clean))
        bgr = score(restored[..., ::-1], clean[..., ::-1], protocol)
        assert score(*views, protocol) == score(restored, clean, protocol)
        if protocol != "rgb":
            assert bgr != score(restored, clean, protocol)


def test_refused_arrays():
    image = np.zeros((20, 30, 3), np.uint8)
    with pytest.raises(UserError, match=r"30x20 px.*25x20 px"):
        score(image, image[:, :25])
    with pytest.raises(ValueError, match="float32"):
        score(image.astype(np.float32), image)
    with pytest.raises(ValueError, match=r"\(20, 30, 4\)"):
        score(np.zeros((20, 30, 4), np.uint8), image)
    with pytest.raises(ValueError, match="rain13k, did, rgb, hq_rain, raindrop"):
        score(image, image, "psnr")
