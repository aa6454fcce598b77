"""A user's mistake: one sentence on the console and exit status 1, never a traceback."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user gave cannot be used.

    The message is printed as it is, so it says what was given, what is allowed and what to do next.
    """


def run_main(main: Callable[[], int | None]) -> None:
    """Run a script's ``main`` and end the process with its exit status.

    A ``UserError`` becomes its message on standard error and status 1; Ctrl-C becomes one word and
    status 130. The status is also 1 if the output has lost its reader, as with ``| head``, and if
    the disk is full. Any other exception is a bug and keeps its traceback.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the parent process; stays open until the end
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        # The terminal may be unable to show a file's name: print \\udcff or \\u96e8 instead.
        with contextlib.suppress(AttributeError):  # a notebook's stream
            getattr(sys, name).reconfigure(errors="backslashreplace")
    status: int | str | None = 1
    try:
        status = main()
    except UserError as error:
        _say_last(f"error: {error}")
    except KeyboardInterrupt:
        _say_last("interrupted")
        status = 130
    except SystemExit as end:  # argparse
        status = end.code
    except BrokenPipeError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _say_last(f"error: Cannot write {error.filename or 'the output'}: {error.strerror}.")
    try:
        sys.stdout.flush()  # here, because Python would print a traceback at its exit
    except OSError:
        status = 1
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
    sys.exit(status or 0)


def _say_last(text: str) -> None:
    with contextlib.suppress(OSError):  # it cannot be shown; the status remains
        print(text, file=sys.stderr, flush=True)
