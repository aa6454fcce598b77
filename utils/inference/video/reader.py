"""Reading video files frame by frame: upright RGB, each frame with its own time."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np

from utils.errors import UserError
from utils.inference.video.clocks import MAX_SWAPPED, Clock
from utils.inference.video.colours import Tags, find_colours
from utils.inference.video.containers import Completeness, open_video, picture_stream
from utils.inference.video.display import Display, read_display
from utils.inference.video.yuv import Layout

# Frames per second; DV files state the rate of their clock instead.
MAX_RATE = 1000
# FFmpeg's names of data that frames carry besides the picture -> how their loss is reported.
SIDE_DATA = {
    "A53_CC": "closed captions",
    "AFD": "the active area of the frame",
    "AMBIENT_VIEWING_ENVIRONMENT": "the ambient light for viewing",
    "DOVI_METADATA": "Dolby Vision metadata",
    "DOVI_RPU_BUFFER": "Dolby Vision metadata",
    "DYNAMIC_HDR_PLUS": "HDR10+ metadata",
    "DYNAMIC_HDR_VIVID": "HDR Vivid metadata",
    "ICC_PROFILE": "the colour profile",
    "S12M_TIMECODE": "the time code of the frames",
    "SPHERICAL": "the projection of the 360-degree video",
    "STEREO3D": "the arrangement of the stereoscopic views",
}


@dataclass(frozen=True)
class Picture:
    """What all frames of a video share.

    width, height: of the upright frames.
    layout: how the result stores them: as the source, where H.264 can.
    tags: what the result states about its colours.
    pixel_aspect: width of an upright pixel over its height; None if the file does not state it.
    time_base: seconds per unit of time.
    rate: frames per second on average.
    display: the display and light level for which the video was graded.
    """

    width: int
    height: int
    layout: Layout
    tags: Tags
    pixel_aspect: Fraction | None
    time_base: Fraction
    rate: Fraction
    display: Display


class VideoReader:
    """One pass over the frames of a video file; a context manager.

    picture: what the frames share.
    num_frames: their number as the file states or FFmpeg estimates it; 0 if unknown.
    start: seconds at which the file's clock starts; that moment becomes 0.
    times: of the frames read so far, in units of ``picture.time_base``, strictly rising.
    last_duration: of the last frame that was read, in the same units.
    notes: sentences about what the frames leave out; complete after the last frame.

    Raises UserError if the file is not a readable video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._container = open_video(path)
        except OSError as error:
            raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
        except av.error.FFmpegError as error:
            raise self._unreadable() from error
        try:
            self._open()
        except BaseException:
            self._container.close()
            raise

    def _open(self) -> None:
        if not self._container.streams.video:
            raise self._unreadable()
        self._stream = picture_stream(self._container)
        # Threads per slice, not per frame: with those, an error in a frame spoils its neighbours.
        self._stream.thread_type = "SLICE"
        self._num_damaged = 0
        self._completeness = Completeness(self.path, self._container)
        self._side_data: set[str] = set()
        self._decoded = self._decode()
        first = next(self._decoded, None)
        if first is None:
            raise self._unreadable()
        self._first = first
        # In microseconds. A clock may start anywhere, as in transport streams, where it also wraps
        # and then starts below 0. If only sounds start below 0, players skip them.
        self.start = Fraction(self._container.start_time or 0, 10**6)
        if self.start < 0 and (first.time is None or first.time >= 0):
            self.start = Fraction(0)

        self._turn = _turn(first)
        swaps = self._turn[0]
        self._colours = find_colours(self.path, first, self._stream, swaps)
        aspect = self._stream.sample_aspect_ratio or None
        rate = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
        if rate > MAX_RATE:
            rate = self._stream.guessed_rate or Fraction(25)
        display, lost = read_display(first)
        self.picture = Picture(
            *((first.height, first.width) if swaps else (first.width, first.height)),
            layout=self._colours.written,
            tags=self._colours.tags,
            pixel_aspect=1 / aspect if aspect and swaps else aspect,
            time_base=self._stream.time_base or 1 / rate,
            rate=rate,
            display=display,
        )
        duration = Fraction(self._container.duration or 0, 10**6)
        self.num_frames = self._stream.frames or int(rate * duration)
        self.times: list[int] = []
        self._clock = Clock(self.picture.time_base)
        self.last_duration = max(round(1 / (rate * self.picture.time_base)), 1)
        self.notes = [f"{self.path}: not kept: {what}." for what in lost]
        if any(component.is_alpha for component in first.format.components):
            self.notes.append(f"{self.path}: transparency is not kept.")
        if first.interlaced_frame:
            self.notes.append(
                f"{self.path} is interlaced: the two fields of each frame are restored and shown "
                "together; for better results deinterlace it with another program first."
            )
        if self.picture.layout.pixel_format != "yuv420p":
            self.notes.append(
                f"{self.path}: the result stores its colours as "
                f"{self.picture.layout.pixel_format}, which some players cannot show."
            )

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *error: object) -> None:
        self._container.close()

    def frames(self, start: int = 0) -> Iterator[np.ndarray]:
        """The frames from number ``start`` on, (H, W, 3) float32 RGB in [0, 1]; to be read once."""
        frames: deque[av.VideoFrame] = deque()
        times: list[int] = []  # of these frames, a heap
        coming = itertools.chain([self._first], self._decoded)
        for number in itertools.count():
            # AVI stores no times; with B-frames, those that FFmpeg guesses are out of order.
            for frame in itertools.islice(coming, MAX_SWAPPED + 1 - len(frames)):
                frames.append(frame)
                heapq.heappush(times, self._time(frame))
            if not frames:
                self._end()
                return
            frame, time = frames.popleft(), heapq.heappop(times)
            self.times.append(max(time, self.times[-1] + 1) if self.times else time)
            if frame.duration:
                self.last_duration = frame.duration
            if number >= start:
                yield self._rgb(frame)

    def problems(self) -> list[str]:
        """After the last frame: what the file lacks, in sentences."""
        ending = self._completeness.problem(
            len(self.times), self._stream.frames, self.picture.rate, self.start
        )
        problems = [ending] if ending else []
        # The last frame of a file that ends early is rarely whole.
        if self._num_damaged > len(problems):
            places = "one place" if self._num_damaged == 1 else f"{self._num_damaged} places"
            problems.append(
                f"{self.path} is damaged in {places}; frames are missing or broken there."
            )
        return problems

    def _decode(self) -> Iterator[av.VideoFrame]:
        """The frames in the order in which they are shown; damaged ones are left out."""
        for packet in self._packets():
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                self._num_damaged += 1
                continue
            for frame in frames:
                if isinstance(frame, av.VideoFrame):
                    self._num_damaged += frame.is_corrupt
                    self._side_data |= {data.type.name for data in cast(Any, frame.side_data)}
                    yield frame

    def _packets(self) -> Iterator[av.Packet]:
        """The packets of the frames, and at the end an empty one that flushes the decoder.

        Those of the other streams only show how far the file goes.
        """
        try:
            for packet in self._container.demux():
                if packet.size:
                    self._completeness.follow(packet)
                if packet.stream.index == self._stream.index:
                    yield packet
        except av.error.FFmpegError:  # the rest is unreadable
            self._completeness.is_cut = True
            last = av.Packet()
            last.stream = self._stream
            yield last

    def _time(self, frame: av.VideoFrame) -> int:
        """When a decoded frame is shown, in units of ``picture.time_base``."""
        given = None
        if frame.pts is not None and frame.time_base:
            given = round((frame.pts * frame.time_base - self.start) / self.picture.time_base)
        return self._clock.time(given, frame.duration or self.last_duration)

    def _end(self) -> None:
        """Complete ``last_duration`` and ``notes`` after the last frame."""
        base, length = self.picture.time_base, self._stream.duration
        # MP4 stores the time between decodings; with B-frames, that is the time of other frames.
        if self._completeness.is_mp4 and length and self.times:
            end = (self._stream.start_time or 0) + length
            left = end - round(self.start / base) + self._clock.shift - self.times[-1]
            self.last_duration = min(self.last_duration, left) if left > 0 else self.last_duration
        # MP4 states its length in milliseconds: a last frame shorter than that would be lost.
        self.last_duration = max(self.last_duration, math.ceil(Fraction(1, 500) / base))
        lost = sorted({SIDE_DATA[name] for name in self._side_data if name in SIDE_DATA})
        if lost:
            self.notes.append(f"{self.path}: not kept: {', '.join(lost)}.")

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """A decoded frame as upright RGB."""
        rgb = self._colours.to_rgb(frame)
        swap, mirror, flip = self._turn
        if swap:
            rgb = rgb.transpose(1, 0, 2)
        rgb = rgb[:: -1 if flip else 1, :: -1 if mirror else 1]
        if rgb.shape[:2] != (self.picture.height, self.picture.width):
            raise UserError(
                f"{self.path} changes its size in frame {len(self.times)} from "
                f"{self.picture.width} x {self.picture.height} to {rgb.shape[1]} x "
                f"{rgb.shape[0]}; cut it there with another program."
            )
        return np.ascontiguousarray(rgb)

    def _unreadable(self) -> UserError:
        return UserError(
            f"{self.path} is not a readable video; it is truncated, damaged or something else."
        )


def _turn(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """How to make a frame upright: swap its axes, then mirror it left-right, then up-down.

    The file's display matrix takes (x, y) to (a x + c y, b x + d y); its angles are quarter turns.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(cast(Any, matrix), np.int32)[:5].tolist()
    swap = abs(b) > abs(a)
    return swap, (c if swap else a) < 0, (b if swap else d) < 0
