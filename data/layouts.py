"""What a folder of a data set holds: which images are rainy, which are clean, what is neither.

The tables below are the field's conventions; the functions apply them to any folder. A convention
of a new set belongs into a table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from data.halves import are_side_by_side, rainy_half, roughness
from data.known_sets import known_set
from data.listed import ListedPair, is_list_of_pairs, read_list
from data.names import Pattern, composed, has_word
from utils.errors import UserError
from utils.folders import FolderContent, dead_link_sentence, scan_folder
from utils.images import SUFFIXES, read_rgb
from utils.wording import plural

# --- conventions ---------------------------------------------------------------------------------

# Words of folders with rainy images. The second line counts only beside a folder of clean images,
# and only where no folder of the first line is there: "data" may be anything, and "rainstreak" is
# a picture of the streaks alone beside "rain".
RAINY_FOLDERS = (
    ("rainy", "rain", "input", "lq"),
    ("data", "in", "drop", "raindrop", "rainstreak", "rainstreak raindrop"),
)
CLEAN_FOLDERS = (
    *("target", "gt", "clean", "clear", "norain", "no rain", "rainfree", "rain free"),
    *("groundtruth", "ground truth", "hq"),
)

# What may follow such a word without another meaning: rainy_image, cleansamples, inputcrop.
FILLERS = ("image", "images", "img", "imgs", "sample", "samples", "crop", "crops", "frames")

# How the names of folders with one part of a set begin: train2018new, test_syn.
SPLITS = ("train", "test", "val")

# Words of files where rainy and clean ones lie in one folder. Files without any are rainy.
CLEAN_WORDS = ("norain", "clean", "gt", "target", "clear")
NEITHER_WORDS = ("rainregion", "rainstreak", "streak", "mask", "region")  # RainTrainL, RainTrainH

# GT-RAIN: all rainy frames of a scene's folder belong to the one clean image there.
SCENE_RAINY, SCENE_CLEAN = "-R-", "-C-"

LAYOUTS = {
    "folders": "two folders such as input/ and target/",
    "one_folder": "rain-1.png and norain-1.png in one folder",
    "side_by_side": "one image per pair, rainy and clean side by side",
    "list": "a text file with a rainy and a clean file in each line",
}


# --- what is found -------------------------------------------------------------------------------


class NoPairsError(UserError):
    """A folder that is not one data set of pairs."""


@dataclass(frozen=True)
class Sides:
    """The rainy and the clean images of a data set by name, and which of ``LAYOUTS`` it follows.

    A name is that of the file without suffix, behind its subfolder's where there are subfolders.
    A side that is not there is empty; side by side, both hold the same files.
    """

    layout: str
    rainy: dict[str, Path]
    clean: dict[str, Path]
    partners: dict[str, str] | None = None
    """Clean name of each rainy one where the layout itself decides; None where names do."""
    rainy_half: str = ""
    """``left`` or ``right`` for files with both images side by side, else empty."""
    notes: tuple[str, ...] = ()
    """What was left out, a sentence each."""


def find_sides(folder: Path, layout: str = "auto", match: str = "", half: str = "auto") -> Sides:
    """The rainy and the clean images of a data set. One side may be missing.

    ``folder`` may also be a text file that lists pairs. ``layout`` is a key of ``LAYOUTS`` or
    ``auto``; ``match`` is a pattern for ``pair_names``, whose group ``(?P<clean>...)`` may mark the
    clean images; ``half`` says which half of side-by-side files is rainy. Raises UserError for a
    missing folder, for one that holds no images in any of ``LAYOUTS`` (with the nearest reading),
    for one that is itself a side or holds several sets, and where the rainy half is in doubt.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise UserError(
            f"There is no data layout {layout!r}; known are auto, {', '.join(LAYOUTS)}."
        )
    if folder.is_file():
        return _listed(folder)
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
    decided = rainy_half(list(found.rainy.values()), half)
    return replace(found, rainy_half=decided)


def side_folders(folder: Path, match: str = "") -> tuple[Path | None, Path | None]:
    """Where the rainy and the clean images of a data set lie, None for a side that is not there.

    Both are ``folder`` itself where only ``find_sides`` can tell its images apart: in one folder,
    side by side in one file, in a list, in several pairs of folders. A folder of other images holds
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
    except UserError:  # find_sides names it, where one of several sets is not the end of all
        return folder, folder


def _side_folders(tree: Folder, match: str) -> tuple[Path | None, Path | None]:
    below = _only_child(tree)
    for place in (tree, below) if below else (tree,):
        if place.lists:
            return tree.path, tree.path
        kinds = _kinds(place, match)
        if len(kinds) == 1 and not kinds[0].is_mixed:
            rainy, clean = kinds[0].rainy, kinds[0].clean
            return (rainy.path if rainy else None), (clean.path if clean else None)
        if kinds:
            return tree.path, tree.path
    if _recognise(tree, "auto", match):
        return tree.path, tree.path
    if below and below.name.casefold() in FILLERS:  # images/ beside labels/, as in BDD350
        tree = below
    return (tree.path, None) if tree.images else (None, None)


def images_by_name(folder: Path) -> dict[str, Path]:
    """The images of ``folder`` by name, in natural order; without any, those of its subfolders.

    Raises UserError where there are none, for two files of one name, and for a dead link.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}.")
    images = Folder(folder).named()
    if not images:
        raise UserError(f"The folder {folder} holds no image ({', '.join(SUFFIXES)}).")
    return images


# --- folders -------------------------------------------------------------------------------------


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

    @cached_property
    def lists(self) -> list[Path]:
        """The text files directly in it that list pairs."""
        texts = (path for path in self._content.files if path.suffix.lower() == ".txt")
        return [path for path in texts if is_list_of_pairs(path)]

    @cached_property
    def holds_images(self) -> bool:
        return bool(self.images) or bool(self.folders)

    def named(self, *, everything: bool = False) -> dict[str, Path]:
        """The images by name: the direct ones, or without any those of the folders below.

        ``everything`` takes both. Raises UserError for two files of one name.
        """
        found: dict[str, Path] = {}
        for path in self.images:
            name = composed(path.stem)
            if name in found:
                raise UserError(
                    f"{path} and {found[name].name} have the same name but for the suffix; keep "
                    "one of them."
                )
            found[name] = path
        if everything or not found:
            for folder in self.folders:
                below = folder.named(everything=True)
                found |= {f"{composed(folder.name)}/{name}": path for name, path in below.items()}
        return found


# --- pairs of folders ----------------------------------------------------------------------------


class Meaning(NamedTuple):
    """What a folder's name says: ``clean``, or ``rainy`` in the first or second rank."""

    role: str  # rainy, clean or ""
    rank: int = 0
    stem: str = ""  # the rest of the name: a1 of a1_Rain


def meaning(name: str) -> Meaning:
    """Read a folder's name by the words of the tables; any case, with fillers and other words.

    The name of a known set says nothing: GT-RAIN, HQ-RAIN.
    """
    if known_set(name):
        return Meaning("")
    spaced = _spaced(name)
    for role, rank, words in (
        ("clean", 0, CLEAN_FOLDERS),
        *(("rainy", rank, words) for rank, words in enumerate(RAINY_FOLDERS)),
    ):
        for word in sorted(words, key=len, reverse=True):
            found = re.fullmatch(rf"(.*?)\b{word} ?({'|'.join(FILLERS)})?\b(.*)", spaced)
            if found:
                return Meaning(role, rank, f"{found[1]}{found[3]}".strip())
    return Meaning("")


@dataclass(frozen=True)
class Kind:
    """A folder of rainy images and the one of its clean images; one may be missing."""

    prefix: str  # of the names, where a set has several kinds: "raindrop/"
    rainy: Folder | None
    clean: Folder | None

    @property
    def is_mixed(self) -> bool:
        """Whether one side lies in the folder that the other side's folder lies in."""
        both = self.rainy, self.clean
        return None not in both and any(
            one.path == other.path.parent for one in both for other in both if one and other
        )


def _kinds(tree: Folder, match: str = "") -> list[Kind]:
    """The pairs of folders directly in ``tree``; a single side alone; empty without any."""
    children = [child for child in tree.folders if not _is_set(child)]
    read = {child.name: meaning(child.name) for child in children}
    clean = [child for child in children if read[child.name].role == "clean"]
    rainy = [child for child in children if read[child.name].role == "rainy"]
    first = [child for child in rainy if read[child.name].rank == 0]
    if not clean:
        # PReNet's page: the clean images one level above the rainy ones. Rain_Heavy alone is none.
        if len(first) == 1 and not read[first[0].name].stem:
            return [Kind("", first[0], tree if tree.images else None)]
        return []
    if not rainy and len(clean) == 1 and tree.images:
        return [Kind("", tree, clean[0])]
    kinds = []
    for side in clean:
        stem = read[side.name].stem
        also = [other.name for other in clean if read[other.name].stem == stem]
        if len(also) > 1:
            raise UserError(
                f"{tree.path} has several folders of clean images, {' and '.join(also)}; keep one, "
                "or name the others otherwise."
            )
        partners = [child for child in rainy if read[child.name].stem == stem]
        if not partners:
            partners = [c for c in children if stem and _spaced(c.name) == stem and c != side]
        if not partners and len(clean) == 1:
            others = [child for child in children if child != side]
            partners = rainy or (others if match and len(others) == 1 else [])
        best = min((read[child.name].rank for child in partners), default=0)
        partners = [child for child in partners if read[child.name].rank == best]
        many_kinds, many_clips = len(partners) > 1, len(clean) > 1
        for partner in partners:
            prefix = partner.name if many_kinds else stem if many_clips else ""
            kinds.append(Kind(f"{composed(prefix)}/" if prefix else "", partner, side))
        if not partners:
            kinds.append(Kind(f"{stem}/" if many_clips and stem else "", None, side))
    return kinds


def _spaced(name: str) -> str:
    return " ".join(re.split(r"[\W_]+", composed(name).casefold())).strip()


def _is_set(folder: Folder, depth: int = 2) -> bool:
    """Whether a folder, or its train/ or test/, holds both sides: then it is not a side itself."""
    roles = {meaning(child.name).role for child in folder.folders}
    if {"rainy", "clean"} <= roles:
        return True
    return depth > 1 and any(_is_set(child, depth - 1) for child in folder.folders)


def _read_kinds(tree: Folder, kinds: Sequence[Kind]) -> Sides:
    """The images of pairs of folders; what lies beside them is noted."""
    rainy: dict[str, Path] = {}
    clean: dict[str, Path] = {}
    partners: dict[str, str] | None = None
    notes: list[str] = []
    shared = len({kind.clean for kind in kinds}) < len(kinds)
    for kind in kinds:
        for side, images, prefix in (
            (kind.rainy, rainy, kind.prefix),
            (kind.clean, clean, "" if shared else kind.prefix),
        ):
            if side is None:
                continue
            if side is tree:  # what lies beside the other side's folder
                is_clean = side is kind.clean
                named = {composed(path.stem): path for path in side.images}
                marked = {n: p for n, p in named.items() if has_word(n, CLEAN_WORDS) == is_clean}
                images |= {prefix + name: path for name, path in (marked or named).items()}
                continue
            images |= {prefix + name: path for name, path in side.named().items()}
            if side.images:
                notes += [_left_out(child) for child in side.folders]
    used = {side.path for kind in kinds for side in (kind.rainy, kind.clean) if side}
    notes += [_left_out(child) for child in tree.folders if child.path not in used]
    if tree.images and tree.path not in used:
        notes.append(f"left out: {plural(len(tree.images), 'image')} directly in {tree.path}")
    return Sides("folders", rainy, clean, partners, notes=tuple(dict.fromkeys(notes)))


def _left_out(folder: Folder) -> str:
    count = len(folder.named(everything=True))
    return f"left out: {folder.path} ({plural(count, 'image')})"


# --- any folder ----------------------------------------------------------------------------------


def _recognise(tree: Folder, layout: str, match: str) -> Sides | None:
    """The images of a folder by the first convention that fits; None where none does.

    Raises NoPairsError for a folder that is itself a side or that holds several sets.
    """
    lists = tree.lists
    if len(lists) == 1:
        listed = _listed(lists[0])
        return replace(listed, notes=(f"read: the list {lists[0]}", *listed.notes))
    if lists:
        raise NoPairsError(f"{tree.path} holds several lists of pairs; name one: {_joined(lists)}.")
    kinds = _kinds(tree, match)
    if kinds:
        return _read_kinds(tree, kinds)
    _refuse_a_side(tree)
    if tree.images:
        found = _one_folder(tree.named(), layout, match)
        if found is None:
            return None
        notes = tuple(_left_out(child) for child in tree.folders)
        return replace(found, notes=notes + found.notes)
    below = _only_child(tree)
    if below is not None:
        found = _recognise(below, layout, match)
        return found and replace(found, notes=(f"read: {below.path}", *found.notes))
    sets = [child for child in tree.folders if _is_set(child)]
    splits = {split for child in tree.folders if (split := _split(child.name))}
    if sets or len(splits) > 1:
        raise NoPairsError(
            f"{tree.path} holds several data sets or parts of one; name one of them: "
            f"{_joined(child.path for child in (sets or tree.folders))}."
        )
    return _one_folder(tree.named(), layout, match)


def _refuse_a_side(tree: Folder) -> None:
    """Raise NoPairsError for a folder whose partner lies beside it."""
    own = meaning(tree.name)
    if not own.role or _is_set(tree):
        return
    for other in scan_folder(tree.path.absolute().parent).folders:
        role, _, stem = meaning(other.name)
        # of one stem: clean/ beside real_rain/ is not its partner
        if role not in ("", own.role) and stem == own.stem and Folder(other).holds_images:
            raise NoPairsError(
                f"{tree.path} holds one side of the pairs; name {tree.path.parent} instead."
            )


def _only_child(tree: Folder) -> Folder | None:
    return tree.folders[0] if len(tree.folders) == 1 and not tree.images else None


def _split(name: str) -> str:
    return next((split for split in SPLITS if name.casefold().startswith(split)), "")


def _joined(paths: Iterable[Path]) -> str:
    return ", ".join(map(str, paths))


def _one_folder(images: dict[str, Path], layout: str, match: str) -> Sides | None:
    """Rainy and clean images in one folder or below it, told apart by name, or as halves of a file.

    None where they are neither.
    """
    if not images:
        return None
    if layout == "side_by_side":
        return Sides("side_by_side", images, images)
    pattern = Pattern(match) if match else None
    partners: dict[str, str] | None = None
    notes: list[str] = []
    if pattern and pattern.marks_clean:
        clean = {name: path for name, path in images.items() if pattern.is_clean(name)}
        rainy = {name: path for name, path in images.items() if name not in clean}
    elif all(SCENE_RAINY in name or SCENE_CLEAN in name for name in images):
        clean = {name: path for name, path in images.items() if SCENE_CLEAN in name}
        rainy = {name: path for name, path in images.items() if name not in clean}
        partners = _partners_in_scenes(rainy, clean)
    else:
        stems = {name: name.rpartition("/")[2] for name in images}
        clean = {n: path for n, path in images.items() if has_word(stems[n], CLEAN_WORDS)}
        rainy = {n: path for n, path in images.items() if n not in clean}
        if _folders_of(clean) != _folders_of(rainy):
            clean = {}  # folders of one side each, whose names say nothing
        if clean and rainy:
            neither = [name for name in rainy if has_word(stems[name], NEITHER_WORDS)]
            rainy = {name: path for name, path in rainy.items() if name not in set(neither)}
            notes += [f"left out: {line}" for line in _kinds_of_names(neither)]
    if clean and rainy:
        return Sides("one_folder", rainy, clean, partners, notes=tuple(notes))
    if layout == "auto" and are_side_by_side(list(images.values())):
        return Sides("side_by_side", images, images)
    return None


def _partners_in_scenes(rainy: Iterable[str], clean: Iterable[str]) -> dict[str, str]:
    """The one clean image in each rainy image's folder. Raises UserError where there are two."""
    by_scene: dict[str, str] = {}
    for name in clean:
        other = by_scene.setdefault(name.rpartition("/")[0], name)
        if other != name:
            raise UserError(
                f"{other} and {name} are two clean images of one scene ({SCENE_CLEAN} in the "
                "name); a scene has one."
            )
    return {
        name: by_scene[scene] for name in rainy if (scene := name.rpartition("/")[0]) in by_scene
    }


def _folders_of(names: Iterable[str]) -> set[str]:
    return {name.rpartition("/")[0] for name in names}


def digit_free(name: str) -> str:
    """A name with N for each number: what kind of file it is."""
    return re.sub(r"\d+", "N", name)


def _kinds_of_names(names: Iterable[str]) -> list[str]:
    """How many names there are of each kind: ``3 images called rainregion-N``."""
    counts: dict[str, int] = {}
    for name in names:
        counts[digit_free(name)] = counts.get(digit_free(name), 0) + 1
    return [f"{plural(count, 'image')} called {kind}" for kind, count in counts.items()]


def _listed(path: Path) -> Sides:
    pairs = read_list(path)
    notes: tuple[str, ...] = ()
    once: dict[str, ListedPair] = {}
    for pair in pairs:
        if once.setdefault(pair.name, pair).clean != pair.clean:
            raise UserError(f"{path} lists {pair.rainy} with two clean images.")
    if len(once) < len(pairs):
        repeated = plural(len(pairs) - len(once), "line")
        notes = (f"left out: {repeated} of {path} that repeat an earlier one",)
    return Sides(
        "list",
        {name: pair.rainy for name, pair in once.items()},
        {pair.clean_name: pair.clean for pair in once.values()},
        {name: pair.clean_name for name, pair in once.items()},
        notes=notes,
    )


# --- a folder that cannot be read ----------------------------------------------------------------


def nearest_reading(tree: Folder) -> str:
    """What a folder without recognised pairs may hold and what to rename; a sentence's end."""
    if not tree.holds_images:
        empty = [name for name in tree.folder_names if meaning(name).role]
        where = f"{' and '.join(empty)} there hold" if len(empty) > 1 else "it holds"
        return (
            f"{where} no image. Pairs are two folders such as input/ and target/, one folder with "
            "rain-1.png and norain-1.png, images side by side, or a list of files."
        )
    known = [child for child in tree.folders if meaning(child.name).role]
    others = [child for child in tree.folders if child not in known]
    if len(known) == 1 and others:
        other = max(others, key=lambda child: len(child.named()))
        missing = "input" if meaning(known[0].name).role == "clean" else "target"
        return (
            f"the nearest reading is {known[0].name}/ with {_count(known[0])} and {other.name}/ "
            f"with {_count(other)}: rename {other.name}/ to {missing}/ if these are its partners."
        )
    if len(tree.folders) >= 2:
        two = sorted(tree.folders, key=lambda child: -len(child.named()))[:2]
        rough = [_mean_roughness(child) for child in two]
        rainy, clean = two if rough[0] >= rough[1] else two[::-1]
        return (
            f"the nearest reading is {rainy.name}/ with {_count(rainy)} as the rainy side (its "
            f"images are rougher) and {clean.name}/ with {_count(clean)} as the clean one: rename "
            "them to input/ and target/ if that is right."
        )
    return (
        f"its {_count(tree)} have no word for clean or rainy in their names, and their halves do "
        "not look like one scene: put rainy images in input/ and clean ones in target/, or mark "
        "the clean ones by a pattern such as '(?P<clean>PART OF THEIR NAMES)?(\\d+)' (DATA.MATCH, "
        "--match)."
    )


def _count(folder: Folder) -> str:
    return plural(len(folder.named(everything=True)), "image")


def _mean_roughness(folder: Folder) -> float:
    some = list(islice(folder.named().values(), 5))
    return sum(roughness(read_rgb(path)) for path in some) / len(some)
