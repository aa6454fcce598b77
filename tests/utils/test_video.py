"""Videos: frames in, frames out, nothing half-written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from utils import video
from utils.errors import UserError


def frames(count: int) -> list[np.ndarray]:
    """Plain colours, different in every channel and frame."""
    return [np.full((48, 64, 3), (200, 100, 10 + 20 * i), np.uint8) for i in range(count)]


def test_frames_come_back_in_order_and_colour(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    video.write_video(path, 12.5, lambda append: [append(frame) for frame in frames(6)])
    assert video.read_facts(path) == video.VideoFacts(12.5, 6)
    read = list(video.read_frames(path))
    assert len(read) == 6
    for frame, expected in zip(read, frames(6), strict=True):
        assert np.abs(frame.astype(int) - expected).max() < 12  # the codec's loss


def test_an_interrupted_video_leaves_nothing(tmp_path: Path) -> None:
    def fill(append: video.Append) -> None:
        append(frames(1)[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        video.write_video(tmp_path / "a.mp4", 25, fill)
    assert not list(tmp_path.iterdir())


def test_unusable_videos_are_sentences(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    for read in (video.read_facts, lambda path: list(video.read_frames(path))):
        with pytest.raises(UserError, match=r"broken\.mp4 is not a readable video"):
            read(tmp_path / "broken.mp4")
    with pytest.raises(UserError, match="no frame"):
        video.write_video(tmp_path / "empty.mp4", 25, lambda append: None)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.mp4"]
    assert capfd.readouterr().err == ""
