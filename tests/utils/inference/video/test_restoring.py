"""Videos through an identity network: pictures, times, sound and tags come out as they went in."""

from __future__ import annotations

import os
import shutil
import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.network import DerainingNetwork
from tests.utils.inference.video.videos import (
    Content,
    Kind,
    merged,
    read,
    scene,
    with_chapters,
    with_cover_before_it,
    with_damaged_sound,
    with_later_clock,
    write,
)
from utils.errors import UserError
from utils.inference.restorer import Restorer
from utils.inference.video import VideoOptions, is_video, joining
from utils.inference.video.reader import VideoReader
from utils.inference.video.restoring import restore_video
from utils.inference.video.tracks import Track

LOSSLESS = Kind(".mkv", "ffv1", options=())
FINE = (("qmin", "1"), ("qmax", "1"))


class Identity(DerainingNetwork):
    """Its result is its input."""

    def forward(self, rainy: Tensor) -> tuple[Tensor, ...]:
        return (rainy,)


def restore(source: Path, target: Path, codec: str = "h264") -> list[str]:
    """A video through an identity network; returns all that is reported."""
    notes: list[str] = []
    restorer = Restorer(Identity(), notify=notes.append)
    problems = restore_video(source, target, restorer, VideoOptions(codec), notes.append)
    return [*notes, *problems]


def difference(first: Content, second: Content) -> np.ndarray:
    """RGB differences in levels, by the standard's formula for the nearest colours (BT.601)."""

    def rgb(planes: list[np.ndarray]) -> np.ndarray:
        luma, blue, red = (plane.astype(float) for plane in planes)
        for axis in (0, 1):
            if blue.shape[axis] < luma.shape[axis]:
                blue, red = (np.repeat(plane, 2, axis) for plane in (blue, red))
        luma, blue, red = (luma - 16) * 255 / 219, blue - 128, red - 128
        blue, red = blue * 255 / 224, red * 255 / 224
        green = luma - 0.344136 * blue - 0.714136 * red
        return np.stack([luma + 1.402 * red, green, luma + 1.772 * blue])

    pairs = zip(first.frames, second.frames, strict=True)
    return np.stack([rgb(one) - rgb(other) for one, other in pairs])


KINDS = {
    "h264": Kind(".mp4", sound="aac"),
    "quicktime": Kind(".mov", sound="pcm_s16le"),
    "matroska": Kind(".mkv", sound="libopus"),
    "webm": Kind(
        ".webm",
        "libvpx-vp9",
        sound="libopus",
        options=(("crf", "20"), ("b", "0"), ("cpu-used", "8")),
    ),
    "transport": Kind(".ts", sound="aac"),
    "mpeg": Kind(".mpg", "mpeg2video", sound="mp2", options=FINE),
    "flash": Kind(".flv", "flv", sound=None, options=FINE),
    "windows": Kind(".wmv", "wmv2", sound="libmp3lame", options=FINE),
    "telephone": Kind(".3gp", "mpeg4", sound="aac", options=FINE),
    "avi": Kind(".avi", "mpeg4", sound="pcm_s16le", options=FINE),
    "four_two_two": Kind(".mkv", "ffv1", "yuv422p", options=()),
}


@pytest.mark.parametrize("name", KINDS)
def test_identity_keeps_pictures_times_and_sound(name: str, tmp_path: Path) -> None:
    kind, frames = KINDS[name], scene(12)
    if kind.pixels == "yuv422p":
        frames = [[luma, *(np.repeat(c, 2, 0) for c in colours)] for luma, *colours in frames]
    source = write(tmp_path / "rain", kind, frames)
    assert is_video(source)
    restore(source, tmp_path / "out.mp4")
    before, after = read(source), read(tmp_path / "out.mp4")

    error = difference(before, after)
    assert 10 * np.log10(255**2 / (error**2).mean()) > 41
    assert np.abs(error.mean(axis=(0, 2, 3))).max() < 0.5
    assert after.codecs[0] == "h264"

    first = before.times[0], after.times[0]
    for one, other in zip(before.times, after.times, strict=True):
        assert other - first[1] == pytest.approx(one - first[0], abs=1e-9)
    seconds = 1.0 if kind.suffix == ".avi" and kind.sound else before.seconds  # AVI: of pictures
    assert after.seconds == pytest.approx(seconds, abs=0.05)

    assert [len(part) for part in before.sound] == [len(part) for part in after.sound] or (
        kind.suffix == ".ts"  # MP4 keeps AAC without the headers of a transport stream
    )
    if kind.sound:
        assert len(after.sound) == len(before.sound)
        assert before.sound[3][-50:] == after.sound[3][-50:]
        gap = before.sound_times[0] - before.times[0]
        assert after.sound_times[0] - after.times[0] == pytest.approx(gap, abs=0.002)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("kind", "tagged"), [(Kind(".mp4"), False), (Kind(".mp4"), True), (LOSSLESS, True)]
)
def test_grays_keep_their_level(full: bool, kind: Kind, tagged: bool, tmp_path: Path) -> None:
    """A ramp of all grays, one level every four columns: no shift, no tint."""
    levels = np.arange(256) if full else np.arange(16, 236)
    luma = np.repeat(levels, 4)[None].repeat(32, 0).astype(np.uint8)
    colours = np.full((16, luma.shape[1] // 2), 128, np.uint8)
    matrix = 1 if tagged else 2
    tags = (2 if full else 1, matrix, matrix, matrix)
    source = write(tmp_path / "a", kind, [[luma, colours, colours]] * 4, tags=tags)
    restore(source, tmp_path / "out.mp4")
    after = read(tmp_path / "out.mp4")
    error = np.stack([planes[0] for planes in after.frames]).astype(float) - luma
    assert np.abs(error.reshape(4, 32, -1, 4).mean(axis=(0, 1, 3))).max() < 0.5  # of each gray
    for planes in after.frames:
        assert (planes[1] == 128).all() and (planes[2] == 128).all()
    assert after.tags[1:] == tags[1:]
    assert (after.tags[0] == 2) == full


def test_every_frame_keeps_its_own_time(tmp_path: Path) -> None:
    times = [0, 40, 80, 200, 233, 400, 401, 1000, 1040, 2500]
    source = write(tmp_path / "a", Kind(".mkv"), scene(10), times, Fraction(1, 1000))
    assert (
        restore(source, tmp_path / "out.mp4") == []
    )  # a last frame that is shown for long is not an early end
    after = read(tmp_path / "out.mp4")
    assert after.times == [Fraction(time, 1000) for time in times]
    assert after.seconds == pytest.approx(2.54)


def test_a_video_is_as_long_as_its_frames_are_shown(tmp_path: Path) -> None:
    """The last frames stand far apart, and the very last one is not decoded last."""
    times = [0, 40, 80, 120, 10_000, 3_600_000]
    source = write(tmp_path / "a", Kind(".mkv"), scene(6, 32, 48), times, Fraction(1, 1000))
    restore(source, tmp_path / "out.mp4")
    after = read(tmp_path / "out.mp4")
    assert after.times == [Fraction(time, 1000) for time in times]
    assert after.seconds == pytest.approx(3600.04, abs=0.001)


def test_a_last_frame_of_no_duration_is_kept(tmp_path: Path) -> None:
    """MP4 states its length in milliseconds."""
    times = [0, 1, 2, 3]
    base = Fraction(1, 90_000)
    source = write(tmp_path / "a", Kind(".mp4"), scene(4, 32, 48), times, base)
    with VideoReader(source) as reader:
        num_frames = len(list(reader.frames()))
    restore(source, tmp_path / "out.mp4")
    assert len(read(tmp_path / "out.mp4").frames) == num_frames


def test_times_that_b_frames_have_swapped_are_in_their_order(tmp_path: Path) -> None:
    """AVI stores no times: the decoder guesses those of neighbouring frames."""
    options = (("crf", "10"), ("bf", "3"), ("b_strategy", "0"))
    frames = scene(8, 32, 48)
    source = write(tmp_path / "a", Kind(".avi", options=options, sound="pcm_s16le"), frames)
    guessed = read(source).times
    assert guessed != sorted(guessed)
    restore(source, tmp_path / "out.mp4")
    after = read(tmp_path / "out.mp4")
    assert after.times == sorted(guessed)
    for before, planes in zip(frames, after.frames, strict=True):
        assert np.abs(planes[0].astype(int) - before[0]).mean() < 2


@pytest.mark.parametrize("kind", [KINDS["transport"], KINDS["mpeg"]], ids=lambda kind: kind.suffix)
def test_joined_recordings_keep_their_whole_duration(kind: Kind, tmp_path: Path) -> None:
    """The clocks of the pictures and of the sound start again in the middle."""
    source = write(tmp_path / "a", kind, scene(25, 32, 48))
    once = read(source)
    source.write_bytes(source.read_bytes() * 2)
    assert restore(source, tmp_path / "out.mp4") == []
    after = read(tmp_path / "out.mp4")
    steps = np.diff([float(time) for time in after.times])
    np.testing.assert_allclose(steps, [0.04] * 49, atol=0.001)
    assert after.seconds == pytest.approx(2, abs=0.1)
    assert len(after.sound) >= 2 * len(once.sound) - 1
    gaps = np.diff([float(time) for time in after.sound_times])
    assert gaps.min() > 0 and gaps.max() < 0.05


@pytest.mark.parametrize("seconds", [0.5, 40.0])  # until it wraps
def test_a_transport_stream_whose_clock_wraps_keeps_its_frames(
    seconds: float, tmp_path: Path
) -> None:
    """Its clock has 33 bits at 90 kHz and starts anew every 26.5 hours."""
    plain = write(tmp_path / "plain", Kind(".ts", sound="aac"), scene(25, 32, 48))
    source = tmp_path / "wraps.ts"
    begin = int(read(plain).times[0] * 90_000)
    source.write_bytes(with_later_clock(plain.read_bytes(), 2**33 - begin - int(seconds * 90_000)))
    for path, name in ((plain, "plain.mp4"), (source, "wraps.mp4")):
        assert restore(path, tmp_path / name) == []
    expected, after = read(tmp_path / "plain.mp4"), read(tmp_path / "wraps.mp4")
    assert len(after.frames) == 25
    assert after.times == expected.times and after.sound_times == expected.sound_times


def test_frames_that_the_result_does_not_show_are_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times before 0, as a mistake in the clocks would give them; MP4 then hides the frames."""
    real = joining.join

    def join_early(path: Path, pieces: list[Path], times: list[int], *others: Any) -> list[str]:
        return real(path, pieces, [time - times[3] for time in times], *others)

    monkeypatch.setattr("utils.inference.video.unfinished.join", join_early)
    source = write(tmp_path / "a", Kind(".mp4"), scene(8, 32, 48))
    (problem,) = restore(source, tmp_path / "out.mp4")
    assert "out.mp4 shows 5 of the 8 frames" in problem
    assert len(read(tmp_path / "out.mp4").frames) == 5


def test_pieces_join_to_the_same_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.inference.video.unfinished.PIECE", 4)
    times = [0, 40, 80, 200, 233, 400, 401, 1000, 1040, 2500]
    source = write(tmp_path / "a", Kind(".mkv"), scene(10), times, Fraction(1, 1000))
    restore(source, tmp_path / "out.mp4")
    before, after = read(source), read(tmp_path / "out.mp4")
    assert after.times == [Fraction(time, 1000) for time in times]
    assert 10 * np.log10(255**2 / (difference(before, after) ** 2).mean()) > 41


def test_the_colour_tags_are_those_of_the_source(tmp_path: Path) -> None:
    """BT.2020 with HLG in 10 bits, as telephones film."""
    kind = Kind(".mp4", pixels="yuv420p10le")
    source = write(tmp_path / "a", kind, scene(4, bits=10), tags=(1, 9, 9, 18))
    for codec in ("h264", "hevc"):
        notes = restore(source, tmp_path / "out.mp4", codec)
        assert "stores its colours as yuv420p10le" in " ".join(notes)
        after = read(tmp_path / "out.mp4")
        assert after.codecs == [codec] and after.tags == (1, 9, 9, 18)
        before = read(source)
        for one, other in zip(before.frames, after.frames, strict=True):
            for a, b in zip(one, other, strict=True):
                assert np.abs(a.astype(int) - b).mean() < 4  # of 1023


WRITES_TURNS = pytest.mark.skipif(
    not hasattr(av.VideoStream, "set_display_rotation"), reason="PyAV 18 writes turned videos"
)


@WRITES_TURNS
def test_a_guessed_matrix_is_stated_where_players_would_guess_another(
    tmp_path: Path,
) -> None:
    """720 x 32 is BT.601 for players and 32 x 720 BT.709, where the file does not tell."""
    for turn, matrix in ((None, 2), ({"degrees": 90}, 5)):
        source = write(tmp_path / "a", Kind(".mp4"), scene(2, 32, 720), turn=turn)
        restore(source, tmp_path / "out.mp4")
        after = read(tmp_path / "out.mp4")
        assert after.tags[1] == matrix
        before = read(source).frames[0]
        for one, other in zip(before, after.frames[0], strict=True):
            turned = np.rot90(one) if turn else one
            assert np.abs(turned.astype(int) - other).mean() < 2


def test_ycbcr_labelled_as_rgb_is_relabelled(tmp_path: Path) -> None:
    source = write(tmp_path / "a", LOSSLESS, scene(2, 32, 48), tags=(1, 0, 2, 2))
    assert read(source).tags[1] == 0
    restore(source, tmp_path / "out.mp4")
    assert read(tmp_path / "out.mp4").tags[1] == 5


@WRITES_TURNS
def test_pixel_aspect_and_turns(tmp_path: Path) -> None:
    """A picture whose corner shows how it is turned; 4:3 pixels become 3:4 when it is upright."""
    frames = scene(3)
    for planes in frames:
        planes[0][:32, :32] = 235
    corners = {
        0: (False, False),
        90: (True, False),
        180: (True, True),
        270: (False, True),
    }
    for degrees, (is_low, is_right) in corners.items():
        aspect, turn = Fraction(4, 3), {"degrees": degrees}
        source = write(tmp_path / "a", Kind(".mp4"), frames, aspect=aspect, turn=turn)
        restore(source, tmp_path / "out.mp4")
        after = read(tmp_path / "out.mp4")
        luma = after.frames[0][0]
        assert luma.shape == ((128, 96) if degrees % 180 else (96, 128))
        assert after.aspect == (1 / aspect if degrees % 180 else aspect)
        # FFmpeg counts against the clock.
        corner = luma[-32:] if is_low else luma[:32]
        corner = corner[:, -32:] if is_right else corner[:, :32]
        assert corner.mean() > 200, degrees
    turn = {"degrees": 0, "hflip": True}
    source = write(tmp_path / "a", Kind(".mp4"), frames, turn=turn)
    restore(source, tmp_path / "out.mp4")
    assert read(tmp_path / "out.mp4").frames[0][0][:32, -32:].mean() > 200


def test_an_odd_row_and_column_are_kept(tmp_path: Path) -> None:
    frames = [[luma[:95, :127], blue, red] for luma, blue, red in scene(3)]
    source = write(tmp_path / "a", LOSSLESS, frames)
    assert "yuv444p" in restore(source, tmp_path / "out.mp4")[0]
    after = read(tmp_path / "out.mp4").frames
    for before, planes in zip(frames, after, strict=True):
        assert planes[0].shape == (95, 127)
        assert np.abs(planes[0].astype(int) - before[0]).mean() < 2


@pytest.mark.parametrize("pixels", ["rgb24", "bgr0", "gray", "nv12", "yuyv422", "gbrp"])
def test_other_ways_to_store_pixels(pixels: str, tmp_path: Path) -> None:
    """Uncompressed frames of a few colours, read as what they are."""
    colours = np.uint8([[200, 40, 30], [90, 90, 90], [10, 120, 240], [255, 255, 255]])
    if pixels == "gray":
        colours = np.repeat(colours[:, :1], 3, axis=1)
    rgb = np.kron(colours[np.arange(16).reshape(4, 4) % 4], np.ones((16, 16, 1), np.uint8))
    frame = av.VideoFrame.from_ndarray(rgb).reformat(format=pixels)
    with av.open(str(tmp_path / "a.nut"), "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, pixels
        container.mux([*stream.encode(frame), *stream.encode(None)])
    with VideoReader(tmp_path / "a.nut") as reader:
        (seen,) = reader.frames()
    centres = np.s_[4::16, 4::16]  # away from borders, where colours mix
    np.testing.assert_allclose(seen[centres] * 255, rgb[centres], atol=2.5)


@pytest.mark.parametrize(
    "name", ["12:30", "http:a", "a b%d %03d", "-dash", "été ☔", "q'?#*", os.fsdecode(b"\xff")]
)
def test_odd_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written and read where they lie, so that nothing stands before them that would help."""
    monkeypatch.chdir(tmp_path)
    plain = write(tmp_path / "plain", Kind(".mkv", sound="aac"), scene(3, 32, 48))
    try:
        shutil.copy(plain, f"{name}.mkv")
    except OSError as error:  # macOS takes names in UTF-8 alone
        pytest.skip(str(error))
    restore(Path(f"{name}.mkv"), Path(f"{name}.mp4"))
    shutil.move(f"{name}.mp4", "out.mp4")
    after = read(tmp_path / "out.mp4")
    assert len(after.frames) == 3 and after.codecs == ["h264", "aac"]
    assert sorted(os.listdir()) == sorted([f"{name}.mkv", "out.mp4", "plain.mkv"])


def test_unusable_files_are_sentences(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 1000)
    (tmp_path / "empty.mp4").write_bytes(b"")
    whole = write(tmp_path / "whole", Kind(".mp4"), scene(5)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # without its index at the end
    for name in ("broken", "empty", "cut"):
        with pytest.raises(UserError, match=rf"{name}\.mp4 is not a readable video"):
            VideoReader(tmp_path / f"{name}.mp4")
    with pytest.raises(UserError, match=r"Cannot read .*absent\.mp4: No such file"):
        VideoReader(tmp_path / "absent.mp4")
    assert capfd.readouterr().err == ""


CUT = {
    "matroska": Kind(".mkv", sound="aac"),
    "matroska_frames": Kind(".mkv"),
    "webm": Kind(".webm", "libvpx-vp9", options=(("lossless", "1"), ("cpu-used", "8"))),
    "flash": Kind(".flv", "flv", options=FINE),
    "transport": Kind(".ts"),
    "mp4": Kind(".mp4", sound="aac", container=(("movflags", "+faststart"),)),
    "mp4_frames": Kind(".mp4", container=(("movflags", "+faststart"),)),
    "avi": Kind(".avi", "mpeg4", options=FINE),
}


@pytest.mark.parametrize("name", CUT)
def test_a_file_that_ends_early_gives_its_frames_and_one_sentence(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "a", CUT[name], scene(20, 48, 64))
    whole = read(source)
    assert restore(source, tmp_path / "out" / "whole.mp4") == []
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 3 // 5 - 1])
    (sentence,) = restore(source, tmp_path / "out" / "cut.mp4")
    assert "ends early, after 0." in sentence or "of 20 frames" in sentence
    after = read(tmp_path / "out" / "cut.mp4")
    assert 5 < len(after.frames) < 17
    for before, planes in zip(whole.frames[:5], after.frames, strict=False):
        assert np.abs(planes[0].astype(int) - before[0]).mean() < 2
    assert sorted(os.listdir(tmp_path / "out")) == ["cut.mp4", "whole.mp4"]
    lines = capfd.readouterr().err.splitlines()
    assert [line for line in lines if line and "frame/s" not in line] == []  # but for the bar


def test_a_trimmed_file_does_not_end_early(tmp_path: Path) -> None:
    """An edit list, as telephones write it, keeps three of six frames from being shown."""
    source = write(tmp_path / "a", Kind(".mp4"), scene(6, 32, 48), [-3, -2, -1, 0, 1, 2])
    assert len(read(source).frames) == 3
    assert restore(source, tmp_path / "out.mp4") == []
    assert len(read(tmp_path / "out.mp4").frames) == 3


@pytest.mark.parametrize(
    ("kind", "length", "sentence_part"),
    [
        (replace(KINDS["mpeg"], sound=None), 40, "is damaged in one place"),
        (replace(KINDS["webm"], sound=None), 10**6, "ends early"),  # all that follows
    ],
    ids=lambda value: getattr(value, "suffix", None),
)
def test_damage_in_the_middle_is_reported(
    kind: Kind, length: int, sentence_part: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    frames = scene(20)
    for luma, *_ in frames:  # detail, so that the file is large beside its index
        luma[:] = rng.integers(60, 200, luma.shape)
    source = write(tmp_path / "a", kind, frames)
    damaged = np.frombuffer(source.read_bytes(), np.uint8).copy()
    part = damaged[len(damaged) // 2 :][:length]
    part[:] = rng.integers(0, 256, len(part))
    source.write_bytes(damaged.tobytes())
    (sentence,) = restore(source, tmp_path / "out.mp4")
    assert sentence_part in sentence
    assert len(read(tmp_path / "out.mp4").frames) >= 8


@pytest.mark.parametrize("pixels", ["yuv444p", "yuv420p10le"])
def test_a_change_of_the_way_pixels_are_stored(pixels: str, tmp_path: Path) -> None:
    """The second half of a film is the same scene in another format."""
    frames = scene(6, 32, 48)
    other = frames
    if pixels == "yuv444p":
        other = [
            [luma, *(np.kron(c, np.ones((2, 2), np.uint8)) for c in cs)] for luma, *cs in frames
        ]
    else:
        other = scene(6, 32, 48, bits=10)
    one = write(tmp_path / "one", Kind(".ts"), frames)
    two = write(tmp_path / "two", Kind(".ts", pixels=pixels), other)
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    restore(both, tmp_path / "out.mp4")
    after = read(tmp_path / "out.mp4")
    for before, planes in zip([*frames, *frames], after.frames, strict=True):
        for a, b in zip(before, planes, strict=True):
            assert np.abs(a.astype(int) - b).mean() < 2


def test_a_damaged_clock_is_not_taken_for_a_gap(tmp_path: Path) -> None:
    """From the fourth frame on it is 25 days ahead, which MP4 cannot hold between two frames."""
    times = [0, 40, 80, *(2**31 + time for time in (120, 160, 200, 240))]
    source = write(tmp_path / "a", LOSSLESS, scene(7, 32, 48))
    with av.open(str(source)) as old, av.open(str(tmp_path / "b.nut"), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(video=0) if packet.size]
        for packet, time in zip(packets, times, strict=True):
            packet.pts = packet.dts = time
            packet.time_base, packet.stream = Fraction(1, 1000), stream
            new.mux(packet)
    restore(tmp_path / "b.nut", tmp_path / "out.mp4")
    after = read(tmp_path / "out.mp4")
    assert len(after.times) == 7 and after.seconds < 1


def test_a_change_of_size_is_a_sentence(tmp_path: Path) -> None:
    one = write(tmp_path / "one", Kind(".ts"), scene(4))
    two = write(tmp_path / "two", Kind(".ts"), scene(4, 64, 64))
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    (problem,) = restore(both, tmp_path / "out.mp4")
    assert "changes its size in frame 5 from 128 x 96 to 64 x 64" in problem
    assert not (tmp_path / "out.mp4").exists()


def test_an_unknown_matrix_is_a_sentence(tmp_path: Path) -> None:
    source = write(tmp_path / "a", Kind(".mp4"), scene(2), tags=(1, 8, 1, 1))
    with pytest.raises(UserError, match=r"matrix 8 of ITU-T H\.273"):
        VideoReader(source)


def test_all_sounds_are_kept_and_lost_subtitles_reported(tmp_path: Path) -> None:
    frames = scene(3, 32, 48)
    film = write(tmp_path / "a", Kind(".mkv", sound="aac"), frames)
    dub = write(tmp_path / "b", Kind(".mkv", sound="pcm_u8"), frames)
    words = tmp_path / "words.srt"
    words.write_text("1\n00:00:00,000 --> 00:00:00,100\nRain\n")
    source = merged(tmp_path / "all.mkv", film, dub, words)
    notes = " ".join(restore(source, tmp_path / "out.mp4"))
    assert (
        "not kept: video (h264), subtitle (srt)" in notes
        and "cannot hold pcm_u8; that sound" in notes
    )
    assert read(tmp_path / "out.mp4").codecs == ["h264", "aac", "aac"]
    with av.open(str(tmp_path / "out.mp4")) as container:
        languages = [stream.metadata.get("language") for stream in container.streams.audio]
        assert languages == ["und", "nor"]


def test_a_cover_is_not_taken_for_the_film(tmp_path: Path) -> None:
    source = write(tmp_path / "a", Kind(".mp4"), scene(4, 32, 48))
    film = with_cover_before_it(source)
    with av.open(str(film)) as container:
        assert container.streams[0].codec_context.name == "mjpeg"
    assert "not kept: video (mjpeg)" in " ".join(restore(film, tmp_path / "out.mp4"))
    after = read(tmp_path / "out.mp4")
    assert len(after.frames) == 4 and after.frames[0][0].shape == (32, 48)


def test_titles_in_other_encodings_and_time_codes_do_no_harm(tmp_path: Path) -> None:
    kind = Kind(".mkv", sound="aac")
    metadata = {"title": "Rain xxx", "timecode": "01:00:00:00"}
    source = write(tmp_path / "a", kind, scene(3, 32, 48), metadata=metadata)
    latin = source.read_bytes().replace(b"xxx", "äöü".encode("latin-1"))
    source.write_bytes(latin)
    assert "not kept: the tag TIMECODE" in " ".join(restore(source, tmp_path / "out.mp4"))
    assert read(tmp_path / "out.mp4").codecs == ["h264", "aac"]
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.metadata["title"].startswith("Rain ")


def test_the_rate_of_a_clock_is_not_taken_for_the_frame_rate(tmp_path: Path) -> None:
    """As DV files tell it: 60,000 frames a second."""
    frames = [[np.full((576, 720), 99, np.uint8), *[np.full((288, 360), 128, np.uint8)] * 2]] * 3
    source = write(tmp_path / "a", Kind(".dv", "dvvideo", options=()), frames)
    with VideoReader(source) as reader:
        assert reader.picture.rate == 25 and reader.num_frames == 3
    restore(source, tmp_path / "out.mp4")
    assert read(tmp_path / "out.mp4").times == [Fraction(i, 25) for i in range(3)]


def test_the_surplus_frame_that_avi_announces_is_not_missed(tmp_path: Path) -> None:
    """FFmpeg writes one more than there are beside AAC."""
    source = write(tmp_path / "a", Kind(".avi", "mpeg4", sound="aac", options=FINE), scene(10))
    assert restore(source, tmp_path / "out.mp4") == []
    assert len(read(tmp_path / "out.mp4").frames) == 10


def test_interlaced_frames_are_reported(tmp_path: Path) -> None:
    options = (*FINE, ("flags", "+ilme+ildct"))
    source = write(tmp_path / "a", Kind(".mpg", "mpeg2video", options=options), scene(3, 32, 48))
    assert "is interlaced" in " ".join(restore(source, tmp_path / "out.mp4"))
    assert len(read(tmp_path / "out.mp4").frames) == 3


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
def test_a_single_frame(suffix: str, tmp_path: Path) -> None:
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    options = FINE if suffix == ".avi" else (("qp", "0"),)
    source = write(tmp_path / "a", Kind(suffix, codec, options=options), scene(1, 32, 48))
    assert restore(source, tmp_path / "out.mp4") == []
    after = read(tmp_path / "out.mp4")
    assert after.times == [0] and after.seconds == pytest.approx(0.04)


def test_no_frame_is_a_sentence(tmp_path: Path) -> None:
    source = write(tmp_path / "a", Kind(".mp4", sound="aac"), scene(2, 32, 48))
    with av.open(str(source)) as old, av.open(str(tmp_path / "b.mkv"), "w") as new:
        for stream in old.streams:
            new.add_stream_from_template(stream)
        new.start_encoding()
    with pytest.raises(UserError, match=r"b\.mkv is not a readable video"):
        VideoReader(tmp_path / "b.mkv")


NOISE = np.random.default_rng(0).integers(0, 256, 500).astype(np.uint8).tobytes()


def test_a_damaged_sound_does_not_cost_the_pictures(tmp_path: Path) -> None:
    """Noise instead of sound: all of it, a part of it; and a track that holds nothing."""
    source = write(tmp_path / "a", Kind(".nut", sound="wavpack"), scene(4, 32, 48))
    num_parts = len(read(source).sound)
    half = [None] * (num_parts // 2)
    for sound, note, codecs in (
        ([NOISE] * num_parts, "not kept: audio (wavpack, unreadable or empty)", ["h264"]),
        ([], "not kept: audio (wavpack, unreadable or empty)", ["h264"]),
        ([*half, NOISE, NOISE, *half], "2 damaged parts of the sound", ["h264", "aac"]),
    ):
        damaged = with_damaged_sound(source, tmp_path / "b.nut", sound)
        assert note in " ".join(restore(damaged, tmp_path / "out.mp4"))
        after = read(tmp_path / "out.mp4")
        assert len(after.frames) == 4 and after.codecs == codecs


def test_sound_that_cannot_be_copied_becomes_aac(tmp_path: Path) -> None:
    """MP4 knows AAC, but a packet without the header of a .ts file stops FFmpeg's copy."""
    source = write(tmp_path / "a", Kind(".ts", sound="aac"), scene(4, 32, 48))
    packets = read(source).sound
    sound = [*packets[:10], packets[10][:7] + NOISE, *packets[11:]]
    with_damaged_sound(source, tmp_path / "b.ts", sound)
    notes = " ".join(restore(tmp_path / "b.ts", tmp_path / "out.mp4"))
    assert "cannot copy aac; that sound becomes AAC" in notes
    after = read(tmp_path / "out.mp4")
    assert len(after.frames) == 4 and after.codecs == ["h264", "aac"]
    assert after.seconds == pytest.approx(1.02, abs=0.06)


@pytest.mark.parametrize("rate", [5500, 192_000])
def test_sound_of_a_rate_that_aac_does_not_know(rate: int, tmp_path: Path) -> None:
    kind = Kind(".avi", "mpeg4", sound="pcm_u8")
    source = write(tmp_path / "a", kind, scene(4, 32, 48), sound_rate=rate)
    restore(source, tmp_path / "out.mp4")
    after = read(tmp_path / "out.mp4")
    assert after.codecs == ["h264", "aac"]
    assert after.seconds == pytest.approx(1, abs=0.2)  # in packets of 1024 samples


@pytest.mark.parametrize(
    ("times", "wanted"),
    [
        ([5, 5, 6, 8], [5, 6, 7, 8]),  # sounds of less than a unit, which drift nowhere
        ([100, 120, 140, 10, 30], [100, 120, 140, 160, 180]),  # a clock set back
        ([0, 20, 10**9, 10**9 + 20], [0, 20, 40, 60]),  # and one damaged
        ([0, 20, 3_600_000], [0, 20, 3_600_000]),  # a break
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


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le"])
def test_channels_whose_positions_the_file_does_not_state(codec: str, tmp_path: Path) -> None:
    kind = Kind(".mkv", sound=codec)
    source = write(tmp_path / "a", kind, scene(4, 32, 48), sound_layout=("5.1", 6))
    restore(source, tmp_path / "out.mp4")
    for path in (source, tmp_path / "out.mp4"):
        with av.open(str(path)) as container:
            assert container.streams.audio[0].channels == 6
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.audio[0].layout.name == "5.1"
        sound = np.concatenate([f.to_ndarray().ravel() for f in container.decode(audio=0)])
    assert np.abs(sound).max() > 0


def test_sound_that_mp4_cannot_hold_becomes_aac(tmp_path: Path) -> None:
    source = write(tmp_path / "a", Kind(".mkv", sound="pcm_u8"), scene(12))
    assert "MP4 cannot hold pcm_u8" in " ".join(restore(source, tmp_path / "out.mp4"))
    after = read(tmp_path / "out.mp4")
    assert after.codecs == ["h264", "aac"]
    assert after.seconds == pytest.approx(1.02, abs=0.06)


def test_sound_becomes_aac_at_the_next_rate_that_aac_has(tmp_path: Path) -> None:
    """30 kHz lies between 24 and 32 kHz; the lower one would lose the highest tones."""
    kind = Kind(".mkv", sound="pcm_u8")
    source = write(tmp_path / "a", kind, scene(2, 32, 48), sound_rate=30_000)
    restore(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.audio[0].rate == 32_000


def test_hevc_has_the_name_by_which_apples_players_know_it(tmp_path: Path) -> None:
    source = write(tmp_path / "a", Kind(".mkv"), scene(2, 64, 64))
    restore(source, tmp_path / "out.mp4", "hevc")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hvc1"
    assert len(read(tmp_path / "out.mp4").frames) == 2


CHAPTERS = [("Drizzle", 0, 400), ("Wolkenbruch \u2602", 400, 960)]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_chapters_are_kept(suffix: str, tmp_path: Path) -> None:
    plain = write(tmp_path / "a", Kind(".mkv", sound="aac"), scene(24, 32, 48))
    source = with_chapters(plain, tmp_path / f"chapters{suffix}", CHAPTERS)
    # MP4 stores chapters in a track of their own, which is not reported as lost.
    assert restore(source, tmp_path / "out.mp4") == []
    with av.open(str(tmp_path / "out.mp4")) as container:
        chapters = [
            (c["metadata"]["title"], *(round(c[end] * c["time_base"] * 1000) for end in ENDS))
            for c in container.chapters()
        ]
    assert chapters == CHAPTERS


ENDS = ("start", "end")
# Three of four luminances and chromaticities are no multiple of another.
DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_the_mastering_display_and_light_level_are_kept(codec: str, tmp_path: Path) -> None:
    options = (("x265-params", f"log-level=none:master-display={DISPLAY}:max-cll=1000,400"),)
    kind = Kind(".mp4", "libx265", pixels="yuv420p10le", options=options)
    source = write(tmp_path / "a", kind, scene(3, bits=10), tags=(1, 9, 9, 16))
    (note,) = restore(source, tmp_path / "out.mp4", codec)
    assert "stores its colours as" in note
    with av.open(str(tmp_path / "out.mp4")) as container:
        data = next(container.decode(video=0)).side_data
        numbers = struct.unpack("=22i", bytes(cast(Any, data["MASTERING_DISPLAY_METADATA"])))
        assert bytes(cast(Any, data["CONTENT_LIGHT_LEVEL"])) == struct.pack("=2I", 1000, 400)
    values = [part / whole for part, whole in zip(numbers[:20:2], numbers[1:20:2], strict=True)]
    # Red, green, blue and white of P3 with D65, then the luminances, as in ST 2086.
    expected = [0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.329, 0.005, 1000]
    assert values == pytest.approx(expected)


def test_tags_of_phones_are_kept(tmp_path: Path) -> None:
    """QuickTime's, in which iPhones and Android phones store the place and the camera."""
    tags = {
        "com.apple.quicktime.make": "Apple",
        "com.apple.quicktime.model": "iPhone 15 Pro",
        "com.apple.quicktime.location.ISO6709": "+48.1351+011.5820+519.000/",
        "com.android.version": "14",
        "title": "Rain",
    }
    container = (("movflags", "use_metadata_tags"),)
    source = write(
        tmp_path / "a", Kind(".mov", container=container), scene(2, 32, 48), metadata=tags
    )
    assert restore(source, tmp_path / "out.mp4") == []
    with av.open(str(tmp_path / "out.mp4")) as result:
        assert {name: result.metadata.get(name) for name in tags} == tags


def test_tags_that_mp4_cannot_hold_are_reported(tmp_path: Path) -> None:
    tags = {
        "title": "Rain",
        "artist": "A. Cloud",
        "location": "+48.1351+011.5820/",
        "umbrella": "black",
    }
    source = write(tmp_path / "a", Kind(".mkv"), scene(2, 32, 48), metadata=tags)
    (note,) = restore(source, tmp_path / "out.mp4")
    assert note == f"{source}: not kept: the tag UMBRELLA."
    with av.open(str(tmp_path / "out.mp4")) as result:
        assert result.metadata["title"] == "Rain" and result.metadata["artist"] == "A. Cloud"
        assert result.metadata["location"] == "+48.1351+011.5820/"


def test_what_frames_carry_and_the_result_does_not_is_reported(tmp_path: Path) -> None:
    """A stereoscopic video, by x264's own tag."""
    options = (("qp", "0"), ("x264-params", "frame-packing=3"))
    source = write(tmp_path / "a", Kind(".mp4", options=options), scene(2, 32, 48))
    (note,) = restore(source, tmp_path / "out.mp4")
    assert note == f"{source}: not kept: the arrangement of the stereoscopic views."


class Darker(DerainingNetwork):
    """Its result is half its input, as its only weight says; it is interrupted once."""

    def __init__(self, frames_before_interrupt: int = -1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5), requires_grad=False)
        self.num_left, self.num_frames = frames_before_interrupt, 0

    def forward(self, rainy: Tensor) -> tuple[Tensor, ...]:
        if self.num_left == 0:
            raise KeyboardInterrupt
        self.num_left -= 1
        self.num_frames += 1
        return (self.weight * rainy,)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"strength": 0.75}, "strength: 1.0, now 0.75"),
        ({"weight": 0.25}, "(network)"),
        ({"crf": 14}, "crf: 12, now 14"),
        ({"codec": "hevc"}, "codec: h264, now hevc"),
        ({"temporal": True}, "temporal: False, now True"),
        ({"tile": 64}, "tile: 96x128, now 64x64"),
        ({"source": 7}, "(input)"),
        ({"memory": 2**31}, None),  # the same tile, hence the same pixels
        ({"notify": "another"}, None),
    ],
    ids=lambda value: next(iter(value), None) if isinstance(value, dict) else "",
)
def test_finished_frames_are_used_only_where_the_pixels_are_the_same(
    change: dict[str, Any], named: str | None, tmp_path: Path
) -> None:
    source = write(tmp_path / "a", Kind(".mkv"), scene(6, 96, 128))
    target, notes = tmp_path / "out.mp4", []

    def run(network: Darker, options: VideoOptions, **changed: Any) -> int:
        restorer = Restorer(network, **{"notify": notes.append, **changed})
        assert restore_video(source, target, restorer, options, notes.append) == []
        return network.num_frames

    with pytest.raises(KeyboardInterrupt):
        run(Darker(frames_before_interrupt=4), VideoOptions())
    assert "finished frames are kept" in notes.pop() and not target.exists()
    changed = dict(change)
    if changed.pop("source", None):
        os.utime(source, (7, 7))
    if changed.pop("notify", None):
        changed["notify"] = lambda sentence: None
    network = Darker()
    network.weight *= changed.pop("weight", 0.5) / 0.5
    of_video = {name: changed.pop(name) for name in list(changed) if name in vars(VideoOptions())}
    num_restored = run(network, VideoOptions(**of_video), **changed)
    if named:
        assert named in notes[0] and "removing 4 frames" in notes[0]
        assert num_restored >= 6
    else:
        assert notes == [f"{target}: continuing after 4 frames of an earlier run."]
        assert num_restored == 2
    assert len(read(target).frames) == 6
