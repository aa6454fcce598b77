"""A run continues where a killed one stopped, if the settings match and no other run is active."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import ROOT
from tests.utils.inference.video.videos import Kind, read, scene, write
from utils.errors import UserError
from utils.inference.video import VideoOptions
from utils.inference.video.reader import VideoReader
from utils.inference.video.unfinished import UnfinishedVideo

RUN = """
import os, resource, signal, sys
from pathlib import Path
from utils.inference.video import VideoOptions, unfinished
from utils.inference.video.reader import VideoReader

source, target, stop, limit = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:5])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing fails instead
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
unfinished.PIECE = 4
with VideoReader(source) as reader:
    kept = unfinished.UnfinishedVideo(
        target, {}, reader.picture, reader.times, VideoOptions(), print
    ).__enter__()
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
    kept.__exit__(None, None, None)
"""


def run(
    source: Path, target: Path, stop: int = -1, limit: int = 10**9, removals: int = -1
) -> tuple[str, list[int]]:
    """Restore in a process that is killed at frame ``stop`` or after ``removals`` at its end.

    Returns its errors and the numbers of the frames that it restored.
    """
    numbers = [str(number) for number in (stop, limit, removals)]
    command = [sys.executable, "-c", RUN, str(source), str(target), *numbers]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    return done.stderr, [int(number) for number in done.stdout.split()]


@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed by signals")
def test_a_killed_run_is_continued_where_it_stopped(tmp_path: Path) -> None:
    source = write(tmp_path / "a", Kind(".mp4", sound="aac"), scene(15))
    run(source, tmp_path / "at once.mp4")
    target = tmp_path / "out" / ("long name " * 20 + ".mp4")
    for stop, begin in ((2, 0), (9, 2), (-1, 9)):  # before the first piece ends, after two
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
def test_a_run_killed_while_it_cleans_up_leaves_nothing_to_continue(
    removed: int, tmp_path: Path
) -> None:
    source = write(tmp_path / "a", Kind(".mp4"), scene(10, 32, 48))
    target = tmp_path / "out" / "a.mp4"
    run(source, target, removals=removed)
    assert len(read(target).frames) == 10
    assert len(list(target.parent.iterdir())) == 3  # the video, the folder and the lock
    errors, _ = run(source, target)
    assert errors == ""
    assert len(read(target).frames) == 10
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of the file size")
def test_a_full_disk_leaves_the_old_video_and_the_finished_frames(tmp_path: Path) -> None:
    """Tested in separate processes with a limit on the size of files."""
    rng = np.random.default_rng(0)
    frames = scene(6)
    for planes in frames:  # noise, so that four encoded frames need more space than one raw frame
        planes[0][:] = rng.integers(60, 200, planes[0].shape)
    source = write(tmp_path / "a", Kind(".mp4"), frames)
    target = tmp_path / "out" / "a.mp4"
    target.parent.mkdir()
    target.write_bytes(b"old")
    for limit in (15_000, 25_000, 45_000):  # too small for a frame, a piece, the whole video
        errors, _ = run(source, target, limit=limit)
        assert "UserError: Cannot" in errors and str(target.parent) in errors, limit
        assert target.read_bytes() == b"old"
        assert [path.name for path in target.parent.glob("[!.]*")] == ["a.mp4"]
    assert run(source, target) == ("", [])  # all frames had been finished
    assert len(read(target).frames) == 6
    assert list(target.parent.iterdir()) == [target]


def test_a_run_with_other_settings_restarts_and_reports_it_first(tmp_path: Path) -> None:
    source = write(tmp_path / "a", Kind(".mp4"), scene(6))
    said: list[str] = []
    with VideoReader(source) as reader:

        def begin(crf: int = 12, **settings: object) -> UnfinishedVideo:
            def notify(sentence: str) -> None:
                assert first.folder.is_dir()  # reported before anything is removed
                said.append(sentence)

            options = VideoOptions(crf=crf)
            target = tmp_path / "b.mp4"
            with UnfinishedVideo(
                target, settings, reader.picture, reader.times, options, notify
            ) as unfinished:
                return unfinished

        first = begin(strength=1.0, weights="a" * 64)
        assert not first.folder.exists()  # it stays until something is finished
        for _, frame in zip(range(3), reader.frames(), strict=False):
            first.append(frame)
        assert begin(strength=1.0, weights="a" * 64).num_finished == 3
        assert said == []
        assert begin(crf=18, strength=0.25, weights="b" * 64).num_finished == 0
        assert said == [
            f"{tmp_path / 'b.mp4'}: removing 3 frames of an earlier run with other settings "
            "(crf: 12, now 18; strength: 1.0, now 0.25; weights)."
        ]
        assert not first.folder.exists()
        with pytest.raises(UserError, match="no frame to write"):
            begin().finish(source, reader.start, 1)


def test_results_with_the_same_long_beginning_have_different_folders(tmp_path: Path) -> None:
    source = write(tmp_path / "a", Kind(".mp4"), scene(2))
    with VideoReader(source) as reader:
        folders = {
            UnfinishedVideo(
                tmp_path / f"{'n' * 60}{i}.mp4", {}, reader.picture, [], VideoOptions(), print
            ).folder
            for i in range(3)
        }
    assert len(folders) == 3


def test_frames_too_small_for_a_codec_are_refused_before_the_first(tmp_path: Path) -> None:
    """x265 crashes at 48 x 32; x264 takes even a single pixel."""
    source = write(tmp_path / "a", Kind(".mkv", "ffv1", options=()), scene(2, 32, 48))
    with VideoReader(source) as reader:
        for codec in ("h264", "hevc"):
            arguments = (tmp_path / "a.mp4", {}, reader.picture, [], VideoOptions(codec), print)
            if codec == "hevc":
                with pytest.raises(UserError, match="48 x 32 are smaller than 64 x 64"):
                    UnfinishedVideo(*arguments)
            else:
                UnfinishedVideo(*arguments)


HOLD = """
import sys
from pathlib import Path
from utils.files import FileLock

lock = FileLock(Path(sys.argv[1]))
print("acquired" if lock.acquire() else f"held by {lock.holder}", flush=True)
sys.stdin.read()
"""


def hold(lock: Path) -> subprocess.Popen[str]:
    """A process that takes a lock, or prints its holder, and ends when its input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_runs_do_not_mix_their_frames(tmp_path: Path) -> None:
    source = write(tmp_path / "a", Kind(".mp4"), scene(2, 32, 48))
    with VideoReader(source) as reader:
        target = tmp_path / "out" / "a.mp4"
        mine = UnfinishedVideo(target, {}, reader.picture, reader.times, VideoOptions(), print)
        with mine:  # the other process comes second
            (lock,) = target.parent.iterdir()
            with hold(lock) as other:
                answer = other.communicate("")[0]
            assert answer.startswith(f"held by process {os.getpid()} on ")
        assert list(target.parent.iterdir()) == []
        with hold(lock) as other:  # the other process comes first
            assert other.stdout.readline() == "acquired\n"
            left = target.parent / ".partial-a-abcdefgh.mp4"
            left.touch()
            with pytest.raises(
                UserError, match=rf"a\.mp4 is being written by process {other.pid} on"
            ):
                mine.__enter__()
            assert left.exists()  # it belongs to the other process
            other.communicate("")
        with mine:
            assert not left.exists()
        assert list(target.parent.iterdir()) == []
