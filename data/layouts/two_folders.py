"""Rainy and clean images in two folders, such as input/ and target/; several pairs of folders too.

RainDS has three kinds of rain for one folder of clean images, NTURain two folders per clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.layouts import Sides
from data.layouts.folders import Folder
from data.names import has_word
from utils.errors import UserError
from utils.folder_words import spaced_words
from utils.images import by_stem
from utils.wording import composed, plural

# Words of clean files, if one side is beside the folder of the other or both are in one folder.
# Files without any of these words are rainy.
CLEAN_WORDS = ("norain", "clean", "gt", "target", "clear")


@dataclass(frozen=True)
class FolderPair:
    """A folder of rainy images and the one of its clean images; one may be missing."""

    prefix: str  # of the images' names in a set of several such pairs: "raindrop/"
    rainy: Folder | None
    clean: Folder | None

    @property
    def is_mixed(self) -> bool:
        """Whether the images of one side are beside the folder of the other side."""
        if self.rainy is None or self.clean is None:
            return False
        rainy, clean = self.rainy.path, self.clean.path
        return rainy == clean.parent or clean == rainy.parent


def find_folder_pairs(tree: Folder, match: str = "") -> list[FolderPair]:
    """The pairs of folders directly in ``tree``, a single side alone, or nothing.

    Raises UserError for two folders of clean images for one side of rainy ones.
    """
    children = [child for child in tree.folders if not child.holds_set()]
    clean = [child for child in children if child.side.role == "clean"]
    rainy = [child for child in children if child.side.role == "rainy"]
    if not clean:
        # PReNet's page: the clean images one level above the rainy ones. Not Rain_Heavy alone.
        first = [child for child in rainy if child.side.rank == 0]
        if len(first) == 1 and not first[0].side.stem:
            return [FolderPair("", first[0], tree if tree.images else None)]
        return []
    if not rainy and len(clean) == 1 and tree.images:
        return [FolderPair("", tree, clean[0])]
    pairs = []
    for side in clean:
        stem = side.side.stem
        also = [other.name for other in clean if other.side.stem == stem]
        if len(also) > 1:
            raise UserError(
                f"{tree.path} has several folders of clean images, {' and '.join(also)}; keep one, "
                "or rename the others."
            )
        partners = [child for child in rainy if child.side.stem == stem]
        if not partners:
            partners = [c for c in children if stem and spaced_words(c.name) == stem and c != side]
        if not partners and len(clean) == 1:
            others = [child for child in children if child != side]
            partners = rainy or (others if match and len(others) == 1 else [])
        best = min((child.side.rank for child in partners), default=0)
        partners = [child for child in partners if child.side.rank == best]
        many_kinds, many_clips = len(partners) > 1, len(clean) > 1
        for partner in partners:
            prefix = partner.name if many_kinds else stem if many_clips else ""
            pairs.append(FolderPair(f"{composed(prefix)}/" if prefix else "", partner, side))
        if not partners:
            pairs.append(FolderPair(f"{stem}/" if many_clips and stem else "", None, side))
    return pairs


def read_folder_pairs(tree: Folder, pairs: Sequence[FolderPair]) -> Sides:
    """The images of pairs of folders; notes name what is beside them."""
    rainy: dict[str, Path] = {}
    clean: dict[str, Path] = {}
    notes: list[str] = []
    is_clean_shared = len({pair.clean for pair in pairs}) < len(pairs)
    for pair in pairs:
        for side, images, prefix in (
            (pair.rainy, rainy, pair.prefix),
            (pair.clean, clean, "" if is_clean_shared else pair.prefix),
        ):
            if side is None:
                continue
            if side is tree:
                named = _beside(tree, is_clean=side is pair.clean)
            else:
                named = side.named()
                notes += [left_out(child) for child in side.folders if side.images]
            images |= {prefix + name: path for name, path in named.items()}
    used = {side.path for pair in pairs for side in (pair.rainy, pair.clean) if side}
    notes += [left_out(child) for child in tree.folders if child.path not in used]
    if tree.images and tree.path not in used:
        notes.append(f"left out: {plural(len(tree.images), 'image')} directly in {tree.path}")
    return Sides("folders", rainy, clean, notes=tuple(dict.fromkeys(notes)))


def _beside(tree: Folder, *, is_clean: bool) -> dict[str, Path]:
    """The images of one side beside the folder of the other; all of them if no name has a word."""
    named = by_stem(tree.images)
    return {n: path for n, path in named.items() if has_word(n, CLEAN_WORDS) == is_clean} or named


def left_out(folder: Folder) -> str:
    """The note about a folder that belongs to no side."""
    return f"left out: {folder.path} ({folder.count()})"
