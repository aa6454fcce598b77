"""Videos for tests, written with PyAV, and their restoration by an identity network.

Frames are given as planes, so no colour is converted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.stream import Disposition
from torch import Tensor

from models.network import DerainingNetwork
from utils.inference.restorer import Restorer
from utils.inference.video import VideoOptions
from utils.inference.video.restoring import restore_video


@dataclass(frozen=True)
class Kind:
    """How a test's video is stored."""

    suffix: str
    codec: str = "libx264"
    pixels: str = "yuv420p"
    sound: str | None = None
    options: tuple[tuple[str, str], ...] = (("qp", "0"),)
    container: tuple[tuple[str, str], ...] = ()


# The best quality of encoders without a lossless mode.
FINE = (("qmin", "1"), ("qmax", "1"))
LOSSLESS = Kind(".mkv", "ffv1", options=())


def scene(count: int, height: int = 96, width: int = 128, bits: int = 8) -> list[list[np.ndarray]]:
    """Moving frames of 4:2:0 planes with detail and streaks, whose colours fit into RGB."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    frames = []
    for i in range(count):
        luma = 70 + 80 * ((x + 2 * i) % width) / width + 20 * np.sin((y + i) / 5)
        for column in rng.integers(0, width, 12):
            top = rng.integers(0, height - 16)
            luma[top : top + 16, column] += 25
        blue = 128 + 25 * np.sin((x[::2, ::2] + i) / 17)
        red = 128 + 25 * np.cos((y[::2, ::2] - i) / 13)
        planes = [luma, blue, red]
        dtype = np.uint8 if bits == 8 else np.uint16
        frames.append([np.rint(plane * 2 ** (bits - 8)).astype(dtype) for plane in planes])
    return frames


def write(
    path: Path,
    kind: Kind,
    frames: Sequence[Sequence[np.ndarray]],
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    *,
    tags: Sequence[int] | None = None,
    aspect: Fraction | None = None,
    turn: dict[str, Any] | None = None,
    sound_rate: int = 48000,
    sound_layout: tuple[str, int] = ("stereo", 2),
    metadata: dict[str, str] | None = None,
) -> Path:
    """``tags`` are range, matrix, primaries and transfer in FFmpeg's numbers."""
    path = path.with_suffix(kind.suffix)
    with av.open(str(path), "w", container_options=dict(kind.container)) as container:
        container.metadata.update(metadata or {})
        stream = cast(Any, container.add_stream(kind.codec, rate=25, options=dict(kind.options)))
        stream.height, stream.width = frames[0][0].shape
        stream.pix_fmt = kind.pixels
        context = stream.codec_context
        context.time_base = time_base
        if tags:
            context.color_range, context.colorspace = tags[:2]
            context.color_primaries, context.color_trc = tags[2:]
        if aspect:
            context.sample_aspect_ratio = aspect
        if turn:
            stream.set_display_rotation(**turn)
        sound = cast(Any, container.add_stream(kind.sound, rate=sound_rate)) if kind.sound else None
        if sound:
            sound.layout, num_channels = sound_layout
        for planes, time in zip(frames, times or range(len(frames)), strict=True):
            frame = av.VideoFrame(stream.width, stream.height, kind.pixels)
            for plane, values in zip(frame.planes, planes, strict=True):
                rows = np.frombuffer(cast(Any, plane), values.dtype).reshape(plane.height, -1)
                rows[:, : plane.width] = values
            frame.pts, frame.time_base = time, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for start in range(0, sound_rate, 1024) if sound else ():
            tone = 8000 * np.sin(np.arange(start, start + 1024) * 2 * np.pi * 440 / sound_rate)
            samples = np.repeat(tone.astype(np.int16), num_channels)[None]
            part = av.AudioFrame.from_ndarray(samples, format="s16", layout=sound_layout[0])
            part.sample_rate, part.pts, part.time_base = sound_rate, start, Fraction(1, sound_rate)
            container.mux(sound.encode(part))
        if sound:
            container.mux(sound.encode(None))
    return path


def merged(target: Path, *sources: Path) -> Path:
    """A file with the streams of all sources; those of later sources are tagged as Norwegian."""
    with contextlib.ExitStack() as stack, av.open(str(target), "w") as new:
        packets = []
        for source in sources:
            old = stack.enter_context(av.open(str(source)))
            tracks = {s.index: new.add_stream_from_template(s) for s in cast(Any, old.streams)}
            for track in tracks.values() if source != sources[0] else ():
                track.metadata["language"] = "nor"
            for packet in old.demux():
                if packet.size:
                    packet.stream = tracks[packet.stream.index]
                    packets.append(packet)
        for packet in sorted(packets, key=lambda p: (p.dts or 0) * p.time_base):
            new.mux(packet)
    return target


def with_cover_before_it(path: Path) -> Path:
    """A copy of an MP4 file whose stream 0 is a cover, as in purchased films."""
    target = path.with_name("cover.mp4")
    with av.open(str(path)) as old, av.open(str(target), "w") as new:
        video = new.add_stream_from_template(old.streams.video[0])
        cover = cast(Any, new.add_stream("mjpeg", rate=1))
        cover.width, cover.height, cover.pix_fmt = 96, 96, "yuvj420p"
        cover.disposition = Disposition.attached_pic.value
        frame = av.VideoFrame.from_ndarray(np.full((96, 96, 3), 99, np.uint8))
        for packet in [*cover.encode(frame.reformat(format="yuvj420p")), *cover.encode(None)]:
            new.mux(packet)
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = video
                new.mux(packet)
    data = target.read_bytes()
    begin = data.index(b"moov") - 4  # a box starts with its length and name
    boxes, place = [], begin + 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        boxes.append(data[place : place + length])
        place += length
    boxes.sort(key=lambda box: box[4:8] != b"udta")  # udta, which holds the cover, comes first
    target.write_bytes(data[: begin + 8] + b"".join(boxes))
    return target


def with_chapters(source: Path, target: Path, chapters: Sequence[tuple[str, int, int]]) -> Path:
    """A copy with chapters, given as title, start and end in milliseconds."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        tracks = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        base = Fraction(1, 1000)
        new.set_chapters(
            [
                {"id": i, "start": a, "end": b, "time_base": base, "metadata": {"title": title}}
                for i, (title, a, b) in enumerate(chapters)
            ]
        )
        for packet in old.demux():
            if packet.size:
                packet.stream = tracks[packet.stream.index]
                new.mux(packet)
    return target


def with_later_clock(stream: bytes, later: int) -> bytes:
    """A transport stream whose clock is ``later`` ticks of 90 kHz ahead, modulo 2^33.

    By ISO 13818-1: the clock itself (PCR) in the adaptation fields, PTS and DTS in the headers.
    """
    data = bytearray(stream)
    for begin in range(0, len(data), 188):
        has_adaptation, has_payload = data[begin + 3] & 0x20, data[begin + 3] & 0x10
        place = begin + 4
        if has_adaptation:
            if data[place] and data[place + 1] & 0x10:
                clock = int.from_bytes(data[place + 2 : place + 8], "big")
                base = ((clock >> 15) + later) % 2**33
                data[place + 2 : place + 8] = (base << 15 | clock & 0x7FFF).to_bytes(6, "big")
            place += 1 + data[place]
        starts = data[begin + 1] & 0x40
        if has_payload and starts and data[place : place + 3] == b"\0\0\1":
            for number in range({0: 0, 2: 1, 3: 2}[data[place + 7] >> 6]):
                field = place + 9 + 5 * number
                a, b, c, d, e = data[field : field + 5]
                time = (a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1
                time = (time + later) % 2**33
                parts = [a & 0xF1 | time >> 30 << 1, time >> 22 & 0xFF, time >> 14 & 0xFE | 1]
                data[field : field + 5] = bytes([*parts, time >> 7 & 0xFF, time << 1 & 0xFE | 1])
    return bytes(data)


def with_damaged_sound(source: Path, target: Path, sound: Sequence[bytes | None]) -> Path:
    """A copy with the given packets of sound only; None keeps the original packet."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        tracks = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        parts = iter(sound)
        for packet in old.demux():
            stream, kept = packet.stream, packet
            if not packet.size:
                continue
            if stream.type == "audio":
                part = next(parts, b"")
                if part == b"":
                    continue
                if part is not None:
                    kept = av.Packet(part)
                    kept.pts, kept.dts, kept.time_base = packet.pts, packet.dts, packet.time_base
            kept.stream = tracks[stream.index]
            new.mux(kept)
    return target


@dataclass(frozen=True)
class Content:
    """The content of a file: planes of all frames, their times in seconds, packets of the sound."""

    frames: list[list[np.ndarray]]
    times: list[Fraction]
    sound: list[bytes]
    sound_times: list[Fraction]
    codecs: list[str]
    tags: tuple[int, ...]
    aspect: Fraction | None
    seconds: float


def read(path: Path) -> Content:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        shown = list(container.decode(video=0))
        bits = stream.codec_context.format.components[0].bits
        dtype = np.uint8 if bits == 8 else np.uint16
        frames = [
            [
                np.frombuffer(cast(Any, plane), dtype)
                .reshape(plane.height, -1)[:, : plane.width]
                .copy()
                for plane in frame.planes
            ]
            for frame in shown
        ]
        tags = (shown[0].color_range, shown[0].colorspace)
        tags += (stream.codec_context.color_primaries, stream.codec_context.color_trc)
        codecs = [part.codec_context.name for part in container.streams]
        aspect, seconds = stream.sample_aspect_ratio, (container.duration or 0) / 1e6
        times = [frame.pts * frame.time_base for frame in shown]
    packets = []
    with av.open(str(path)) as container:
        if container.streams.audio:
            packets = [packet for packet in container.demux(audio=0) if packet.size]
        sound = [bytes(packet) for packet in packets]
        sound_times = [packet.pts * packet.time_base for packet in packets]
    return Content(frames, times, sound, sound_times, codecs, tags, aspect, seconds)


class Identity(DerainingNetwork):
    """Returns its input."""

    def forward(self, rainy: Tensor) -> tuple[Tensor, ...]:
        return (rainy,)


@dataclass(frozen=True)
class Restored:
    """A video before and after an identity network, and everything that was reported."""

    source: Path
    target: Path
    notes: list[str]

    @cached_property
    def before(self) -> Content:
        return read(self.source)

    @cached_property
    def after(self) -> Content:
        return read(self.target)


def restored(source: Path, codec: str = "h264", target: Path | None = None) -> Restored:
    """``target`` is out.mp4 in the folder of the source by default."""
    target = target or source.with_name("out.mp4")
    notes: list[str] = []
    restorer = Restorer(Identity(), notify=notes.append)
    problems = restore_video(source, target, restorer, VideoOptions(codec), notes.append)
    return Restored(source, target, [*notes, *problems])


def assert_alike(
    frames: Sequence[list[np.ndarray]], others: Sequence[list[np.ndarray]], limit: float = 2
) -> None:
    """The planes of each frame differ by less than ``limit`` levels on average."""
    assert len(frames) == len(others)
    for planes, other_planes in zip(frames, others, strict=True):
        for plane, other in zip(planes, other_planes, strict=True):
            assert np.abs(plane.astype(int) - other).mean() < limit
