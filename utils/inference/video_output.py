"""Writing video files: pieces of encoded frames, joined and given the sound of the source."""

from __future__ import annotations

import heapq
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np

from utils.errors import UserError
from utils.files import atomic_write
from utils.inference.video import (
    Picture,
    clock_jumps,
    open_video,
    packets_until_damage,
    picture_stream,
    url,
    values,
)

# Of this program's choice -> (FFmpeg's encoder, the tag by which Apple's players know it).
CODECS = {"h264": ("libx264", "avc1"), "hevc": ("libx265", "hvc1")}
# Pixels along the shorter side: in smaller frames x265 writes past the end of its memory.
MIN_SIDES = {"h264": 1, "hevc": 64}
# Their measure of loss, 0 to 51: at 12 an identity network keeps more than 41 dB even of rain.
DEFAULT_CRF = 12
# Frames by which x264 and x265 send a frame before the time at which it is shown.
REORDER = 2
# Channels -> where they stand, in the commonest case.
LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
# Of sounds that MP4 cannot hold: bits a second, and samples a second of which AAC knows no others.
AAC_BITS = 192_000
AAC_RATES = (
    7350,
    8000,
    11025,
    12000,
    16000,
    22050,
    24000,
    32000,
    44100,
    48000,
    64000,
    88200,
    96000,
)


def write_piece(
    path: Path,
    frames: Iterable[Sequence[np.ndarray]],
    times: Sequence[int],
    picture: Picture,
    *,
    codec: str,
    crf: int,
) -> None:
    """Encode frames, given as the planes of ``picture.layout``, into a file of their own.

    The pieces of a video begin with a key frame and can be joined. Raises UserError where the disk
    or the encoder does not take them.
    """

    def write(temporary: Path) -> None:
        with av.open(url(temporary), "w", format="mp4") as container:
            # Results are scored: closeness counts more than looks, which are the same at this loss.
            options = {"crf": str(crf), "preset": "medium", "tune": "psnr"}
            if codec == "hevc":
                options["x265-params"] = "log-level=none"
            encoder = CODECS[codec][0]
            stream = cast(
                av.VideoStream,
                container.add_stream(encoder, rate=picture.rate, options=options),
            )
            stream.width, stream.height = picture.width, picture.height
            stream.pix_fmt = picture.layout.pixel_format
            context = stream.codec_context
            context.time_base = picture.time_base
            if picture.pixel_aspect:
                context.sample_aspect_ratio = picture.pixel_aspect
            context.color_range = picture.tags.range
            context.colorspace = picture.tags.matrix
            context.color_primaries = picture.tags.primaries
            context.color_trc = picture.tags.transfer
            for planes, time in zip(frames, times, strict=True):
                frame = _frame(planes, picture)
                frame.pts, frame.time_base = time - times[0], picture.time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))

    _encode(path, write)


def join(
    path: Path,
    pieces: Sequence[Path],
    times: Sequence[int],
    last_duration: int,
    picture: Picture,
    source: Path,
    start: Fraction,
) -> list[str]:
    """Write an MP4 file of the pieces' frames and the sound of ``source``, whole or not at all.

    times: of all frames, in units of ``picture.time_base``.
    last_duration: of the last frame, in the same units.
    start: seconds at which the clock of ``source`` begins.

    The sound is copied where MP4 can hold it and becomes AAC otherwise; subtitles are copied where
    MP4 can hold them; what is too damaged for that is left out. Returns what was changed or left
    out, in sentences. Raises UserError.
    """
    notes: list[str] = []
    fitting = _what_fits(source, start, notes)

    def write(temporary: Path) -> None:
        with (
            open_video(source) as original,
            open_video(pieces[0]) as first,
            av.open(
                url(temporary), "w", format="mp4", container_options={"movflags": "+faststart"}
            ) as container,
        ):
            container.metadata.update(_lasting(original.metadata))
            video = container.add_stream_from_template(first.streams.video[0])
            video.time_base = picture.time_base
            tracks = _add_tracks(container, original, fitting)
            for packet in heapq.merge(
                _video_packets(pieces, times, last_duration, picture.time_base, video),
                _track_packets(original, tracks, start),
                key=_seconds,
            ):
                container.mux(packet)

    _encode(path, write)
    return notes


def _frame(planes: Sequence[np.ndarray], picture: Picture) -> av.VideoFrame:
    frame = av.VideoFrame(picture.width, picture.height, picture.layout.pixel_format)
    for plane, filled in zip(frame.planes, planes, strict=True):
        values(plane, picture.layout)[:] = filled
    return frame


def _video_packets(
    pieces: Sequence[Path],
    times: Sequence[int],
    last_duration: int,
    time_base: Fraction,
    stream: av.VideoStream,
) -> Iterator[av.Packet]:
    """The packets of all pieces in one row, with the times that their frames have."""
    ends = [*times[1:], times[-1] + last_duration]
    ranks = _shown_order(_packets_of(pieces[-1]))
    decoded_last = len(times) - len(ranks) + ranks[-1]
    # MP4 takes the time from the first decoding to the end of the last packet for the length.
    others = range(max(len(times) - REORDER - 1, 0), len(times))
    lead = sum(ends[shown] - times[shown] for shown in others if shown != decoded_last)
    begin = 0
    for piece in pieces:
        packets = _packets_of(piece)
        for place, (packet, rank) in enumerate(
            zip(packets, _shown_order(packets), strict=True), begin
        ):
            shown = begin + rank
            packet.pts, packet.duration = times[shown], ends[shown] - times[shown]
            packet.dts = _decoding_time(place, times, lead)
            packet.time_base = time_base
            packet.stream = stream
            yield packet
        begin += len(packets)


def _packets_of(piece: Path) -> list[av.Packet]:
    with open_video(piece) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def _shown_order(packets: Sequence[av.Packet]) -> list[int]:
    """The places at which the frames of a piece, in the order of decoding, are shown.

    All of them are shown before those of the next piece.
    """
    return np.argsort(np.argsort([packet.pts or 0 for packet in packets])).tolist()


def _decoding_time(place: int, times: Sequence[int], lead: int) -> int:
    """When the packet at ``place`` is decoded: REORDER frames before the one at its place is shown.

    The first one is decoded ``lead`` before it is shown.
    """
    if place == 0:
        return times[0] - lead
    if place < REORDER and len(times) > REORDER:
        return times[0] - lead // 2
    return times[max(place - REORDER, 0)]


@dataclass
class Track:
    """A sound or subtitle of the result; one that is encoded anew has a resampler.

    num_packets: that were written so far; num_damaged: that could not be decoded.
    """

    stream: Any  # PyAV's streams of all kinds
    resampler: av.AudioResampler | None = None
    num_packets: int = 0
    num_damaged: int = 0
    shift: int | None = None  # of the clock, in the units of the packets
    newest: int | None = None  # time of a packet

    def set_clock(self, packet: av.Packet, start: Fraction) -> None:
        """Let the clock begin at ``start``, and go on where that of the packets jumps."""
        if packet.dts is None or not packet.time_base:
            return
        if self.shift is None:
            self.shift = -round(start / packet.time_base)
        time = packet.dts + self.shift
        if self.newest is not None:
            step = max(packet.duration or 0, 1)
            if clock_jumps(time - self.newest, step, packet.time_base):
                self.shift += self.newest + step - time
                time = self.newest + step
            time = max(time, self.newest + 1)  # milliseconds are coarse for some sounds
        if packet.pts is not None:
            packet.pts = max(packet.pts + self.shift, time)
        packet.dts = self.newest = time


class _Nowhere(io.RawIOBase):
    """A file of which nothing is kept."""

    def __init__(self) -> None:
        self.position = 0

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, part: Any) -> int:
        self.position += len(part)
        return len(part)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = offset if whence == io.SEEK_SET else self.position + offset
        return self.position

    def tell(self) -> int:
        return self.position


def _lasting(metadata: dict[str, str]) -> dict[str, str]:
    """Without the time code: FFmpeg makes a track of it, which fails where clocks are fine."""
    return {name: value for name, value in metadata.items() if name.lower() != "timecode"}


def _what_fits(source: Path, start: Fraction, notes: list[str]) -> dict[int, bool]:
    """The sounds and subtitles that MP4 takes, by their index: whether they are encoded anew.

    Each is written to nowhere first: what FFmpeg cannot copy or decode must not cost the pictures.
    """
    fitting: dict[int, bool] = {}
    left_out: list[str] = []
    with (
        open_video(source) as original,
        av.open(cast(Any, _Nowhere()), "w", format="mp4") as container,
    ):
        known = container.supported_codecs
        if len(_lasting(original.metadata)) < len(original.metadata):
            left_out.append("the time code")
        picture = picture_stream(original).index
        streams = [
            (stream.index, stream.type, stream.codec_context.name if stream.codec_context else "")
            for stream in cast(Any, original.streams)
            if stream.index != picture
        ]
    for index, kind, name in streams:
        ways = []
        if name in known and kind in ("audio", "subtitle"):
            ways.append(False)
        if name and kind == "audio":
            ways.append(True)
        for is_encoded in ways:
            track = _rehearsed(source, index, is_encoded, start)
            if track is None:
                continue
            fitting[index] = is_encoded
            if is_encoded:
                why = f"cannot copy the {name}" if name in known else f"holds no {name}"
                notes.append(f"{source}: MP4 {why}; that sound becomes AAC.")
            if track.num_damaged:
                notes.append(
                    f"{source}: {track.num_damaged} damaged parts of the sound are left out."
                )
            break
        else:
            what = f"{name or 'unknown'}, unreadable or empty" if ways else name or "unknown"
            left_out.append(f"{kind} ({what})")
    if left_out:
        notes.append(f"{source}: not kept: {', '.join(left_out)}.")
    return fitting


def _rehearsed(source: Path, index: int, is_encoded: bool, start: Fraction) -> Track | None:
    """A track as it was after all of it was written; None where it cannot be."""
    try:
        with (
            open_video(source) as original,
            av.open(cast(Any, _Nowhere()), "w", format="mp4") as container,
        ):
            tracks = _add_tracks(container, original, {index: is_encoded})
            for packet in _track_packets(original, tracks, start):
                container.mux(packet)
    except av.error.FFmpegError:
        return None
    return tracks[index] if tracks[index].num_packets else None


def _add_tracks(
    container: av.container.OutputContainer,
    original: av.container.InputContainer,
    fitting: dict[int, bool],
) -> dict[int, Track]:
    """Tracks for the sounds and subtitles of ``_what_fits``, by their index in the source."""
    tracks: dict[int, Track] = {}
    for index, is_encoded in fitting.items():
        stream: Any = original.streams[index]
        if is_encoded:
            rate = min((rate for rate in AAC_RATES if rate >= stream.rate), default=AAC_RATES[-1])
            sound = cast(Any, container.add_stream("aac", rate=rate))
            sound.bit_rate = AAC_BITS
            tracks[index] = Track(sound)
        else:
            tracks[index] = Track(container.add_stream_from_template(stream))
        if stream.type == "audio":
            layout = stream.layout.name
            if layout.endswith("channels"):  # AVI and others tell no more than how many
                layout = LAYOUTS.get(stream.channels, layout)
                stream.codec_context.layout = layout
            tracks[index].stream.layout = layout
            if is_encoded:
                tracks[index].resampler = av.AudioResampler("fltp", layout, rate)
        tracks[index].stream.metadata.update(stream.metadata)
    return tracks


def _track_packets(
    original: av.container.InputContainer, tracks: dict[int, Track], start: Fraction
) -> Iterator[av.Packet]:
    """The packets of the sounds and subtitles, as they are or encoded anew."""
    if not tracks:
        return

    def encoded(track: Track, frame: av.AudioFrame | None) -> Iterator[av.Packet]:
        assert track.resampler is not None
        parts: list[av.AudioFrame | None] = [*track.resampler.resample(frame)]
        for part in [*parts, None] if frame is None else parts:
            for packet in track.stream.encode(part):
                track.num_packets += 1
                yield packet

    for packet in packets_until_damage(original, *(original.streams[index] for index in tracks)):
        track = tracks[packet.stream.index]
        track.set_clock(packet, start)
        if track.resampler is not None:
            try:
                frames = cast(list[av.AudioFrame], packet.decode())
            except av.error.FFmpegError:
                track.num_damaged += 1
                continue
            for frame in frames:
                yield from encoded(track, frame)
        elif packet.size and packet.dts is not None:
            packet.stream = track.stream
            track.num_packets += 1
            yield packet
    for track in tracks.values():
        if track.resampler is not None and track.num_packets:
            yield from encoded(track, None)


def _seconds(packet: av.Packet) -> Fraction:
    return (packet.dts or 0) * packet.time_base


def _encode(path: Path, write: Callable[[Path], None]) -> None:
    try:
        atomic_write(path, write)
    except av.error.FFmpegError as error:
        raise UserError(f"Cannot encode {path}: {error.strerror}.") from error
