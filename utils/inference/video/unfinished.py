"""The finished frames of a video, kept so that the next run continues where a killed one stopped.

A hidden folder next to the result holds encoded pieces of PIECE frames and, until the next piece is
full, single frames in their stored form. A piece is named after its first and last frame. When all
frames are finished, the pieces are joined and the folder is removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.files import FileLock, atomic_write, remove_unfinished, write_text
from utils.inference.video import VideoOptions
from utils.inference.video.encoding import MIN_SIDES, write_piece
from utils.inference.video.joining import join
from utils.inference.video.reader import Picture
from utils.inference.video.yuv import from_rgb
from utils.wording import plural

PIECE = 96  # frames; before they are encoded, they take 300 MB at 1920 x 1080
SHOWN = 24  # characters; longer values of settings are not shown in sentences


class UnfinishedVideo:
    """The finished frames of a video that is being restored; a context manager.

    Inside, no other process can work on the same result; entering raises UserError if one does.

    target: the result.
    settings: name -> value of everything besides ``options`` that decides the pixels of the result.
        Frames of a run with other settings are removed, which ``notify`` reports.
    times: of the source's frames, in units of ``picture.time_base``. The list may grow, but a frame
        is appended only after its time.

    num_finished: frames finished by this run or an earlier one.

    Raises UserError if the frames are too small for the codec.
    """

    def __init__(
        self,
        target: Path,
        settings: Mapping[str, object],
        picture: Picture,
        times: Sequence[int],
        options: VideoOptions,
        notify: Callable[[str], None],
    ) -> None:
        self.target, self.picture, self.times, self.options = target, picture, times, options
        if min(picture.width, picture.height) < MIN_SIDES[options.codec]:
            side = MIN_SIDES[options.codec]
            raise UserError(
                f"Cannot write {target} as {options.codec}: frames of {picture.width} x "
                f"{picture.height} are smaller than {side} x {side}; take h264."
            )
        # A long name would leave no room for what follows.
        digest = hashlib.sha1(os.fsencode(target.name)).hexdigest()[:8]
        hidden = f".{target.stem[:40]}.{digest}"
        self.folder = target.parent / f"{hidden}.unfinished"
        self._lock = FileLock(target.parent / f"{hidden}.lock")
        everything = {**vars(options), **settings}
        self.settings = {name: str(value) for name, value in everything.items()}
        self.notify = notify
        self.num_encoded = self.num_finished = 0

    def __enter__(self) -> UnfinishedVideo:
        while not self._lock.is_held:  # another process may just have finished and removed the file
            self._lock.release()
            if not self._lock.acquire():
                raise UserError(
                    f"{self.target} is being written by {self._lock.holder}; wait for its end, "
                    "stop it, or choose another --output."
                )
        try:
            remove_unfinished(self.target)
            self._find_finished()
        except BaseException:
            self._unlock()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._unlock()

    def _unlock(self) -> None:
        # Removed before it is released, so that a process that opens it meanwhile finds it gone.
        if self._lock.is_held:
            self._lock.path.unlink()
        self._lock.release()

    def _find_finished(self) -> None:
        """Take what an earlier run left, or remove it if that run had other settings."""
        self.num_encoded = max((_last(piece) + 1 for piece in self._pieces()), default=0)
        self.num_finished = self.num_encoded
        while self._frame_file(self.num_finished).is_file():
            self.num_finished += 1
        kept = self._kept_settings()
        if self.folder.is_dir() and kept != self.settings:
            if kept is not None and self.num_finished:
                self.notify(
                    f"{self.target}: removing {plural(self.num_finished, 'frame')} of an earlier "
                    f"run with other settings ({_differences(kept, self.settings)})."
                )
            self.remove()
            self.num_encoded = self.num_finished = 0

    def append(self, frame: np.ndarray) -> None:
        """Store the next restored frame, (H, W, 3) float32 RGB in [0, 1]."""
        if not self.num_finished:
            write_text(self._settings_file, json.dumps(self.settings))
        planes = from_rgb(frame, self.picture.layout)
        stored = np.concatenate([plane.ravel() for plane in planes])
        atomic_write(self._frame_file(self.num_finished), lambda path: np.save(path, stored))
        self.num_finished += 1
        if self.num_finished - self.num_encoded == PIECE:
            self._encode_piece()

    def finish(self, source: Path, start: Fraction, last_duration: int) -> list[str]:
        """Write the video with the tracks of ``source``; returns the notes of ``join``.

        Raises UserError if there is no frame or the disk is full.
        """
        if self.num_finished > self.num_encoded:
            self._encode_piece()
        if not self.num_finished:
            raise UserError(f"There is no frame to write to {self.target}.")
        times = self.times[: self.num_finished]
        notes = join(self.target, self._pieces(), times, last_duration, self.picture, source, start)
        self.remove()
        return notes

    def remove(self) -> None:
        """Remove everything that is kept."""
        try:
            # First, so that a run that is killed here leaves nothing that another would continue.
            self._settings_file.unlink(missing_ok=True)
            shutil.rmtree(self.folder)
        except OSError as error:
            raise UserError(f"Cannot remove {self.folder}: {error.strerror}.") from error

    def _encode_piece(self) -> None:
        first, last = self.num_encoded, self.num_finished - 1
        files = [self._frame_file(number) for number in range(first, last + 1)]
        write_piece(
            self.folder / f"piece-{first:08}-{last:08}.mp4",
            (self._planes(np.load(file)) for file in files),
            self.times[first : last + 1],
            self.picture,
            codec=self.options.codec,
            crf=self.options.crf,
        )
        self.num_encoded = self.num_finished
        for file in files:
            file.unlink()

    def _planes(self, stored: np.ndarray) -> list[np.ndarray]:
        """The planes of one frame, from the flat array of its values."""
        layout, width, height = self.picture.layout, self.picture.width, self.picture.height
        colours = (-(-height // layout.down), -(-width // layout.across))
        shapes = [(height, width), colours, colours]
        ends = np.cumsum([rows * columns for rows, columns in shapes])[:-1]
        parts = np.split(stored, ends)
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def _pieces(self) -> list[Path]:
        return sorted(self.folder.glob("piece-*.mp4"))

    def _frame_file(self, number: int) -> Path:
        return self.folder / f"frame-{number:08}.npy"

    @property
    def _settings_file(self) -> Path:
        return self.folder / "settings.json"

    def _kept_settings(self) -> dict[str, str] | None:
        """The settings of the run that left the folder; None if it was being removed."""
        try:
            return json.loads(self._settings_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None


def _last(piece: Path) -> int:
    """The number of a piece's last frame."""
    return int(piece.stem.rsplit("-", 1)[1])


def _differences(kept: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Which settings differ, in words; short values are shown."""
    parts = []
    for name in sorted(kept.keys() | now.keys()):
        before, after = kept.get(name, "none"), now.get(name, "none")
        if before != after:
            is_short = max(len(before), len(after)) <= SHOWN
            parts.append(f"{name}: {before}, now {after}" if is_short else name)
    return "; ".join(parts)
