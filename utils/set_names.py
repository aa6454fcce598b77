"""What a data set is called: training logs the name, scoring puts it above a column.

Names come from folders; the papers' spellings are in utils/evaluation/published.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.folder_words import CONTAINERS, SPLITS, is_side_only


def dataset_name(folder: Path) -> str:
    """The data set that a folder such as ``datasets/Rain100H/test/target`` belongs to.

    A file that lists pairs has the name of its folder. A split outside any named set, such as
    ``datasets/val/target``, keeps its own name.
    """
    folder = folder.parent if folder.is_file() else folder  # a list of pairs
    names = [name for name in path_names(folder) if not is_side_only(name)]
    split = ""
    while names and names[-1].lower() in SPLITS:
        split = names.pop()
    if names and names[-1].lower() not in CONTAINERS:
        return names[-1]
    return split or "images"


def named_folders(setting: str | Sequence[Any], key: str) -> dict[str, str]:
    """The folders of a setting by the sets' names; ``dataset_name`` names a set without one.

    ``setting`` is FOLDER, or a list of FOLDER and [FOLDER, NAME]; "" means no folder. Raises
    UserError, which names the setting's ``key``, for anything else and for two sets of one name.
    """
    found: dict[str, str] = {}
    for entry in ([setting] if setting else []) if isinstance(setting, str) else setting:
        folder, name = (entry, "") if isinstance(entry, str) else two_elements(entry)
        if not isinstance(folder, str) or not isinstance(name, str):
            raise UserError(f"{key} holds {entry!r}; each entry is a folder or [folder, name].")
        name = name or dataset_name(Path(folder))
        if name in found:
            raise UserError(
                f"{key} has two sets called {name}, {found[name]} and {folder}; rename one of them "
                "by [folder, name]."
            )
        found[name] = folder
    return found


def two_elements(entry: Any) -> tuple[Any, Any]:
    """The two elements of a list; for anything else, two values that the caller refuses."""
    return tuple(entry) if isinstance(entry, (list, tuple)) and len(entry) == 2 else (None, None)


def path_names(folder: Path) -> list[str]:
    """The names of the folders down to ``folder``. A link keeps its own name."""
    return list(Path(os.path.abspath(folder)).parts[1:])
