"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from utils.errors import UserError

UNFINISHED = ".partial-"  # how the names of files being written begin


class DiskFullError(UserError):
    """The disk has no room left, or the user's quota is used up."""


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with a temporary name beside ``path``, flush it to disk, rename it.

    Whatever ends the process in between, ``path`` holds either its old content or the complete
    new one. Raises UserError where the disk refuses, DiskFullError where it is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The same suffix: writers such as OpenCV choose the format by it.
        handle, name = tempfile.mkstemp(prefix=_prefix(path), suffix=_suffix(path), dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            # mkstemp makes files private; give them the mode any new file gets.
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        kind = DiskFullError if is_full else UserError
        raise kind(f"Cannot write {path}: {error.strerror or error}.") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def remove_unfinished(*paths: Path) -> None:
    """Remove what processes that were killed while writing ``paths`` have left beside them."""
    by_folder: dict[Path, set[tuple[str, str]]] = {}
    for path in paths:
        by_folder.setdefault(path.parent, set()).add((_prefix(path), _suffix(path)))
    for folder, wanted in by_folder.items():
        for temporary in folder.glob(f"{UNFINISHED}*"):
            # mkstemp puts eight characters between prefix and suffix.
            prefix = temporary.name[: -len(temporary.suffix) - 8]
            if (prefix, temporary.suffix) not in wanted or not temporary.is_file():
                continue
            try:
                temporary.unlink(missing_ok=True)
            except OSError as error:
                raise UserError(f"Cannot remove {temporary}: {error.strerror or error}.") from error


def remove_all_unfinished(folder: Path) -> None:
    """Remove what killed writers have left in ``folder`` and below; no other may be at work."""
    for temporary in folder.rglob(f"{UNFINISHED}*"):
        temporary.unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    """How temporary names of ``path`` begin; a long name would leave no room for what follows."""
    return f"{UNFINISHED}{path.stem[:40]}-"


def _suffix(path: Path) -> str:
    """How temporary names of ``path`` end; torch.save refuses hidden names without any suffix."""
    return path.suffix or ".new"
