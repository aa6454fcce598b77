"""Who belongs to whom: the rainy and clean images of a data set, in the layouts of the field.

Names decide, never the position in a sorted list.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from natsort import natsorted
from tqdm import tqdm

from utils.errors import UserError
from utils.images import images_by_stem, is_image, list_images, read_rgb, to_float, to_uint8


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
                f"{self.rainy} is {_size(rainy)} pixels and {self.clean} is {_size(clean)}; "
                "the two images of a pair have the same size."
            )
        return rainy, clean

    def read_uint8(self) -> tuple[np.ndarray, np.ndarray]:
        """As ``read``, with 16-bit and float images rounded to 8 bits."""
        rainy, clean = self.read()
        return _as_uint8(rainy), _as_uint8(clean)


def _as_uint8(image: np.ndarray) -> np.ndarray:
    return image if image.dtype == np.uint8 else to_uint8(to_float(image))


# Folders of rainy images and of the clean ones, as the data sets name them.
FOLDERS = (
    ("input", "target"),
    ("rain", "norain"),
    ("rainy_image", "ground_truth"),
    ("data", "gt"),
)
SAMPLES = ("rainysamples", "cleansamples")

LAYOUTS = {
    "input_target": "input/NAME and target/NAME",
    "norain": "rain-1.png and norain-1.png, in one folder or in two",
    "many_to_one": "input/1_1.jpg .. input/1_14.jpg and one target/1.jpg",
    "side_by_side": "one image a pair, clean left, rainy right",
    "samples": "rainysamples/*/NAME and cleansamples/*/NAME",
}

# The clean image's key of a rainy stem, by layout.
_CLEAN_KEY: dict[str, Callable[[str], str]] = {
    "input_target": lambda stem: stem,
    # norain-1, rain-1, rain-1x2 and "rain-1 x2" are one picture
    "norain": lambda stem: re.sub(r"\s*x2$", "", stem.removeprefix("no")),
    "many_to_one": lambda stem: stem.rpartition("_")[0],
}


def find_pairs(folder: Path, layout: str = "auto") -> tuple[str, list[Pair]]:
    """The layout of ``folder`` and its pairs in natural order of the rainy names.

    ``layout`` is a key of ``LAYOUTS`` or ``auto``, which recognises it. Raises UserError for a
    missing or empty folder and for every image without its partner.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise UserError(
            f"There is no data layout {layout!r}; known are auto, {', '.join(LAYOUTS)}."
        )
    if not folder.is_dir():
        raise UserError(f"There is no data folder {folder}.")
    if layout == "auto":
        layout = recognise_layout(folder)
    if layout == "side_by_side":
        return layout, [Pair(path, path) for path in list_images(folder)]
    if layout == "samples":
        return layout, _pairs_of_samples(folder)
    rainy_folder, clean_folder = _rainy_and_clean_folder(folder)
    if rainy_folder == clean_folder:
        rainy, clean = {}, {}
        for stem, path in images_by_stem(folder).items():
            (clean if stem.startswith("norain") else rainy)[stem] = path
    else:
        rainy, clean = images_by_stem(rainy_folder), images_by_stem(clean_folder)
    return layout, _match(rainy, clean, layout)


def recognise_layout(folder: Path) -> str:
    """Which of ``LAYOUTS`` a folder follows. Raises UserError where it follows none."""
    if all((folder / name).is_dir() for name in SAMPLES):
        return "samples"
    rainy_folder, clean_folder = _rainy_and_clean_folder(folder)
    for names in FOLDERS:
        if folder.name in names and all((folder.parent / name).is_dir() for name in names):
            raise UserError(f"{folder} holds one side of the pairs; name {folder.parent} instead.")
    if rainy_folder == clean_folder:
        stems = images_by_stem(folder)
        norain = any(stem.startswith("norain") for stem in stems)
        return "norain" if norain else "side_by_side"
    rainy, clean = images_by_stem(rainy_folder), images_by_stem(clean_folder)
    # The first layout in which most images find their partner; `find_pairs` names the others.
    for layout, key in _CLEAN_KEY.items():
        clean_keys = {_clean_side_key(layout)(stem) for stem in clean}
        found = sum(key(stem) in clean_keys for stem in rainy)
        if 2 * found > len(rainy):
            return layout
    return "input_target"


def check_pairs(pairs: list[Pair], description: str, quiet: bool = False) -> None:
    """Decode every image once, on all cores, with a progress bar unless ``quiet``.

    Raises UserError with one sentence for the first broken file or pair of different sizes, so
    that a training run does not meet it hours later.
    """
    with ThreadPoolExecutor() as pool:  # OpenCV decodes outside the interpreter's lock
        done = pool.map(lambda pair: len(pair.read()), pairs)
        bar = tqdm(done, description, len(pairs), unit="pair", leave=False, disable=quiet)
        for _ in bar:
            pass


def warn_if_swapped(pairs: list[Pair]) -> None:
    """Warn where side-by-side images look as if clean and rainy had changed places.

    Rain makes an image rougher; a look at up to 20 pairs spread over the set tells.
    """
    some = [pair for pair in pairs[:: -(-len(pairs) // 20)] if pair.side_by_side]
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


def _rainy_and_clean_folder(folder: Path) -> tuple[Path, Path]:
    """The two folders of a data set, or ``folder`` twice where images lie in it directly."""
    for rainy, clean in FOLDERS:
        if (folder / rainy).is_dir() and (folder / clean).is_dir():
            return folder / rainy, folder / clean
    if any(is_image(path) for path in folder.iterdir()):
        return folder, folder
    raise UserError(
        f"{folder} holds neither images nor folders of rainy and clean ones "
        f"({'; '.join(f'{rainy}/ and {clean}/' for rainy, clean in (*FOLDERS, SAMPLES))})."
    )


def _pairs_of_samples(folder: Path) -> list[Pair]:
    """Pairs of MSPFN's layout: the same subfolders and names on both sides."""
    rainy_root, clean_root = (folder / name for name in SAMPLES)
    pairs = []
    for subfolder in natsorted(path for path in rainy_root.iterdir() if path.is_dir()):
        clean = clean_root / subfolder.name
        pairs += _match(images_by_stem(subfolder), images_by_stem(clean), "input_target")
    if not pairs:
        raise UserError(f"{rainy_root} holds no folders of images.")
    return pairs


def _clean_side_key(layout: str) -> Callable[[str], str]:
    """A clean stem's own key: the name itself where many rainy images share it."""
    return _CLEAN_KEY["input_target" if layout == "many_to_one" else layout]


def _match(rainy: dict[str, Path], clean: dict[str, Path], layout: str) -> list[Pair]:
    """Pair two sets of images by name; every image on both sides must find a partner."""
    clean_by_key = {_clean_side_key(layout)(stem): path for stem, path in clean.items()}
    pairs = []
    for stem, path in rainy.items():
        partner = clean_by_key.get(_CLEAN_KEY[layout](stem))
        if partner is None:
            raise UserError(
                f"{path} has no clean partner; the layout {layout} is {LAYOUTS[layout]}."
            )
        pairs.append(Pair(path, partner))
    used = {pair.clean for pair in pairs}
    for path in clean.values():
        if path not in used:
            raise UserError(
                f"{path} has no rainy partner; the layout {layout} is {LAYOUTS[layout]}."
            )
    return pairs


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
