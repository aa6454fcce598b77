"""Broken, truncated and damaged files: which frames are read, and what is reported."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest

from tests.utils.inference.video.videos import (
    FINE,
    Kind,
    read,
    restored,
    scene,
    write,
)
from utils.errors import UserError
from utils.inference.video.reader import VideoReader


def test_unusable_files_are_refused_in_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 1000)
    (tmp_path / "empty.mp4").write_bytes(b"")
    source = write(tmp_path / "whole", Kind(".mp4", sound="aac"), scene(5))
    whole = source.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # the index at the end is missing
    with av.open(str(source)) as old, av.open(str(tmp_path / "frameless.mkv"), "w") as new:
        for stream in old.streams:
            new.add_stream_from_template(stream)
        new.start_encoding()
    for name in ("broken.mp4", "empty.mp4", "cut.mp4", "frameless.mkv"):
        with pytest.raises(UserError, match=rf"{name} is not a readable video"):
            VideoReader(tmp_path / name)
    with pytest.raises(UserError, match=r"Cannot read .*absent\.mp4: No such file"):
        VideoReader(tmp_path / "absent.mp4")
    matrix = write(tmp_path / "a", Kind(".mp4"), scene(2), tags=(1, 8, 1, 1))
    with pytest.raises(UserError, match=r"matrix 8 of ITU-T H\.273"):
        VideoReader(matrix)
    assert capfd.readouterr().err == ""


INDEX_FIRST = (("movflags", "+faststart"),)
CUT = {
    "matroska": Kind(".mkv", sound="aac"),
    "matroska_frames": Kind(".mkv"),
    "webm": Kind(".webm", "libvpx-vp9", options=(("lossless", "1"), ("cpu-used", "8"))),
    "flash": Kind(".flv", "flv", options=FINE),
    "transport": Kind(".ts"),
    "mp4": Kind(".mp4", sound="aac", container=INDEX_FIRST),
    "mp4_frames": Kind(".mp4", container=INDEX_FIRST),
    "avi": Kind(".avi", "mpeg4", options=FINE),
}


@pytest.mark.parametrize("name", CUT)
def test_a_truncated_file_gives_its_frames_and_one_sentence(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "a", CUT[name], scene(20, 48, 64))
    whole = read(source)
    assert restored(source, target=tmp_path / "out" / "whole.mp4").notes == []
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 3 // 5 - 1])
    done = restored(source, target=tmp_path / "out" / "cut.mp4")
    (sentence,) = done.notes
    num_frames = len(done.after.frames)
    assert 5 < num_frames < 17
    assert "ends early, after 0." in sentence or f"{num_frames} of 20 frames" in sentence
    assert f"{num_frames} " in sentence
    for before, planes in zip(whole.frames[:5], done.after.frames, strict=False):
        assert np.abs(planes[0].astype(int) - before[0]).mean() < 2
    assert sorted(os.listdir(tmp_path / "out")) == ["cut.mp4", "whole.mp4"]
    lines = capfd.readouterr().err.splitlines()
    assert [line for line in lines if line and "frame/s" not in line] == []  # except the bar


def test_a_trimmed_file_is_not_reported_as_truncated(tmp_path: Path) -> None:
    """An edit list, as written by phones, hides three of six frames."""
    source = write(tmp_path / "a", Kind(".mp4"), scene(6, 32, 48), [-3, -2, -1, 0, 1, 2])
    done = restored(source)
    assert len(done.before.frames) == len(done.after.frames) == 3
    assert done.notes == []


def test_the_extra_frame_that_avi_announces_is_not_reported_as_missing(tmp_path: Path) -> None:
    """FFmpeg announces one frame too many for AVI files with AAC."""
    kind = Kind(".avi", "mpeg4", sound="aac", options=FINE)
    done = restored(write(tmp_path / "a", kind, scene(10)))
    assert done.notes == [] and len(done.after.frames) == 10


@pytest.mark.parametrize(
    ("kind", "length", "sentence_part"),
    [
        (Kind(".mpg", "mpeg2video", options=FINE), 40, "is damaged in one place"),
        (Kind(".webm", "libvpx-vp9", options=(("crf", "20"), ("b", "0"))), 10**6, "ends early"),
    ],
    ids=[".mpg", ".webm"],
)
def test_damage_in_the_middle_is_reported(
    kind: Kind, length: int, sentence_part: str, tmp_path: Path
) -> None:
    """Either a few bytes are damaged or everything from the middle on."""
    rng = np.random.default_rng(1)
    frames = scene(20)
    for luma, *_ in frames:  # detail makes the file large compared to its index
        luma[:] = rng.integers(60, 200, luma.shape)
    source = write(tmp_path / "a", kind, frames)
    damaged = np.frombuffer(source.read_bytes(), np.uint8).copy()
    part = damaged[len(damaged) // 2 :][:length]
    part[:] = rng.integers(0, 256, len(part))
    source.write_bytes(damaged.tobytes())
    done = restored(source)
    (sentence,) = done.notes
    assert sentence_part in sentence
    assert len(done.after.frames) >= 8
