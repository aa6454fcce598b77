"""Sizes and times of files, which show that a file was replaced."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from utils.errors import UserError


class Stamp(NamedTuple):
    """A file and its state; a file that is written again gets another stamp."""

    path: str  # absolute, with the links among its folders resolved
    size: int  # bytes
    time: int  # of the last change, nanoseconds

    def line(self) -> str:
        """The stamp as text, for a digest."""
        return f"{self.path}\0{self.size}\0{self.time}\0"


def stamp_files(paths: Iterable[Path]) -> list[Stamp]:
    """The stamp of each file, in the given order. Raises UserError for a missing file.

    Relative, absolute and linked paths of a file give the same stamp.
    """
    real_folders: dict[str, str] = {}  # resolved once each: a folder may hold 100,000 files
    stamps = []
    for path in paths:
        folder = str(path.parent)
        if folder not in real_folders:
            real_folders[folder] = os.path.realpath(folder)
        try:
            stat = os.stat(path)
        except OSError as error:
            raise UserError(f"Cannot read {path}: {error.strerror}.") from error
        stamps.append(
            Stamp(os.path.join(real_folders[folder], path.name), stat.st_size, stat.st_mtime_ns)
        )
    return stamps
