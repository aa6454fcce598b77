"""What to say about a folder in which no layout was recognised."""

from __future__ import annotations

from itertools import islice

from data.layouts.folders import Folder, side_of
from data.layouts.halves import roughness
from utils.images import read_rgb


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
