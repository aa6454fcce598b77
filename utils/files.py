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

UNFINISHED = ".partial-"  # how the names of files being written begin
RANDOM_LENGTH = 8  # characters between the prefix and the suffix of such a name


class DiskFullError(UserError):
    """The disk has no room left, or the user's quota is used up."""


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with a temporary name beside ``path``, flush it to disk, rename it.

    Whatever ends the process in between, ``path`` holds either its old content or the complete
    new one. Raises UserError where the disk refuses, DiskFullError where it is full.
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

    Names of files that are not UTF-8 stand in it as Python escapes them, such as \\udcff.
    """
    content = text.encode("utf-8", "backslashreplace")
    atomic_write(path, lambda temporary: temporary.write_bytes(content))


def remove_unfinished(*paths: Path) -> None:
    """Remove the unfinished files that killed writers of ``paths`` have left beside them."""
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
    """Remove what killed writers have left in ``folder`` and below; no other may be at work."""
    for temporary in folder.rglob(f"{UNFINISHED}*"):
        temporary.unlink(missing_ok=True)


class FileLock:
    """An exclusive lock between processes, on a file at ``path`` that names its holder.

    It ends with ``release`` or with the process, however that ends, and forked processes do not
    inherit it. On a file system without locks, as network file systems may be, it holds nobody
    back, and a note on standard error says so once. ``with FileLock(path):`` waits for the lock.
    The file stays: removing it would let two processes lock two files of one name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.holder = ""  # who held it when it could not be had: "process 42 on host, since ..."
        self._file: int | None = None

    def acquire(self, *, wait: bool = False) -> bool:
        """Take the lock; False where another process holds it, unless this is to ``wait`` for it.

        Raises UserError where the file cannot be written.
        """
        import fcntl  # not on Windows, where only networks and photos are used

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise _refusal(self.path, error) from error
        try:
            # Not flock: forked loader processes would hold that lock after their trainer's death.
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
        """Whether this process holds the lock, and the file is still the one at ``path``.

        It is not where the folder was renamed or removed.
        """
        if self._file is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._file), os.stat(self.path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give the lock back, if this process holds it."""
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
    """Print once per folder that nothing keeps a second process out."""
    print(
        f"note: the file system of {folder} has no file locks ({reason}); make sure that no second "
        "process writes there",
        file=sys.stderr,
        flush=True,
    )


def _create_temporary(path: Path) -> Path:
    """A new, empty file beside ``path``.

    It has the mode of any new file from the start: ``tempfile`` makes private files, whose mode
    some network file systems refuse to change afterwards.
    """
    while True:
        # The same suffix: writers such as OpenCV choose the format by it.
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
    """How temporary names of ``path`` begin; a long name would leave no room for what follows."""
    return f"{UNFINISHED}{path.stem[:40]}-"


def _suffix(path: Path) -> str:
    """How temporary names of ``path`` end; torch.save refuses hidden names without any suffix."""
    return path.suffix or ".new"
