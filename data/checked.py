"""Decoding every image once before training, and remembering which files were sound.

An index holds 64 bits per pair: a digest of its files' names, sizes and times and of what was
checked. A second start only looks at the files' sizes and times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from data.pairs import Pair
from utils.console import say
from utils.damage import image_damage
from utils.errors import UserError
from utils.files import FileLock, atomic_write
from utils.images import as_uint8, read_bytes, read_rgb
from utils.metrics import score
from utils.stamps import stamp_files

BATCH = 1024  # images handed to the threads at a time; 100,000 waiting tasks would fill the memory
VERSION = 2  # of what is checked; files that passed an earlier version are checked again

# A protocol may refuse small images; none refuses an image whose sides have this many pixels.
SMALL = 64

Item = TypeVar("Item")


def stamp_pairs(pairs: Sequence[Pair], checked_for: str = "") -> np.ndarray:
    """(N,) uint64: digests of the names, sizes and times of each pair's files, and ``checked_for``.

    Raises UserError for a missing file.
    """
    rainy = stamp_files([pair.rainy for pair in pairs])
    clean = stamp_files([pair.clean for pair in pairs])
    lines = [
        first.line() + ("" if pair.side_by_side else second.line())
        for pair, first, second in zip(pairs, rainy, clean, strict=True)
    ]
    digests = [
        hashlib.blake2b(
            f"{VERSION}\0{checked_for}\0{line}".encode(errors="surrogateescape"), digest_size=8
        ).digest()
        for line in lines
    ]
    return np.frombuffer(b"".join(digests), "<u8")


@dataclass(frozen=True)
class Check:
    """The checks of one of several processes, each of its share of the images.

    The first process prints notes and progress.
    """

    rank: int
    world_size: int
    index: Path | None

    def print_notes(self, folder: str, notes: Sequence[str]) -> None:
        for note in notes if self.rank == 0 else ():
            say(f"{folder}: {note}")

    def pairs(self, pairs: Sequence[Pair], folder: str, protocol: str = "") -> None:
        """As ``check_pairs``, for every ``world_size``-th pair."""
        share = pairs[self.rank :: self.world_size]
        quiet = self.rank > 0
        check_pairs(share, f"checking {folder}", protocol=protocol, quiet=quiet, index=self.index)

    def photos(self, photos: Sequence[Path], folder: str) -> None:
        """As ``check_photos``, for every ``world_size``-th photograph."""
        share = photos[self.rank :: self.world_size]
        check_photos(share, f"checking {folder}", quiet=self.rank > 0, index=self.index)


def check_pairs(
    pairs: Sequence[Pair],
    description: str,
    *,
    protocol: str = "",
    quiet: bool = False,
    index: Path | None = None,
) -> int:
    """Decode every image once, on all cores, with a progress bar unless ``quiet``.

    Pairs that will be scored under ``protocol`` must be large enough for it. Pairs in ``index`` are
    skipped, and sound ones are added to it, even if the check ends early. Returns the number of
    decoded pairs. Raises UserError for the first pair that is broken, damaged, of two sizes or too
    small, so that a training run does not fail on it hours later.
    """
    stamps = stamp_pairs(pairs, f"pair {protocol}") if index else None
    check = partial(_check_pair, protocol=protocol)
    return _check(pairs, check, stamps, description, quiet, index)


def check_photos(
    photos: Sequence[Path], description: str, *, quiet: bool = False, index: Path | None = None
) -> int:
    """As ``check_pairs``, for single photographs."""
    alone = [Pair(photo, photo) for photo in photos]
    stamps = stamp_pairs(alone, "photograph") if index else None
    return _check(photos, read_sound, stamps, description, quiet, index)


def read_sound(path: Path) -> np.ndarray:
    """An image as (H, W, 3) uint8 RGB. Raises UserError if it is unreadable or damaged."""
    image = as_uint8(read_rgb(path), path)
    _refuse_damage(path)
    return image


def read_sound_pair(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """As ``Pair.read_uint8``; raises UserError for damaged data too."""
    images = pair.read_uint8()
    for path in dict.fromkeys((pair.rainy, pair.clean)):
        _refuse_damage(path)
    return images


def _refuse_damage(path: Path) -> None:
    """Raise UserError for a JPEG with damaged data, which decoders fill in silently."""
    if damage := image_damage(read_bytes(path)):
        raise UserError(
            f"{path} is damaged, so a part of the picture may be wrong ({damage}); replace it, or "
            "save it again as PNG to use it as it is."
        )


def _check_pair(pair: Pair, protocol: str) -> None:
    rainy, clean = read_sound_pair(pair)
    if protocol and min(rainy.shape[:2]) < SMALL:
        try:
            score(rainy, clean, protocol)
        except UserError as error:
            raise UserError(f"{pair.rainy} cannot be scored: {error}") from error


def _check(
    items: Sequence[Item],
    check: Callable[[Item], object],
    stamps: np.ndarray | None,
    description: str,
    quiet: bool,
    index: Path | None,
) -> int:
    new = np.arange(len(items))
    if index is not None and stamps is not None:
        new = np.flatnonzero(~np.isin(stamps, _read(index)))
    num_done = 0
    bar = tqdm(total=len(new), desc=description, unit="image", leave=False, disable=quiet or None)
    try:
        with ThreadPoolExecutor() as pool, bar:  # OpenCV decodes without the interpreter's lock
            for start in range(0, len(new), BATCH):
                for _ in pool.map(check, [items[i] for i in new[start : start + BATCH]]):
                    num_done += 1
                    bar.update()
    finally:
        if index is not None and stamps is not None and num_done:
            _remember(index, stamps[new[:num_done]])
    return num_done


def _read(index: Path) -> np.ndarray:
    """The numbers in a file; none if it is missing. An incomplete number at its end is ignored."""
    if not index.is_file():
        return np.empty(0, "<u8")
    content = index.read_bytes()
    return np.frombuffer(content[: len(content) // 8 * 8], "<u8")


def _remember(index: Path, stamps: np.ndarray) -> None:
    """Add numbers to a file; several processes may do so at the same time."""
    try:
        with FileLock(index.with_suffix(".lock")):
            merged = np.union1d(_read(index), stamps).astype("<u8")
            atomic_write(index, lambda temporary: temporary.write_bytes(merged.tobytes()))
    except OSError as error:
        raise UserError(f"Cannot write {index}: {error.strerror}.") from error
