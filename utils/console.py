"""Printing in long runs, which must not fail if the output can no longer be written."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

# The reader or the terminal is gone; the disk or the quota behind a file is full.
OUTPUT_ERRORS = (errno.EPIPE, errno.EIO, errno.ENOSPC, errno.EDQUOT)


def say(text: str) -> None:
    """Print a line at once; a line that cannot be written is dropped."""
    try:
        print(text, flush=True)
    except OSError as error:
        give_up(sys.stdout, error)


def give_up(stream: TextIO, error: OSError) -> None:
    """Redirect a stream that can no longer be written to nowhere, with a note on standard error.

    Raises ``error`` again unless it is one of OUTPUT_ERRORS.
    """
    if error.errno not in OUTPUT_ERRORS:
        raise error
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    with contextlib.suppress(OSError):  # it may be the same file
        os.write(2, f"note: output is lost from here on: {error.strerror}\n".encode())


@contextlib.contextmanager
def lossy_outputs() -> Iterator[None]:
    """Within this context or decorated function, output that cannot be written is dropped.

    That includes progress bars and warnings: a run of days must not end because its output lost its
    reader or its disk is full.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Lossy(sys.stdout), _Lossy(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class _Lossy:
    """A text stream whose lines are dropped when they can no longer be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            give_up(self._stream, error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            give_up(self._stream, error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
