"""Videos restored by an identity network keep their frames, times and colours."""

from __future__ import annotations

import os
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.network import DerainingNetwork
from tests.utils.inference.video.videos import (
    FINE,
    LOSSLESS,
    Kind,
    Restored,
    assert_alike,
    read,
    restored,
    scene,
    with_later_clock,
    write,
)
from utils.inference.restorer import Restorer
from utils.inference.video import VideoOptions, is_video, joining
from utils.inference.video.reader import VideoReader
from utils.inference.video.restoring import restore_video


def error_of(done: Restored) -> np.ndarray:
    """RGB differences in gray levels, by BT.601's formula with every chroma sample repeated."""

    def rgb(planes: list[np.ndarray]) -> np.ndarray:
        luma, blue, red = (plane.astype(float) for plane in planes)
        for axis in (0, 1):
            if blue.shape[axis] < luma.shape[axis]:
                blue, red = (np.repeat(plane, 2, axis) for plane in (blue, red))
        luma, blue, red = (luma - 16) * 255 / 219, blue - 128, red - 128
        blue, red = blue * 255 / 224, red * 255 / 224
        green = luma - 0.344136 * blue - 0.714136 * red
        return np.stack([luma + 1.402 * red, green, luma + 1.772 * blue])

    pairs = zip(done.before.frames, done.after.frames, strict=True)
    error = np.stack([rgb(one) - rgb(other) for one, other in pairs])
    assert 10 * np.log10(255**2 / (error**2).mean()) > 41
    return error


VP9 = (("crf", "20"), ("b", "0"), ("cpu-used", "8"))
KINDS = {
    "h264": Kind(".mp4", sound="aac"),
    "quicktime": Kind(".mov", sound="pcm_s16le"),
    "matroska": Kind(".mkv", sound="libopus"),
    "webm": Kind(".webm", "libvpx-vp9", sound="libopus", options=VP9),
    "transport": Kind(".ts", sound="aac"),
    "mpeg": Kind(".mpg", "mpeg2video", sound="mp2", options=FINE),
    "flash": Kind(".flv", "flv", options=FINE),
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
    done = restored(write(tmp_path / "rain", kind, frames))
    before, after = done.before, done.after
    assert is_video(done.source) and after.codecs[0] == "h264"
    assert np.abs(error_of(done).mean(axis=(0, 2, 3))).max() < 0.5

    first = before.times[0], after.times[0]
    for one, other in zip(before.times, after.times, strict=True):
        assert other - first[1] == pytest.approx(one - first[0], abs=1e-9)
    # The duration of an AVI file is that of its pictures.
    seconds = 1.0 if kind.suffix == ".avi" and kind.sound else before.seconds
    assert after.seconds == pytest.approx(seconds, abs=0.05)

    assert [len(part) for part in before.sound] == [len(part) for part in after.sound] or (
        kind.suffix == ".ts"  # MP4 stores AAC without a transport stream's headers
    )
    if kind.sound:
        assert len(after.sound) == len(before.sound)
        assert before.sound[3][-50:] == after.sound[3][-50:]
        gap = before.sound_times[0] - before.times[0]
        assert after.sound_times[0] - after.times[0] == pytest.approx(gap, abs=0.002)


UNEVEN = [0, 40, 80, 200, 233, 400, 401, 1000, 1040, 2500]


@pytest.mark.parametrize(
    ("times", "piece", "seconds"),
    [
        (UNEVEN, 96, 2.54),
        (UNEVEN, 4, 2.54),
        # The last frames are far apart, and the last one shown is not the last one decoded.
        ([0, 40, 80, 120, 10_000, 3_600_000], 96, 3600.04),
    ],
    ids=["one_piece", "three_pieces", "an_hour"],
)
def test_every_frame_keeps_its_own_time(
    times: list[int], piece: int, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A last frame that is shown for a long time does not count as an early end."""
    monkeypatch.setattr("utils.inference.video.unfinished.PIECE", piece)
    source = write(tmp_path / "a", Kind(".mkv"), scene(len(times)), times, Fraction(1, 1000))
    done = restored(source)
    assert done.notes == []
    assert done.after.times == [Fraction(time, 1000) for time in times]
    assert done.after.seconds == pytest.approx(seconds, abs=0.001)
    error_of(done)


def test_a_last_frame_of_no_duration_is_kept(tmp_path: Path) -> None:
    """MP4 states its length in milliseconds."""
    base = Fraction(1, 90_000)
    source = write(tmp_path / "a", Kind(".mp4"), scene(4, 32, 48), [0, 1, 2, 3], base)
    with VideoReader(source) as reader:
        num_frames = len(list(reader.frames()))
    assert len(restored(source).after.frames) == num_frames


def test_times_that_b_frames_swap_are_put_in_order(tmp_path: Path) -> None:
    """AVI stores no times: the decoder guesses those of neighbouring frames."""
    options = (("crf", "10"), ("bf", "3"), ("b_strategy", "0"))
    frames = scene(8, 32, 48)
    done = restored(write(tmp_path / "a", Kind(".avi", options=options, sound="pcm_s16le"), frames))
    guessed = done.before.times
    assert guessed != sorted(guessed) == done.after.times
    assert_alike(frames, done.after.frames)


@pytest.mark.parametrize("kind", [KINDS["transport"], KINDS["mpeg"]], ids=lambda kind: kind.suffix)
def test_joined_recordings_keep_their_whole_duration(kind: Kind, tmp_path: Path) -> None:
    """The clocks of the pictures and of the sound start again in the middle."""
    source = write(tmp_path / "a", kind, scene(25, 32, 48))
    once = read(source)
    source.write_bytes(source.read_bytes() * 2)
    done = restored(source)
    assert done.notes == []
    steps = np.diff([float(time) for time in done.after.times])
    np.testing.assert_allclose(steps, [0.04] * 49, atol=0.001)
    assert done.after.seconds == pytest.approx(2, abs=0.1)
    assert len(done.after.sound) >= 2 * len(once.sound) - 1
    gaps = np.diff([float(time) for time in done.after.sound_times])
    assert gaps.min() > 0 and gaps.max() < 0.05


@pytest.mark.parametrize("seconds", [0.5, 40.0])  # until the clock wraps
def test_a_transport_stream_whose_clock_wraps_keeps_all_frames(
    seconds: float, tmp_path: Path
) -> None:
    """Its clock has 33 bits at 90 kHz and restarts every 26.5 hours."""
    plain = write(tmp_path / "plain", Kind(".ts", sound="aac"), scene(25, 32, 48))
    source = tmp_path / "wraps.ts"
    begin = int(read(plain).times[0] * 90_000)
    source.write_bytes(with_later_clock(plain.read_bytes(), 2**33 - begin - int(seconds * 90_000)))
    expected = restored(plain, target=tmp_path / "plain.mp4")
    done = restored(source)
    assert expected.notes == done.notes == []
    assert len(done.after.frames) == 25
    assert done.after.times == expected.after.times
    assert done.after.sound_times == expected.after.sound_times


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
    after = restored(tmp_path / "b.nut").after
    assert len(after.times) == 7 and after.seconds < 1


def test_the_rate_of_a_clock_is_not_taken_for_the_frame_rate(tmp_path: Path) -> None:
    """DV files state 60,000 frames per second."""
    frames = [[np.full((576, 720), 99, np.uint8), *[np.full((288, 360), 128, np.uint8)] * 2]] * 3
    source = write(tmp_path / "a", Kind(".dv", "dvvideo", options=()), frames)
    with VideoReader(source) as reader:
        assert reader.picture.rate == 25 and reader.num_frames == 3
    assert restored(source).after.times == [Fraction(i, 25) for i in range(3)]


def test_frames_that_the_result_does_not_show_are_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times before 0, as a bug in the clocks could produce; MP4 hides such frames."""
    real = joining.join

    def join_early(path: Path, pieces: list[Path], times: list[int], *others: Any) -> list[str]:
        return real(path, pieces, [time - times[3] for time in times], *others)

    monkeypatch.setattr("utils.inference.video.unfinished.join", join_early)
    done = restored(write(tmp_path / "a", Kind(".mp4"), scene(8, 32, 48)))
    (problem,) = done.notes
    assert "out.mp4 shows 5 of the 8 frames" in problem
    assert len(done.after.frames) == 5


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("kind", "tagged"), [(Kind(".mp4"), False), (Kind(".mp4"), True), (LOSSLESS, True)]
)
def test_grays_keep_their_levels(full: bool, kind: Kind, tagged: bool, tmp_path: Path) -> None:
    """A ramp of all grays, one level every four columns: no shift, no tint."""
    levels = np.arange(256) if full else np.arange(16, 236)
    luma = np.repeat(levels, 4)[None].repeat(32, 0).astype(np.uint8)
    colours = np.full((16, luma.shape[1] // 2), 128, np.uint8)
    matrix = 1 if tagged else 2
    tags = (2 if full else 1, matrix, matrix, matrix)
    after = restored(write(tmp_path / "a", kind, [[luma, colours, colours]] * 4, tags=tags)).after
    error = np.stack([planes[0] for planes in after.frames]).astype(float) - luma
    assert np.abs(error.reshape(4, 32, -1, 4).mean(axis=(0, 1, 3))).max() < 0.5  # for each gray
    for planes in after.frames:
        assert (planes[1] == 128).all() and (planes[2] == 128).all()
    assert after.tags[1:] == tags[1:]
    assert (after.tags[0] == 2) == full


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_the_colour_tags_are_those_of_the_source(codec: str, tmp_path: Path) -> None:
    """BT.2020 with HLG in 10 bits, as phones record."""
    kind = Kind(".mp4", pixels="yuv420p10le")
    done = restored(write(tmp_path / "a", kind, scene(4, bits=10), tags=(1, 9, 9, 18)), codec)
    assert "stores its colours as yuv420p10le" in " ".join(done.notes)
    assert done.after.codecs == [codec] and done.after.tags == (1, 9, 9, 18)
    assert_alike(done.before.frames, done.after.frames, limit=4)  # of 1023


WRITES_TURNS = pytest.mark.skipif(
    not hasattr(av.VideoStream, "set_display_rotation"), reason="PyAV 18 writes turned videos"
)


@WRITES_TURNS
@pytest.mark.parametrize(("turn", "matrix"), [(None, 2), ({"degrees": 90}, 5)])
def test_a_guessed_matrix_is_stated_if_players_would_guess_another(
    turn: dict[str, Any] | None, matrix: int, tmp_path: Path
) -> None:
    """Players take 720 x 32 for BT.601 and 32 x 720 for BT.709 if the file does not state it."""
    done = restored(write(tmp_path / "a", Kind(".mp4"), scene(2, 32, 720), turn=turn))
    assert done.after.tags[1] == matrix
    turned = [[np.rot90(p) if turn else p for p in planes] for planes in done.before.frames]
    assert_alike(turned, done.after.frames)


def test_ycbcr_labelled_as_rgb_is_relabelled(tmp_path: Path) -> None:
    done = restored(write(tmp_path / "a", LOSSLESS, scene(2, 32, 48), tags=(1, 0, 2, 2)))
    assert (done.before.tags[1], done.after.tags[1]) == (0, 5)


@WRITES_TURNS
@pytest.mark.parametrize(
    ("turn", "is_low", "is_right"),
    [
        ({"degrees": 0}, False, False),
        ({"degrees": 90}, True, False),  # FFmpeg turns counterclockwise
        ({"degrees": 180}, True, True),
        ({"degrees": 270}, False, True),
        ({"degrees": 0, "hflip": True}, False, True),
    ],
)
def test_pixel_aspect_and_turns(
    turn: dict[str, Any], is_low: bool, is_right: bool, tmp_path: Path
) -> None:
    """A picture whose corner shows how it is turned; 4:3 pixels become 3:4 when it is upright."""
    frames, aspect = scene(3), Fraction(4, 3)
    for planes in frames:
        planes[0][:32, :32] = 235
    after = restored(write(tmp_path / "a", Kind(".mp4"), frames, aspect=aspect, turn=turn)).after
    luma, is_on_its_side = after.frames[0][0], turn["degrees"] in (90, 270)
    assert luma.shape == ((128, 96) if is_on_its_side else (96, 128))
    assert after.aspect == (1 / aspect if is_on_its_side else aspect)
    corner = luma[-32:] if is_low else luma[:32]
    corner = corner[:, -32:] if is_right else corner[:, :32]
    assert corner.mean() > 200


def test_odd_heights_and_widths_are_kept(tmp_path: Path) -> None:
    frames = [[luma[:95, :127], blue, red] for luma, blue, red in scene(3)]
    done = restored(write(tmp_path / "a", LOSSLESS, frames))
    assert "yuv444p" in done.notes[0]
    assert done.after.frames[0][0].shape == (95, 127)
    assert_alike([planes[:1] for planes in frames], [planes[:1] for planes in done.after.frames])


@pytest.mark.parametrize("pixels", ["rgb24", "bgr0", "gray", "nv12", "yuyv422", "gbrp"])
def test_other_pixel_formats(pixels: str, tmp_path: Path) -> None:
    """Uncompressed frames of a few colours are read with the right colours."""
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


@pytest.mark.parametrize("pixels", ["yuv444p", "yuv420p10le"])
def test_the_pixel_format_may_change_within_a_video(pixels: str, tmp_path: Path) -> None:
    """The second half of a film is the same scene in another format."""
    frames = scene(6, 32, 48)
    other = scene(6, 32, 48, bits=10)
    if pixels == "yuv444p":
        double = np.ones((2, 2), np.uint8)
        other = [[luma, *(np.kron(c, double) for c in colours)] for luma, *colours in frames]
    one = write(tmp_path / "one", Kind(".ts"), frames)
    two = write(tmp_path / "two", Kind(".ts", pixels=pixels), other)
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    assert_alike([*frames, *frames], restored(both).after.frames)


def test_a_change_of_size_is_reported_in_one_sentence(tmp_path: Path) -> None:
    one = write(tmp_path / "one", Kind(".ts"), scene(4))
    two = write(tmp_path / "two", Kind(".ts"), scene(4, 64, 64))
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    done = restored(both)
    (problem,) = done.notes
    assert "changes its size in frame 5 from 128 x 96 to 64 x 64" in problem
    assert not done.target.exists()


@pytest.mark.parametrize(
    "name", ["12:30", "http:a", "a b%d %03d", "-dash", "été ☔", "q'?#*", os.fsdecode(b"\xff")]
)
def test_unusual_file_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the current folder, so a path before the name cannot hide a mistake."""
    monkeypatch.chdir(tmp_path)
    plain = write(tmp_path / "plain", Kind(".mkv", sound="aac"), scene(3, 32, 48))
    try:
        shutil.copy(plain, f"{name}.mkv")
    except OSError as error:  # macOS accepts only names in UTF-8
        pytest.skip(str(error))
    restored(Path(f"{name}.mkv"), target=Path(f"{name}.mp4"))
    shutil.move(f"{name}.mp4", "out.mp4")
    after = read(tmp_path / "out.mp4")
    assert len(after.frames) == 3 and after.codecs == ["h264", "aac"]
    assert sorted(os.listdir()) == sorted([f"{name}.mkv", "out.mp4", "plain.mkv"])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
def test_a_single_frame(suffix: str, tmp_path: Path) -> None:
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    options = FINE if suffix == ".avi" else (("qp", "0"),)
    done = restored(write(tmp_path / "a", Kind(suffix, codec, options=options), scene(1, 32, 48)))
    assert done.notes == []
    assert done.after.times == [0] and done.after.seconds == pytest.approx(0.04)


def test_hevc_has_the_tag_that_apples_players_need(tmp_path: Path) -> None:
    done = restored(write(tmp_path / "a", Kind(".mkv"), scene(2, 64, 64)), "hevc")
    with av.open(str(done.target)) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hvc1"
    assert len(done.after.frames) == 2


class Darker(DerainingNetwork):
    """Multiplies its input by its only weight, 0.5; it is interrupted once."""

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
