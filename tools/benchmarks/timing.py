"""Time and memory of a piece of work, on machines where other work runs too."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple, TypeVar

import torch

# Importing torch.utils.benchmark looks for CUDA's compiler and warns if there is one but no GPU.
logging.getLogger("torch.utils.cpp_extension").addFilter(
    lambda record: "No CUDA runtime is found" not in record.msg
)
from torch.utils import benchmark

from tools.benchmarks.releases import machine_kind
from utils.devices import PRECISIONS, add_device_option
from utils.wording import plural

T = TypeVar("T")

CPU = torch.device("cpu")
NOISE = 0.1  # quartiles further apart than this share of the median: other work interfered


class Timing(NamedTuple):
    """The shortest of several runs in seconds, and whether they differed a lot."""

    seconds: float
    is_noisy: bool


def least_seconds(
    run: Callable[[], object],
    device: torch.device = CPU,
    threads: int = 1,
    seconds: float = 0.0,
) -> Timing:
    """Repeat ``run`` for so many seconds and take the shortest: other work only ever adds time.

    On one CPU thread it is processor time, which does not count waiting for a core. With several
    threads and on a GPU it is wall time, because there the process waits while work is done.
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
    """``function(*arguments)`` in a process that holds no libraries or memory of earlier work."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def add_machine_options(parser: argparse.ArgumentParser, seconds: float) -> None:
    """``--device``, ``--threads`` and ``--seconds``."""
    add_device_option(parser)
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads (default: 1)")
    parser.add_argument(
        "--seconds", type=float, default=seconds, help="time for each row (default: %(default)s)"
    )


def add_mode_option(parser: argparse.ArgumentParser, extras: Collection[str]) -> None:
    """``--modes``: precisions, each with any of ``extras`` joined by ``+``."""

    def mode(text: str) -> str:
        precision, *chosen = text.split("+")
        if precision not in PRECISIONS or not set(chosen) <= set(extras):
            raise argparse.ArgumentTypeError(f"{text!r} is not a mode")
        return text

    parser.add_argument(
        "--modes",
        nargs="+",
        type=mode,
        default=["float32"],
        metavar="MODE",
        help=f"{', '.join(PRECISIONS)}, with +{', +'.join(extras)} (default: float32)",
    )


def positive(text: str) -> int:
    """A number of a command line that is at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def machine_text(device: torch.device, threads: int) -> str:
    """The machine that a table comes from."""
    place = f"{machine_kind()}, {plural(threads, 'thread')}"
    if device.type == "cuda":
        place = torch.cuda.get_device_name(device)
    return f"{place}, PyTorch {torch.__version__}"


def seconds_text(seconds: float) -> str:
    """``4.30 s`` or ``47.2 ms``."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def noise_note(timings: Iterable[Timing]) -> str:
    """A sentence for captions if times differed a lot, else ""."""
    if not any(timing.is_noisy for timing in timings):
        return ""
    return " Times were noisy: other work ran here, and even the shortest may be too long."
