"""Which layout a data set's folder follows: the one place that decides it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

from data.layouts import LAYOUTS, NoPairsError, Sides
from data.layouts.folders import Folder, side_of
from data.layouts.halves import rainy_half, roughness
from data.layouts.lists import read_listed_sides
from data.layouts.one_folder import read_one_folder
from data.layouts.two_folders import find_folder_pairs, left_out, read_folder_pairs
from utils.errors import UserError
from utils.folder_words import FILLERS, SPLITS
from utils.folders import scan_folder
from utils.images import read_rgb


def find_sides(folder: Path, layout: str = "auto", match: str = "", half: str = "auto") -> Sides:
    """The rainy and the clean images of a data set. One side may be missing.

    ``folder`` may also be a text file that lists pairs. ``layout`` is a key of ``LAYOUTS`` or
    ``auto``; ``match`` is a pattern for ``pair_names``, whose group ``(?P<clean>...)`` may mark the
    clean images; ``half`` says which half of side-by-side files is rainy. Raises UserError for a
    missing folder, for one that holds no images in any of ``LAYOUTS`` (with the nearest reading),
    for one that is itself a side or holds several sets, and if the rainy half is in doubt.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise UserError(
            f"There is no data layout {layout!r}; known are auto, {', '.join(LAYOUTS)}."
        )
    if folder.is_file():
        return read_listed_sides(folder)
    if not folder.is_dir():
        raise UserError(f"There is no data folder {folder}.")
    tree = Folder(folder)
    found = _recognise(tree, layout, match)
    if found is None:
        raise NoPairsError(f"{folder} holds no pairs; {nearest_reading(tree)}")
    if layout not in ("auto", found.layout):
        raise UserError(
            f"{folder} holds {LAYOUTS[found.layout]}; DATA.LAYOUT {layout} is {LAYOUTS[layout]}."
        )
    if found.layout != "side_by_side":
        return found
    return replace(found, rainy_half=rainy_half(list(found.rainy.values()), half))


def side_folders(folder: Path, match: str = "") -> tuple[Path | None, Path | None]:
    """The folders of a data set's rainy and clean images, None for a missing side.

    Both are ``folder`` itself if only ``find_sides`` can tell its images apart: in one folder, side
    by side in one file, in a list, in several pairs of folders. A folder of other images holds
    rainy ones alone.
    """
    if folder.is_file():
        return folder, folder
    if not folder.is_dir():
        return None, None
    try:
        return _side_folders(Folder(folder), match)
    except NoPairsError:
        return None, None
    except UserError:  # find_sides reports it; a broken set must not stop the search for others
        return folder, folder


def _side_folders(tree: Folder, match: str) -> tuple[Path | None, Path | None]:
    below = tree.only_child
    for place in (tree, below) if below else (tree,):
        if place.lists:
            return tree.path, tree.path
        pairs = find_folder_pairs(place, match)
        if len(pairs) == 1 and not pairs[0].is_mixed:
            rainy, clean = pairs[0].rainy, pairs[0].clean
            return (rainy.path if rainy else None), (clean.path if clean else None)
        if pairs:
            return tree.path, tree.path
    if _recognise(tree, "auto", match):
        return tree.path, tree.path
    if below and below.name.casefold() in FILLERS:  # images/ beside labels/, as in BDD350
        tree = below
    return (tree.path, None) if tree.images else (None, None)


def _recognise(tree: Folder, layout: str, match: str) -> Sides | None:
    """The images of a folder by the first convention that fits; None if none does.

    Raises NoPairsError for a folder that is itself a side or that holds several sets.
    """
    if len(tree.lists) == 1:
        listed = read_listed_sides(tree.lists[0])
        return replace(listed, notes=(f"read: the list {tree.lists[0]}", *listed.notes))
    if tree.lists:
        raise NoPairsError(
            f"{tree.path} holds several lists of pairs; name one: {_joined(tree.lists)}."
        )
    pairs = find_folder_pairs(tree, match)
    if pairs:
        return read_folder_pairs(tree, pairs)
    _refuse_a_side(tree)
    if tree.images:
        found = read_one_folder(tree.named(), layout, match)
        return found and replace(found, notes=(*map(left_out, tree.folders), *found.notes))
    if below := tree.only_child:
        found = _recognise(below, layout, match)
        return found and replace(found, notes=(f"read: {below.path}", *found.notes))
    sets = [child for child in tree.folders if child.holds_set()]
    splits = {split for child in tree.folders if (split := _split(child.name))}
    if sets or len(splits) > 1:
        raise NoPairsError(
            f"{tree.path} holds several data sets or parts of one; name one of them: "
            f"{_joined(child.path for child in (sets or tree.folders))}."
        )
    return read_one_folder(tree.named(), layout, match)


def _refuse_a_side(tree: Folder) -> None:
    """Raise NoPairsError for a folder whose partner is beside it."""
    own = tree.side
    if not own.role or tree.holds_set():
        return
    for other in map(Folder, scan_folder(tree.path.absolute().parent).folders):
        # of one stem: clean/ beside real_rain/ is not its partner
        is_partner = other.side.role not in ("", own.role) and other.side.stem == own.stem
        if is_partner and other.holds_images:
            raise NoPairsError(
                f"{tree.path} holds one side of the pairs; name {tree.path.parent} instead."
            )


def _split(name: str) -> str:
    return next((split for split in SPLITS if name.casefold().startswith(split)), "")


def _joined(paths: Iterable[Path]) -> str:
    return ", ".join(map(str, paths))


# --- a folder that follows no layout --------------------------------------------------------------


def nearest_reading(tree: Folder) -> str:
    """What the folder may hold and what to rename; the end of a sentence."""
    if not tree.holds_images:
        empty = [name for name in tree.folder_names if side_of(name).role]
        where = f"{' and '.join(empty)} there hold" if len(empty) > 1 else "it holds"
        return (
            f"{where} no image. Pairs are two folders such as input/ and target/, one folder with "
            "rain-1.png and norain-1.png, images side by side, or a list of files."
        )
    known = [child for child in tree.folders if child.side.role]
    others = [child for child in tree.folders if child not in known]
    if len(known) == 1 and others:
        other = max(others, key=lambda child: len(child.named()))
        missing = "input" if known[0].side.role == "clean" else "target"
        return (
            f"the nearest reading is {known[0].name}/ with {known[0].count()} and {other.name}/ "
            f"with {other.count()}: rename {other.name}/ to {missing}/ if these are its partners."
        )
    if len(tree.folders) >= 2:
        two = sorted(tree.folders, key=lambda child: -len(child.named()))[:2]
        rainy, clean = sorted(two, key=_mean_roughness, reverse=True)
        return (
            f"the nearest reading is {rainy.name}/ with {rainy.count()} as the rainy side (its "
            f"images are rougher) and {clean.name}/ with {clean.count()} as the clean one: rename "
            "them to input/ and target/ if that is right."
        )
    return (
        f"the names of its {tree.count()} have no word for clean or rainy, and their halves do not "
        "look like one scene: put rainy images in input/ and clean ones in target/, or mark the "
        "clean ones by a pattern such as '(?P<clean>PART OF THEIR NAMES)?(\\d+)' (DATA.MATCH, "
        "--match)."
    )


def _mean_roughness(folder: Folder) -> float:
    some = list(islice(folder.named().values(), 5))
    return sum(roughness(read_rgb(path)) for path in some) / len(some)
