"""A killed run of a video goes on where it was, and no other run is taken for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import ROOT
from tests.utils.inference.videos import Kind, read, scene, write
from utils.errors import UserError
from utils.inference.unfinished import UnfinishedVideo
from utils.inference.video import VideoReader

RUN = """
import os, resource, signal, sys
from pathlib import Path
from utils.inference import unfinished
from utils.inference.video import VideoReader

source, target, stop, limit = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:5])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing fails instead
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
unfinished.PIECE = 4
with VideoReader(source) as reader:
    kept = unfinished.UnfinishedVideo(
        target, "key", reader.picture, reader.times, codec="h264", crf=12
    )
    for number, frame in enumerate(reader.frames(kept.num_finished), kept.num_finished):
        if number == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        kept.append(frame)
        print(number)
    remove, removals = kept.remove, int(sys.argv[5])

    def remove_and_die():
        unlink, unlinked = os.unlink, []

        def unlink_or_die(*arguments, **options):
            if len(unlinked) == removals:
                os.kill(os.getpid(), signal.SIGKILL)
            unlinked.append(arguments)
            unlink(*arguments, **options)

        os.unlink = unlink_or_die
        remove()

    kept.remove = remove_and_die
    kept.finish(source, reader.start, reader.last_duration)
"""


def run(
    source: Path, target: Path, stop: int = -1, limit: int = 10**9, removals: int = -1
) -> tuple[str, list[int]]:
    """A process of its own that is killed at frame ``stop``, or after so many removals in the end.

    Returns its errors and the frames that it restored.
    """
    numbers = [str(number) for number in (stop, limit, removals)]
    command = [sys.executable, "-c", RUN, str(source), str(target), *numbers]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    return done.stderr, [int(number) for number in done.stdout.split()]


@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed by signals")
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    source = write(tmp_path / "a", Kind(".mp4", sound="aac"), scene(15))
    run(source, tmp_path / "at once.mp4")
    target = tmp_path / "out" / ("long name " * 20 + ".mp4")
    for stop, begin in ((2, 0), (9, 2), (-1, 9)):  # before a piece, after two
        assert not target.exists()
        errors, numbers = run(source, target, stop)
        assert errors == ""
        assert numbers[:1] == [begin] or begin == stop
    resumed, at_once = read(target), read(tmp_path / "at once.mp4")
    assert resumed.times == at_once.times and resumed.sound == at_once.sound
    for one, other in zip(resumed.frames, at_once.frames, strict=True):
        assert np.abs(one[0].astype(int) - other[0]).max() <= 8
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed by signals")
@pytest.mark.parametrize("removed", [1, 2, 3])
def test_a_run_that_is_killed_while_it_cleans_up_leaves_nothing_to_go_on_with(
    removed: int, tmp_path: Path
) -> None:
    source = write(tmp_path / "a", Kind(".mp4"), scene(10, 32, 48))
    target = tmp_path / "out" / "a.mp4"
    run(source, target, removals=removed)
    assert len(read(target).frames) == 10 and len(list(target.parent.iterdir())) == 2
    errors, _ = run(source, target)
    assert errors == ""
    assert len(read(target).frames) == 10
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of the file size")
def test_a_full_disk_leaves_the_old_video_and_what_is_finished(tmp_path: Path) -> None:
    """In processes of their own, with a limit of the size of files."""
    rng = np.random.default_rng(0)
    frames = scene(6)
    for planes in frames:  # noise, so that four encoded frames take more than one as it is stored
        planes[0][:] = rng.integers(60, 200, planes[0].shape)
    source = write(tmp_path / "a", Kind(".mp4"), frames)
    target = tmp_path / "out" / "a.mp4"
    target.parent.mkdir()
    target.write_bytes(b"old")
    for limit in (15_000, 25_000, 45_000):  # a frame, a piece, the whole
        errors, _ = run(source, target, limit=limit)
        assert "UserError: Cannot" in errors and str(target.parent) in errors, limit
        assert target.read_bytes() == b"old"
        assert [path.name for path in target.parent.glob("[!.]*")] == ["a.mp4"]
    assert run(source, target) == ("", [])  # all frames were there
    assert len(read(target).frames) == 6
    assert list(target.parent.iterdir()) == [target]


def test_another_run_begins_anew(tmp_path: Path) -> None:
    source = write(tmp_path / "a", Kind(".mp4"), scene(6))
    with VideoReader(source) as reader:

        def begin(key: str) -> UnfinishedVideo:
            return UnfinishedVideo(
                tmp_path / "b.mp4", key, reader.picture, reader.times, codec="h264", crf=12
            )

        first = begin("one")
        assert not first.folder.exists()  # until something is finished
        for _, frame in zip(range(3), reader.frames(), strict=False):
            first.append(frame)
        assert begin("one").num_finished == 3
        assert begin("other").num_finished == 0
        assert not first.folder.exists()
        with pytest.raises(UserError, match="no frame to write"):
            begin("other").finish(source, reader.start, 1)


def test_videos_of_one_beginning_are_told_apart(tmp_path: Path) -> None:
    source = write(tmp_path / "a", Kind(".mp4"), scene(2))
    with VideoReader(source) as reader:
        folders = {
            UnfinishedVideo(
                tmp_path / f"{'n' * 60}{i}.mp4", "", reader.picture, [], codec="h264", crf=12
            ).folder
            for i in range(3)
        }
    assert len(folders) == 3


def test_frames_too_small_for_a_codec_are_told_before_the_first(tmp_path: Path) -> None:
    """x265 crashes at 48 x 32; x264 takes even a single pixel."""
    source = write(tmp_path / "a", Kind(".mkv", "ffv1", options=()), scene(2, 32, 48))
    with VideoReader(source) as reader:
        for codec in ("h264", "hevc"):
            kept = tmp_path / f"{codec}.mp4", "", reader.picture, []
            if codec == "hevc":
                with pytest.raises(UserError, match="48 x 32 are too small, it takes 64 x 64"):
                    UnfinishedVideo(*kept, codec=codec, crf=12)
            else:
                UnfinishedVideo(*kept, codec=codec, crf=12)
