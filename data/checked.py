"""Decoding every image once before training, and remembering which were found sound.

What is remembered is a number of 64 bits for each pair, made of the names, sizes and times of its
files: a second start looks at the files' sizes and times alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.pairs import Pair
from utils.errors import UserError
from utils.files import atomic_write

AT_A_TIME = 1024  # pairs handed to the threads; a hundred thousand waiting tasks would fill memory


def stamp_pairs(pairs: Sequence[Pair]) -> np.ndarray:
    """(N,) uint64, another number for a pair whose files' names, sizes or times are others.

    Raises UserError for a file that has gone.
    """
    stamps = [
        hashlib.blake2b(
            f"{_stamp(pair.rainy)}{'' if pair.side_by_side else _stamp(pair.clean)}".encode(
                errors="surrogateescape"
            ),
            digest_size=8,
        ).digest()
        for pair in pairs
    ]
    return np.frombuffer(b"".join(stamps), "<u8")


def _stamp(path: Path) -> str:
    try:
        stat = os.stat(path)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error
    return f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\0"


def check_pairs(
    pairs: Sequence[Pair], description: str, *, quiet: bool = False, index: Path | None = None
) -> int:
    """Decode every image once, on all cores, with a progress bar unless ``quiet``.

    Pairs that ``index`` remembers are left out, and those found sound are added to it, also where
    the check ends early. Returns the number of pairs that were decoded. Raises UserError with one
    sentence for the first broken file or pair of different sizes, so that a training run does not
    meet it hours later.
    """
    stamps = stamp_pairs(pairs) if index else np.zeros(len(pairs), np.uint64)
    is_new = ~np.isin(stamps, _read(index)) if index else np.ones(len(pairs), bool)
    new = np.flatnonzero(is_new)
    num_done = 0
    bar = tqdm(total=len(new), desc=description, unit="pair", leave=False, disable=quiet or None)
    try:
        with ThreadPoolExecutor() as pool, bar:  # OpenCV decodes outside the interpreter's lock
            for start in range(0, len(new), AT_A_TIME):
                some = [pairs[i] for i in new[start : start + AT_A_TIME]]
                for _ in pool.map(_check, some):
                    num_done += 1
                    bar.update()
    finally:
        if index and num_done:
            _remember(index, stamps[new[:num_done]])
    return num_done


def _check(pair: Pair) -> None:
    pair.read_uint8()


def _read(index: Path) -> np.ndarray:
    """The stamps in a file; none where it is missing. A piece of a number is left out."""
    if not index.is_file():
        return np.empty(0, "<u8")
    content = index.read_bytes()
    return np.frombuffer(content[: len(content) // 8 * 8], "<u8")


def _remember(index: Path, stamps: np.ndarray) -> None:
    """Add stamps to a file, which several processes may do at a time."""
    try:
        index.parent.mkdir(parents=True, exist_ok=True)
        with index.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file closes, also by a kill
            merged = np.union1d(_read(index), stamps).astype("<u8")
            atomic_write(index, lambda temporary: _write(temporary, merged))
    except OSError as error:
        raise UserError(f"Cannot write {index}: {error.strerror}.") from error


def _write(path: Path, stamps: np.ndarray) -> None:
    path.write_bytes(stamps.tobytes())
