"""Scores of earlier runs, kept so that images are not scored twice.

A score belongs to the content of its files: a copied, moved or touched file keeps it, a changed one
does not. Each score is appended as soon as it is known, so a run that is killed loses none, and two
runs into one folder do not overwrite each other's.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from utils.errors import UserError

# Increased whenever the same files get a different score than before.
VERSION = 2


class Remark(NamedTuple):
    """Something to know about a scored image: its kind, and a sentence."""

    kind: str
    text: str


class CachedScore(NamedTuple):
    """Scores of one image, and the remarks on it."""

    scores: tuple[float, ...]
    remarks: tuple[Remark, ...] = ()

    @property
    def is_cut(self) -> bool:
        """Whether the images had different sizes and were cut."""
        return any(remark.kind == "cropped" for remark in self.remarks)


class ScoreCache:
    """A file of scores, one per line, keyed by the measure and by the content of the images.

    Several threads may use it: single dictionary operations are atomic, and so is appending a line
    to a file in one system call.
    """

    def __init__(self, path: Path, fresh: bool = False) -> None:
        """Read ``path`` if it exists; ``fresh`` ignores what it holds.

        Raises UserError if ``path`` cannot be written or holds something else.
        """
        self.path = path
        self._scores: dict[str, CachedScore] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "ab+") as file:
                file.seek(0)
                content = file.read()
                if content and not content.endswith(b"\n"):
                    file.write(b"\n")  # a run was killed within a line
        except OSError as error:
            raise UserError(f"Cannot write {path}: {error.strerror or error}.") from error
        if not fresh:
            self._scores = _parse(path, content)

    def get(self, key: str) -> CachedScore | None:
        """The score kept under a key of ``cache_key``, None without one."""
        return self._scores.get(key)

    def put(self, key: str, score: CachedScore) -> None:
        """Keep a score in memory and on disk."""
        self._scores[key] = score
        line = json.dumps([key, score.scores, score.remarks]) + "\n"  # ASCII, whatever the names
        try:
            with open(self.path, "ab", buffering=0) as file:
                file.write(line.encode())
        except OSError as error:
            raise UserError(f"Cannot write {self.path}: {error.strerror or error}.") from error


def cache_key(measure: str, digests: list[str]) -> str:
    """The key of a score: what was measured, and the content of the files."""
    return f"v{VERSION} {measure} | {' '.join(digests)}"


def digest(content: bytes) -> str:
    """32 hexadecimal digits that identify the content of a file."""
    return hashlib.sha256(content).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """``digest`` for the content of a file of any size. Raises UserError if it is unreadable."""
    found = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while part := file.read(1 << 20):
                found.update(part)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    return found.hexdigest()[:32]


def _parse(path: Path, content: bytes) -> dict[str, CachedScore]:
    """The scores in a file. A line that a killed run left unfinished is ignored."""
    lines = content.splitlines()
    entries = [entry for line in lines if (entry := _parse_line(line)) is not None]
    if lines and not entries:
        raise UserError(f"{path} does not hold kept scores; delete it or choose another --output.")
    return dict(entries)


def _parse_line(line: bytes) -> tuple[str, CachedScore] | None:
    try:
        key, values, remarks = json.loads(line)
        return key, CachedScore(tuple(map(float, values)), tuple(Remark(*pair) for pair in remarks))
    except (ValueError, TypeError):
        return None
