"""Compare the rain that data/rain.py draws with that of existing pairs or of real photographs.

    python tools/rain_statistics.py --layers PAIRS_OF_A_DATA_SET --skip-layers train-1,train-10
    python tools/rain_statistics.py --layers CROPS_OF_REAL_RAIN --share-faint 1 --sheet rain.png

prints the 10th, 50th and 90th percentile of each quantity over the layers. --sheet shows layers
above drawn rain, at full size and three times as bright. Crops of real rain come from
tools/harvest_rain.py, which rotates them until streaks are vertical and leaves the mean of dense
rain to the scene: their "angle", "mean" and "wet" are not those of the photographs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the root holds our packages

from data.rain import streak_layer
from data.synthesis import Mixture, find_layers, random_rain_of, read_layers
from utils.errors import UserError, run_main
from utils.images import write_png

# Drawn layers have the size of the BSDS500 photographs, the scenes of most data sets.
HEIGHT, WIDTH = 321, 481
NUM_DRAWN = 200

# A pixel that is brighter by more than this (10 of 255 levels) is wet.
WET = 0.04

MEANINGS = {
    "length": "where the autocorrelation along streaks exceeds a half, pixels",
    "width": "where the autocorrelation across streaks exceeds a half, pixels",
    "spacing": "distance of bright crests across the streaks, pixels",
    "angle": "degrees from the vertical; positive rain falls towards the left",
    "mean": "mean brightness, 0 to 1",
    "wet": f"share of the pixels brighter than {WET}",
    "bright": "99th percentile of the brightness",
    "sharp": "99th percentile of differences of neighbours across streaks, over 'bright'",
    "crossing": "0: all edges run in one direction, 1: equally in all directions",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=Path, required=True, help="pairs, or gray images of rain")
    parser.add_argument(
        "--skip-layers",
        type=lambda text: [stem for stem in text.split(",") if stem],
        default=[],
        metavar="STEM,STEM",
        help="pairs to leave out",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the drawn rain (default: 0)")
    parser.add_argument(
        "--share-downpours",
        type=float,
        default=0.35,
        help="share of downpours in the drawn rain (default: 0.35)",
    )
    parser.add_argument(
        "--share-faint",
        type=float,
        default=0.0,
        help="share of fine or soft rain in the drawn rain (default: 0)",
    )
    parser.add_argument("--sheet", type=Path, help="a new PNG with layers and drawn rain")
    options = parser.parse_args(arguments)
    if options.sheet and options.sheet.exists():
        raise UserError(f"{options.sheet} already exists; choose another or delete it.")

    mixture = Mixture(downpours=options.share_downpours, faint=options.share_faint)
    layers = read_layers(find_layers(options.layers, options.skip_layers, "--skip-layers"))
    rng = np.random.default_rng(options.seed)
    drawn = [
        streak_layer(HEIGHT, WIDTH, random_rain_of(mixture, rng), rng) for _ in range(NUM_DRAWN)
    ]
    print(f"{len(layers)} layers of {options.layers}, {NUM_DRAWN} drawn; percentiles 10 / 50 / 90")
    rows = [[statistics(layer) for layer in kind] for kind in (layers, drawn)]
    print(f"{'':9} {'layers':>24} {'drawn':>24}")
    for name in MEANINGS:
        columns = (_percentiles([row[name] for row in kind]) for kind in rows)
        print(f"{name:9} {' '.join(f'{column:>24}' for column in columns)}")
    print()
    for name, meaning in MEANINGS.items():
        print(f"{name:9} {meaning}")
    if options.sheet:
        write_png(options.sheet, draw_sheet(layers, drawn))


def statistics(layer: np.ndarray) -> dict[str, float]:
    """The quantities of ``MEANINGS`` for a rain layer, (H, W) float32, 0 for no rain."""
    # The structure tensor gives the direction in which a layer changes most: across its streaks.
    # Unblurred, the stairs of thin slanted lines would pull it towards the axes.
    smooth = cv2.GaussianBlur(layer, (0, 0), 1.5)
    dx = cv2.Sobel(smooth, cv2.CV_32F, 1, 0)
    dy = cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    xx, yy, xy = (float((a * b).mean()) for a, b in ((dx, dx), (dy, dy), (dx, dy)))
    angle = np.degrees(np.arctan2(2 * xy, xx - yy)) / 2
    one_direction = np.hypot(xx - yy, 2 * xy) / max(xx + yy, 1e-12)

    upright = _turned_centre(layer, angle)
    upright = upright - upright.mean()
    spectrum = np.abs(np.fft.fft2(upright)) ** 2
    correlation = np.fft.ifft2(spectrum).real / max(spectrum.mean(), 1e-12)
    half = len(upright) // 2
    middle, left, right = upright[:, 1:-1], upright[:, :-2], upright[:, 2:]
    crests = (middle > left) & (middle >= right) & (middle > 0.5 * upright.std())
    bright = float(np.percentile(layer, 99))
    steps = np.percentile(np.abs(np.diff(upright, axis=1)), 99)
    return {
        "length": 2 * _half_width(correlation[:half, 0]),
        "width": 2 * _half_width(correlation[0, :half]),
        "spacing": upright.shape[1] / max(float(crests.sum(axis=1).mean()), 1e-3),
        "angle": float(angle),
        "mean": float(layer.mean()),
        "wet": float((layer > WET).mean()),
        "bright": bright,
        "sharp": float(steps) / max(bright, 1e-6),
        "crossing": float(1 - one_direction),
    }


def draw_sheet(layers: list[np.ndarray], drawn: list[np.ndarray]) -> np.ndarray:
    """Up to eight layers above as many drawn ones, cut to one size, (H, W) uint8."""
    shown = layers[:: -(-len(layers) // 8)]
    height, width = (min(layer.shape[axis] for layer in [*shown, *drawn]) for axis in (0, 1))
    rows = [
        np.hstack([np.pad(layer[:height, :width], 2) for layer in row])
        for row in (shown, drawn[: len(shown)])
    ]
    return np.rint(255 * np.clip(3 * np.vstack(rows), 0, 1)).astype(np.uint8)


def _turned_centre(layer: np.ndarray, angle: float) -> np.ndarray:
    """The middle square of a layer, rotated until its streaks are vertical."""
    height, width = layer.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
    turned = cv2.warpAffine(layer, turn, (width, height), flags=cv2.INTER_LINEAR)
    reach = int(0.32 * min(height, width))  # stays inside at any angle
    rows = slice(height // 2 - reach, height // 2 + reach)
    return turned[rows, width // 2 - reach : width // 2 + reach]


def _half_width(correlation: np.ndarray) -> float:
    """Where a correlation that starts at 1 falls to 0.5, interpolated between samples."""
    below = np.flatnonzero(correlation < 0.5)
    if not len(below):
        return float(len(correlation))
    k = below[0]
    return float(k - 1 + (correlation[k - 1] - 0.5) / (correlation[k - 1] - correlation[k]))


def _percentiles(values: list[float]) -> str:
    return " / ".join(f"{value:.3g}" for value in np.percentile(values, (10, 50, 90)))


if __name__ == "__main__":
    run_main(main)
