"""Videos: frames in, frames out, nothing half-written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import ROOT
from utils.errors import UserError
from utils.inference import video


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


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of the file size")
def test_a_full_disk_leaves_the_old_video(tmp_path: Path) -> None:
    """In a process of its own, whose files may have 100 kB."""
    (tmp_path / "a.mp4").write_bytes(b"old")
    code = f"""
import resource, signal, numpy
from pathlib import Path
from utils.inference.video import write_video
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing fails instead
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
noise = numpy.random.default_rng(0).integers(0, 256, (8, 240, 320, 3)).astype("uint8")
path = Path({str(tmp_path / "a.mp4")!r})
write_video(path, 10, lambda append: [append(frame) for frame in noise])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "UserError: Cannot write" in done.stderr and "disk full" in done.stderr
    assert (tmp_path / "a.mp4").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("rate", [119.913, 239.7612, 29.97])
def test_rates_of_telephones(tmp_path: Path, rate: float) -> None:
    video.write_video(tmp_path / "a.mp4", rate, lambda append: [append(f) for f in frames(3)])
    assert video.read_facts(tmp_path / "a.mp4").rate == pytest.approx(rate, rel=1e-4)


def test_an_odd_row_and_column_are_lost(tmp_path: Path) -> None:
    frame = np.full((47, 63, 3), 100, np.uint8)
    video.write_video(tmp_path / "a.mp4", 10, lambda append: append(frame))
    assert next(video.read_frames(tmp_path / "a.mp4")).shape == (46, 62, 3)


def test_unusable_videos_are_sentences(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    for read in (video.read_facts, lambda path: list(video.read_frames(path))):
        with pytest.raises(UserError, match=r"broken\.mp4 is not a readable video"):
            read(tmp_path / "broken.mp4")
    with pytest.raises(UserError, match="no frame"):
        video.write_video(tmp_path / "empty.mp4", 25, lambda append: None)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.mp4"]
    assert capfd.readouterr().err == ""
