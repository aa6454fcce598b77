"""What a data set is called: training logs it, scoring puts it above a column.

The names come from folders; the papers' spellings are in utils/evaluation/published.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.errors import UserError

# Folders of one side of the pairs, of one split of a set, and of several sets or methods: a set or
# a method is never called by one of these names.
SIDES = {"target", "input", "gt", "clean", "norain", "rain", "rainy", "ground_truth", "rainy_image"}
SIDES |= {"rainysamples", "cleansamples", "inputcrop", "cleancrop", "lq", "hq", "in", "clear"}
SIDES |= {"drop", "rainfree", "rainy_images", "clean_images"}
SPLITS = {"test", "val", "train"}
CONTAINERS = {"data", "dataset", "datasets", "result", "results", "output", "outputs", "benchmark"}


def dataset_name(folder: Path) -> str:
    """The data set that a folder such as ``datasets/Rain100H/test/target`` belongs to.

    A file that lists pairs is called as the folder it lies in.
    A split that belongs to no named set, such as ``datasets/val/target``, is called by its own
    name.
    """
    folder = folder.parent if folder.is_file() else folder  # a list of pairs
    names = [name for name in path_names(folder) if name.lower() not in SIDES]
    split = ""
    while names and names[-1].lower() in SPLITS:
        split = names.pop()
    if names and names[-1].lower() not in CONTAINERS:
        return names[-1]
    return split or "images"


def named_folders(setting: str | Sequence[Any], key: str) -> dict[str, str]:
    """The folders of a setting by the sets' names; a set without a name is called as its folder.

    ``setting`` is FOLDER, or a list of FOLDER and [FOLDER, NAME]; "" holds none. Raises UserError,
    which names the setting's ``key``, for anything else and for two sets of one name.
    """
    found: dict[str, str] = {}
    for entry in ([setting] if setting else []) if isinstance(setting, str) else setting:
        folder, name = (entry, "") if isinstance(entry, str) else _two(entry)
        if not isinstance(folder, str) or not isinstance(name, str):
            raise UserError(f"{key} holds {entry!r}; each entry is a folder or [folder, name].")
        name = name or dataset_name(Path(folder))
        if name in found:
            raise UserError(
                f"{key} has two sets called {name}, {found[name]} and {folder}; give one of them "
                "another name by [folder, name]."
            )
        found[name] = folder
    return found


def _two(entry: Any) -> tuple[Any, Any]:
    """The two elements of a list; anything else gives values that are refused."""
    return tuple(entry) if isinstance(entry, (list, tuple)) and len(entry) == 2 else (None, None)


def path_names(folder: Path) -> list[str]:
    """The names of the folders down to ``folder``. A link keeps the name that the user gave it."""
    return list(Path(os.path.abspath(folder)).parts[1:])
