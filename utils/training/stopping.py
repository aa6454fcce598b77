"""How a run ends before its time: by a signal, by a lost process, by a lack of memory."""

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

# EX_TEMPFAIL of BSD's sysexits.h: nothing is wrong, and the same command continues later.
EXIT_STOPPED = 75

# How long the end of a run waits for its answer to be written, which a full pipe may delay.
SECONDS_TO_ANSWER = 2.0

# Ctrl-C, schedulers, SLURM's warning, a terminal that is closed.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)

NOTHING_TRAINED = "nothing is trained yet; ending"


class RunStopped(Exception):  # noqa: N818  (not an error)
    """A signal asked for the end, and all that was trained is saved."""


class _Listener:
    """Calls ``answer`` with the first signal that this process handles, from a thread.

    Python runs handlers between its own instructions only, which a long operator delays.
    """

    def __init__(self, answer: Callable[[int], None]) -> None:
        self.answered = threading.Event()
        self._answer = answer
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._fd_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Listen no longer."""
        signal.set_wakeup_fd(self._fd_before)
        self._writer.close()  # ends the thread

    def _listen(self) -> None:
        while byte := self._reader.recv(1):
            if byte[0] in SIGNALS:
                self._answer(byte[0])
                break
        self.answered.set()
        # Empty the socket until it is closed.
        while self._reader.recv(64):
            pass
        self._reader.close()


def _say(number: int, what: str) -> None:
    # On a line of its own: a progress bar may be under way.
    start = "\n" if sys.stderr is not None and sys.stderr.isatty() else ""
    with contextlib.suppress(OSError):  # the reader may have gone
        os.write(2, f"{start}{signal.Signals(number).name}: {what}\n".encode())


def _handle(handler: Callable[[int, FrameType | None], None]) -> dict[int, object]:
    """Install a handler for SIGNALS; returns those before. nohup's ignored SIGHUP stays ignored."""
    numbers = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in numbers}


class _Start:
    """Until a StopSignal takes over, a signal ends the process with a sentence and EXIT_STOPPED."""

    def __init__(self) -> None:
        self._handlers = _handle(lambda number, frame: None)  # the listener answers
        self._listener = _Listener(self._end)

    def close(self) -> None:
        self._listener.close()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @staticmethod
    def _end(number: int) -> None:
        if os.environ.get("RANK", "0") == "0":
            _say(number, NOTHING_TRAINED)
        os._exit(EXIT_STOPPED)  # the main thread may be in an import or wait for other processes


_start: _Start | None = None


def end_at_signals() -> None:
    """From now on a signal ends this process at once, with a sentence and status EXIT_STOPPED.

    A script calls this in its first line, since importing PyTorch and meeting the other processes
    take seconds. A StopSignal takes over later.
    """
    global _start
    _start = _Start()


class StopSignal:
    """Notes SIGINT, SIGTERM, SIGUSR1 and SIGHUP, so that a run is saved before it ends.

    Before ``begin`` there is nothing to save, and inside ``interruptible`` a signal raises
    RunStopped at once. After ``begin`` the first one is answered with the promise on standard error
    and noted in ``received``. A second SIGINT raises KeyboardInterrupt: somebody at the keyboard
    will not wait. Other repeated signals are schedulers', which send several in a row, also while
    the process ends: a process that has received one ignores them all from then on.
    """

    def __init__(self, is_main: bool) -> None:
        self.received: str | None = None
        self._promise: str | None = None
        self._is_interruptible = False
        self._answers = is_main
        self._interrupted_at = math.inf
        # torchrun hands a terminal's Ctrl-C to processes that got it already; within these seconds
        # it is the same key press.
        self._grace = 5.0 if "TORCHELASTIC_RUN_ID" in os.environ else 0.0

    def begin(self, promise: str) -> None:
        """From now on there is something to save; ``promise`` says what a signal leads to."""
        self._promise = promise

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside, a signal raises RunStopped at once; also one that came before.

        Code in which several processes wait for one another stands outside.
        """
        self._is_interruptible = True
        try:
            if self.received:
                raise RunStopped
            yield
        finally:
            self._is_interruptible = False

    def __enter__(self) -> StopSignal:
        global _start
        if _start:
            _start.close()
            _start = None
        self._handlers = _handle(self._note)
        self._listener = _Listener(self._answer)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        is_deaf = self.received and kind is not KeyboardInterrupt
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_IGN if is_deaf else handler)  # type: ignore[arg-type]
        self._listener.close()
        if self.received:
            self._listener.answered.wait(SECONDS_TO_ANSWER)

    def _note(self, number: int, frame: FrameType | None) -> None:
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
            _say(number, self._promise or NOTHING_TRAINED)


def last_words(error: Exception) -> str:
    """What an error says, without the traceback of a loader process or PyTorch's source lines."""
    message = str(error)
    if "Original Traceback" in message:
        return message.rsplit("UserError: ", 1)[-1].strip()
    if isinstance(error, UserError):
        return message
    # NCCL's reason comes last, behind a page of others.
    line = message.rsplit("Last error:", 1)[-1].strip().splitlines()[0]
    return re.sub(r"^\[[^\]]*\]:? *", "", line).rstrip(".")


@contextlib.contextmanager
def explained_failures(is_one_of_several: bool, resume_hint: Callable[[], str]) -> Iterator[None]:
    """Turn what PyTorch raises for faults of the machine into one sentence, a UserError.

    ``resume_hint`` says how to continue from what is saved.
    """
    try:
        yield
    except UserError as error:
        if "Original Traceback" in str(error):
            raise UserError(last_words(error)) from error
        raise
    except (ConnectionError, EOFError) as error:  # reading from a loader process that is gone
        raise UserError(f"{_lost_loader('')} {resume_hint()}") from error
    except RuntimeError as error:
        explanation = _explanation(error, is_one_of_several)
        if explanation is None:
            raise
        raise UserError(f"{explanation} {resume_hint()}") from error


def _explanation(error: RuntimeError, is_one_of_several: bool) -> str | None:
    """What a RuntimeError of PyTorch means for a user, or None for one that is a bug."""
    message = str(error)
    if "DataLoader worker" in message:
        return _lost_loader(message)
    if re.search(r"out of memory|can't allocate memory|not enough memory", message):
        return (
            "Out of memory in a training step; lower OPTIM.BATCH_SIZE or AUGMENT.PATCH, or raise "
            "OPTIM.ACCUMULATE, which splits a step into smaller passes."
        )
    if "deterministic" in message and "does not have" in message:
        return (
            f"RUN.DETERMINISTIC cannot be had here: {message.split(' ')[0]} has no deterministic "
            "form in PyTorch; leave it False."
        )
    no_compiler = r"No working C\+\+ compiler|Failed to find C compiler|Cannot find .*triton"
    if re.search(no_compiler, message):
        return (
            "OPTIM.COMPILE needs a C++ compiler, and on CUDA triton too, which were not found; "
            "install them (on Debian: apt install g++), or set OPTIM.COMPILE False."
        )
    if not is_one_of_several:
        return None
    lost = r"Connection (closed|reset|refused)|Broken pipe|ncclRemoteError|remote process exited"
    if re.search(lost, message):
        return (
            "Another process of this run has ended; its own message says why. (Here: "
            f"{last_words(error)}.)"
        )
    # Gloo raises plain RuntimeErrors, with the line of its source in front.
    if type(error).__name__.startswith("Dist") or re.search(r"NCCL|gloo/", message):
        return f"The processes cannot exchange values: {last_words(error)}."
    return None


def _lost_loader(message: str) -> str:
    killed = re.search(r"killed by signal: ([A-Za-z ]+)", message)
    how = f"was killed by the signal {killed[1].strip()!r}" if killed else "ended unexpectedly"
    if killed and killed[1].startswith("Bus error"):
        return f"A loader process {how}; /dev/shm is too small: make it larger."
    return (
        f"A loader process {how}, which is often the system's out-of-memory killer; lower "
        "DATA.WORKERS or OPTIM.BATCH_SIZE, or free memory."
    )
