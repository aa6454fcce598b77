"""What a long run prints."""

from __future__ import annotations

import errno
import os
import sys

# Nobody reads any more, the terminal has gone, the disk or the quota behind a file is full.
OUTPUT_ERRORS = (errno.EPIPE, errno.EIO, errno.ENOSPC, errno.EDQUOT)


def say(text: str) -> None:
    """Print a line at once. A run goes on where its output can no longer be written."""
    try:
        print(text, flush=True)
    except OSError as error:
        if error.errno not in OUTPUT_ERRORS:
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
