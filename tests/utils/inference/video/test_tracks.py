"""What a restored video keeps besides its pictures, and what it reports as lost."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest

from tests.utils.inference.video.videos import (
    FINE,
    Kind,
    merged,
    read,
    restored,
    scene,
    with_chapters,
    with_cover_before_it,
    with_damaged_sound,
    write,
)
from utils.inference.video.tracks import Track


def test_all_sounds_are_kept_and_lost_subtitles_are_reported(tmp_path: Path) -> None:
    frames = scene(3, 32, 48)
    film = write(tmp_path / "a", Kind(".mkv", sound="aac"), frames)
    dub = write(tmp_path / "b", Kind(".mkv", sound="pcm_u8"), frames)
    words = tmp_path / "words.srt"
    words.write_text("1\n00:00:00,000 --> 00:00:00,100\nRain\n")
    done = restored(merged(tmp_path / "all.mkv", film, dub, words))
    notes = " ".join(done.notes)
    assert "not kept: video (h264), subtitle (srt)" in notes
    assert "cannot hold pcm_u8; that sound" in notes
    assert done.after.codecs == ["h264", "aac", "aac"]
    with av.open(str(done.target)) as container:
        languages = [stream.metadata.get("language") for stream in container.streams.audio]
        assert languages == ["und", "nor"]


def test_a_cover_picture_is_not_taken_for_the_video(tmp_path: Path) -> None:
    film = with_cover_before_it(write(tmp_path / "a", Kind(".mp4"), scene(4, 32, 48)))
    with av.open(str(film)) as container:
        assert container.streams[0].codec_context.name == "mjpeg"
    done = restored(film)
    assert "not kept: video (mjpeg)" in " ".join(done.notes)
    assert len(done.after.frames) == 4 and done.after.frames[0][0].shape == (32, 48)


NOISE = np.random.default_rng(0).integers(0, 256, 500).astype(np.uint8).tobytes()


def test_the_pictures_are_kept_if_a_sound_is_damaged(tmp_path: Path) -> None:
    """All or part of the sound is replaced by noise, or the track is empty."""
    source = write(tmp_path / "a", Kind(".nut", sound="wavpack"), scene(4, 32, 48))
    num_parts = len(read(source).sound)
    half = [None] * (num_parts // 2)
    for sound, note, codecs in (
        ([NOISE] * num_parts, "not kept: audio (wavpack, unreadable or empty)", ["h264"]),
        ([], "not kept: audio (wavpack, unreadable or empty)", ["h264"]),
        ([*half, NOISE, NOISE, *half], "2 damaged parts of the sound", ["h264", "aac"]),
    ):
        done = restored(with_damaged_sound(source, tmp_path / "b.nut", sound))
        assert note in " ".join(done.notes)
        assert len(done.after.frames) == 4 and done.after.codecs == codecs


def test_sound_that_cannot_be_copied_becomes_aac(tmp_path: Path) -> None:
    """MP4 can hold AAC, but FFmpeg does not copy a packet without the header of a .ts file."""
    source = write(tmp_path / "a", Kind(".ts", sound="aac"), scene(4, 32, 48))
    packets = read(source).sound
    sound = [*packets[:10], packets[10][:7] + NOISE, *packets[11:]]
    done = restored(with_damaged_sound(source, tmp_path / "b.ts", sound))
    assert "cannot copy aac; that sound becomes AAC" in " ".join(done.notes)
    assert len(done.after.frames) == 4 and done.after.codecs == ["h264", "aac"]
    assert done.after.seconds == pytest.approx(1.02, abs=0.06)


@pytest.mark.parametrize(
    ("kind", "rate", "of_aac"),
    [
        (Kind(".avi", "mpeg4", sound="pcm_u8"), 5500, 7350),
        (Kind(".mkv", sound="pcm_u8"), 30_000, 32_000),  # 24 kHz would lose the highest frequencies
        (Kind(".mkv", sound="pcm_u8"), 48_000, 48_000),
        (Kind(".avi", "mpeg4", sound="pcm_u8"), 192_000, 96_000),  # the highest rate of AAC
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_sound_that_mp4_cannot_hold_becomes_aac_at_the_next_rate(
    kind: Kind, rate: int, of_aac: int, tmp_path: Path
) -> None:
    done = restored(write(tmp_path / "a", kind, scene(4, 32, 48), sound_rate=rate))
    assert "MP4 cannot hold pcm_u8" in " ".join(done.notes)
    assert done.after.codecs == ["h264", "aac"]
    packet = 1024 / of_aac  # seconds
    assert done.after.seconds == pytest.approx(1 + packet, abs=0.04 + packet)
    with av.open(str(done.target)) as container:
        assert container.streams.audio[0].rate == of_aac


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le"])
def test_channels_whose_positions_the_file_does_not_state(codec: str, tmp_path: Path) -> None:
    kind = Kind(".mkv", sound=codec)
    done = restored(write(tmp_path / "a", kind, scene(4, 32, 48), sound_layout=("5.1", 6)))
    for path in (done.source, done.target):
        with av.open(str(path)) as container:
            assert container.streams.audio[0].channels == 6
    with av.open(str(done.target)) as container:
        assert container.streams.audio[0].layout.name == "5.1"
        sound = np.concatenate([f.to_ndarray().ravel() for f in container.decode(audio=0)])
    assert np.abs(sound).max() > 0


@pytest.mark.parametrize(
    ("times", "wanted"),
    [
        ([5, 5, 6, 8], [5, 6, 7, 8]),  # packets shorter than one unit, which do not drift
        ([100, 120, 140, 10, 30], [100, 120, 140, 160, 180]),  # a clock set back
        ([0, 20, 10**9, 10**9 + 20], [0, 20, 40, 60]),  # a damaged clock
        ([0, 20, 3_600_000], [0, 20, 3_600_000]),  # a pause
    ],
)
def test_the_clock_of_a_sound(times: list[int], wanted: list[int]) -> None:
    track, seen = Track(None), []
    for time in times:
        packet = av.Packet(b"sound")
        packet.pts = packet.dts = 1000 + time
        packet.duration, packet.time_base = 20, Fraction(1, 1000)
        track.set_time(packet, Fraction(1))
        assert packet.pts == packet.dts
        seen.append(packet.dts)
    assert seen == wanted


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_chapters_are_kept(suffix: str, tmp_path: Path) -> None:
    chapters = [("Drizzle", 0, 400), ("Wolkenbruch \u2602", 400, 960)]
    plain = write(tmp_path / "a", Kind(".mkv", sound="aac"), scene(24, 32, 48))
    done = restored(with_chapters(plain, tmp_path / f"chapters{suffix}", chapters))
    assert done.notes == []  # chapters become a track in MP4 and are not lost
    with av.open(str(done.target)) as container:
        kept = [
            (c["metadata"]["title"], *(round(c[e] * c["time_base"] * 1000) for e in ENDS))
            for c in container.chapters()
        ]
    assert kept == chapters


ENDS = ("start", "end")
# Luminances and chromaticities; none is a multiple of another, except red's.
DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_the_mastering_display_and_light_level_are_kept(codec: str, tmp_path: Path) -> None:
    options = (("x265-params", f"log-level=none:master-display={DISPLAY}:max-cll=1000,400"),)
    kind = Kind(".mp4", "libx265", pixels="yuv420p10le", options=options)
    done = restored(write(tmp_path / "a", kind, scene(3, bits=10), tags=(1, 9, 9, 16)), codec)
    (note,) = done.notes
    assert "stores its colours as" in note
    with av.open(str(done.target)) as container:
        data = next(container.decode(video=0)).side_data
        numbers = struct.unpack("=22i", bytes(cast(Any, data["MASTERING_DISPLAY_METADATA"])))
        assert bytes(cast(Any, data["CONTENT_LIGHT_LEVEL"])) == struct.pack("=2I", 1000, 400)
    values = [part / whole for part, whole in zip(numbers[:20:2], numbers[1:20:2], strict=True)]
    # Red, green, blue and white of P3 with D65, then the luminances, as in ST 2086.
    expected = [0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.329, 0.005, 1000]
    assert values == pytest.approx(expected)


# QuickTime's tags, used by phones for the location and the camera.
PHONE = {
    "com.apple.quicktime.make": "Apple",
    "com.apple.quicktime.model": "iPhone 15 Pro",
    "com.apple.quicktime.location.ISO6709": "+48.1351+011.5820+519.000/",
    "com.android.version": "14",
    "title": "Rain",
}
FILM = {"title": "Rain", "artist": "A. Cloud", "location": "+48.1351+011.5820/"}


@pytest.mark.parametrize(
    ("kind", "kept", "lost"),
    [
        (Kind(".mov", container=(("movflags", "use_metadata_tags"),)), PHONE, {}),
        (Kind(".mkv"), FILM, {"umbrella": "black"}),
    ],
    ids=["phone", "film"],
)
def test_tags_are_kept_or_reported(
    kind: Kind, kept: dict[str, str], lost: dict[str, str], tmp_path: Path
) -> None:
    source = write(tmp_path / "a", kind, scene(2, 32, 48), metadata={**kept, **lost})
    done = restored(source)
    assert done.notes == [f"{source}: not kept: the tag {name.upper()}." for name in lost]
    with av.open(str(done.target)) as result:
        assert {name: result.metadata.get(name) for name in kept} == kept


def test_titles_in_other_encodings_and_time_codes_are_accepted(tmp_path: Path) -> None:
    kind = Kind(".mkv", sound="aac")
    metadata = {"title": "Rain xxx", "timecode": "01:00:00:00"}
    source = write(tmp_path / "a", kind, scene(3, 32, 48), metadata=metadata)
    source.write_bytes(source.read_bytes().replace(b"xxx", "äöü".encode("latin-1")))
    done = restored(source)
    assert "not kept: the tag TIMECODE" in " ".join(done.notes)
    assert done.after.codecs == ["h264", "aac"]
    with av.open(str(done.target)) as container:
        assert container.metadata["title"].startswith("Rain ")


STEREO = (("qp", "0"), ("x264-params", "frame-packing=3"))  # written by x264


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        (Kind(".mp4", options=STEREO), "not kept: the arrangement of the stereoscopic views."),
        (
            Kind(".mpg", "mpeg2video", options=(*FINE, ("flags", "+ilme+ildct"))),
            "is interlaced: the two fields of each frame are restored and shown together",
        ),
    ],
    ids=["stereo", "interlaced"],
)
def test_lost_data_that_frames_carry_are_reported(kind: Kind, note: str, tmp_path: Path) -> None:
    done = restored(write(tmp_path / "a", kind, scene(3, 32, 48)))
    (only,) = done.notes
    assert note in only and str(done.source) in only
    assert len(done.after.frames) == 3
