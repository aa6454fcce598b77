"""Measure how much rain is left in photographs without clean images, and what else changed.

    python tools/streak_index.py --input PHOTOS --results results/petrichor results/other

prints a row for the photographs themselves and one for each folder of restored images:

streaks   how much more the gray levels change across the rain than along it, for three widths of
          streaks, and their mean: falls as rain is removed
texture   how much they change along the rain, as a share of the photographs': falls with blur
colour    mean change of the chroma, averaged over 8 pixels, in gray levels: 0 if colours are kept

The direction of the rain is measured in each photograph. Lines of more than 40 pixels, such as the
edges of walls and poles, are left out. Scenes have fine upright edges too, so 0 is not the aim for
a single photograph; compare the means of many.

    python tools/streak_index.py --calibrate CLEAN_PHOTOS

prints the figures where the truth is known: for drawn rain, part of which is removed again, and for
the rainy photographs blurred.

    python tools/streak_index.py --weights W.safetensors --clean PHOTOS --layers LAYERS

prints which streaks a network removes: four layers at a time are enlarged, blurred, made fainter
and added to the middle of each photograph. The figures are shares of the streaks' gradients: the
projection of what the network took from the gradients in rows onto what the layers added to them.
Changes of the scene itself hardly count.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import cv2
import numpy as np
from scipy.ndimage import median_filter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the root holds our packages

from data.rain import lay_over, random_fine_rain, random_rain, streak_layer
from data.synthesis import find_layers, read_layers, read_photo
from models import load_weights
from tools.streaks import (
    SCALES,
    cell_medians,
    rain_angle,
    steps,
    to_gray,
    turn_upright,
)
from utils.errors import UserError, run_main
from utils.images import images_by_stem
from utils.inference.restorer import Restorer
from utils.markdown import markdown_table

# The elongation of the filter for texture: so wide that streaks cancel out.
TEXTURE_ELONGATION = 6.0
# Length of the median along the rain, pixels; lines longer than half of it belong to the scene.
LONGEST = 81
# The table of removed streaks: enlargement of the layers, sigma of the blur in pixels, strength,
# and side of the square in the middle of each photograph.
REMOVAL_SCALES = (1.0, 2.0, 3.0)
REMOVAL_BLURS = (0.0, 1.5)
REMOVAL_GAINS = (0.12, 0.3, 0.8)
REMOVAL_SIDE = 256


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", type=Path, help="folder of rainy photographs")
    parser.add_argument("--results", type=Path, nargs="+", help="folders of restored images")
    parser.add_argument("--calibrate", type=Path, metavar="CLEAN", help="clean photographs")
    parser.add_argument("--weights", type=Path, help="a network that removes synthetic streaks")
    parser.add_argument("--clean", type=Path, help="clean photographs for --weights")
    parser.add_argument("--layers", type=Path, help="rain for --weights: pairs, or gray images")
    options = parser.parse_args(arguments)
    given = {name for name, value in vars(options).items() if value is not None}
    if given == {"calibrate"}:
        print(calibration_table(options.calibrate))
    elif given == {"input", "results"}:
        print(results_table(options.input, options.results))
    elif given == {"weights", "clean", "layers"}:
        network = load_weights(options.weights)
        print(removal_table(Restorer(network), options.clean, options.layers))
    else:
        raise UserError(
            "Give --input and --results, --calibrate alone, or --weights, --clean and --layers."
        )


HEADINGS = ("streaks: fine", "medium", "wide", "mean", "texture", "colour")


def results_table(rainy_folder: Path, results: Sequence[Path]) -> str:
    """The figures of the rainy photographs and of each folder, averaged over the photographs."""
    photos = images_by_stem(rainy_folder)
    restored = [images_by_stem(folder) for folder in results]
    for folder, images in zip(results, restored, strict=True):
        for stem in photos:
            if stem not in images:
                raise UserError(f"{folder} has no image {stem}; restore all of {rainy_folder}.")
    figures: list[list[list[float]]] = [[] for _ in range(len(results) + 1)]
    for stem, path in photos.items():
        rainy = read_photo(path)
        angle = rain_angle(to_gray(rainy))
        for rows, image in zip(
            figures, [rainy, *(read_photo(images[stem]) for images in restored)], strict=True
        ):
            if image.shape != rainy.shape:
                raise UserError(f"{stem} has different sizes in {rainy_folder} and the results.")
            rows.append(compare_photos(rainy, image, angle))
    names = [f"rainy ({len(photos)} photographs)", *(str(folder) for folder in results)]
    return _table(dict(zip(names, figures, strict=True)))


def calibration_table(folder: Path) -> str:
    """The figures of drawn rain, part of which is removed, and of blur."""
    rows: dict[str, list[list[float]]] = {}
    for number, path in enumerate(images_by_stem(folder).values()):
        clean = read_photo(path)
        rng = np.random.default_rng(number)
        rain = random_fine_rain(rng) if number % 2 else random_rain(rng)
        layer = streak_layer(clean.shape[0], clean.shape[1], rain, rng)
        rainy = lay_over(clean, layer)
        changed = {
            f"{share:.0%} of the rain left": lay_over(clean, np.float32(share) * layer)
            for share in (1, 0.75, 0.5, 0.25, 0)
        }
        for sigma in (0.5, 1.0, 2.0):
            changed[f"rainy, blurred by {sigma:g} pixels"] = cv2.GaussianBlur(rainy, (0, 0), sigma)
        for name, image in changed.items():
            rows.setdefault(name, []).append(compare_photos(rainy, image, rain.angle))
    return _table(rows)


def removal_table(
    restore: Callable[[np.ndarray], np.ndarray], clean_folder: Path, layer_folder: Path
) -> str:
    """The share of the streaks of each scale, blur and strength that ``restore`` removes."""
    layers = read_layers(find_layers(layer_folder, [], "--layers"))
    photos = [read_photo(path) for path in images_by_stem(clean_folder).values()]
    rows = []
    for scale, blur in product(REMOVAL_SCALES, REMOVAL_BLURS):
        shares = []
        for gain in REMOVAL_GAINS:
            removed = added = 0.0
            for number, photo in enumerate(photos):
                clean = middle(photo, REMOVAL_SIDE)
                rng = np.random.default_rng(number)  # the same layers in all cells of the table
                layer = enlarged_layer(layers, clean.shape[0], clean.shape[1], scale, rng)
                if blur:
                    layer = cv2.GaussianBlur(layer, (0, 0), blur)
                rainy = lay_over(clean, np.float32(gain) * layer)
                streaks = row_steps(rainy) - row_steps(clean)
                removed += float((streaks * (row_steps(rainy) - row_steps(restore(rainy)))).sum())
                added += float(np.square(streaks).sum())
            if not added:
                raise UserError(f"The layers of {layer_folder} show no streaks.")
            shares.append(f"{removed / added:.0%}")
        rows.append([f"{scale:g}, {blur:g}", *shares])
    return markdown_table(["scale, blur", *(f"gain {gain:g}" for gain in REMOVAL_GAINS)], rows)


def enlarged_layer(
    layers: Sequence[np.ndarray], height: int, width: int, scale: float, rng: np.random.Generator
) -> np.ndarray:
    """The sum of four of the layers, enlarged by ``scale``, (height, width)."""
    total = np.zeros((height, width), np.float32)
    for which in rng.integers(len(layers), size=4):
        layer = layers[which]
        enlarged = cv2.resize(layer, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        missing = [
            (0, max(wanted - given, 0))
            for wanted, given in zip(total.shape, enlarged.shape, strict=True)
        ]
        total += np.pad(enlarged, missing, mode="symmetric")[:height, :width]
    return total


def middle(image: np.ndarray, side: int) -> np.ndarray:
    """The middle square of an image, cut where the image is smaller."""
    top, left = (max(size - side, 0) // 2 for size in image.shape[:2])
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def row_steps(image: np.ndarray) -> np.ndarray:
    """Differences of neighbours in a row in gray levels, (H, W - 1), of (H, W, 3) uint8."""
    return np.diff(to_gray(image), axis=1)


def compare_photos(rainy: np.ndarray, restored: np.ndarray, angle: float) -> list[float]:
    """The figures of ``HEADINGS`` for a restored photograph; both are (H, W, 3) uint8.

    ``angle`` is the direction of the rain in degrees from the vertical.
    """
    streaks, along = streaks_and_texture(to_gray(restored), angle)
    _, texture = streaks_and_texture(to_gray(rainy), angle)
    chroma = [
        cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)[..., 1:], (0, 0), 8)
        for image in (rainy.astype(np.float32) / 255, restored.astype(np.float32) / 255)
    ]
    colour = 255 * float(np.abs(chroma[1] - chroma[0]).mean())
    return [*streaks, float(np.mean(streaks)), along / max(texture, 1e-6), colour]


def streaks_and_texture(gray: np.ndarray, angle: float) -> tuple[list[float], float]:
    """Excess of the steps across the rain in percent for each of SCALES; fine steps along it.

    ``gray`` is (H, W) float32 in gray levels from 0 to 255.
    """
    upright, inside = turn_upright(gray, angle)
    # Lines are removed in both directions, so that neither direction of the scene is favoured.
    without_upright = upright - straight_part(upright)
    without_flat = upright - straight_part(upright.T).T
    counts = cell_medians(inside) > 0.99
    excess = []
    for scale in SCALES:
        across = cell_medians(steps(without_upright, scale, 0))[counts].mean()
        along = cell_medians(steps(without_flat, scale, 90))[counts].mean()
        excess.append(100 * float((across - along) / max(across + along, 1e-6)))
    fine = steps(upright, SCALES[0], 90, TEXTURE_ELONGATION)
    return excess, float(fine[inside > 0.99].mean())


def straight_part(upright: np.ndarray) -> np.ndarray:
    """The vertical lines of half of LONGEST pixels and more, (H, W)."""
    height, width = upright.shape
    # A quarter of the rows is enough, and sixteen times as fast.
    rows = cv2.resize(upright, (width, max(height // 4, 1)), interpolation=cv2.INTER_AREA)
    return cv2.resize(median_filter(rows, size=(LONGEST // 4, 1)), (width, height))


def _table(rows: dict[str, list[list[float]]]) -> str:
    means = {name: np.mean(figures, axis=0) for name, figures in rows.items()}
    lines = [[name, *(f"{value:.2f}" for value in mean)] for name, mean in means.items()]
    return markdown_table(["", *HEADINGS], lines)


if __name__ == "__main__":
    run_main(main)
