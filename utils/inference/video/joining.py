"""The result of a video: its encoded pieces in one file, with the tracks of the source."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from utils.inference.video.containers import open_video, picture_stream, url
from utils.inference.video.encoding import REORDER, write_video
from utils.inference.video.reader import Picture
from utils.inference.video.tracks import (
    add_tracks,
    copy_chapters,
    find_tracks,
    is_quicktime,
    kept_tags,
    lost_tags,
    track_packets,
)


def join(
    path: Path,
    pieces: Sequence[Path],
    times: Sequence[int],
    last_duration: int,
    picture: Picture,
    source: Path,
    start: Fraction,
) -> list[str]:
    """Write an MP4 file of the pieces' frames and the tracks of ``source``, whole or not at all.

    times: of all frames, in units of ``picture.time_base``.
    last_duration: of the last frame, in the same units.
    start: seconds at which the clock of ``source`` starts.

    Returns what was changed or left out, in sentences. Raises UserError.
    """
    notes: list[str] = []
    found = find_tracks(source, start, notes)

    def write(temporary: Path) -> None:
        with (
            open_video(source) as original,
            open_video(pieces[0]) as first,
            av.open(
                url(temporary), "w", format="mp4", container_options=_options(original.metadata)
            ) as container,
        ):
            container.metadata.update(kept_tags(original.metadata))
            encoded = first.streams.video[0]
            video = container.add_stream_from_template(encoded)
            # The template lacks the tag.
            video.codec_context.codec_tag = encoded.codec_context.codec_tag
            video.time_base = picture.time_base
            video.metadata.update(kept_tags(picture_stream(original).metadata))
            tracks = add_tracks(container, original, found)
            copy_chapters(original, container, start)
            for packet in heapq.merge(
                _video_packets(pieces, times, last_duration, picture.time_base, video),
                track_packets(original, tracks, start),
                key=_seconds,
            ):
                container.mux(packet)
        notes.extend(lost_tags(source, temporary, found))

    write_video(path, write)
    return notes


def _options(tags: dict[str, str]) -> dict[str, str]:
    flags = "+faststart+use_metadata_tags" if is_quicktime(tags) else "+faststart"
    return {"movflags": flags}


def _video_packets(
    pieces: Sequence[Path],
    times: Sequence[int],
    last_duration: int,
    time_base: Fraction,
    stream: av.VideoStream,
) -> Iterator[av.Packet]:
    """The packets of all pieces, one piece after the other, with the times of their frames."""
    ends = [*times[1:], times[-1] + last_duration]
    ranks = _shown_order(_packets_of(pieces[-1]))
    decoded_last = len(times) - len(ranks) + ranks[-1]
    # MP4's duration is the time from the first decoding to the end of the last packet.
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
    """The rank at which each frame of a piece, in decoding order, is shown.

    All frames of a piece are shown before those of the next.
    """
    return np.argsort(np.argsort([packet.pts or 0 for packet in packets])).tolist()


def _decoding_time(place: int, times: Sequence[int], lead: int) -> int:
    """When the packet at ``place`` is decoded: REORDER frames before frame ``place`` is shown.

    The first is decoded ``lead`` before it is shown.
    """
    if place == 0:
        return times[0] - lead
    if place < REORDER and len(times) > REORDER:
        return times[0] - lead // 2
    return times[max(place - REORDER, 0)]


def _seconds(packet: av.Packet) -> Fraction:
    return (packet.dts or 0) * packet.time_base
