"""Reading video files frame by frame: upright RGB, each frame with its own time (PyAV, FFmpeg)."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import av
import numpy as np
from av.stream import Disposition

from utils.errors import UserError
from utils.inference.yuv import BT601, BT709, MATRICES, Layout, to_rgb

# What telephones, cameras, recorders and editors write; the case does not matter.
SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".wmv", ".asf"),
    *(".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob", ".flv", ".f4v", ".ogv", ".mxf", ".dv"),
)

# FFmpeg's numbers: https://ffmpeg.org/doxygen/trunk/pixfmt_8h.html
UNSPECIFIED_MATRIX, RGB_MATRIX = 2, 0
LIMITED, FULL = 1, 2

# Frames a second that are no film any more.
MAX_RATE = 1000
# Frames by which times may come too early.
MOST_SWAPPED = 3
# Seconds between frames that are no break any more, but a damaged or another clock.
MAX_BREAK = 6 * 3600
# Bytes in a packet of a transport stream: as a file, of a camera, off the air.
TS_PACKETS = (188, 192, 204)


def is_video(path: Path) -> bool:
    """Whether a path is a visible file with the suffix of a video."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def url(path: Path) -> str:
    """The path as FFmpeg opens it: it would take a name such as 12:30.mp4 for a protocol."""
    return f"file:{path}"


def open_video(path: Path) -> av.container.InputContainer:
    """A container whose titles need not be UTF-8, as those of old AVI files are not."""
    return av.open(url(path), metadata_errors="replace")


@dataclass(frozen=True)
class Tags:
    """What a file says about its colours, in FFmpeg's numbers; a player goes by it."""

    range: int
    matrix: int
    primaries: int
    transfer: int


@dataclass(frozen=True)
class Picture:
    """What all frames of a video share.

    width, height: of the upright frames.
    layout: how the result stores them: as the source, where H.264 can.
    tags: what the result says about its colours.
    pixel_aspect: width of a pixel over its height, upright; None where the file does not tell.
    time_base: seconds in one unit of time.
    rate: frames a second on average.
    """

    width: int
    height: int
    layout: Layout
    tags: Tags
    pixel_aspect: Fraction | None
    time_base: Fraction
    rate: Fraction


class VideoReader:
    """One pass over the frames of a video file; a context manager.

    picture: what the frames share.
    num_frames: as the file announces or estimates them; 0 if it does not.
    times: of the frames read so far, in units of ``picture.time_base``, strictly rising. Where a
        file's clock starts late, as in .ts and .mpg, it is set to 0.
    last_duration: of the frame that was read last, in the same units.
    notes: sentences about what the frames leave out.

    Raises UserError if the file is no readable video.
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
            if not self._container.streams.video:
                raise self._unreadable()
            self._stream = picture_stream(self._container)
            # Not by frames: an error in one of them would take those along that come with it.
            self._stream.thread_type = "SLICE"
            # In microseconds; earlier than 0 are only sounds that a player skips.
            self.start = Fraction(max(self._container.start_time or 0, 0), 10**6)
            self._num_damaged = 0
            names = set(self._container.format.name.split(","))
            # What the file says of its length; other formats make it out of what there is.
            self._is_mp4 = "mov" in names
            is_told = names & {"mov", "flv", "asf", "mxf", "matroska"}
            self._announced = Fraction((self._container.duration or 0) if is_told else 0, 10**6)
            self._is_matroska = "matroska" in names
            self._is_cut = (self._is_matroska and _is_cut_matroska(path)) or (
                "mpegts" in names and all(path.stat().st_size % size for size in TS_PACKETS)
            )
            self._ends_corrupt: dict[int, bool] = {}
            self._ended = Fraction(0)
            self._size = self._num_bytes_left = path.stat().st_size
            self._decoded = self._decode()
            first = next(self._decoded, None)
            if first is None:
                raise self._unreadable()
            self._first, self._format = first, first.format.name
            self.picture, self._stored, self._turn = self._describe(first)
        except BaseException:
            self._container.close()
            raise
        rate, duration = self.picture.rate, self._container.duration or 0
        self.num_frames = self._stream.frames or int(rate * Fraction(duration, 10**6))
        self.times: list[int] = []
        self._newest: int | None = None  # the latest time of a decoded frame
        self._shift = 0
        self.last_duration = max(round(1 / (rate * self.picture.time_base)), 1)
        self.notes: list[str] = []
        if any(component.is_alpha for component in first.format.components):
            self.notes.append(f"{path}: transparency is not kept.")
        if first.interlaced_frame:
            self.notes.append(
                f"{path} is interlaced: the two fields of a frame are restored and shown together; "
                "for better results deinterlace it before, with another program."
            )
        if self.picture.layout.pixel_format != "yuv420p":
            self.notes.append(
                f"{path}: the result keeps the colours as {self.picture.layout.pixel_format}, "
                "which some players do not show."
            )

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._container.close()

    def frames(self, start: int = 0) -> Iterator[np.ndarray]:
        """The frames from number ``start`` on, (H, W, 3) float32 RGB in [0, 1]; once."""
        frames: deque[av.VideoFrame] = deque()
        times: list[int] = []  # of these frames, a heap
        coming = itertools.chain([self._first], self._decoded)
        for number in itertools.count():
            # AVI has no times of its own: with B-frames they come in another order.
            for frame in itertools.islice(coming, MOST_SWAPPED + 1 - len(frames)):
                frames.append(frame)
                heapq.heappush(times, self._time(frame))
            if not frames:
                self._limit_last_duration()
                return
            frame, time = frames.popleft(), heapq.heappop(times)
            self.times.append(max(time, self.times[-1] + 1) if self.times else time)
            if frame.duration:
                self.last_duration = frame.duration
            if number >= start:
                yield self._rgb(frame)

    def problems(self) -> list[str]:
        """After the last frame: what was missing in the file, in sentences."""
        problems = []
        num_read, announced, ended = len(self.times), self._announced, self._ended
        missing = announced - ended
        if self._is_matroska and self._num_bytes_left < self._size / 20 + 4096:
            missing = Fraction(0)  # the last frame is shown for long, which Matroska does not tell
        tolerated = max(announced / 20, 2 / self.picture.rate)  # some do not tell how long one is
        # An edit list takes frames away from those that the file counts.
        num_frames = 0 if self._is_mp4 else self._stream.frames
        # Many formats only estimate their length; none by this much.
        if num_read < min(0.95 * num_frames, num_frames - 2):
            problems.append(
                f"{self.path} ends after {num_read} of {num_frames} frames; the result holds those."
            )
        elif self._is_cut or any(self._ends_corrupt.values()) or missing > tolerated:
            seconds = f"{float(ended - self.start):.2f}"
            if announced > ended:
                seconds += f" of {float(announced):.2f}"
            problems.append(
                f"{self.path} ends early, after {seconds} seconds; the result holds the {num_read} "
                "frames up to there."
            )
        # Where it ends early, the last frame is seldom whole.
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
                    yield frame

    def _packets(self) -> Iterator[av.Packet]:
        """The packets of the frames; an empty one at the end makes the decoder give its last ones.

        Those of the other streams tell how far the file goes.
        """
        try:
            for packet in self._container.demux():
                if packet.size:
                    self._ends_corrupt[packet.stream.index] = packet.is_corrupt
                    if packet.pos is not None:
                        self._num_bytes_left = self._size - packet.pos - packet.size
                    if packet.pts is not None and packet.time_base:
                        end = (packet.pts + (packet.duration or 0)) * packet.time_base
                        self._ended = max(self._ended, end)
                if packet.stream.index == self._stream.index:
                    yield packet
        except av.error.FFmpegError:  # it cannot be read on
            self._is_cut = True
            last = av.Packet()
            last.stream = self._stream
            yield last

    def _time(self, frame: av.VideoFrame) -> int:
        """When a decoded frame is shown, in units of ``picture.time_base``.

        Where the clock jumps, as in recordings put one behind the other, it goes on instead.
        """
        base, step = self.picture.time_base, frame.duration or self.last_duration
        following = 0 if self._newest is None else self._newest + step
        if frame.pts is not None and frame.time_base:
            time = round((frame.pts * frame.time_base - self.start) / base) + self._shift
            if self._newest is not None and clock_jumps(time - self._newest, step, base):
                self._shift += following - time
                time = following
        else:
            time = following
        self._newest = time if self._newest is None else max(self._newest, time)
        return time

    def _limit_last_duration(self) -> None:
        base, length = self.picture.time_base, self._stream.duration
        # MP4 tells how far decodings lie apart, which with B-frames are those of other frames.
        if self._is_mp4 and length and self.times:
            end = (self._stream.start_time or 0) + length
            left = end - round(self.start / base) + self._shift - self.times[-1]
            self.last_duration = min(self.last_duration, left) if left > 0 else self.last_duration
        # MP4 tells its length in thousandths of a second: a last frame below that would be lost.
        self.last_duration = max(self.last_duration, math.ceil(Fraction(1, 500) / base))

    def _describe(self, frame: av.VideoFrame) -> tuple[Picture, Layout | None, tuple[bool, ...]]:
        """What is shared, how frames are stored (None: as RGB), and the turn that makes upright."""
        turn = _turn(frame)
        width, height = (frame.height, frame.width) if turn[0] else (frame.width, frame.height)
        told = self._stream.codec_context
        tags = Tags(frame.color_range, frame.colorspace, told.color_primaries, told.color_trc)
        if _is_rgb(frame.format):
            stored = None
            deep = max(component.bits for component in frame.format.components) > 8
            layout = Layout(BT709, full=False, bits=10 if deep else 8, across=1, down=1)
            tags = replace(tags, range=LIMITED, matrix=BT709)
        else:
            stored = layout = self._layout(frame)
            if turn[0]:
                layout = replace(layout, across=layout.down, down=layout.across)
            tags = replace(tags, range=FULL) if layout.full else tags
            # Where a player would guess another one, as of a film that stands upright now, it is
            # told; and Y'CbCr that says it is RGB says what it was taken for.
            if tags.matrix == RGB_MATRIX or (
                tags.matrix == UNSPECIFIED_MATRIX
                and _guessed_matrix(width, height) != layout.matrix
            ):
                tags = replace(tags, matrix=layout.matrix)
        aspect = self._stream.sample_aspect_ratio or None
        if aspect and turn[0]:
            aspect = 1 / aspect
        rate = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
        if rate > MAX_RATE:  # DV files give their clock's
            rate = self._stream.guessed_rate or Fraction(25)
        base = self._stream.time_base or 1 / rate
        layout = _written_layout(layout, width, height)
        return Picture(width, height, layout, tags, aspect, base, rate), stored, turn

    def _layout(self, frame: av.VideoFrame) -> Layout:
        """How the frames' Y'CbCr is stored; guessed as players do where the file does not tell."""
        matrix = frame.colorspace
        if matrix in (UNSPECIFIED_MATRIX, RGB_MATRIX):
            matrix = _guessed_matrix(frame.width, frame.height)
        if matrix not in MATRICES:
            raise UserError(
                f"{self.path} stores its colours by matrix {matrix} of ITU-T H.273, which is not "
                f"known here; convert it to BT.709 with another program."
            )
        components = frame.format.components
        is_full = frame.format.name.startswith(("yuvj", "gray", "ya"))
        across = down = 2  # gray has no colours, and its result is stored as most videos are
        if len(components) >= 3:
            across = _factor(frame.width, components[1].width)
            down = _factor(frame.height, components[1].height)
        return Layout(
            matrix,
            full=frame.color_range == FULL or (is_full and frame.color_range != LIMITED),
            bits=max(components[0].bits, 8),
            across=across,
            down=down,
        )

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """A decoded frame as upright RGB."""
        if frame.format.name != self._format:  # joined from other films
            frame = frame.reformat(format=self._format)
        if self._stored is None:
            deep = max(component.bits for component in frame.format.components) > 8
            same = frame.reformat(format="rgb48le" if deep else "rgb24")
            rgb = same.to_ndarray().astype(np.float32) / (65535 if deep else 255)
        else:
            rgb = to_rgb(_planes(frame, self._stored), self._stored)
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
            f"{self.path} is not a readable video; it is truncated, broken or no video."
        )


def picture_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The stream that is restored: the first one that holds no cover or preview, if there is."""
    streams = container.streams.video
    return next((s for s in streams if not s.disposition & Disposition.attached_pic), streams[0])


def clock_jumps(passed: int, step: int, time_base: Fraction) -> bool:
    """Whether so much time between frames or sounds is that of a clock which was set anew.

    step: how long one lasts. Breaks are long at times, but MP4 has 31 bits for them.
    """
    is_late = passed * time_base > MAX_BREAK or passed > 1 << 30
    return is_late or passed < -MOST_SWAPPED * step


def packets_until_damage(
    container: av.container.InputContainer, *streams: av.stream.Stream
) -> Iterator[av.Packet]:
    """The packets of the streams up to the end, or to where the container cannot be read on."""
    with contextlib.suppress(av.error.FFmpegError):
        yield from container.demux(*streams)


def _is_cut_matroska(path: Path) -> bool:
    """Whether a Matroska or WebM file is shorter than its segment says."""
    with open(path, "rb") as file:
        head, size = file.read(4096), path.stat().st_size
    begin = head.find(bytes.fromhex("18538067")) + 4  # the segment's id
    # As many bytes as the first one has zeros before its first one, and one; that one is dropped.
    num_bytes = 9 - head[begin].bit_length()
    number = int.from_bytes(head[begin : begin + num_bytes], "big") & ((1 << 7 * num_bytes) - 1)
    is_known = number < (1 << 7 * num_bytes) - 1  # a live recording leaves it open
    return begin >= 4 and is_known and begin + num_bytes + number > size


def _is_rgb(pixels: av.VideoFormat) -> bool:
    """Whether frames hold RGB in some order, a palette, or black and white dots."""
    return pixels.is_rgb or pixels.has_palette or pixels.components[0].bits < 8


def _guessed_matrix(width: int, height: int) -> int:
    """What players take for frames of a file that does not tell it."""
    return BT709 if height >= 720 or width >= 1280 else BT601


def _written_layout(layout: Layout, width: int, height: int) -> Layout:
    """The layout that H.264 and H.265 can store with no fewer colours: 4:2:0, 4:2:2 or 4:4:4.

    An odd width or height needs a colour sample of its own for the last column or row.
    """
    across = 1 if width % 2 else min(layout.across, 2)
    down = 1 if height % 2 or across == 1 else min(layout.down, 2)
    return replace(layout, bits=10 if layout.bits > 8 else 8, across=across, down=down)


def _factor(length: int, fewer: int) -> int:
    """1, 2 or 4 for the number of colour samples along an axis."""
    return next(factor for factor in (1, 2, 4) if -(-length // factor) == fewer)


def _planes(frame: av.VideoFrame, layout: Layout) -> list[np.ndarray]:
    """The stored planes of a frame; packed formats (NV12, YUYV, P010) are taken apart first."""
    components = frame.format.components[:3]
    if len(components) < 3:
        components = components[:1]
    planar = [component.plane for component in components] == list(range(len(components)))
    if not planar or frame.format.name.endswith("be") or frame.format.name.startswith("ya"):
        name = layout.pixel_format
        frame = frame.reformat(
            format=name if len(components) == 3 else name.replace("yuv420p", "gray")
        )
    return [values(plane, layout) for plane in frame.planes[: len(components)]]


def values(plane: av.video.plane.VideoPlane, layout: Layout) -> np.ndarray:
    """The values of a plane, (height, width), where they lie."""
    rows = np.frombuffer(cast(Any, plane), layout.dtype).reshape(plane.height, -1)
    return rows[:, : plane.width]


def _turn(frame: av.VideoFrame) -> tuple[bool, ...]:
    """What makes a frame upright: swap its axes, then mirror left and right, then up and down.

    The file's display matrix takes (x, y) to (a x + c y, b x + d y); its angles are quarter turns.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(cast(Any, matrix), np.int32)[:5].tolist()
    swap = abs(b) > abs(a)
    return swap, (c if swap else a) < 0, (b if swap else d) < 0
