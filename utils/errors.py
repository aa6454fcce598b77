"""A user's mistake: one sentence on the console and exit status 1, never a traceback."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user gave cannot be used.

    The message is shown as it is, so it says what was given, what is allowed and what to do next.
    """


def run_main(main: Callable[[], int | None]) -> None:
    """Run a script's ``main`` and end the process with its exit status.

    A ``UserError`` becomes its message on standard error and status 1; Ctrl-C becomes one word
    and status 130. Where nobody reads the output any more, as behind ``| head``, it ends with
    status 1. Any other exception is a bug of ours and keeps its traceback.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this process; open to the end
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        # A file's name need not fit the encoding of the terminal: print \\udcff or \\u96e8 instead.
        with contextlib.suppress(AttributeError):  # a notebook's stream
            getattr(sys, name).reconfigure(errors="backslashreplace")
    try:
        try:
            status = main()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 1
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            status = 130
        finally:
            sys.stdout.flush()  # not at the exit of Python, which would complain by itself
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        status = 1
    sys.exit(status or 0)
