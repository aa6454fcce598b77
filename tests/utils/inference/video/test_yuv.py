"""Y'CbCr and RGB: the standards' figures, and a round trip that loses nothing."""

from __future__ import annotations

import numpy as np
import pytest

from utils.inference.video.yuv import Layout, from_rgb, to_rgb

# (R', G', B') -> limited-range 8-bit (Y', Cb, Cr), from tables of colour bars.
BARS_601 = {(1, 0, 0): (81, 90, 240), (0, 1, 0): (145, 54, 34), (0, 0, 1): (41, 240, 110)}
BARS_709 = {(1, 0, 0): (63, 102, 240), (0, 1, 0): (173, 42, 26), (0, 0, 1): (32, 240, 118)}
BARS_2020 = {(1, 0, 0): (74, 97, 240), (0, 1, 0): (164, 47, 25), (0, 0, 1): (29, 240, 119)}


def patch(*colour: float) -> np.ndarray:
    return np.tile(np.float32(colour), (8, 8, 1))


@pytest.mark.parametrize(
    ("matrix", "bars"), [(1, BARS_709), (5, BARS_601), (6, BARS_601), (9, BARS_2020)]
)
def test_colour_bars_have_the_standards_values(
    matrix: int, bars: dict[tuple[int, ...], tuple[int, ...]]
) -> None:
    layout = Layout(matrix, full=False)
    for colour, stored in {**bars, (0, 0, 0): (16, 128, 128), (1, 1, 1): (235, 128, 128)}.items():
        planes = from_rgb(patch(*colour), layout)
        assert [plane.shape for plane in planes] == [(8, 8), (4, 4), (4, 4)]
        for plane, value in zip(planes, stored, strict=True):
            assert (plane == value).all(), (colour, stored)
        assert np.abs(to_rgb(planes, layout) - np.float32(colour)).max() < 1.5 / 219


@pytest.mark.parametrize(
    ("layout", "black", "white", "middle"),
    [
        (Layout(5, full=True), 0, 255, 128),
        (Layout(1, full=False, bits=10), 64, 940, 512),
        (Layout(1, full=True, bits=10), 0, 1023, 512),
        (Layout(9, full=False, bits=12), 256, 3760, 2048),
    ],
)
def test_depths_and_ranges(layout: Layout, black: int, white: int, middle: int) -> None:
    for gray, value in ((0.0, black), (1.0, white)):
        planes = from_rgb(patch(gray, gray, gray), layout)
        assert [np.unique(plane).tolist() for plane in planes] == [[value], [middle], [middle]]
        for given in (planes, planes[:1]):  # and gray only
            np.testing.assert_allclose(to_rgb(given, layout), gray, atol=1e-6)


def test_a_gray_ramp_is_unchanged() -> None:
    """Every gray is stored within half a level and survives the round trip."""
    for layout in (Layout(1, full=False), Layout(5, full=True)):
        stored = np.repeat(np.arange(256, dtype=np.uint8)[None], 4, axis=0)
        colours = np.full((2, 128), 128, np.uint8)
        rgb = to_rgb([stored, colours, colours], layout)
        exact = stored / 255 if layout.full else (stored - 16.0) / 219
        np.testing.assert_allclose(rgb, np.repeat(exact.clip(0, 1)[..., None], 3, 2), atol=1e-6)
        back = from_rgb(rgb, layout)[0]
        np.testing.assert_array_equal(back, stored if layout.full else stored.clip(16, 235))


@pytest.mark.parametrize("across_down", [(1, 1), (2, 1), (2, 2), (4, 1), (4, 4), (1, 2)])
@pytest.mark.parametrize("size", [(48, 64), (47, 63), (2, 3), (1, 1)])
def test_writing_what_was_read_changes_nothing(
    across_down: tuple[int, int], size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    for matrix, full, bits in ((1, False, 8), (5, True, 8), (9, False, 10)):
        layout = Layout(matrix, full, bits, *across_down)
        top = 1 << bits
        colours = (-(-size[0] // layout.down), -(-size[1] // layout.across))
        # Colours inside RGB's range, so nothing is clipped.
        luma = rng.integers(0.4 * top, 0.6 * top, size).astype(layout.dtype)
        chroma = rng.integers(0.45 * top, 0.55 * top, (2, *colours)).astype(layout.dtype)
        back = from_rgb(to_rgb([luma, *chroma], layout), layout)
        for before, after in zip([luma, *chroma], back, strict=True):
            np.testing.assert_array_equal(after, before)


def test_chroma_samples_are_at_the_positions_of_the_standard() -> None:
    """Horizontally at every second luma sample, vertically halfway between two."""
    layout = Layout(5, full=True)
    luma = np.full((4, 4), 128, np.uint8)
    for red in (np.uint8([[128, 158], [128, 158]]), np.uint8([[128, 128], [158, 158]])):
        rgb = to_rgb([luma, np.full((2, 2), 128, np.uint8), red], layout)
        excess = (rgb[..., 0] - 128 / 255) * 255 / (2 - 2 * 0.299) / 30
        if red[0, 1] == 158:
            expected = np.tile([0, 0.5, 1, 1], (4, 1))
        else:
            expected = np.tile(np.array([0, 0.25, 0.75, 1])[:, None], (1, 4))
        np.testing.assert_allclose(excess, expected, atol=1e-5)


def test_written_colours_are_the_least_squares_fit() -> None:
    """NumPy computes the fit over all samples at once from the matrix of the reading."""
    layout = Layout(1, full=True, bits=16)
    rng = np.random.default_rng(1)
    rgb = rng.uniform(0.3, 0.7, (6, 8, 3)).astype(np.float32)
    gray = np.full((6, 8), 30000, np.uint16)
    columns = []
    for i in range(12):  # the weight of each Cr sample in the red of each pixel
        red = np.full(12, 32768, np.uint16)
        red[i] += 10000
        with_it = to_rgb([gray, np.full((3, 4), 32768, np.uint16), red.reshape(3, 4)], layout)
        columns.append((with_it[..., 0] - 30000 / 65535).ravel() / 10000)
    luma = rgb @ np.float32([0.2126, 0.7152, 0.0722])
    wanted = (rgb[..., 0] - luma).ravel()
    best = np.linalg.lstsq(np.stack(columns, 1), wanted, rcond=None)[0].reshape(3, 4)
    np.testing.assert_allclose(from_rgb(rgb, layout)[2], best + 32768, atol=20)
