"""Cut real rain out of photographs: crops from which DATA.SYNTHESIS.HARVEST composes new layers.

    python tools/harvest_rain.py --input RAINY_PHOTOS --output CROPS

In front of a smooth scene (sky, cloth, asphalt, a blurred background) rain is the difference from a
median across its direction. Crops of 64 to 128 pixels in which enough squares show rain and little
else are written as gray CROPS/PHOTO_NUMBER.png. Their streaks are vertical; a pixel's value is the
share of the way from the scene to white, so dry pixels are black, and so are squares with parts of
the scene. --sheet FILE.png shows the rotated photographs beside their rain.

Do not judge a network on photographs from which its training rain was cut; keep others for that.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.ndimage import median_filter
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the root holds our packages

from data.synthesis import read_photo
from tools.streaks import (
    ANGLES,
    ELONGATION,
    SCALES,
    excess_at,
    per_cell,
    rain_angle,
    step_filter,
    to_gray,
    turn_upright,
)
from utils.errors import UserError, run_main
from utils.images import images_by_stem, write_png
from utils.wording import plural

# The scene behind the rain is a median over (along, across) this many pixels.
MEDIAN = (7, 25)
CELL = 16  # side of the squares that are judged, pixels
# Sides of the crops in squares, and the share of these that must show rain and little else.
CROPS = ((8, 0.72), (6, 0.72), (4, 0.85))
# A photograph shows rain if steps across the best direction exceed those along it by this much.
LEAST_EXCESS = 0.5  # gray levels
# What a square must reach; steps and power are averaged with those of its neighbours.
LEAST_RATIO = 1.35  # steps across the rain over those along it
LEAST_STEPS = 0.8  # steps across the rain minus those along it, gray levels
LARGEST_SLOPE = 1.6  # of the scene behind, gray levels per pixel
LEAST_SKEW = 0.8  # power of what is brighter than the scene over that of what is darker
LARGEST_PEAK = 2.0  # brightest streak over the median of the photograph's squares


@dataclass(frozen=True)
class Harvest:
    """The rain of one photograph."""

    angle: float
    """Its direction, degrees from the vertical."""
    upright: np.ndarray
    """The photograph rotated until its rain is vertical, (H, W) gray levels."""
    layer: np.ndarray
    """Its rain, (H, W) from 0 to 1; 0 in squares that show something else."""
    windows: list[tuple[int, int, int]]
    """Top, left and side of the crops in pixels."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the crops that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", type=Path, required=True, help="folder of rainy photographs")
    parser.add_argument("--output", type=Path, required=True, help="a new folder for the crops")
    parser.add_argument("--sheet", type=Path, help="a new PNG of photographs and their rain")
    options = parser.parse_args(arguments)
    for path in (options.output, options.sheet):
        if path is not None and path.exists():
            raise UserError(f"{path} already exists; choose another or delete it.")
    photos = images_by_stem(options.input)
    harvests = {
        stem: harvest(to_gray(read_photo(path)))
        for stem, path in tqdm(photos.items(), "harvesting", unit="photo")
    }
    count = 0
    for stem, found in harvests.items():
        if found is None or not found.windows:
            print(f"{photos[stem]}: no crop, since no rain is in front of a smooth scene")
            continue
        for number, (top, left, side) in enumerate(found.windows):
            crop = found.layer[top : top + side, left : left + side]
            gray = np.rint(255 * crop).astype(np.uint8)
            write_png(options.output / f"{stem}_{number}.png", gray)
        count += len(found.windows)
    if not count:
        raise UserError(
            f"No crop was found in the {plural(len(photos), 'photograph')} of {options.input}."
        )
    crops, of = plural(count, "crop"), plural(len(photos), "photograph")
    print(f"wrote {crops} from {of} to {options.output}")
    if options.sheet:
        write_png(options.sheet, draw_sheet([found for found in harvests.values() if found]))


def harvest(gray: np.ndarray) -> Harvest | None:
    """The rain of a photograph, (H, W) gray levels; None if no direction stands out."""
    angle = rain_angle(gray)
    # At the end of the range the true direction may be outside it, and hardly that of rain.
    if abs(angle) == max(ANGLES) or excess_at(gray, angle) < LEAST_EXCESS:
        return None
    upright, inside = turn_upright(gray, angle)
    scene = cv2.GaussianBlur(median_filter(upright, size=MEDIAN), (0, 0), 2)
    rain = upright - scene
    layer = np.clip(rain / np.maximum(255 - scene, 60), 0, 1).astype(np.float32)
    # Noise varies from pixel to pixel along the streaks as well, rain hardly does.
    layer = cv2.GaussianBlur(layer, (0, 0), sigmaX=0.3, sigmaY=0.8)
    holds_rain = rainy_cells(rain, scene, inside, layer)
    kept = cv2.resize(
        holds_rain.astype(np.float32), None, fx=CELL, fy=CELL, interpolation=cv2.INTER_NEAREST
    )
    kept = np.clip(2 * cv2.GaussianBlur(kept, (0, 0), 5) - 1, 0, 1)
    layer = layer[: kept.shape[0], : kept.shape[1]] * kept
    return Harvest(angle, upright, layer, find_windows(holds_rain))


def rainy_cells(
    rain: np.ndarray, scene: np.ndarray, inside: np.ndarray, layer: np.ndarray
) -> np.ndarray:
    """Which squares of CELL pixels show rain and little else, (rows, columns) bool.

    ``rain`` and ``scene`` add up to the upright photograph.
    """

    def means(values: np.ndarray) -> np.ndarray:
        return per_cell(values, CELL, lambda x: x.mean(axis=-1)).astype(np.float32)

    def around(cells: np.ndarray) -> np.ndarray:
        return cv2.blur(cells, (3, 3), borderType=cv2.BORDER_REFLECT_101)

    across, along = (
        around(means(np.abs(cv2.filter2D(rain, -1, step_filter(SCALES[0], turn, ELONGATION)))))
        for turn in (0, 90)
    )
    slope = sum(means(np.abs(cv2.Sobel(scene, cv2.CV_32F, *axis) / 8)) for axis in ((1, 0), (0, 1)))
    brighter, darker = (means(np.square(np.maximum(sign * rain, 0))) for sign in (1, -1))
    found = (
        (per_cell(inside, CELL, lambda x: x.min(axis=-1)) > 0.999)
        & (across > LEAST_RATIO * along)
        & (across - along > LEAST_STEPS)
        & (slope < LARGEST_SLOPE)
        & (around(brighter) > LEAST_SKEW * around(darker))
    )
    if found.any():
        # A lamp or the edge of an umbrella outshines the rain around it.
        peaks = per_cell(layer, CELL, lambda x: np.percentile(x, 99, axis=-1))
        found &= peaks < LARGEST_PEAK * np.median(peaks[found])
    return found


def find_windows(holds_rain: np.ndarray) -> list[tuple[int, int, int]]:
    """Windows with enough rain that do not overlap, large ones first: top, left, side in pixels."""
    taken = np.zeros_like(holds_rain)
    found = []
    for side, least in CROPS:
        rows, columns = (size - side + 1 for size in holds_rain.shape)
        if rows < 1 or columns < 1:
            continue
        shares = cv2.boxFilter(holds_rain.astype(np.float32), -1, (side, side), anchor=(0, 0))
        shares = shares[:rows, :columns]
        for place in np.argsort(-shares, axis=None, kind="stable"):
            top, left = divmod(int(place), columns)
            window = (slice(top, top + side), slice(left, left + side))
            if shares[top, left] < least:
                break
            if not taken[window].any():
                taken[window] = True
                found.append((top * CELL, left * CELL, side * CELL))
    return found


def draw_sheet(harvests: Sequence[Harvest]) -> np.ndarray:
    """Photographs beside their rain, brightened threefold, with framed crops, (H, W, 3)."""
    rows = []
    for found in harvests:
        height, width = found.layer.shape
        halves = [found.upright[:height, :width], np.minimum(3 * 255 * found.layer, 255)]
        row = np.stack([np.hstack(halves)] * 3, axis=2).astype(np.uint8)
        for top, left, side in found.windows:
            for start in (left, left + width):
                cv2.rectangle(row, (start, top), (start + side, top + side), (255, 200, 0), 1)
        rows.append(row)
    widest = max(row.shape[1] for row in rows)
    return np.vstack([np.pad(row, ((0, 4), (0, widest - row.shape[1]), (0, 0))) for row in rows])


if __name__ == "__main__":
    run_main(main)
