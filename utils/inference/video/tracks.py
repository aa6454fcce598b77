"""What an MP4 result takes over from its source besides the pictures: sounds, subtitles, tags.

Sounds and subtitles are copied where MP4 can hold them; other sounds become AAC. Everything that is
not kept is reported.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av

from utils.inference.video.clocks import Clock
from utils.inference.video.containers import open_video, packets_until_damage, picture_stream

# Number of channels -> their most common positions.
LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
# For sounds that MP4 cannot hold: bits per second, and the sampling rates (Hz) that AAC knows.
AAC_BITS = 192_000
AAC_RATES = (
    *(7350, 8000, 11025, 12000, 16000, 22050, 24000),
    *(32000, 44100, 48000, 64000, 88200, 96000),
)
# Tags that describe the file of the source rather than its content.
FILE_TAGS = re.compile(
    "major_brand|minor_version|compatible_brands|encoder|software|duration|handler_name|vendor_id|bps"
    "|number_of_(frames|bytes)|_statistics_.*|(creation_time|language)(-.*)?|rotate|alpha_mode",
    re.IGNORECASE,
)
# FFmpeg's value of Stream.discard for the text track in which MP4 stores the chapters.
DISCARD_ALL = 48


@dataclass
class Track:
    """A sound or subtitle of the result; one that is re-encoded has a resampler.

    num_packets: written so far; num_damaged: packets that could not be decoded.
    """

    stream: Any  # PyAV's streams of all kinds
    resampler: av.AudioResampler | None = None
    num_packets: int = 0
    num_damaged: int = 0
    clock: Clock | None = None  # in the units of the packets
    last: int | None = None  # time of the last packet

    def set_time(self, packet: av.Packet, start: Fraction) -> None:
        """Make ``start`` (seconds) the 0 of a packet's times, and remove jumps of the clock."""
        if packet.dts is None or not packet.time_base:
            return
        if self.clock is None:
            self.clock = Clock(packet.time_base, -round(start / packet.time_base))
        time = self.clock.time(packet.dts, max(packet.duration or 0, 1))
        if self.last is not None:
            time = max(time, self.last + 1)  # milliseconds are too coarse for some sounds
        if packet.pts is not None:
            packet.pts = max(packet.pts + self.clock.shift, time)
        packet.dts = self.last = time


def find_tracks(source: Path, start: Fraction, notes: list[str]) -> dict[int, bool]:
    """The sounds and subtitles that MP4 takes: index in the source -> whether it is re-encoded.

    start: seconds at which the clock of ``source`` starts.
    notes: receives sentences about what is changed or left out.

    Each is first written to a file that keeps nothing, so that a track which FFmpeg cannot copy or
    decode does not cost the pictures.
    """
    found: dict[int, bool] = {}
    left_out: list[str] = []
    with (
        open_video(source) as original,
        av.open(cast(Any, _Nowhere()), "w", format="mp4") as container,
    ):
        known = container.supported_codecs
        picture = picture_stream(original).index
        streams = [
            (stream.index, stream.type, stream.codec_context.name if stream.codec_context else "")
            for stream in cast(Any, original.streams)
            if stream.index != picture
            and not (stream.type == "data" and getattr(stream, "discard", 0) == DISCARD_ALL)
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
            found[index] = is_encoded
            if is_encoded:
                why = f"cannot copy {name}" if name in known else f"cannot hold {name}"
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
    return found


def add_tracks(
    container: av.container.OutputContainer,
    original: av.container.InputContainer,
    found: Mapping[int, bool],
) -> dict[int, Track]:
    """Tracks of the result for what ``find_tracks`` found, by their index in the source."""
    tracks: dict[int, Track] = {}
    for index, is_encoded in found.items():
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
            if layout.endswith("channels"):  # AVI and others state only their number
                layout = LAYOUTS.get(stream.channels, layout)
                stream.codec_context.layout = layout
            tracks[index].stream.layout = layout
            if is_encoded:
                tracks[index].resampler = av.AudioResampler("fltp", layout, rate)
        tracks[index].stream.metadata.update(kept_tags(stream.metadata))
    return tracks


def track_packets(
    original: av.container.InputContainer, tracks: Mapping[int, Track], start: Fraction
) -> Iterator[av.Packet]:
    """The packets of the sounds and subtitles, copied or re-encoded."""
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
        track.set_time(packet, start)
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


def kept_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """All but the time code: FFmpeg makes a track of it, which fails with fine-grained clocks."""
    return {name: text for name, text in tags.items() if name.lower() != "timecode"}


def is_quicktime(tags: Mapping[str, str]) -> bool:
    """Whether tags are named as in QuickTime's metadata, as phones and cameras do.

    An MP4 file holds either these, with arbitrary names, or those of iTunes, which are fixed.
    """
    return any(name.lower().startswith("com.") for name in tags)


def copy_chapters(
    original: av.container.InputContainer,
    container: av.container.OutputContainer,
    start: Fraction,
) -> None:
    """Copy the chapters; ``start`` is the second at which the source's clock starts."""
    chapters = original.chapters()
    for chapter in chapters:
        shift = round(start / cast(Fraction, chapter["time_base"]))
        chapter["start"] = max(chapter["start"] - shift, 0)
        chapter["end"] = max(chapter["end"] - shift, chapter["start"])
    if chapters:
        container.set_chapters(chapters)


def lost_tags(source: Path, result: Path, found: Mapping[int, bool]) -> list[str]:
    """Which chapters and tags of the source the result lacks, in sentences."""
    lost = []
    with open_video(source) as original, open_video(result) as written:
        before, after = original.chapters(), written.chapters()
        if [_title(one) for one in before] != [_title(one) for one in after]:
            lost.append(f"{len(before)} chapters")
        indices = [picture_stream(original).index, *found]
        pairs = zip(indices, cast(Any, written.streams), strict=False)
        tags = [(original.metadata, written.metadata, "")]
        for index, stream in pairs:
            kind = f" of {stream.type}"
            tags.append((original.streams[index].metadata, stream.metadata, kind))
        for given, kept, where in tags:
            there = {name.lower(): text for name, text in kept.items()}
            missing = [
                name
                for name, text in given.items()
                if not FILE_TAGS.fullmatch(name) and not _same_tag(name, text, there)
            ]
            if missing:
                tags_text = "the tag" if len(missing) == 1 else "the tags"
                lost.append(f"{tags_text} {', '.join(missing)}{where}")
    return [f"{source}: not kept: {'; '.join(lost)}."] if lost else []


def _title(chapter: Any) -> str:
    return chapter["metadata"].get("title", "")


def _same_tag(name: str, text: str, kept: Mapping[str, str]) -> bool:
    """Whether a tag is kept; MP4 stores locations (ISO 6709) with four decimals."""
    there = kept.get(name.lower())
    if name.lower().partition("-")[0] == "location" and there:
        given, stored = (re.findall(r"[+-][\d.]+", place) for place in (text, there))
        return len(given) <= len(stored) and all(
            abs(float(one) - float(other)) < 1e-4 for one, other in zip(given, stored, strict=False)
        )
    return there == text


def _rehearsed(source: Path, index: int, is_encoded: bool, start: Fraction) -> Track | None:
    """A track after all of it was written to nowhere; None if FFmpeg cannot write it."""
    try:
        with (
            open_video(source) as original,
            av.open(cast(Any, _Nowhere()), "w", format="mp4") as container,
        ):
            tracks = add_tracks(container, original, {index: is_encoded})
            for packet in track_packets(original, tracks, start):
                container.mux(packet)
    except av.error.FFmpegError:
        return None
    return tracks[index] if tracks[index].num_packets else None


class _Nowhere(io.RawIOBase):
    """A file that keeps nothing."""

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
