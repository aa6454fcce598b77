"""The pairs of a data set: which rainy image belongs to which clean one.

data/layouts/ finds the two sides in a folder, and data/names.py pairs their names. Training and
scoring both take pairs from here, so that whatever can be trained on can be scored.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.layouts import Sides
from data.layouts.recognise import find_sides
from data.names import Pattern, digit_free, pair_names
from utils.errors import UserError
from utils.images import as_uint8, read_rgb
from utils.wording import plural, size_text


@dataclass(frozen=True)
class Pair:
    """A rainy image and its clean one; the same file twice if it holds both side by side."""

    rainy: Path
    clean: Path
    half: str = ""
    """Which half of a side-by-side file is rainy, ``left`` or ``right``; else empty."""

    @property
    def side_by_side(self) -> bool:
        """Whether one file holds both."""
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
            left, right = rainy[:, : width // 2], rainy[:, width // 2 :]
            return (left, right) if self.half == "left" else (right, left)
        clean = read_rgb(self.clean)
        if rainy.shape != clean.shape:
            raise UserError(
                f"{self.rainy} is {size_text(rainy)} pixels and {self.clean} is "
                f"{size_text(clean)}; the two images of a pair have the same size."
            )
        return rainy, clean

    def read_uint8(self) -> tuple[np.ndarray, np.ndarray]:
        """As ``read``, with 16-bit and float images rounded to 8 bits.

        Also raises UserError for float values outside the range of an image.
        """
        rainy, clean = self.read()
        return as_uint8(rainy, self.rainy), as_uint8(clean, self.clean)


class FoundPairs(NamedTuple):
    """The layout of a folder, its pairs in natural order, and notes on what was left out."""

    layout: str
    pairs: list[Pair]
    notes: list[str]


class PairedSides(NamedTuple):
    """Pairs by rainy name, a sentence for each image without a partner, and notes."""

    pairs: dict[str, Pair]
    problems: list[str]
    notes: list[str]


def find_pairs(
    folder: Path, layout: str = "auto", match: str = "", half: str = "auto"
) -> FoundPairs:
    """The pairs of ``folder``, which may also be a text file that lists them.

    The arguments are those of ``find_sides``. Raises UserError for a missing or empty folder and
    for images without a partner, except those that the pattern ``match`` does not match.
    """
    sides = find_sides(folder, layout, match, half)
    if not sides.rainy or not sides.clean:
        there, missing = ("rainy", "target") if sides.rainy else ("clean", "input")
        raise UserError(
            f"{folder} holds one side of the pairs only, the {there} images; put their partners "
            f"into {missing}/ beside them."
        )
    pairs, problems, notes = pair_sides(sides, match)
    if problems:
        raise UserError(
            f"{problems[0]}{f' (and {len(problems) - 1} more)' if problems[1:] else ''}. Names "
            "decide which images belong together; a pattern (DATA.MATCH, --match) can say which "
            "part of a name counts."
        )
    return FoundPairs(sides.layout, list(pairs.values()), notes)


def pair_sides(sides: Sides, match: str = "") -> PairedSides:
    """Pair the images of a data set.

    Images that a pattern ``match`` does not match are left out and noted. Raises UserError if it
    matches no image of a side.
    """
    notes = list(sides.notes)
    if sides.layout == "side_by_side":
        pairs = {name: Pair(path, path, sides.rainy_half) for name, path in sides.clean.items()}
        return PairedSides(pairs, [], notes)
    rainy, clean = sides.rainy, sides.clean
    if match and sides.partners is None:
        pattern = Pattern(match)
        rainy, clean = (
            {name: path for name, path in side.items() if pattern.key(name) is not None}
            for side in (rainy, clean)
        )
        for kind, all_of, kept in (("rainy", sides.rainy, rainy), ("clean", sides.clean, clean)):
            left_out = [path for name, path in all_of.items() if name not in kept]
            if all_of and not kept:
                raise UserError(
                    f"The pattern '{match}' matches no name of the {kind} images, such as "
                    f"{next(iter(all_of))}."
                )
            if left_out:
                notes.append(
                    f"left out: {plural(len(left_out), f'{kind} image')} that the pattern "
                    f"'{match}' does not match, such as {left_out[0]}"
                )
    partners = sides.partners or pair_names(list(rainy), list(clean), match)
    pairs = {
        name: Pair(path, clean[partner])
        for name, path in rainy.items()
        if (partner := partners.get(name)) is not None
    }
    problems = [f"{path} has no clean partner" for name, path in rainy.items() if name not in pairs]
    used = set(partners.values())
    problems += [f"{path} has no rainy partner" for name, path in clean.items() if name not in used]
    return PairedSides(pairs, problems, notes + _several_kinds(pairs))


def _several_kinds(pairs: dict[str, Pair]) -> list[str]:
    """A note if rainy images of different kinds belong to one clean image.

    Kinds differ in more than the numbers of their names: rain-1 and rainregion-1, not 1_1 and 1_2.
    """
    kinds: dict[Path, dict[str, str]] = {}
    for name, pair in pairs.items():
        kinds.setdefault(pair.clean, {}).setdefault(digit_free(name), name)
    several = [found for found in kinds.values() if len(found) > 1]
    if not several:
        return []
    most = max(several, key=len)
    return [
        f"{len(most)} kinds of rainy images belong to one clean image: {', '.join(most)} (such as "
        f"{', '.join(most.values())}); all of them are used unless a pattern (DATA.MATCH, --match) "
        "leaves some out"
    ]
