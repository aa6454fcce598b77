"""A folder as layouts look at it: its images, the folders below, and the side that it is named."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data.known_sets import known_set
from data.layouts.lists import is_list_of_pairs
from utils.errors import UserError
from utils.folder_words import FolderSide, read_side
from utils.folders import FolderContent, dead_link_sentence, scan_folder
from utils.images import SUFFIXES, by_stem
from utils.wording import composed, plural


@dataclass(frozen=True)
class Folder:
    """A folder's visible images and folders in natural order; links are followed, except loops."""

    path: Path
    above: tuple[str, ...] = ()  # real paths of the folders above

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def _content(self) -> FolderContent:
        content = scan_folder(self.path)
        for link in content.dead_links:
            if link.suffix.lower() in SUFFIXES or not link.suffix:  # of an image or a folder
                raise UserError(dead_link_sentence(link))
        return content

    @cached_property
    def images(self) -> list[Path]:
        """The images directly in the folder."""
        return [path for path in self._content.files if path.suffix.lower() in SUFFIXES]

    @cached_property
    def folders(self) -> list[Folder]:
        """The folders in it that hold images at any depth."""
        above = (*self.above, os.path.realpath(self.path))
        found = [
            Folder(path, above)
            for path in self._content.folders
            if os.path.realpath(path) not in above
        ]
        return [folder for folder in found if folder.holds_images]

    @property
    def folder_names(self) -> list[str]:
        """The names of all visible folders in it, empty ones too."""
        return [path.name for path in self._content.folders]

    @property
    def only_child(self) -> Folder | None:
        """The one folder in it, if it holds nothing else."""
        return self.folders[0] if len(self.folders) == 1 and not self.images else None

    @cached_property
    def lists(self) -> list[Path]:
        """The text files directly in it that list pairs."""
        texts = (path for path in self._content.files if path.suffix.lower() == ".txt")
        return [path for path in texts if is_list_of_pairs(path)]

    @cached_property
    def holds_images(self) -> bool:
        return bool(self.images) or bool(self.folders)

    @cached_property
    def side(self) -> FolderSide:
        """The side that its name states."""
        return side_of(self.name)

    def holds_set(self, depth: int = 2) -> bool:
        """Whether it, or its train/ or test/, holds both sides: then it is not a side itself."""
        if {"rainy", "clean"} <= {child.side.role for child in self.folders}:
            return True
        return depth > 1 and any(child.holds_set(depth - 1) for child in self.folders)

    def named(self, *, everything: bool = False) -> dict[str, Path]:
        """The images by name: those directly in the folder, else those of the folders below.

        ``everything`` takes both. Raises UserError for two files of one name.
        """
        found = by_stem(self.images)
        if everything or not found:
            for folder in self.folders:
                below = folder.named(everything=True)
                found |= {f"{composed(folder.name)}/{name}": path for name, path in below.items()}
        return found

    def count(self) -> str:
        """How many images it holds at any depth: ``3 images``."""
        return plural(len(self.named(everything=True)), "image")


def side_of(name: str) -> FolderSide:
    """The side that a folder's name states; none for a known set: GT-RAIN, HQ-RAIN."""
    return FolderSide("") if known_set(name) else read_side(name)


def images_by_name(folder: Path) -> dict[str, Path]:
    """The images of ``folder`` by name, in natural order; if it has none, those of its subfolders.

    Raises UserError for a folder without images, for two files of one name, and for a dead link.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}.")
    images = Folder(folder).named()
    if not images:
        raise UserError(f"The folder {folder} holds no image ({', '.join(SUFFIXES)}).")
    return images
