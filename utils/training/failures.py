"""What PyTorch raises for faults of the machine, in one sentence for the user."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator

from utils.errors import UserError


@contextlib.contextmanager
def explained_failures(is_one_of_several: bool, resume_hint: Callable[[], str]) -> Iterator[None]:
    """Turn errors of the machine (memory, a lost process, a missing compiler) into a UserError.

    ``resume_hint`` says how to continue from the last checkpoint.
    """
    try:
        yield
    except UserError as error:
        if "Original Traceback" in str(error):
            raise UserError(reason_of(error)) from error
        raise
    except (ConnectionError, EOFError) as error:  # from reading the pipe of a dead loader process
        raise UserError(f"{_lost_loader('')} {resume_hint()}") from error
    except RuntimeError as error:
        explanation = _explanation(error, is_one_of_several)
        if explanation is None:
            raise
        raise UserError(f"{explanation} {resume_hint()}") from error


def reason_of(error: Exception) -> str:
    """An error's message without the traceback of a loader process or PyTorch's source lines."""
    message = str(error)
    if "Original Traceback" in message:
        return message.rsplit("UserError: ", 1)[-1].strip()
    if isinstance(error, UserError):
        return message
    # NCCL puts its reason last, after a page of other text.
    line = message.rsplit("Last error:", 1)[-1].strip().splitlines()[0]
    return re.sub(r"^\[[^\]]*\]:? *", "", line).rstrip(".")


def _explanation(error: RuntimeError, is_one_of_several: bool) -> str | None:
    """What a RuntimeError of PyTorch means for a user; None for a bug."""
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
            f"RUN.DETERMINISTIC is not possible here: {message.split(' ')[0]} has no deterministic "
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
            f"{reason_of(error)}.)"
        )
    # Gloo raises plain RuntimeErrors that begin with the path of its source file.
    if type(error).__name__.startswith("Dist") or re.search(r"NCCL|gloo/", message):
        return f"The processes cannot exchange values: {reason_of(error)}."
    return None


def _lost_loader(message: str) -> str:
    killed = re.search(r"killed by signal: ([A-Za-z ]+)", message)
    how = f"was killed by the signal {killed[1].strip()!r}" if killed else "ended unexpectedly"
    if killed and killed[1].startswith("Bus error"):
        return f"A loader process {how}; /dev/shm is too small: make it larger."
    return (
        f"A loader process {how}, often by the system's out-of-memory killer; lower "
        "DATA.WORKERS or OPTIM.BATCH_SIZE, or free memory."
    )
