"""Decoded pairs in one memory-mapped file.

Decoding a whole PNG for one small patch slows training down. The cache decodes each image once; a
crop then touches only the memory pages that hold it, and all loader processes share them. The file
belongs to one list of pairs and is checked against the sizes and times of their files.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.checked import read_sound_pair
from data.pairs import Pair
from utils.errors import UserError
from utils.files import FileLock, atomic_write, remove_unfinished, write_text
from utils.stamps import stamp_files

VERSION = 3  # of the file's layout and of what building it checks; other versions are rebuilt

Shapes = list[tuple[int, int]]  # height and width of each pair


class CachedPairs:
    """Reads uint8 pairs from the cache of a list of pairs; built by ``open_cache``."""

    def __init__(self, pixels: Path, shapes: Shapes) -> None:
        self._path = pixels
        self._shapes = shapes
        # Two images of 3 bytes per pixel for each pair.
        self._offsets = np.cumsum([0] + [2 * 3 * height * width for height, width in shapes])
        self._pixels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Rainy and clean, (H, W, 3) uint8 views of the file."""
        if self._pixels is None:  # opened in the process that reads, not in its parent
            # As a plain array: slicing a memmap takes ten times as long.
            self._pixels = np.asarray(np.memmap(self._path, np.uint8, mode="r"))
        height, width = self._shapes[index]
        both = self._pixels[self._offsets[index] : self._offsets[index + 1]]
        rainy, clean = both.reshape(2, height, width, 3)
        return rainy, clean

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pixels": None}  # each loader process maps the file itself


def open_cache(pairs: list[Pair], folder: Path) -> CachedPairs:
    """The cache of ``pairs`` in ``folder``, built first if it is missing or out of date.

    Of several processes that start together, one builds it and the others wait. Raises UserError
    for a broken or damaged image, and for a disk that is full, too small or read-only.
    """
    rainy = stamp_files([pair.rainy for pair in pairs])
    files = rainy + stamp_files([pair.clean for pair in pairs])
    halves = [f"{pair.half}\0" for pair in pairs]
    identity = {
        "version": VERSION,
        "files": _digest([*(stamp.line() for stamp in files), *halves]),
    }
    key = _digest(f"{stamp.path}\n" for stamp in rainy)[:16]
    pixels, index = folder / f"{key}.uint8", folder / f"{key}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot keep a cache in {folder}: {error.strerror}.") from error
    with FileLock(folder / f"{key}.lock"):
        shapes = _valid_shapes(index, pixels, identity)
        if shapes is None:
            for old in (index, pixels):  # out of date; frees their space
                old.unlink(missing_ok=True)
            remove_unfinished(pixels)
            _announce(pairs, folder)
            shapes = _build(pairs, pixels)
            write_text(index, json.dumps({**identity, "shapes": shapes}))
    return CachedPairs(pixels, shapes)


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def _valid_shapes(index: Path, pixels: Path, identity: dict[str, Any]) -> Shapes | None:
    """The shapes that a complete, current cache holds, or None."""
    if not index.is_file() or not pixels.is_file():
        return None
    try:
        content = json.loads(index.read_text())
        shapes = [(int(height), int(width)) for height, width in content.pop("shapes")]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # truncated or empty: to be rebuilt
    expected_size = sum(6 * height * width for height, width in shapes)
    if content != identity or pixels.stat().st_size != expected_size:
        return None
    return shapes


def _announce(pairs: list[Pair], folder: Path) -> None:
    """Print the estimated size, from up to 200 pairs; raise UserError if it cannot fit."""
    some = pairs[:: -(-len(pairs) // 200)]
    pixels = sum(pair.read()[0][..., 0].size for pair in some) / len(some)
    size, free = 6 * pixels * len(pairs) / 2**30, shutil.disk_usage(folder).free / 2**30
    if size > free:
        raise UserError(
            f"The cache of {len(pairs)} pairs would take about {size:.1f} GiB, and {folder} has "
            f"{free:.1f} GiB free; name another folder with DATA.CACHE, or leave it empty to "
            "decode the files every time."
        )
    print(
        f"building a cache of about {size:.1f} GiB in {folder} ({free:.1f} GiB free), once for "
        "these files",
        flush=True,
    )


def _build(pairs: list[Pair], pixels: Path) -> Shapes:
    """Decode all pairs into one file, with a bounded number of decoded images in memory."""
    shapes: Shapes = []

    def write(temporary: Path) -> None:
        waiting = iter(pairs)
        bar = tqdm(total=len(pairs), desc="cache", unit="pair", leave=False, disable=None)
        with temporary.open("wb") as file, ThreadPoolExecutor() as pool, bar:
            while chunk := list(islice(waiting, 64)):
                for rainy, clean in pool.map(read_sound_pair, chunk):
                    file.write(np.ascontiguousarray(rainy).data)
                    file.write(np.ascontiguousarray(clean).data)
                    shapes.append((rainy.shape[0], rainy.shape[1]))
                    bar.update()

    atomic_write(pixels, write)
    return shapes
