"""How a run ends before its time: by a signal, by a lost process, for want of memory."""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType

from utils.errors import UserError

# EX_TEMPFAIL of BSD's sysexits.h: nothing is wrong, the same command will go on later.
EXIT_STOPPED = 75

# A run that is over waits so long for its answer to be written, which a full pipe may hold up.
SECONDS_TO_ANSWER = 2.0

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class RunStopped(Exception):  # noqa: N818  (no error)
    """A signal asked for the end, and all that was trained is saved."""


class StopSignal:
    """Notes SIGINT, SIGTERM and SIGUSR1 (SLURM's warning), so that a run is saved before it ends.

    Until ``begin`` is called there is nothing to save and a signal raises RunStopped at once.
    After it the first one is answered with ``promise`` on standard error and noted in ``received``.
    A second SIGINT raises KeyboardInterrupt: somebody at the keyboard will not wait. Other repeated
    signals are schedulers', which send several in a row, also while the process ends: what has
    heard one ignores them all from then on.

    Python runs handlers between its own instructions only, which a long operator delays; the answer
    is therefore written by a thread.
    """

    def __init__(self, is_main: bool) -> None:
        self.received: str | None = None
        self._promise: str | None = None
        self._answers = is_main
        self._answered = threading.Event()
        self._interrupted_at = math.inf
        # torchrun hands a terminal's Ctrl-C to processes that got it already; within these seconds
        # it is the same key press.
        self._grace = 5.0 if "TORCHELASTIC_RUN_ID" in os.environ else 0.0

    def begin(self, promise: str) -> None:
        """From now on there is something to save; ``promise`` says what a signal leads to."""
        self._promise = promise

    def __enter__(self) -> StopSignal:
        self._handlers = {number: signal.signal(number, self._note) for number in SIGNALS}
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._fd_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._answer_first, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        signal.set_wakeup_fd(self._fd_before)
        is_deaf = self.received and kind is not KeyboardInterrupt
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_IGN if is_deaf else handler)
        self._writer.close()  # ends the thread
        if self.received:
            self._answered.wait(SECONDS_TO_ANSWER)

    def _note(self, number: int, frame: FrameType | None) -> None:
        is_repeated = time.monotonic() - self._interrupted_at > self._grace
        if number == signal.SIGINT:
            if is_repeated:
                raise KeyboardInterrupt
            self._interrupted_at = min(self._interrupted_at, time.monotonic())
        if self.received is None:
            self.received = signal.Signals(number).name
            if self._promise is None:
                raise RunStopped

    def _answer_first(self) -> None:
        while byte := self._reader.recv(1):
            if byte[0] in SIGNALS:
                break
        if byte and self._answers:
            # On a line of its own: a progress bar may be under way.
            start = "\n" if sys.stderr.isatty() else ""
            what = self._promise or "nothing is trained yet; ending"
            with contextlib.suppress(OSError):  # nobody may read any more
                os.write(2, f"{start}{signal.Signals(byte[0]).name}: {what}\n".encode())
        self._answered.set()
        # Empty the socket until it is closed.
        while self._reader.recv(64):
            pass
        self._reader.close()


@contextlib.contextmanager
def explained_failures(is_one_of_several: bool, resume_hint: Callable[[], str]) -> Iterator[None]:
    """Turn what PyTorch raises for faults of the machine into one sentence, a UserError.

    ``resume_hint`` tells how to go on from what is saved.
    """
    try:
        yield
    except UserError as error:
        # From a loader process it comes with that process's traceback in its text.
        message = str(error)
        if "Original Traceback" in message:
            raise UserError(message.rsplit("UserError: ", 1)[-1].strip()) from error
        raise
    except (ConnectionError, EOFError) as error:  # reading from a loader process that is gone
        explanation = _explanation("DataLoader worker", is_one_of_several)
        raise UserError(f"{explanation} {resume_hint()}") from error
    except RuntimeError as error:
        explanation = _explanation(str(error), is_one_of_several)
        if explanation is None:
            raise
        raise UserError(f"{explanation} {resume_hint()}") from error


def _explanation(message: str, is_one_of_several: bool) -> str | None:
    """What a RuntimeError of PyTorch means for a user, or None for one that is a bug."""
    if "DataLoader worker" in message:
        killed = re.search(r"killed by signal: ([A-Za-z ]+)", message)
        how = f"was killed by the signal {killed[1].strip()!r}" if killed else "ended unexpectedly"
        if killed and killed[1].startswith("Bus error"):
            return f"A loader process {how}; /dev/shm is too small: make it larger."
        return (
            f"A loader process {how}, which is often the system's out-of-memory killer; lower "
            "DATA.WORKERS or OPTIM.BATCH_SIZE, or free memory."
        )
    if re.search(r"out of memory|can't allocate memory|not enough memory", message):
        return (
            "The memory does not suffice for a training step; lower OPTIM.BATCH_SIZE or "
            "AUGMENT.PATCH, or raise OPTIM.ACCUMULATE, which splits a step into smaller passes."
        )
    lost = r"Connection (closed|reset|refused)|Broken pipe|NCCL|ncclSystemError|peer"
    if is_one_of_several and re.search(lost, message):
        return "Another process of this run has ended; its own message tells why."
    return None
