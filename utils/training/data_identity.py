"""Which files a run was trained on, so that a resume notices changes."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

from utils.errors import UserError
from utils.files import atomic_write
from utils.stamps import stamp_files

# Name below the set's folder -> size in bytes and time of the last change in nanoseconds.
FileStamps = dict[str, tuple[int, int]]

LIST_NAME = "data_files.tsv.gz"  # in the run's folder


def identify_files(paths: Iterable[Path]) -> FileStamps:
    """Names, sizes and times of files; names are relative to the deepest common folder."""
    absolute = sorted({os.path.abspath(path) for path in paths})
    if not absolute:
        return {}
    root = os.path.commonpath([os.path.dirname(path) for path in absolute])
    return {
        os.path.relpath(path, root): (stamp.size, stamp.time)
        for path, stamp in zip(absolute, stamp_files(map(Path, absolute)), strict=True)
    }


def digest(stamps: FileStamps) -> str:
    """A line that changes with any name, size or time."""
    return (
        f"{len(stamps)} files {hashlib.sha256(repr(sorted(stamps.items())).encode()).hexdigest()}"
    )


def write_list(folder: Path, files: dict[str, FileStamps]) -> None:
    """Write all names, sizes and times to a run's folder, for ``describe_changes``."""
    lines = (
        f"{group}\t{size}\t{time}\t{name}\n"
        for group, stamps in files.items()
        for name, (size, time) in stamps.items()
    )
    content = gzip.compress("".join(lines).encode(errors="surrogateescape"), 1, mtime=0)
    atomic_write(folder / LIST_NAME, lambda temporary: temporary.write_bytes(content))


def read_list(folder: Path) -> dict[str, FileStamps]:
    """Read what ``write_list`` wrote; empty if the list is missing or damaged."""
    files: dict[str, FileStamps] = {}
    try:
        text = gzip.decompress((folder / LIST_NAME).read_bytes()).decode(errors="surrogateescape")
        for line in text.splitlines():
            group, size, time, name = line.split("\t", 3)
            files.setdefault(group, {})[name] = (int(size), int(time))
    except (OSError, EOFError, ValueError, zlib.error):
        return {}
    return files


def describe_changes(before: FileStamps, now: FileStamps) -> str:
    """The differences between two lists of files, in words, with an example of each kind."""
    common = before.keys() & now.keys()
    kinds = {
        "added": now.keys() - before.keys(),
        "gone": before.keys() - now.keys(),
        "of another size": {name for name in common if before[name][0] != now[name][0]},
        "of another time": {
            name
            for name in common
            if before[name][0] == now[name][0] and before[name][1] != now[name][1]
        },
    }
    return ", ".join(
        f"{len(names)} {kind} ({min(names)}{', ...' if len(names) > 1 else ''})"
        for kind, names in kinds.items()
        if names
    )


def check_same_files(
    folder: Path, digests: dict[str, str], now: dict[str, FileStamps], is_accepted: bool
) -> str:
    """How the data differ from those that the run in ``folder`` was trained on; "" if equal.

    ``digests`` come from its checkpoint. Raises UserError for a change unless ``is_accepted``.
    """
    changed = [name for name in now if digest(now[name]) != digests.get(name)]
    if not changed:
        return ""
    before = read_list(folder)
    known = {name for name in before if digest(before[name]) == digests.get(name)}
    what = "; ".join(
        f"{name}: {describe_changes(before[name], now[name])}"
        if name in known
        else f"{name}: {digests.get(name, '0').split()[0]} files before, {len(now[name])} now"
        for name in changed
    )
    if not is_accepted:
        raise UserError(
            f"The data differ from those of the checkpoint: {what}. Restore them, or "
            "continue anyway with --accept-changed-data."
        )
    return what
