"""Time and memory of a piece of work, on machines where others work too."""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple, TypeVar

import torch
from torch.utils import benchmark

from utils.devices import PRECISIONS, add_device_option
from utils.wording import plural

T = TypeVar("T")

NOISE = 0.1  # quartiles further apart than this share of the median: other work came between


class Timing(NamedTuple):
    """The least seconds of several runs, and whether they differed by much."""

    seconds: float
    is_noisy: bool


def least_seconds(
    run: Callable[[], object], device: torch.device, threads: int, seconds: float = 0.0
) -> Timing:
    """Repeat ``run`` for so many seconds and take the shortest: other work only ever adds.

    On one thread of a CPU it is processor time, which does not count waiting for a core; with
    several threads and on a GPU it is wall time, because there work looks like waiting.
    """
    is_alone = device.type == "cpu" and threads == 1
    timer = benchmark.Timer(
        "run()",
        globals={"run": run},
        timer=time.process_time if is_alone else benchmark.timer,
        num_threads=threads,
    )
    measured = timer.blocked_autorange(min_run_time=max(seconds, 1e-3))
    return Timing(min(measured.times), measured.iqr > NOISE * measured.median)


def in_fresh_process(function: Callable[..., T], *arguments: object) -> T:
    """``function(*arguments)`` where no earlier work has left libraries or memory behind."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def add_machine_options(parser: argparse.ArgumentParser, seconds: float) -> None:
    """``--device``, ``--threads`` and ``--seconds``."""
    add_device_option(parser)
    parser.add_argument("--threads", type=_positive, default=1, help="CPU threads (default: 1)")
    parser.add_argument(
        "--seconds", type=float, default=seconds, help="time for each row (default: %(default)s)"
    )


def checked_mode(text: str, extras: Collection[str]) -> str:
    """A mode of the command line: a precision, then any of ``extras``, joined by ``+``."""
    precision, *chosen = text.split("+")
    if precision not in PRECISIONS or not set(chosen) <= set(extras):
        raise argparse.ArgumentTypeError(f"{text!r} is not a mode")
    return text


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def machine_text(device: torch.device, threads: int, kind: str) -> str:
    """Where a table was measured; ``kind`` is the processor's."""
    if device.type == "cuda":
        place = torch.cuda.get_device_name(device)
    else:
        place = f"{kind}, {plural(threads, 'thread')}"
    return f"{place}, PyTorch {torch.__version__}"


def seconds_text(seconds: float) -> str:
    """``4.30 s`` or ``47.2 ms``."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def noise_note(timings: list[Timing]) -> str:
    """A sentence for captions where times differed by much, else ""."""
    if not any(timing.is_noisy for timing in timings):
        return ""
    return " Times were noisy: other work ran on this machine, and even the least may be too long."
