"""What test.py shows: sentences, bars, and what went wrong."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator

from tqdm import tqdm


def say(*lines: str) -> None:
    """Lines for the user, kept apart from the progress bars."""
    for line in lines:
        tqdm.write(line, file=sys.stderr)


class Problems:
    """Sentences about files that could not be restored: told at once, and again in the end."""

    def __init__(self, sentences: Iterable[str] = ()) -> None:
        self.sentences: list[str] = []
        for sentence in sentences:
            self.add(sentence)

    def add(self, sentence: str) -> None:
        self.sentences.append(sentence)
        say(sentence)

    def tell_again(self, num_files: int) -> None:
        if self.sentences:
            say(f"{len(self.sentences)} of {num_files} could not be restored:", *self.sentences)


class TileBar:
    """A bar for the tiles of one image below that of the images; none for a single tile."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def __call__(self, done: int, total: int) -> None:
        if total == 1:
            return
        if self.bar is None or self.bar.total != total:
            self.bar = tqdm(total=total, unit="tile", leave=False)
        self.bar.update(done - self.bar.n)
        if done == total:
            self.bar.close()
            self.bar = None


@contextlib.contextmanager
def library_lines_apart() -> Iterator[None]:
    """Keeps lines that image libraries print out of the bars, and tells them in the end.

    Those libraries write to the process's standard error past Python. Inside, that is a temporary
    file, while Python's own ``sys.stderr`` still goes to the console.
    """
    console, is_console = sys.stderr, False
    with contextlib.suppress(AttributeError, OSError, io.UnsupportedOperation):
        is_console = console.fileno() == 2
    if not is_console:  # a notebook's stream, or one that tests put there
        yield
        return
    console.flush()
    with (
        tempfile.TemporaryFile("w+", errors="replace") as lines,
        os.fdopen(os.dup(2), "w", 1, console.encoding, console.errors) as sys.stderr,
    ):
        os.dup2(lines.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(sys.stderr.fileno(), 2)
            sys.stderr = console
            lines.seek(0)
            said = dict.fromkeys(line.strip() for line in lines if line.strip())
            if said:
                say("Lines of the libraries that read and write the files:", *said)
