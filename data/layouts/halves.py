"""Files that hold a rainy and a clean image side by side: which files do, and which half is rainy.

Data sets disagree: DID-MDN's files have the rainy image on the left, Rain800's and those of DCSFN
on the right. Nothing in a file says which, so the images, the set's name or the user decide.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from data.known_sets import KNOWN_SETS, known_set
from utils.errors import UserError
from utils.images import read_rgb
from utils.wording import plural

HALVES = ("left", "right")
RAINY_HALF = ("auto", *HALVES)

NUM_INSPECTED = 20  # images, spread over the set
# How much rougher the rainy half must be for its image to count. 94 of 100 random rains make
# photographs 1.02 to 20 times as rough; a thin veil without streaks smooths them by up to 5%.
MARGIN = 1.02
SHARE = 0.75  # of the inspected images that must count

# Folders of a known set's archive (in small letters) and its rainy half.
KNOWN_HALVES = {
    **dict.fromkeys(("did-mdn-training", "did-mdn-test"), "left"),
    **dict.fromkeys(("rain_heavy", "rain_medium", "rain_light"), "left"),
}


def are_side_by_side(paths: Sequence[Path]) -> bool:
    """Whether each image looks like two pictures of one scene side by side.

    The halves are compared as 16x16 thumbnails: over up to nine images the correlation has a median
    of 0.9 with heavy rain (Rain100H: 0.95) and of 0.4 for the halves of photographs.
    """
    some = _spread(paths, 9)
    return statistics.median(_correlation_of_halves(read_rgb(path)) for path in some) > 0.7


def _correlation_of_halves(image: np.ndarray) -> float:
    width = image.shape[1] // 2
    if width == 0:
        return 0.0
    halves = [
        cv2.resize(half, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float64)
        for half in (image[:, :width], image[:, -width:])
    ]
    left, right = (half.ravel() - half.mean() for half in halves)
    size = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / size if size else 1.0  # two plain halves are alike


def rainy_half(paths: Sequence[Path], stated: str = "auto") -> str:
    """Which half of side-by-side files is rainy, ``left`` or ``right``.

    ``stated`` is what the user says. If that is ``auto``, up to 20 images spread over the set
    decide: most must be clear, and all clear ones must agree. If they are not clear, the set's name
    decides. Raises UserError if it remains in doubt, and if the images contradict a known set.
    """
    if stated not in RAINY_HALF:
        raise UserError(f"There is no half {stated!r}; known are {', '.join(RAINY_HALF)}.")
    if stated != "auto":
        return stated
    folder = paths[0].parent
    ratios = [_roughness_of_halves(read_rgb(path)) for path in _spread(paths, NUM_INSPECTED)]
    left = sum(ratio > MARGIN for ratio in ratios)
    right = sum(ratio < 1 / MARGIN for ratio in ratios)
    known = next(filter(None, map(_known_half, paths[0].absolute().parents)), "")
    seen = ""
    if left + right >= SHARE * len(ratios) and not (left and right):
        seen = "left" if left else "right"
    if seen and known and seen != known:
        raise UserError(
            f"{folder} has the name of a set whose {known} halves are rainy, but the {seen} halves "
            f"of its images look rainy; {_how_to_say()}."
        )
    if seen or known:
        return seen or known
    raise UserError(
        f"It is in doubt which half of the images in {folder} is rainy: of "
        f"{plural(len(ratios), 'inspected image')}, {left} are rougher on the left and {right} on "
        f"the right, and rain makes images rougher; {_how_to_say()}."
    )


def _how_to_say() -> str:
    return "set DATA.RAINY_HALF or --rainy-half to left or right"


def _known_half(folder: Path) -> str:
    name = known_set(folder.name)
    return KNOWN_SETS[name].rainy_half if name else KNOWN_HALVES.get(folder.name.casefold(), "")


def _spread(paths: Sequence[Path], most: int) -> Sequence[Path]:
    """At most ``most`` paths, spread over all of them."""
    return paths[:: -(-len(paths) // most)]


def roughness(image: np.ndarray) -> float:
    """Mean absolute Laplacian of an image, (H, W) or (H, W, C): rain streaks raise it."""
    return float(np.abs(cv2.Laplacian(image, cv2.CV_32F)).mean())


def _roughness_of_halves(image: np.ndarray) -> float:
    """Roughness of the left half over that of the right half; 1 for two plain ones."""
    width = image.shape[1] // 2
    if width == 0:
        return 1.0
    left, right = (
        roughness(np.ascontiguousarray(half)) for half in (image[:, :width], image[:, -width:])
    )
    return (left + 1e-3) / (right + 1e-3)
