"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.files import DiskFullError, FileLock, atomic_write, remove_unfinished, write_text


def test_folders_are_created_and_files_have_the_usual_mode(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "note.txt", "né")
    assert (tmp_path / "a" / "b" / "note.txt").read_text(encoding="utf-8") == "né"
    (tmp_path / "plain").touch()
    modes = {os.stat(path).st_mode for path in (tmp_path / "a/b/note.txt", tmp_path / "plain")}
    assert len(modes) == 1


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
def test_an_interrupted_writer_leaves_the_old_file_as_it_was(
    tmp_path: Path, interruption: type[BaseException]
) -> None:
    path = tmp_path / "note.txt"
    path.write_text("old")

    def write(temporary: Path) -> None:
        assert temporary.suffix == ".txt"
        temporary.write_text("half of")
        raise interruption

    with pytest.raises(interruption):
        atomic_write(path, write)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("note.txt", "old")]


def test_a_refusing_disk_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="Cannot write"):
        write_text(tmp_path / "file" / "note.txt", "")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"Cannot write .*folder"):
        write_text(tmp_path / "folder", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_left_overs_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".partial-a-folder8_.txt").mkdir()
    kept = [
        *(".partial-a-folder8_.txt", ".partial-a.txt", ".partial-a-12345678.png"),
        *(".partial-b-12345678.txt", "partial-a-12345678.txt"),
    ]
    for name in kept[1:]:
        (tmp_path / name).touch()
    long = "n" * 200
    for name in (".partial-a-12345678.txt", f".partial-{long[:40]}-abc_efgh.txt"):
        (tmp_path / name).touch()
    remove_unfinished(tmp_path / "a.txt", tmp_path / f"{long}.txt", tmp_path / "absent" / "a.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_writing_needs_no_change_of_modes(tmp_path, monkeypatch) -> None:
    """As CIFS does; ``os.chmod`` is patched, as a test cannot mount one."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    for name in ("chmod", "fchmod", "lchmod"):
        monkeypatch.setattr(os, name, refuse, raising=False)
    write_text(tmp_path / "note.txt", "kept")
    assert (tmp_path / "note.txt").read_text() == "kept"


def in_another_process(function: Callable[[], object]) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=function, daemon=True)
    process.start()
    return process


def test_a_lock_excludes_others_until_its_holder_ends(tmp_path) -> None:
    path, (held, let_go) = tmp_path / "new" / ".lock", [os.pipe() for _ in range(2)]

    def hold() -> None:
        lock = FileLock(path)
        lock.acquire()
        os.write(held[1], b"x")
        os.read(let_go[0], 1)
        os.kill(os.getpid(), signal.SIGKILL)

    holder = in_another_process(hold)
    os.read(held[0], 1)
    lock = FileLock(path)
    assert not lock.acquire() and not lock.is_held
    assert re.fullmatch(rf"process {holder.pid} on \S+, since 20[-\d]+ [:\d]+", lock.holder)
    os.write(let_go[1], b"x")
    with lock:  # waits for the kill, which releases the lock
        assert lock.is_held
        path.parent.rename(tmp_path / "old")
        assert not lock.is_held
        path.parent.mkdir()
        path.touch()
        assert not lock.is_held  # another file of that name
    holder.join()


def test_two_processes_that_wait_for_a_lock_take_turns(tmp_path) -> None:
    path, counter = tmp_path / ".lock", tmp_path / "counter"
    counter.write_text("0")

    def count() -> None:
        for _ in range(200):
            with FileLock(path):
                counter.write_text(str(int(counter.read_text()) + 1))

    processes = [in_another_process(count) for _ in range(2)]
    for process in processes:
        process.join(60)
    assert counter.read_text() == "400"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_noted_once(tmp_path, monkeypatch, capfd, number) -> None:
    """Like some network file systems; ``fcntl.lockf`` is patched, as a test cannot mount one."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    for name in ("a", "b"):
        with FileLock(tmp_path / name) as lock:
            assert lock.is_held
    notes = capfd.readouterr().err.splitlines()
    assert len(notes) == 1 and f"{tmp_path} has no file locks" in notes[0]


def test_a_lock_on_a_full_disk_is_a_sentence(tmp_path) -> None:
    """/dev/full stands in for it: it can be opened, and writing fails."""
    (tmp_path / ".lock").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"Cannot write .*\.lock: No space left on device\."):
        FileLock(tmp_path / ".lock").acquire()


def test_names_that_are_not_utf8_are_written_escaped(tmp_path: Path) -> None:
    name = os.fsdecode(b"rain-\xff.png")
    write_text(tmp_path / "a.md", f"| {name} | \u96e8 |\n")
    assert (tmp_path / "a.md").read_bytes() == "| rain-\\udcff.png | \u96e8 |\n".encode()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_is_distinguished_from_other_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The system's answer is patched: no test can fill a disk."""

    def fsync(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(UserError, match=rf"Cannot write .*a\.txt: {os.strerror(number)}") as caught:
        write_text(tmp_path / "a.txt", "text")
    assert isinstance(caught.value, DiskFullError) == (number != errno.EIO)
    assert not list(tmp_path.iterdir())
