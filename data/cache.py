"""Decoded pairs in one file that is mapped into memory.

Decoding a whole PNG for one small patch is what keeps a training waiting. The cache decodes each
image once; a crop then touches only the memory pages that hold it, and all loader processes share
them. The file belongs to one list of pairs and is checked against their sizes and times.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.pairs import Pair
from utils.errors import UserError
from utils.files import atomic_write, remove_unfinished, write_text

VERSION = 1  # of the file's layout; another one is built anew


class CachedPairs:
    """Reads uint8 pairs from the cache of a list of pairs; built by ``open_cache``."""

    def __init__(self, pixels: Path, shapes: list[tuple[int, int]]) -> None:
        self._path = pixels
        self._shapes = shapes
        # Two images of 3 bytes a pixel for each pair.
        self._offsets = np.cumsum([0] + [2 * 3 * height * width for height, width in shapes])
        self._pixels: np.memmap | None = None

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Rainy and clean, (H, W, 3) uint8 views of the file."""
        if self._pixels is None:  # opened in the process that reads, not in its parent
            self._pixels = np.memmap(self._path, np.uint8, mode="r")
        height, width = self._shapes[index]
        both = self._pixels[self._offsets[index] : self._offsets[index + 1]]
        rainy, clean = both.reshape(2, height, width, 3)
        return rainy, clean

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_pixels": None}  # a worker maps the file itself


def open_cache(pairs: list[Pair], folder: Path) -> CachedPairs:
    """The cache of ``pairs`` in ``folder``, built first where it is missing or out of date.

    Of several processes that start together one builds and the others wait for it. Raises UserError
    for a broken image and for a disk that refuses.
    """
    identity = _identity(pairs)
    key = hashlib.sha256(json.dumps([str(p.rainy.resolve()) for p in pairs]).encode()).hexdigest()
    pixels, index = folder / f"{key[:16]}.uint8", folder / f"{key[:16]}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / f"{key[:16]}.lock").open("w")
    except OSError as error:
        raise UserError(f"Cannot keep a cache in {folder}: {error.strerror}.") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file closes, also by a kill
        shapes = _valid_shapes(index, pixels, identity)
        if shapes is None:
            index.unlink(missing_ok=True)
            remove_unfinished(pixels)
            shapes = _build(pairs, pixels)
            write_text(index, json.dumps({**identity, "shapes": shapes}))
    return CachedPairs(pixels, shapes)


def _identity(pairs: list[Pair]) -> dict:
    """What must be unchanged for a cache to hold: the files, their sizes and times."""
    stats = [(str(path), *_size_and_time(path)) for p in pairs for path in (p.rainy, p.clean)]
    return {"version": VERSION, "files": hashlib.sha256(repr(stats).encode()).hexdigest()}


def _size_and_time(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _valid_shapes(index: Path, pixels: Path, identity: dict) -> list[tuple[int, int]] | None:
    """The shapes that a complete, current cache holds, or None."""
    if not index.is_file() or not pixels.is_file():
        return None
    content = json.loads(index.read_text())
    shapes = [tuple(shape) for shape in content.pop("shapes")]
    expected_size = sum(6 * height * width for height, width in shapes)
    if content != identity or pixels.stat().st_size != expected_size:
        return None
    return shapes


def _build(pairs: list[Pair], pixels: Path) -> list[tuple[int, int]]:
    """Decode all pairs into one file, with a bounded number of decoded images in memory."""
    shapes: list[tuple[int, int]] = []

    def write(temporary: Path) -> None:
        waiting = iter(pairs)
        bar = tqdm(total=len(pairs), desc="cache", unit="pair", leave=False)
        with temporary.open("wb") as file, ThreadPoolExecutor() as pool, bar:
            while chunk := list(islice(waiting, 64)):
                for rainy, clean in pool.map(Pair.read_uint8, chunk):
                    file.write(np.ascontiguousarray(rainy).data)
                    file.write(np.ascontiguousarray(clean).data)
                    shapes.append((rainy.shape[0], rainy.shape[1]))
                    bar.update()

    atomic_write(pixels, write)
    return shapes
