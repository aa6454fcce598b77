"""What test.py shows: sentences, bars, and what went wrong."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator

from tqdm import tqdm

from utils.wording import duration


def say(*lines: str) -> None:
    """Print lines for the user on standard error, above the progress bars.

    ``utils.console.say`` is for logs on standard output, which outlive their terminal.
    """
    for line in lines:
        tqdm.write(line, file=sys.stderr)


class Problems:
    """Sentences about files that could not be restored: printed at once, and again at the end."""

    def __init__(self, sentences: Iterable[str] = ()) -> None:
        self.sentences: list[str] = []
        for sentence in sentences:
            self.add(sentence)

    def add(self, sentence: str) -> None:
        self.sentences.append(sentence)
        say(sentence)

    def repeat(self, num_files: int) -> None:
        if self.sentences:
            say(f"{len(self.sentences)} of {num_files} could not be restored:", *self.sentences)


class TileBar:
    """A bar for the tiles of one image, below that of the images; none for a single tile.

    From the first tile on it shows how long the rest will take. If that is more than HINT_SECONDS,
    ``hint``, a sentence about what is faster, is printed once.
    """

    HINT_SECONDS = 60

    def __init__(self, hint: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self.hint = hint
        self.clock = clock
        self.bar: tqdm | None = None
        self.start = 0.0

    def __call__(self, done: int, total: int) -> None:
        if total == 1:
            return
        if self.bar is None or done == 0:
            self.close()
            self.bar = tqdm(total=total, leave=False, mininterval=0, bar_format=TILE_BAR)
            self.start = self.clock()
        if done:
            left = (self.clock() - self.start) / done * (total - done)
            self.bar.set_postfix_str(f"{duration(left)} left", refresh=False)
            if self.hint and left > self.HINT_SECONDS:
                say(self.hint)
                self.hint = ""
        self.bar.update(done - self.bar.n)
        if done == total:
            self.close()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


TILE_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} tiles{postfix}"


@contextlib.contextmanager
def library_lines_apart() -> Iterator[None]:
    """Keep the lines that image libraries print away from the bars; print them at the end.

    Those libraries write to the process's standard error past Python. Inside, that is a temporary
    file, while Python's own ``sys.stderr`` still goes to the console.
    """
    terminal, is_terminal = sys.stderr, False
    with contextlib.suppress(AttributeError, OSError, io.UnsupportedOperation):
        is_terminal = terminal.fileno() == 2
    if not is_terminal:  # a notebook's stream, or one that tests put there
        yield
        return
    terminal.flush()
    with (
        tempfile.TemporaryFile("w+", errors="replace") as lines,
        os.fdopen(os.dup(2), "w", 1, terminal.encoding, terminal.errors) as sys.stderr,
    ):
        os.dup2(lines.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(sys.stderr.fileno(), 2)
            sys.stderr = terminal
            lines.seek(0)
            said = dict.fromkeys(line.strip() for line in lines if line.strip())
            if said:
                say("Lines of the libraries that read and write the files:", *said)
