"""Signals that stop a run: they save it and end it with EXIT_STOPPED."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

# EX_TEMPFAIL of BSD's sysexits.h: nothing is wrong, and the same command continues later.
EXIT_STOPPED = 75

# How long the end of a run waits until its answer is written, which a full pipe may delay.
SECONDS_TO_ANSWER = 2.0

# Ctrl-C, schedulers, SLURM's warning, a closed terminal.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)

NOTHING_TRAINED = "nothing is trained yet; ending"


class RunStopped(Exception):  # noqa: N818  (not an error)
    """A signal asked the run to stop, and everything trained is saved."""


class _Listener:
    """A thread that calls ``answer`` with the first signal that this process handles.

    Python runs signal handlers between its own instructions only, which a long operator delays.
    """

    def __init__(self, answer: Callable[[int], None]) -> None:
        self.answered = threading.Event()
        self._answer = answer
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._fd_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        signal.set_wakeup_fd(self._fd_before)
        self._writer.close()  # ends the thread

    def _listen(self) -> None:
        while byte := self._reader.recv(1):
            if byte[0] in SIGNALS:
                self._answer(byte[0])
                break
        self.answered.set()
        while self._reader.recv(64):  # until the other end is closed
            pass
        self._reader.close()


class StopSignal:
    """Notes SIGINT, SIGTERM, SIGUSR1 and SIGHUP, so that a run is saved before it ends.

    Before ``begin`` there is nothing to save, and inside ``interruptible`` a signal raises
    RunStopped at once. After ``begin`` the first one is noted in ``received``, and the promise is
    printed on standard error. A second SIGINT raises KeyboardInterrupt: somebody at the keyboard
    will not wait. Other repeated signals come from schedulers, which send several in a row, also
    while the process ends: a process that has received one ignores them all from then on.

    With ``ends_at_once`` a signal ends the process instead, with a sentence and EXIT_STOPPED.
    """

    _early: StopSignal | None = None  # that of ``end_at_signals``

    def __init__(self, is_main: bool, *, ends_at_once: bool = False) -> None:
        self.received: str | None = None
        self._promise: str | None = None
        self._is_interruptible = False
        self._answers = is_main
        self._ends_at_once = ends_at_once
        self._interrupted_at = math.inf
        # torchrun passes a terminal's Ctrl-C on to processes that already received it; within
        # these seconds it is the same key press.
        self._grace = 5.0 if "TORCHELASTIC_RUN_ID" in os.environ else 0.0

    def begin(self, promise: str) -> None:
        """From now on there is something to save; ``promise`` is what a signal's answer says."""
        self._promise = promise

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside, a signal raises RunStopped at once; so does one that came earlier.

        Code in which several processes wait for one another must stay outside.
        """
        self._is_interruptible = True
        try:
            if self.received:
                raise RunStopped
            yield
        finally:
            self._is_interruptible = False

    def __enter__(self) -> StopSignal:
        early, StopSignal._early = StopSignal._early, None
        if early:
            early.__exit__(None)
        is_nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # which leaves it ignored
        numbers = [n for n in SIGNALS if n != signal.SIGHUP or not is_nohup]
        self._handlers = {number: signal.signal(number, self._note) for number in numbers}
        self._listener = _Listener(self._answer)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        is_deaf = self.received and kind is not KeyboardInterrupt
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_IGN if is_deaf else handler)
        self._listener.close()
        if self.received:
            self._listener.answered.wait(SECONDS_TO_ANSWER)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._ends_at_once:
            return  # the listener ends the process
        is_repeated = time.monotonic() - self._interrupted_at > self._grace
        if number == signal.SIGINT:
            if is_repeated:
                raise KeyboardInterrupt
            self._interrupted_at = min(self._interrupted_at, time.monotonic())
        if self.received is None:
            self.received = signal.Signals(number).name
            if self._is_interruptible:
                raise RunStopped

    def _answer(self, number: int) -> None:
        if self._answers:
            # On a line of its own: a progress bar may occupy the current one.
            start = "\n" if sys.stderr is not None and sys.stderr.isatty() else ""
            answer = f"{start}{signal.Signals(number).name}: {self._promise or NOTHING_TRAINED}\n"
            with contextlib.suppress(OSError):  # nobody may read it
                os.write(2, answer.encode())
        if self._ends_at_once:
            os._exit(EXIT_STOPPED)  # the main thread may be importing or waiting for others


def end_at_signals() -> None:
    """From now on a signal ends this process at once, with a sentence and status EXIT_STOPPED.

    A script calls this in its first line, because importing PyTorch and meeting the other processes
    take seconds. The next StopSignal takes over.
    """
    is_main = os.environ.get("RANK", "0") == "0"
    StopSignal._early = StopSignal(is_main, ends_at_once=True).__enter__()
