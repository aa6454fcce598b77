"""Scores of earlier runs, kept so that unchanged images are not scored again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from utils.errors import UserError
from utils.files import write_text

# Raised whenever the same files get another score than before.
VERSION = 1


class Kept(NamedTuple):
    """Scores of one image, the state of the files they belong to, whether those were cropped."""

    state: list[int]
    scores: tuple[float, ...]
    cropped: bool


class ScoreCache:
    """A file of scores by protocol and path, valid while the files keep their size and time.

    Used by several threads at a time: single dictionary operations are atomic.
    """

    def __init__(self, path: Path, fresh: bool = False) -> None:
        """Read ``path`` if it is there; ``fresh`` ignores what it holds."""
        self.path = path
        self._kept = _read(path) if path.is_file() and not fresh else {}

    def get(self, files: list[Path], protocol: str, state: list[int]) -> Kept | None:
        """What is kept for these files in this state, if anything."""
        kept = self._kept.get(_key(files, protocol))
        return kept if kept is not None and kept.state == state else None

    def put(self, files: list[Path], protocol: str, kept: Kept) -> None:
        """Keep scores in place of those that the files had before."""
        self._kept[_key(files, protocol)] = kept

    def write(self) -> None:
        """Write everything that is kept, whole or not at all."""
        # One entry a line; Python's JSON has a word for the infinite PSNR of identical images.
        lines = ",\n".join(
            f"{json.dumps(key)}: {json.dumps(kept)}" for key, kept in self._kept.items()
        )
        write_text(self.path, f'{{"version": {VERSION}, "scores": {{\n{lines}\n}}}}\n')


def _key(files: list[Path], protocol: str) -> str:
    return " | ".join([protocol, *(str(path.resolve()) for path in files)])


def file_state(files: list[Path]) -> list[int]:
    """Size and time of change of each file. Raises UserError for a file that has gone."""
    state = []
    for path in files:
        try:
            status = path.stat()
        except OSError as error:
            raise UserError(f"Cannot read {path}: {error.strerror}.") from error
        state += [status.st_size, status.st_mtime_ns]
    return state


def _read(path: Path) -> dict[str, Kept]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            return {}
        return {
            key: Kept(state, tuple(scores), cropped)
            for key, (state, scores, cropped) in content["scores"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} does not hold kept scores; delete it or run with --fresh."
        ) from error
