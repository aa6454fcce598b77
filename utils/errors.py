"""A user's mistake: one sentence on the console and exit status 1, never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user gave cannot be used.

    The message is shown as it is, so it says what was given, what is allowed and what to do next.
    """


def run_main(main: Callable[[], int | None]) -> None:
    """Run a script's ``main`` and end the process with its exit status.

    A ``UserError`` becomes its message on standard error and status 1; Ctrl-C becomes one word
    and status 130. Any other exception is a bug of ours and keeps its traceback.
    """
    try:
        status = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status or 0)
