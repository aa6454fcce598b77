"""Writing video files: pieces of encoded frames, joined and given the sound of the source."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np

from utils.errors import UserError
from utils.files import atomic_write
from utils.inference.video import Picture, url, values

# Of this program's choice -> (FFmpeg's encoder, the tag by which Apple's players know it).
CODECS = {"h264": ("libx264", "avc1"), "hevc": ("libx265", "hvc1")}
# Their measure of loss, 0 to 51: at 12 an identity network keeps more than 41 dB even of rain.
DEFAULT_CRF = 12
# Frames by which x264 and x265 send a frame before the time at which it is shown.
REORDER = 2
LAYOUTS = {1: "mono", 2: "stereo"}
AAC_BITS = 192_000  # a second, for sounds that MP4 cannot hold


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
    MP4 can hold them. Returns what was changed or left out, in sentences. Raises UserError.
    """
    notes: list[str] = []

    def write(temporary: Path) -> None:
        with (
            av.open(url(source)) as original,
            av.open(url(pieces[0])) as first,
            av.open(
                url(temporary), "w", format="mp4", container_options={"movflags": "+faststart"}
            ) as container,
        ):
            container.metadata.update(original.metadata)
            video = container.add_stream_from_template(first.streams.video[0])
            video.time_base = picture.time_base
            tracks = _add_tracks(container, original, source, notes)
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
    begin = 0
    for piece in pieces:
        with av.open(url(piece)) as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
        # The frames of a piece are shown in another order than decoded, but before the next piece.
        ranks = np.argsort(np.argsort([packet.pts or 0 for packet in packets])).tolist()
        for place, (packet, rank) in enumerate(zip(packets, ranks, strict=True)):
            shown = begin + rank
            packet.pts, packet.dts = times[shown], _decoding_time(begin + place, ends, times[0])
            packet.duration = ends[shown] - times[shown]
            packet.time_base = time_base
            packet.stream = stream
            yield packet
        begin += len(packets)


def _decoding_time(place: int, ends: Sequence[int], first: int) -> int:
    """When the packet at ``place`` is decoded: REORDER frames before the one at its place is shown.

    What comes before the first frame lasts as long as the last ones: MP4 takes the time from the
    first decoding to the last for the length of the video.
    """
    shown = place - REORDER
    if shown > 0:
        return ends[shown - 1]
    step = ends[-1] - ends[-1 + shown] if len(ends) > -shown else -shown * (ends[0] - first)
    return first - step


@dataclass(frozen=True)
class Track:
    """A sound or subtitle of the result; one that is encoded anew has a resampler."""

    stream: Any  # PyAV's streams of all kinds
    resampler: av.AudioResampler | None = None


def _add_tracks(
    container: av.container.OutputContainer,
    original: av.container.InputContainer,
    source: Path,
    notes: list[str],
) -> dict[int, Track]:
    """Tracks for all sounds and subtitles that can be kept, by their index in the source."""
    known = container.supported_codecs
    tracks: dict[int, Track] = {}
    left_out = []
    for stream in cast(Any, original.streams):
        name = stream.codec_context.name if stream.codec_context else "unknown"
        if stream.index == original.streams.video[0].index:
            continue
        if stream.type in ("audio", "subtitle") and name in known:
            track = Track(container.add_stream_from_template(stream))
            if stream.type == "audio" and stream.channels in LAYOUTS:  # AVI does not tell it
                track.stream.layout = LAYOUTS[stream.channels]
        elif stream.type == "audio" and stream.codec_context:
            notes.append(f"{source}: MP4 holds no {name}; that sound becomes AAC.")
            sound = cast(Any, container.add_stream("aac", rate=stream.rate))
            sound.bit_rate = AAC_BITS
            sound.layout = LAYOUTS.get(stream.channels, stream.layout.name)
            track = Track(sound, av.AudioResampler("fltp", sound.layout, stream.rate))
        else:
            left_out.append(f"{stream.type} ({name})")
            continue
        track.stream.metadata.update(stream.metadata)
        tracks[stream.index] = track
    if left_out:
        notes.append(f"{source}: not kept: {', '.join(left_out)}.")
    return tracks


def _track_packets(
    original: av.container.InputContainer, tracks: dict[int, Track], start: Fraction
) -> Iterator[av.Packet]:
    """The packets of the sounds and subtitles, as they are or encoded anew."""
    if not tracks:
        return
    for packet in original.demux([original.streams[index] for index in tracks]):
        track = tracks[packet.stream.index]
        shift = round(start / packet.time_base)
        if track.resampler is not None:
            for frame in cast(list[av.AudioFrame], packet.decode()):
                if frame.pts is not None:
                    frame.pts -= shift
                for part in track.resampler.resample(frame):
                    yield from track.stream.encode(part)
        elif packet.size and packet.dts is not None:
            packet.dts -= shift
            if packet.pts is not None:
                packet.pts -= shift
            packet.stream = track.stream
            yield packet
    for track in tracks.values():
        if track.resampler is not None:
            for part in track.resampler.resample(None):
                yield from track.stream.encode(part)
            yield from track.stream.encode(None)


def _seconds(packet: av.Packet) -> Fraction:
    return (packet.dts or 0) * packet.time_base


def _encode(path: Path, write: Callable[[Path], None]) -> None:
    try:
        atomic_write(path, write)
    except av.error.FFmpegError as error:
        raise UserError(f"Cannot encode {path}: {error.strerror}.") from error
