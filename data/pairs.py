"""Who belongs to whom: the rainy and clean images of a data set, in the layouts of the field.

Names decide (data/names.py), never the position in a sorted list. Training takes pairs from here,
scoring too (data/results.py), so that whatever can be trained on can be scored.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from natsort import natsorted

from data.names import has_word, pair_names
from utils.errors import UserError
from utils.images import as_uint8, images_by_stem, is_image, read_rgb
from utils.wording import size_text


@dataclass(frozen=True)
class Pair:
    """A rainy image and its clean one; the same file twice where they stand side by side."""

    rainy: Path
    clean: Path

    @property
    def side_by_side(self) -> bool:
        """Whether one file holds both: clean in its left half, rainy in its right half."""
        return self.rainy == self.clean

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """The rainy and the clean image, (H, W, 3) RGB each, in the file's own type.

        Raises UserError for an unreadable file and for two different sizes.
        """
        rainy = read_rgb(self.rainy)
        if self.side_by_side:
            width = rainy.shape[1]
            if width % 2:
                raise UserError(
                    f"{self.rainy} is {width} pixels wide; an image with clean and rainy side by "
                    "side has an even width."
                )
            return rainy[:, width // 2 :], rainy[:, : width // 2]
        clean = read_rgb(self.clean)
        if rainy.shape != clean.shape:
            raise UserError(
                f"{self.rainy} is {size_text(rainy)} pixels and {self.clean} is "
                f"{size_text(clean)}; the two images of a pair have the same size."
            )
        return rainy, clean

    def read_uint8(self) -> tuple[np.ndarray, np.ndarray]:
        """As ``read``, with 16-bit and float images rounded to 8 bits.

        Raises UserError for float values that are none of an image too.
        """
        rainy, clean = self.read()
        return as_uint8(rainy, self.rainy), as_uint8(clean, self.clean)


# Folders of rainy images and of the clean ones, as the data sets name them.
FOLDERS = (
    ("input", "target"),
    ("rain", "norain"),
    ("rainy_image", "ground_truth"),
    ("rainysamples", "cleansamples"),
    ("rainy", "clean"),
    ("rain", "gt"),
    ("data", "gt"),
)
CLEAN_WORDS = ("norain", "clean", "gt", "target")  # in names, where both lie in one folder

LAYOUTS = {
    "folders": "two folders such as input/ and target/",
    "one_folder": "rain-1.png and norain-1.png in one folder",
    "side_by_side": "one image a pair, clean left, rainy right",
    "list": "a text file with a rainy and a clean file in each line",
}


@dataclass(frozen=True)
class Sides:
    """The rainy and the clean images of a data set by name, and which of ``LAYOUTS`` it follows.

    A name is that of the file without suffix, behind its subfolder's where there are subfolders.
    A side that is not there is empty.
    """

    layout: str
    rainy: dict[str, Path]
    clean: dict[str, Path]


def find_pairs(folder: Path, layout: str = "auto", match: str = "") -> tuple[str, list[Pair]]:
    """The layout of ``folder`` and its pairs in natural order of the rainy names.

    ``folder`` may also be a text file that lists pairs, as SPA-Data has it. ``layout`` is a key of
    ``LAYOUTS`` or ``auto``, which recognises it; ``match`` is a pattern for ``pair_names``. Raises
    UserError for a missing or empty folder and for every image without its partner.
    """
    if folder.is_file():
        return "list", _listed_pairs(folder)
    sides = find_sides(folder, layout)
    if not sides.rainy or not sides.clean:
        raise UserError(f"{folder} holds one side of the pairs only; {_expected_folders()}.")
    pairs, problems = pair_sides(sides, match)
    if problems:
        raise UserError(
            f"{problems[0]}{f' (and {len(problems) - 1} more)' if problems[1:] else ''}. Names "
            "decide who belongs to whom; a pattern (DATA.MATCH, --match) can say what of a name "
            "counts."
        )
    return sides.layout, list(pairs.values())


def pair_sides(sides: Sides, match: str = "") -> tuple[dict[str, Pair], list[str]]:
    """The pairs of a data set by rainy name, and a sentence for each image without a partner."""
    if sides.layout == "side_by_side":
        return {name: Pair(path, path) for name, path in sides.clean.items()}, []
    partners = pair_names(list(sides.rainy), list(sides.clean), match)
    pairs = {
        name: Pair(sides.rainy[name], sides.clean[partner])
        for name, partner in partners.items()
        if partner is not None
    }
    problems = [
        f"{path} has no clean partner" for name, path in sides.rainy.items() if name not in pairs
    ]
    used = set(partners.values())
    problems += [
        f"{path} has no rainy partner" for name, path in sides.clean.items() if name not in used
    ]
    return pairs, problems


def find_sides(folder: Path, layout: str = "auto") -> Sides:
    """Where the images of a data set lie. One side may be missing.

    Raises UserError for a missing folder, for one that holds no images in any of ``LAYOUTS``, and
    for one that is itself a side.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise UserError(
            f"There is no data layout {layout!r}; known are auto, {', '.join(LAYOUTS)}."
        )
    if not folder.is_dir():
        raise UserError(f"There is no data folder {folder}.")
    for names in FOLDERS:
        if folder.name in names and all((folder.parent / name).is_dir() for name in names):
            raise UserError(f"{folder} holds one side of the pairs; name {folder.parent} instead.")
    found = _two_folders(folder)
    if found is None and any(is_image(path) for path in folder.iterdir()):
        found = _one_folder(images_by_stem(folder), layout)
    if found is None:
        raise UserError(f"{folder} holds no pairs; {_expected_folders()}.")
    if layout not in ("auto", found.layout):
        raise UserError(
            f"{folder} holds {LAYOUTS[found.layout]}; DATA.LAYOUT {layout} is {LAYOUTS[layout]}."
        )
    return found


def images_by_name(folder: Path) -> dict[str, Path]:
    """The images of ``folder`` by name, in natural order; without any, those of its subfolders.

    Raises UserError where there is none, and for two files of one name.
    """
    if folder.is_dir() and not any(is_image(path) for path in folder.iterdir()):
        subfolders = [path for path in folder.iterdir() if path.is_dir()]
        found = {
            f"{subfolder.name}/{name}": path
            for subfolder in natsorted(subfolders, key=lambda path: path.name)
            if any(is_image(path) for path in subfolder.iterdir())
            for name, path in images_by_stem(subfolder).items()
        }
        if found:
            return found
    return images_by_stem(folder)


def are_side_by_side(paths: Sequence[Path]) -> bool:
    """Whether images look like two pictures of one scene beside each other.

    The halves are compared as 16x16 thumbnails: over up to nine images the correlation has a median
    of 0.9 with heavy rain (Rain100H: 0.95) and of 0.4 for the halves of photographs.
    """
    some = paths[:: -(-len(paths) // 9)]
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


def side_folders(folder: Path) -> tuple[Path | None, Path | None]:
    """The folders of rainy and of clean images in ``folder``, None for what is not there."""
    there = [
        (folder / rainy if (folder / rainy).is_dir() else None,
         folder / clean if (folder / clean).is_dir() else None)
        for rainy, clean in FOLDERS
    ]  # fmt: skip
    both = (pair for pair in there if all(pair))
    # "data" may be any folder, the other names of rainy folders mean rain.
    one = (pair for pair in there if pair[1] or (pair[0] and pair[0].name != "data"))
    return next(both, next(one, (None, None)))


def _two_folders(folder: Path) -> Sides | None:
    rainy, clean = side_folders(folder)
    if not rainy and not clean:
        return None
    return Sides("folders", *(images_by_name(side) if side else {} for side in (rainy, clean)))


def _listed_pairs(path: Path) -> list[Pair]:
    """The pairs of a text file: two names a line, from the file's folder on, rainy one first.

    A leading slash counts as from that folder too, as SPA-Data writes it.
    """
    pairs = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the list of pairs {path}: {error}.") from error
    for number, line in enumerate(lines, start=1):
        names = line.split("\t") if "\t" in line else line.split()
        if not names:
            continue
        if len(names) != 2:
            raise UserError(
                f"{path}, line {number} is {line!r}; a line names a rainy and a clean image, with "
                "a tab between them where names hold spaces."
            )
        files = [_listed_file(path.parent, name.strip()) for name in names]
        for file in files:
            if not file.is_file():
                raise UserError(f"{path}, line {number}: there is no file {file}.")
        pairs.append(Pair(*files))
    if not pairs:
        raise UserError(f"The list of pairs {path} is empty.")
    return pairs


def _listed_file(folder: Path, name: str) -> Path:
    inside = folder / name.lstrip("/")
    return inside if inside.is_file() or not name.startswith("/") else Path(name)


def _one_folder(images: dict[str, Path], layout: str) -> Sides:
    """Rainy and clean images in one folder, told apart by their names or as halves of a file."""
    clean = {name: path for name, path in images.items() if has_word(name, CLEAN_WORDS)}
    rainy = {name: path for name, path in images.items() if name not in clean}
    if layout == "side_by_side" or (layout == "auto" and not (rainy and clean)):
        return Sides("side_by_side", images, images)
    return Sides("one_folder", rainy, clean)


def _expected_folders() -> str:
    folders = "; ".join(f"{rainy}/ and {clean}/" for rainy, clean in FOLDERS)
    return f"pairs are two folders ({folders}) or images side by side"


def warn_about_halves(pairs: list[Pair]) -> None:
    """Warn where images are no pairs side by side, or where clean and rainy have changed places.

    Rain makes an image rougher; a look at up to 20 pairs spread over the set tells.
    """
    some = [pair for pair in pairs[:: -(-len(pairs) // 20)] if pair.side_by_side]
    if some and not are_side_by_side([pair.rainy for pair in some]):
        warnings.warn(
            f"{pairs[0].rainy.parent} holds images whose halves do not look like one scene, clean "
            "on the left and rainy on the right; is it a folder of pairs?",
            stacklevel=2,
        )
        return
    swapped = sum(_roughness(rainy) < _roughness(clean) for rainy, clean in map(Pair.read, some))
    if 2 * swapped > len(some):
        warnings.warn(
            f"In {swapped} of {len(some)} side-by-side images of {pairs[0].rainy.parent} the right "
            "half, which should be the rainy one, is the smoother; are the halves swapped?",
            stacklevel=2,
        )


def _roughness(image: np.ndarray) -> float:
    """Mean absolute Laplacian: rain streaks raise it."""
    return float(np.abs(cv2.Laplacian(image, cv2.CV_32F)).mean())
