"""Rainy and clean images in one folder, distinguished by their names or as halves of one file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from data.layouts import Sides
from data.layouts.halves import are_side_by_side
from data.layouts.two_folders import CLEAN_WORDS
from data.names import Pattern, digit_free, has_word
from utils.errors import UserError
from utils.wording import plural

# Words of files that are on neither side: RainTrainL, RainTrainH.
NEITHER_WORDS = ("rainregion", "rainstreak", "streak", "mask", "region")

# GT-RAIN: all rainy frames of a scene's folder belong to the one clean image there.
SCENE_RAINY, SCENE_CLEAN = "-R-", "-C-"


def read_one_folder(images: dict[str, Path], layout: str, match: str) -> Sides | None:
    """The sides of images in one folder or below it; None if they are not pairs.

    ``layout`` and ``match`` are those of ``find_sides``.
    """
    if not images:
        return None
    if layout == "side_by_side":
        return Sides("side_by_side", images, images)
    pattern = Pattern(match) if match else None
    partners: dict[str, str] | None = None
    notes: tuple[str, ...] = ()
    if pattern and pattern.marks_clean:
        rainy, clean = _divided(images, {name for name in images if pattern.is_clean(name)})
    elif all(SCENE_RAINY in name or SCENE_CLEAN in name for name in images):
        rainy, clean = _divided(images, {name for name in images if SCENE_CLEAN in name})
        partners = _partners_in_scenes(rainy, clean)
    else:
        rainy, clean, notes = _divided_by_words(images)
    if clean and rainy:
        return Sides("one_folder", rainy, clean, partners, notes=notes)
    if layout == "auto" and are_side_by_side(list(images.values())):
        return Sides("side_by_side", images, images)
    return None


def _divided(
    images: dict[str, Path], clean_names: set[str]
) -> tuple[dict[str, Path], dict[str, Path]]:
    """The rainy and the clean images, in their order."""
    return (
        {name: path for name, path in images.items() if name not in clean_names},
        {name: path for name, path in images.items() if name in clean_names},
    )


def _divided_by_words(
    images: dict[str, Path],
) -> tuple[dict[str, Path], dict[str, Path], tuple[str, ...]]:
    """As ``_divided``, by the words of the files' names, and notes on those on neither side."""
    stems = {name: name.rpartition("/")[2] for name in images}
    rainy, clean = _divided(images, {n for n in images if has_word(stems[n], CLEAN_WORDS)})
    if not clean or not rainy or _folders_of(clean) != _folders_of(rainy):
        return images, {}, ()  # folders of one side each, whose names say nothing
    neither = [name for name in rainy if has_word(stems[name], NEITHER_WORDS)]
    rainy, _ = _divided(rainy, set(neither))
    kinds = Counter(map(digit_free, neither))
    notes = (f"left out: {plural(n, 'image')} called {kind}" for kind, n in kinds.items())
    return rainy, clean, tuple(notes)


def _partners_in_scenes(rainy: Iterable[str], clean: Iterable[str]) -> dict[str, str]:
    """The one clean image in each rainy image's folder. Raises UserError if there are two."""
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
