"""What a killed run leaves of a video, so that the next one goes on where it was.

Beside the video to be, a hidden folder holds what is finished: encoded pieces of PIECE frames, and
single frames as they are stored until a piece is full. The frames of a piece are numbered in its
name. When all are there, the pieces are joined and the folder goes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.files import atomic_write, write_text
from utils.inference.video import Picture
from utils.inference.video_output import MIN_SIDES, join, write_piece
from utils.inference.yuv import from_rgb

PIECE = 96  # frames; 300 MB of them as they are stored at 1920 x 1080


class UnfinishedVideo:
    """The finished frames of a video that is being restored.

    target: the video to be.
    key: whatever decides how the result looks. What a run with another key left is removed.
    times: of the source's frames, in units of ``picture.time_base``; may be filled while this
        works, as long as the time of a frame is there before it is appended.

    num_finished: frames that are there, by this run or one before it.

    Raises UserError where the codec cannot take frames so small.
    """

    def __init__(
        self,
        target: Path,
        key: str,
        picture: Picture,
        times: Sequence[int],
        *,
        codec: str,
        crf: int,
    ) -> None:
        self.target, self.picture, self.times = target, picture, times
        self.codec, self.crf = codec, crf
        if min(picture.width, picture.height) < MIN_SIDES[codec]:
            raise UserError(
                f"Cannot write {target} as {codec}: frames of {picture.width} x {picture.height} "
                f"are too small, it takes {MIN_SIDES[codec]} x {MIN_SIDES[codec]}; take h264."
            )
        # A long name would leave no room for what follows.
        digest = hashlib.sha1(os.fsencode(target.name)).hexdigest()[:8]
        self.folder = target.parent / f".{target.stem[:40]}.{digest}.unfinished"
        self.key = key
        if self.folder.is_dir() and self._kept_key() != key:
            self.remove()
        self.num_encoded = max((_last(piece) + 1 for piece in self._pieces()), default=0)
        self.num_finished = self.num_encoded
        while self._frame_file(self.num_finished).is_file():
            self.num_finished += 1

    def append(self, frame: np.ndarray) -> None:
        """Keep the next restored frame, (H, W, 3) float32 RGB in [0, 1]."""
        if not self.num_finished:
            write_text(self.folder / "key.txt", self.key)
        planes = from_rgb(frame, self.picture.layout)
        stored = np.concatenate([plane.ravel() for plane in planes])
        atomic_write(self._frame_file(self.num_finished), lambda path: np.save(path, stored))
        self.num_finished += 1
        if self.num_finished - self.num_encoded == PIECE:
            self._encode_piece()

    def finish(self, source: Path, start: Fraction, last_duration: int) -> list[str]:
        """Write the video with the sound of ``source``; returns what ``join`` has to tell.

        Raises UserError without a frame, and where the disk does not take the video.
        """
        if self.num_finished > self.num_encoded:
            self._encode_piece()
        if not self.num_finished:
            raise UserError(f"There is no frame to write to {self.target}.")
        pieces = self._pieces()
        times = self.times[: self.num_finished]
        notes = join(self.target, pieces, times, last_duration, self.picture, source, start)
        self.remove()
        return notes

    def remove(self) -> None:
        """Remove all that is kept."""
        try:
            # First, so that a run that is killed here leaves nothing that another would go on with.
            (self.folder / "key.txt").unlink(missing_ok=True)
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
            codec=self.codec,
            crf=self.crf,
        )
        self.num_encoded = self.num_finished
        for file in files:
            file.unlink()

    def _planes(self, stored: np.ndarray) -> list[np.ndarray]:
        """The planes of one frame out of their values in a row."""
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

    def _kept_key(self) -> str | None:
        try:
            return (self.folder / "key.txt").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None


def _last(piece: Path) -> int:
    """The number of a piece's last frame."""
    return int(piece.stem.rsplit("-", 1)[1])
