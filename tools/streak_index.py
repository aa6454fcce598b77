"""Measure how much rain is left in photographs that have no clean image, and what else changed.

    python tools/streak_index.py --input PHOTOS --results results/petrichor results/other

prints a row for the photographs themselves and one for each folder of restored images:

streaks   how much more the gray levels change across the rain than along it, at three widths of
          streaks, and their mean: falls where rain goes
texture   how much they change along the rain, over the same of the photographs: falls with blur
colour    mean change of the chroma, averaged over 8 pixels, in gray levels: 0 where colours stay

The direction of the rain is measured in each photograph. What goes straight on for more than 40
pixels is left out: edges of walls and poles. Scenes have fine upright edges of their own too, so 0
is not the aim for a single photograph; compare the means of many.

    python tools/streak_index.py --calibrate CLEAN_PHOTOS

shows what the figures say where the truth is known: drawn rain, part of which is taken away again,
and the rainy photographs blurred.

    python tools/streak_index.py --weights W.safetensors --clean PHOTOS --layers LAYERS

shows which streaks a network removes: four layers at a time are enlarged, blurred, made fainter and
laid over the middle of each photograph. A figure is the share of the gradients across minus those
along that goes again.
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
from utils.errors import UserError, run_main
from utils.images import images_by_stem
from utils.inference.restorer import Restorer
from utils.markdown import markdown_table

# Sigma of the step filters across the streaks, pixels: streaks of about 2, 4 and 8 pixels.
SCALES = (0.7, 1.4, 2.8)
# Along the streaks the filters average over this many times as much: what they see is long.
ELONGATION = 3.0
# The same of the filter for texture; what is wide does not see streaks.
TEXTURE_ELONGATION = 6.0
# Gray levels at which a step stops counting more: edges of the scene are often higher.
LARGEST_STEP = 24.0
# The median along the rain, pixels; what is longer than half of it is the scene's.
LONGEST = 81
# Side of the squares whose median step counts: a single edge in one of them does not matter.
CELL = 24
# What the table of removed streaks tries: how many times as large as in the layers, sigma of the
# blur in pixels, and strength; on the middle square of each photograph.
REMOVAL_SCALES = (1.0, 2.0, 3.0)
REMOVAL_BLURS = (0.0, 1.5)
REMOVAL_GAINS = (0.12, 0.3, 0.8)
REMOVAL_SIDE = 256
# Directions that are tried for the rain, degrees from the vertical.
ANGLES = tuple(range(-45, 46, 5))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", type=Path, help="folder of rainy photographs")
    parser.add_argument("--results", type=Path, nargs="+", help="folders of restored images")
    parser.add_argument("--calibrate", type=Path, metavar="CLEAN", help="clean photographs")
    parser.add_argument("--weights", type=Path, help="a network whose limits are to be seen")
    parser.add_argument("--clean", type=Path, help="clean photographs for it")
    parser.add_argument("--layers", type=Path, help="rain for it: pairs, or gray images of rain")
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
    """The figures of the rainy photographs and of each folder, means over the photographs."""
    photos = images_by_stem(rainy_folder)
    restored = [images_by_stem(folder) for folder in results]
    for folder, images in zip(results, restored, strict=True):
        for stem in photos:
            if stem not in images:
                raise UserError(f"{folder} holds no image {stem}; restore all of {rainy_folder}.")
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
    """The figures of drawn rain that is taken away in part, and of blur."""
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
    """Which share of the streaks of each scale, blur and strength ``restore`` removes."""
    layers = read_layers(find_layers(layer_folder, [], "--layers"))
    photos = [read_photo(path) for path in images_by_stem(clean_folder).values()]
    rows = []
    for scale, blur in product(REMOVAL_SCALES, REMOVAL_BLURS):
        shares = []
        for gain in REMOVAL_GAINS:
            excess = []
            for number, photo in enumerate(photos):
                clean = middle(photo, REMOVAL_SIDE)
                rng = np.random.default_rng(number)  # the same layers in all cells of the table
                layer = enlarged_layer(layers, clean.shape[0], clean.shape[1], scale, rng)
                if blur:
                    layer = cv2.GaussianBlur(layer, (0, 0), blur)
                rainy = lay_over(clean, np.float32(gain) * layer)
                excess.append([raw_excess(image) for image in (clean, rainy, restore(rainy))])
            dry, before, after = np.mean(excess, axis=0)
            shares.append(f"{(before - after) / (before - dry):.0%}")
        rows.append([f"{scale:g}, {blur:g}", *shares])
    return markdown_table(["scale, blur", *(f"gain {gain:g}" for gain in REMOVAL_GAINS)], rows)


def enlarged_layer(
    layers: Sequence[np.ndarray], height: int, width: int, scale: float, rng: np.random.Generator
) -> np.ndarray:
    """Four of the layers laid over one another, ``scale`` times as large, (height, width)."""
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
    """The middle square of an image, or what there is of it."""
    top, left = (max(size - side, 0) // 2 for size in image.shape[:2])
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def raw_excess(image: np.ndarray) -> float:
    """Mean step to the next pixel in a row minus that in a column, gray levels."""
    gray = to_gray(image)
    return float(np.abs(np.diff(gray, axis=1)).mean() - np.abs(np.diff(gray, axis=0)).mean())


def compare_photos(rainy: np.ndarray, restored: np.ndarray, angle: float) -> list[float]:
    """The figures of ``HEADINGS`` of a restored photograph; both are (H, W, 3) uint8.

    ``angle`` is the direction of the rain, degrees from the vertical.
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
    """Excess of the steps across the rain at each of ``SCALES``, and the fine steps along it.

    ``gray`` is (H, W) float32 in gray levels from 0 to 255.
    """
    upright, inside = turn_upright(gray, angle)
    # The same is done along and across, so that neither direction of the scene is favoured.
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
    """What goes straight on upright for half of ``LONGEST`` pixels and more, (H, W)."""
    height, width = upright.shape
    # A quarter of the rows is enough for that, and sixteen times as fast.
    rows = cv2.resize(upright, (width, max(height // 4, 1)), interpolation=cv2.INTER_AREA)
    return cv2.resize(median_filter(rows, size=(LONGEST // 4, 1)), (width, height))


def rain_angle(gray: np.ndarray) -> float:
    """The direction in which fine streaks stand out most, degrees from the vertical.

    Positive rain falls towards the left, as ``Rain.angle``.
    """
    return float(max(ANGLES, key=lambda angle: excess_at(gray, angle)))


def excess_at(gray: np.ndarray, angle: float) -> float:
    """How much steps across lines of this direction exceed those along them, gray levels."""
    across, along = steps(gray, 1.0, angle), steps(gray, 1.0, angle + 90)
    return float((cell_medians(across) - cell_medians(along)).mean())


def steps(
    gray: np.ndarray, scale: float, angle: float, elongation: float = ELONGATION
) -> np.ndarray:
    """Sizes of the steps across lines of ``angle``, (H, W) in gray levels, cut at LARGEST_STEP."""
    kernel = step_filter(scale, angle, elongation)
    response = cv2.filter2D(gray, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT_101)
    return np.minimum(np.abs(response), LARGEST_STEP)


def step_filter(scale: float, angle: float, elongation: float) -> np.ndarray:
    """The derivative across lines of ``angle`` degrees from the vertical, averaged along them.

    A step of one gray level gives 1.
    """
    reach = int(np.ceil(3 * scale * elongation))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    turn = np.radians(angle)
    across, along = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    kernel = across * np.exp(-((across / scale) ** 2 + (along / (scale * elongation)) ** 2) / 2)
    return (kernel / kernel[across > 0].sum()).astype(np.float32)


def turn_upright(gray: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """The image turned so that lines of ``angle`` stand upright, and 1 where it is of the image.

    Both are (H', W') float32; what is outside mirrors the inside.
    """
    gray = np.asarray(gray, np.float32)
    inside = np.ones_like(gray)
    if angle == 0:
        return gray, inside
    height, width = gray.shape
    sine, cosine = abs(np.sin(np.radians(angle))), abs(np.cos(np.radians(angle)))
    size = (
        int(np.ceil(width * cosine + height * sine)),
        int(np.ceil(height * cosine + width * sine)),
    )
    centre = ((width - 1) / 2, (height - 1) / 2)
    turn = np.asarray(cv2.getRotationMatrix2D(centre, angle, 1), np.float64)
    turn[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    return (
        cv2.warpAffine(gray, turn, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101),
        cv2.warpAffine(inside, turn, size, flags=cv2.INTER_LINEAR),
    )


def cell_medians(values: np.ndarray, cell: int = CELL) -> np.ndarray:
    """Medians of the whole squares of ``cell`` pixels, (rows, columns); one for a smaller image."""
    return per_cell(values, min(cell, *values.shape), lambda x: np.median(x, axis=-1))


def per_cell(
    values: np.ndarray, cell: int, reduce: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """What ``reduce`` makes of the last axis of (rows, columns, cell * cell)."""
    rows, columns = values.shape[0] // cell, values.shape[1] // cell
    whole = values[: rows * cell, : columns * cell].reshape(rows, cell, columns, cell)
    return reduce(whole.swapaxes(1, 2).reshape(rows, columns, cell * cell))


def to_gray(image: np.ndarray) -> np.ndarray:
    """Luma of (H, W, 3) uint8 RGB as (H, W) float32 from 0 to 255."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)


def _table(rows: dict[str, list[list[float]]]) -> str:
    means = {name: np.mean(figures, axis=0) for name, figures in rows.items()}
    lines = [[name, *(f"{value:.2f}" for value in mean)] for name, mean in means.items()]
    return markdown_table(["", *HEADINGS], lines)


if __name__ == "__main__":
    run_main(main)
