"""What a data set is called: training logs it, scoring puts it above a column.

The names come from folders; the papers' spellings are in utils/evaluation/published.py.
"""

from __future__ import annotations

import os
from pathlib import Path

# Folders of one side of the pairs, of one split of a set, and of several sets or methods: a set or
# a method is never called by one of these names.
SIDES = {"target", "input", "gt", "clean", "norain", "rain", "rainy", "ground_truth", "rainy_image"}
SIDES |= {"rainysamples", "cleansamples"}
SPLITS = {"test", "val", "train"}
CONTAINERS = {"data", "dataset", "datasets", "result", "results", "output", "outputs", "benchmark"}


def dataset_name(folder: Path) -> str:
    """The data set that a folder such as ``datasets/Rain100H/test/target`` belongs to.

    A split that belongs to no named set, such as ``datasets/val/target``, is called by its own
    name.
    """
    names = [name for name in path_names(folder) if name.lower() not in SIDES]
    split = ""
    while names and names[-1].lower() in SPLITS:
        split = names.pop()
    if names and names[-1].lower() not in CONTAINERS:
        return names[-1]
    return split or "images"


def path_names(folder: Path) -> list[str]:
    """The names of the folders down to ``folder``. A link keeps the name that the user gave it."""
    return list(Path(os.path.abspath(folder)).parts[1:])
