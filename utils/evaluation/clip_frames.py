"""Read the frames of clips pair by pair: paired by name, by timestamp or by position.

The frames of two folders are paired by name beforehand (data/results.py). Those of two videos
belong together if their times are at most a quarter of a frame apart, since containers round
times. A video and a folder are paired by position and need the same number of frames.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm import tqdm

from utils.errors import UserError
from utils.evaluation.flicker import Images
from utils.evaluation.score_cache import Remark
from utils.evaluation.scoring import ClipResult, ImageResult, decode_pair, read_contents
from utils.images import list_images, to_uint8
from utils.inference.video import is_video
from utils.wording import plural

if TYPE_CHECKING:
    from utils.inference.video.reader import VideoReader

SAME_TIME = 0.25  # of a frame's duration; frames whose times differ by more do not match

# A frame, its pixels (None if it has a problem), and remarks on its files.
Read = tuple[ImageResult, Images | None, Sequence[Remark]]


def read_frames(clip: ClipResult, bar: tqdm) -> Iterator[Read]:
    """Yield the frames of a clip in order; those of videos are added to ``clip`` when read."""
    if not clip.frames:
        yield from _read_videos(clip, bar)
        return
    for frame in clip.frames:
        read: Read = frame, None, ()
        if not frame.problem:
            try:
                restored, clean, remarks = decode_pair(frame, read_contents(frame))
                read = frame, (restored, clean), remarks
            except UserError as error:
                frame.problem = str(error)
        yield read


class _SideFrame(NamedTuple):
    """A frame of one side: its file, its time in a video, its pixels or why they cannot be read."""

    path: Path
    seconds: float | None
    pixels: np.ndarray | None
    problem: str = ""
    remarks: Sequence[Remark] = ()


class _Side:
    """Iterates once over the frames of a video or of a folder.

    rate: frames per second of a video, None for a folder.
    problems: what is wrong with the video; known after its last frame.
    """

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        self.rate: float | None = None
        self.problems: list[str] = []
        if path.is_dir():
            files = list_images(path)
            self.num_frames = len(files)
            self._frames: Iterator[_SideFrame] = map(_read_file, files)
        else:
            from utils.inference.video.reader import VideoReader  # imports PyAV

            reader = stack.enter_context(VideoReader(path))
            self.rate, self.num_frames = float(reader.picture.rate), reader.num_frames
            self._frames = self._read_video(reader)

    def __iter__(self) -> Iterator[_SideFrame]:
        return self._frames

    def _read_video(self, reader: VideoReader) -> Iterator[_SideFrame]:
        for pixels in reader.frames():
            seconds = float(reader.times[-1] * reader.picture.time_base)
            yield _SideFrame(self.path, seconds, to_uint8(pixels))
        self.problems = reader.problems()


def _read_file(path: Path) -> _SideFrame:
    try:
        frame = ImageResult(path.stem, path)
        pixels, _, remarks = decode_pair(frame, read_contents(frame))
        return _SideFrame(path, None, pixels, remarks=remarks)
    except UserError as error:
        return _SideFrame(path, None, None, str(error))


def _read_videos(clip: ClipResult, bar: tqdm) -> Iterator[Read]:
    """The frames of a clip with a video on at least one side.

    Raises UserError for a video and a folder with different numbers of frames.
    """
    assert clip.restored is not None
    with ExitStack() as stack:
        restored = _Side(clip.restored, stack)
        clean = _Side(clip.clean, stack) if clip.clean else None
        bar.total = (bar.total or 0) + (clean or restored).num_frames
        if clean is None:
            matched: Iterator[tuple[_SideFrame | None, _SideFrame | None]] = (
                (frame, None) for frame in restored
            )
        elif restored.rate and clean.rate:
            matched = _by_time(iter(restored), iter(clean), SAME_TIME / clean.rate)
        else:
            matched = itertools.zip_longest(restored, clean)
        for one, other in matched:
            yield _add_frame(clip, one, other)
        clip.problem = " ".join([*restored.problems, *(clean.problems if clean else ())])
        counts = [
            sum(bool(getattr(f, side)) for f in clip.frames) for side in ("restored", "clean")
        ]
        if clean and not (restored.rate and clean.rate) and counts[0] != counts[1]:
            clip.frames, clip.times = [], []
            raise UserError(
                f"{restored.path} has {plural(counts[0], 'frame')}, {clean.path} {counts[1]}; a "
                "video and a folder of frames are paired by position and need the same number"
            )


def _by_time(
    restored: Iterator[_SideFrame], clean: Iterator[_SideFrame], tolerance: float
) -> Iterator[tuple[_SideFrame | None, _SideFrame | None]]:
    """Pair frames at most ``tolerance`` seconds apart; None stands for a missing partner."""
    one, other = next(restored, None), next(clean, None)
    while one or other:
        apart = _seconds(one) - _seconds(other)
        has_one, has_other = apart <= tolerance, apart >= -tolerance
        yield (one if has_one else None), (other if has_other else None)
        one = next(restored, None) if has_one else one
        other = next(clean, None) if has_other else other


def _seconds(frame: _SideFrame | None) -> float:
    """The time of a frame; infinity if it is unknown or after the last frame."""
    return frame.seconds if frame and frame.seconds is not None else math.inf


def _add_frame(clip: ClipResult, one: _SideFrame | None, other: _SideFrame | None) -> Read:
    """Add a frame to ``clip`` from its restored and clean sides, of which one may be missing."""
    seconds = min(_seconds(one), _seconds(other))
    at = time_text(seconds) if math.isfinite(seconds) else str(len(clip.frames) + 1)
    frame = ImageResult(f"{clip.stem}/{at}", one and one.path, other and other.path)
    clip.frames.append(frame)
    clip.times.append(seconds)
    sides = [side for side in (one, other) if side]
    frame.problem = next((side.problem for side in sides if side.problem), "")
    if clip.clean and one is None:
        frame.problem = f"missing: {clip.restored} has no frame at {at}"
    elif clip.clean and other is None:
        frame.problem = f"extra: {clip.restored} has a frame at {at}, {clip.clean} has none"
    if frame.problem or one is None or one.pixels is None:
        return frame, None, ()
    images = one.pixels, other.pixels if other else None
    return frame, images, [remark for side in sides for remark in side.remarks]


def frame_files(path: Path, count: int) -> list[Path]:
    """The file of each frame: those of a folder, or the same video ``count`` times."""
    return list_images(path) if path.is_dir() else [path] * count


def time_text(seconds: float) -> str:
    return f"{seconds:.3f} s"


def place(frame: ImageResult) -> str:
    """The file of a frame, and its time in a video, for messages."""
    path = frame.restored or frame.clean
    at = frame.stem.rpartition("/")[2]
    return f"{path} at {at}" if path and is_video(path) else str(path)
