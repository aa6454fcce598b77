"""The words by which the field's folders are named: one side of the pairs, a split, a container.

A convention of a new data set belongs in a table here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from utils.wording import composed

# Words of folders with rainy images. The second line counts only beside a folder of clean images,
# and only if there is no folder of the first line: "data" may be anything, and "rainstreak" shows
# the streaks alone beside "rain".
RAINY_FOLDERS = (
    ("rainy", "rain", "input", "lq"),
    ("data", "in", "drop", "raindrop", "rainstreak", "rainstreak raindrop"),
)
CLEAN_FOLDERS = (
    *("target", "gt", "clean", "clear", "norain", "no rain", "rainfree", "rain free"),
    *("groundtruth", "ground truth", "hq"),
)

# What may follow such a word without another meaning: rainy_image, cleansamples, inputcrop.
FILLERS = ("image", "images", "img", "imgs", "sample", "samples", "crop", "crops", "frames")

# How the names of folders with one part of a set begin: train2018new, test_syn.
SPLITS = ("train", "test", "val")

# Folders of several sets or methods.
CONTAINERS = {"data", "dataset", "datasets", "result", "results", "output", "outputs", "benchmark"}


class FolderSide(NamedTuple):
    """What a folder's name says about its images."""

    role: str  # rainy, clean or ""
    rank: int = 0  # of a rainy word: its line in RAINY_FOLDERS
    stem: str = ""  # the rest of the name: a1 of a1_Rain


def read_side(name: str) -> FolderSide:
    """The side that a folder's name states, in any case, with fillers and other words around it."""
    spaced = spaced_words(name)
    for role, rank, words in (
        ("clean", 0, CLEAN_FOLDERS),
        *(("rainy", rank, words) for rank, words in enumerate(RAINY_FOLDERS)),
    ):
        for word in sorted(words, key=len, reverse=True):
            found = re.fullmatch(rf"(.*?)\b{word} ?({'|'.join(FILLERS)})?\b(.*)", spaced)
            if found:
                return FolderSide(role, rank, f"{found[1]}{found[3]}".strip())
    return FolderSide("")


def is_side_only(name: str) -> bool:
    """Whether a name states a side and nothing else, so that it is not the name of a data set.

    "data" is not: it may hold several sets. Nor is "raindrop": it may be the set Raindrop.
    """
    side = read_side(name)
    return bool(side.role) and not side.stem and name.casefold() not in ("data", "raindrop")


def spaced_words(name: str) -> str:
    """The words of a name in lower case, with a space between them."""
    return " ".join(re.split(r"[\W_]+", composed(name).casefold())).strip()
