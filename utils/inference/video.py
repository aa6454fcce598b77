"""Video files frame by frame, through OpenCV. Sound is not read."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from utils.errors import UserError
from utils.files import atomic_write

SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
Append = Callable[[np.ndarray], None]
CODEC = "mp4v"  # MPEG-4 part 2: the one that OpenCV's wheels encode on every system


# FFmpeg's own chatter about broken files would stand beside our sentence about them.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET


def is_video(path: Path) -> bool:
    """Whether a path is a visible file with the suffix of a video."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


@dataclass(frozen=True)
class VideoFacts:
    """Frames a second, and the number of frames that the file announces (0 if it does not)."""

    rate: float
    num_frames: int


def read_facts(path: Path) -> VideoFacts:
    """Raises UserError if the file is no readable video."""
    video = _open(path)
    rate, num_frames = video.get(cv2.CAP_PROP_FPS), video.get(cv2.CAP_PROP_FRAME_COUNT)
    video.release()
    if not (math.isfinite(rate) and rate > 0):
        raise UserError(f"{path} does not tell its frames a second.")
    return VideoFacts(rate, max(int(num_frames), 0))


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """The frames as RGB, (H, W, 3) uint8, upright."""
    video = _open(path)
    try:
        while True:
            done, frame = video.read()
            if not done:
                return
            yield np.ascontiguousarray(frame[..., ::-1])
    finally:
        video.release()


def write_video(path: Path, rate: float, fill: Callable[[Append], None]) -> None:
    """Write an MP4 file whole or not at all.

    ``fill`` is called with a function that appends one frame, (H, W, 3) uint8 RGB; all frames
    have the size of the first, of which an odd row or column at the end is lost to the codec.
    Raises UserError without any frame, and where the disk or the codec did not take all of them.
    """

    def write(temporary: Path) -> None:
        writer, num_frames = None, 0

        def append(frame: np.ndarray) -> None:
            nonlocal writer, num_frames
            if writer is None:
                writer = _open_writer(temporary, rate, frame.shape[1], frame.shape[0])
            writer.write(np.ascontiguousarray(frame[..., ::-1]))
            num_frames += 1

        try:
            fill(append)
        finally:
            if writer is not None:
                writer.release()
        if writer is None:
            raise UserError(f"There is no frame to write to {path}.")
        # Neither write nor release tells of a full disk.
        written = cv2.VideoCapture(str(temporary))
        num_written = int(written.get(cv2.CAP_PROP_FRAME_COUNT)) if written.isOpened() else 0
        written.release()
        if num_written != num_frames:
            raise OSError(f"{num_written} of {num_frames} frames were stored; is the disk full?")

    atomic_write(path, write)


def _open_writer(path: Path, rate: float, width: int, height: int) -> cv2.VideoWriter:
    code = cv2.VideoWriter.fourcc(*CODEC)
    # MPEG-4 counts time in 16 bits: 119.913 frames a second, 119913 / 1000, cannot be stored.
    for possible in (rate, round(rate, 2), round(rate, 1), round(rate)):
        writer = cv2.VideoWriter(str(path), code, possible, (width, height))
        if writer.isOpened():
            return writer
    raise OSError(f"OpenCV cannot encode {width} x {height} frames at {rate:g} a second as {CODEC}")


def _open(path: Path) -> cv2.VideoCapture:
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise UserError(f"{path} is not a readable video; it is truncated, broken or no video.")
    return video
