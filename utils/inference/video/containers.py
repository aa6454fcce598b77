"""Opening video files (PyAV, FFmpeg), and whether they are complete."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.stream import Disposition

# Bytes per packet of a transport stream: as a file, from a camera, from broadcasting.
TS_PACKETS = (188, 192, 204)


def url(path: Path) -> str:
    """The path for FFmpeg, which would take the 12 of 12:30.mp4 for a protocol."""
    return f"file:{path}"


def open_video(path: Path) -> av.container.InputContainer:
    """Open a container whose tags may not be UTF-8, as in old AVI files."""
    return av.open(url(path), metadata_errors="replace")


def picture_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The stream that is restored: the first that is not a cover or preview, else the first."""
    streams = container.streams.video
    return next((s for s in streams if not s.disposition & Disposition.attached_pic), streams[0])


def packets_until_damage(
    container: av.container.InputContainer, *streams: av.stream.Stream
) -> Iterator[av.Packet]:
    """The packets of the streams, up to the end or the first unreadable place."""
    with contextlib.suppress(av.error.FFmpegError):
        yield from container.demux(*streams)


def num_shown_frames(path: Path) -> int:
    """How many frames a player shows of a video that was written here.

    These may not be all frames: an edit list, which MP4 needs for times before 0, hides some. Every
    frame is one packet, so nothing is decoded.
    """
    with open_video(path) as container:
        packets = container.demux(picture_stream(container))
        return sum(bool(packet.size) and not packet.is_discard for packet in packets)


class Completeness:
    """Whether a file holds everything that it announces, judged by the packets that were read.

    is_cut: whether the file is known to end early.
    """

    def __init__(self, path: Path, container: av.container.InputContainer) -> None:
        names = set(container.format.name.split(","))
        self._path = path
        self.is_mp4 = "mov" in names
        self._is_matroska = "matroska" in names
        # The duration that the file states; for other formats, FFmpeg estimates one.
        is_stated = names & {"mov", "flv", "asf", "mxf", "matroska"}
        self._announced = Fraction((container.duration or 0) if is_stated else 0, 10**6)
        self._size = self._num_bytes_left = path.stat().st_size
        self.is_cut = (self._is_matroska and _is_cut_matroska(path)) or (
            "mpegts" in names and all(self._size % size for size in TS_PACKETS)
        )
        self._ends_corrupt: dict[int, bool] = {}
        self._ended: Fraction | None = None

    def follow(self, packet: av.Packet) -> None:
        """Record a packet of any stream."""
        self._ends_corrupt[packet.stream.index] = packet.is_corrupt
        if packet.pos is not None:
            self._num_bytes_left = self._size - packet.pos - packet.size
        if packet.pts is not None and packet.time_base:
            end = (packet.pts + (packet.duration or 0)) * packet.time_base
            self._ended = end if self._ended is None else max(self._ended, end)

    def problem(self, num_read: int, num_announced: int, rate: Fraction, start: Fraction) -> str:
        """After the last packet: a sentence if the file ends early, else "".

        num_read, num_announced: frames.
        rate: frames per second.
        start: seconds at which the file's clock starts.
        """
        ended = start if self._ended is None else self._ended
        missing = self._announced - ended if self._announced else Fraction(0)
        if self._is_matroska and self._num_bytes_left < self._size / 20 + 4096:
            missing = Fraction(0)  # the last frame is shown long, which Matroska does not state
        # Some files do not state how long their last frame is shown.
        tolerated = max(self._announced / 20, 2 / rate)
        # The number in an MP4 file includes frames that its edit list hides.
        num_announced = 0 if self.is_mp4 else num_announced
        # Many formats only estimate the number, but none is wrong by this much.
        if num_read < min(0.95 * num_announced, num_announced - 2):
            return f"{self._path} ends early, after {num_read} of {num_announced} frames."
        if self.is_cut or any(self._ends_corrupt.values()) or missing > tolerated:
            seconds = f"{float(ended - start):.2f}"
            if self._announced > ended:
                seconds += f" of {float(self._announced):.2f}"
            return f"{self._path} ends early, after {seconds} seconds and {num_read} frames."
        return ""


def _is_cut_matroska(path: Path) -> bool:
    """Whether a Matroska or WebM file is shorter than its segment says."""
    with open(path, "rb") as file:
        head, size = file.read(4096), path.stat().st_size
    begin = head.find(bytes.fromhex("18538067")) + 4  # the segment's id
    # The number of leading zero bits plus one is the number of bytes. The one bit after them is not
    # part of the value.
    num_bytes = 9 - head[begin].bit_length()
    number = int.from_bytes(head[begin : begin + num_bytes], "big") & ((1 << 7 * num_bytes) - 1)
    is_known = number < (1 << 7 * num_bytes) - 1  # all bits are set in a live recording
    return begin >= 4 and is_known and begin + num_bytes + number > size
