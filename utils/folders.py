"""What a folder holds: files, folders and links, in natural order; links are followed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from natsort import natsorted, ns

from utils.errors import UserError


@dataclass(frozen=True)
class FolderContent:
    """The visible entries of a folder, each kind in natural order (2 before 10).

    A link counts as its target; the targets of ``dead_links`` do not exist. ``special`` are pipes,
    sockets and devices, which must not be opened.
    """

    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    dead_links: list[Path] = field(default_factory=list)
    special: list[Path] = field(default_factory=list)


def scan_folder(folder: Path) -> FolderContent:
    """What ``folder`` holds. Raises UserError if it or an entry cannot be read."""
    content = FolderContent()
    try:
        with os.scandir(folder) as entries:  # one call, which gives the kinds as well
            visible = [entry for entry in entries if not entry.name.startswith(".")]
        for entry in natsorted(visible, key=lambda entry: entry.name, alg=ns.IGNORECASE):
            _kind(content, entry).append(folder / entry.name)
    except OSError as error:
        raise UserError(f"Cannot read the folder {folder}: {error.strerror or error}.") from error
    return content


def _kind(content: FolderContent, entry: os.DirEntry[str]) -> list[Path]:
    if entry.is_symlink():
        try:
            entry.stat()
        except OSError:  # the target is missing, or the link itself
            return content.dead_links
    if entry.is_dir():
        return content.folders
    return content.files if entry.is_file() else content.special


def dead_link_sentence(link: Path) -> str:
    return f"{link} is a link to {os.readlink(link)}, which does not exist; mend or remove it."


def walk_folders(
    folder: Path,
    problems: list[str],
    enter: Callable[[Path], bool] = lambda subfolder: True,
) -> Iterator[tuple[Path, FolderContent]]:
    """A folder and its content, then the same for its visible subfolders, linked ones too.

    ``enter`` says whether to walk into a subfolder. ``problems`` receives a sentence for each
    unreadable folder. A link to one of the folders above it would never end and is not followed.
    """
    yield from _walk(folder, problems, enter, ())


def _walk(
    folder: Path,
    problems: list[str],
    enter: Callable[[Path], bool],
    above: tuple[tuple[int, int], ...],
) -> Iterator[tuple[Path, FolderContent]]:
    try:
        stat = folder.stat()
        content = scan_folder(folder)
    except UserError as error:
        problems.append(str(error))
        return
    except OSError as error:
        problems.append(f"Cannot read the folder {folder}: {error.strerror}.")
        return
    identity = (stat.st_dev, stat.st_ino)
    if identity in above:
        return
    yield folder, content
    for subfolder in content.folders:
        if enter(subfolder):
            yield from _walk(subfolder, problems, enter, (*above, identity))
