"""What a data set's folder holds: which images are rainy, which are clean, what is neither.

``recognise`` finds the layout of a folder and words the refusal of one that follows none. Each
layout has a file, which gives ``Sides``: ``two_folders`` (input/ and target/), ``one_folder``
(rain-1.png and norain-1.png), ``halves`` (side by side in one file), ``lists`` (text files). The
words of the field's folder names are in utils/folder_words.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError

LAYOUTS = {
    "folders": "two folders such as input/ and target/",
    "one_folder": "rain-1.png and norain-1.png in one folder",
    "side_by_side": "one image per pair, rainy and clean side by side",
    "list": "a text file with a rainy and a clean file in each line",
}


class NoPairsError(UserError):
    """The folder is not one data set of pairs."""


@dataclass(frozen=True)
class Sides:
    """The rainy and the clean images of a data set by name, and which of ``LAYOUTS`` it follows.

    A name is the file's path below its side's folder, without suffix. A missing side is empty; side
    by side, both hold the same files.
    """

    layout: str
    rainy: dict[str, Path]
    clean: dict[str, Path]
    partners: dict[str, str] | None = None
    """Clean name of each rainy one if the layout itself decides; None if names decide."""
    rainy_half: str = ""
    """``left`` or ``right`` for files with both images side by side, else empty."""
    notes: tuple[str, ...] = ()
    """What was left out, a sentence each."""
