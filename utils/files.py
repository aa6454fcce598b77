"""Files that are written whole or not at all, and locks between processes."""

from __future__ import annotations

import errno
import functools
import os
import socket
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from utils.errors import UserError

UNFINISHED = ".partial-"  # the beginning of the names of files being written
RANDOM_LENGTH = 8  # characters between the prefix and the suffix of such a name


class DiskFullError(UserError):
    """The disk is full, or the user's quota is used up."""


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with a temporary name beside ``path``, flush that file to disk, rename it.

    Whenever the process ends, ``path`` holds either its old content or the complete new one. Raises
    UserError if the disk refuses, DiskFullError if it is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _create_temporary(path)
        try:
            write(temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _refusal(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Bytes of file names that are not UTF-8 are written as Python's escapes, such as \\udcff.
    """
    content = text.encode("utf-8", "backslashreplace")
    atomic_write(path, lambda temporary: temporary.write_bytes(content))


def remove_unfinished(*paths: Path) -> None:
    """Remove the unfinished files that killed writers of ``paths`` left beside them."""
    by_folder: dict[Path, set[tuple[str, str]]] = {}
    for path in paths:
        by_folder.setdefault(path.parent, set()).add((_prefix(path), _suffix(path)))
    for folder, wanted in by_folder.items():
        for temporary in folder.glob(f"{UNFINISHED}*"):
            prefix = temporary.name[: -len(temporary.suffix) - RANDOM_LENGTH]
            if (prefix, temporary.suffix) not in wanted or not temporary.is_file():
                continue
            try:
                temporary.unlink(missing_ok=True)
            except OSError as error:
                raise UserError(f"Cannot remove {temporary}: {error.strerror or error}.") from error


def remove_all_unfinished(folder: Path) -> None:
    """Remove what killed writers left in ``folder`` and below. No process may be writing there."""
    for temporary in folder.rglob(f"{UNFINISHED}*"):
        temporary.unlink(missing_ok=True)


class FileLock:
    """An exclusive lock between processes, on a file at ``path`` that names its holder.

    It ends with ``release`` or with the process, and forked processes do not inherit it. On a file
    system without locks, such as some network file systems, it protects nothing, and a note on
    standard error says so once. ``with FileLock(path):`` waits for the lock. The file is never
    removed: two processes could then lock two files of one name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.holder = ""  # if acquire failed: "process 42 on host, since ..."
        self._file: int | None = None

    def acquire(self, *, wait: bool = False) -> bool:
        """Take the lock; False if another process holds it, unless ``wait`` is set.

        Raises UserError if the file cannot be written.
        """
        import fcntl  # not on Windows, where only networks and photos are used

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise _refusal(self.path, error) from error
        try:
            # Not flock: forked loader processes would hold that lock after the trainer's death.
            fcntl.lockf(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                text = os.read(file, 200).decode(errors="replace").strip()
                self.holder = text or "another process"
                os.close(file)
                return False
            _note_missing_locks(self.path.parent, error.strerror)
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        holder = f"process {os.getpid()} on {socket.gethostname()}, since {started}\n".encode()
        try:
            os.write(file, holder)
            os.ftruncate(file, len(holder))
        except OSError as error:
            os.close(file)
            raise _refusal(self.path, error) from error
        self._file = file
        return True

    @property
    def is_held(self) -> bool:
        """Whether this process holds the lock, and its file is still the one at ``path``.

        It is not if the folder was renamed or removed.
        """
        if self._file is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._file), os.stat(self.path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Release the lock, if this process holds it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> FileLock:
        self.acquire(wait=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@functools.cache
def _note_missing_locks(folder: Path, reason: str) -> None:
    """Print once per folder that it has no locks."""
    print(
        f"note: the file system of {folder} has no file locks ({reason}); make sure that no second "
        "process writes there",
        file=sys.stderr,
        flush=True,
    )


def _create_temporary(path: Path) -> Path:
    """A new, empty file beside ``path``.

    It has the mode of any new file. ``tempfile`` would make a private file, and some network file
    systems refuse to change its mode afterwards.
    """
    while True:
        # The same suffix, because writers such as OpenCV choose the format by it.
        name = f"{_prefix(path)}{uuid.uuid4().hex[:RANDOM_LENGTH]}{_suffix(path)}"
        try:
            os.close(os.open(path.parent / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            continue
        return path.parent / name


def _refusal(path: Path, error: OSError) -> UserError:
    kind = DiskFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else UserError
    return kind(f"Cannot write {path}: {error.strerror or error}.")


def _prefix(path: Path) -> str:
    """The beginning of temporary names for ``path``; a long stem is cut to keep names valid."""
    return f"{UNFINISHED}{path.stem[:40]}-"


def _suffix(path: Path) -> str:
    """The end of temporary names for ``path``; torch.save refuses hidden names without a suffix."""
    return path.suffix or ".new"
