"""The field's data sets: their names and numbers of pairs, from papers and project pages.

Protocols and published scores are in utils/evaluation/published.py, addresses in the README.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple


class KnownSet(NamedTuple):
    """The possible numbers of pairs of a set's parts, and the rainy half of side-by-side files."""

    train: tuple[int, ...] = ()
    test: tuple[int, ...] = ()
    rainy_half: str = ""


KNOWN_SETS = {
    "Rain13K": KnownSet(train=(13_712, 13_711)),  # in papers; as distributed
    "Test100": KnownSet(test=(100,)),
    "Rain100H": KnownSet(train=(1_800,), test=(100,)),
    "Rain100L": KnownSet(train=(200,), test=(100,)),
    "Test2800": KnownSet(test=(2_800,)),
    "Test1200": KnownSet(test=(1_200,)),
    "Rain200L": KnownSet(train=(1_800,), test=(200,)),
    "Rain200H": KnownSet(train=(1_800,), test=(200,)),
    "DID-Data": KnownSet(train=(12_000,), test=(1_200,)),
    "DID-MDN": KnownSet(train=(12_000,), test=(1_200,), rainy_half="left"),
    "DDN-Data": KnownSet(train=(12_600,), test=(1_400,)),
    "SPA-Data": KnownSet(train=(638_492,), test=(1_000,)),
    "Rain1200": KnownSet(train=(12_000,), test=(1_200,)),
    "Rain1400": KnownSet(train=(12_600,), test=(1_400,)),
    "Rain800": KnownSet(train=(700,), test=(100,), rainy_half="right"),
    "Rain12": KnownSet(test=(12,)),
    "HQ-RAIN": KnownSet(train=(4_500,), test=(500,)),
    "4K-Rain13k": KnownSet(train=(12_500,), test=(500,)),
    "UAV-Rain1k": KnownSet(train=(800,), test=(220,)),
    "WeatherBench": KnownSet(train=(41_402,), test=(600,)),
    "RealRain-1k-H": KnownSet(train=(784, 1_120)),
    "RealRain-1k-L": KnownSet(train=(784, 1_120)),
    "LHP-Rain": KnownSet(),
    "RainDS": KnownSet(),
    "GT-RAIN": KnownSet(train=(26_124,), test=(2_100,)),
    "GTAV-NightRain": KnownSet(train=(12_860,)),
    "HQ-NightRain": KnownSet(train=(10_000,), test=(300,)),
    "Raindrop-A": KnownSet(train=(861,), test=(58,)),
    "Raindrop-B": KnownSet(train=(861,), test=(249,)),
    "Raindrop Clarity": KnownSet(train=(14_139,), test=(731, 593)),
    "Outdoor-Rain": KnownSet(train=(9_000,), test=(750,)),
    "NTURain": KnownSet(),
    "BDD350": KnownSet(),
    "COCO350": KnownSet(),
    "BDD150": KnownSet(),
}


def known_set(name: str) -> str:
    """The known set that has the folder's name, as papers spell it, or ""."""
    return _BY_KEY.get(_key(name), "")


def sets_of(count: int, folders: Iterable[str]) -> list[tuple[str, str]]:
    """Known sets with a part of ``count`` pairs, and that part: ``("Rain200H", "test")``.

    Sets that have the name of one of ``folders`` come first, in the order of the folders.
    """
    named = list(dict.fromkeys(name for folder in folders if (name := known_set(folder))))
    return [
        (name, part)
        for name in (*named, *(name for name in KNOWN_SETS if name not in named))
        for part, counts in (("train", KNOWN_SETS[name].train), ("test", KNOWN_SETS[name].test))
        if count in counts
    ]


def _key(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


_BY_KEY = {_key(name): name for name in KNOWN_SETS}
