"""Time and memory of a piece of work, on machines where others work too."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch

# Wall and processor time that differ by more than this mean that somebody else was at work.
DISTURBED = 1.1


class Timing(NamedTuple):
    """The least seconds of several runs, and whether other work came between."""

    seconds: float
    is_disturbed: bool


def least_seconds(
    run: Callable[[], object],
    device: torch.device,
    threads: int,
    seconds: float = 0.0,
    at_least: int = 3,
) -> Timing:
    """Repeat ``run`` for so many seconds and take the shortest: what others do only ever slows.

    On one thread of a CPU the processor time counts, which waiting for a core leaves as it is. With
    several threads and on CUDA it is the wall time, because their work cannot be told from waiting.
    """
    wall: list[float] = []
    cpu: list[float] = []
    while sum(wall) < seconds or len(wall) < at_least:
        synchronize(device)
        start, start_cpu = time.perf_counter(), time.process_time()
        run()
        synchronize(device)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    if device.type == "cpu" and threads == 1:
        return Timing(min(cpu), median(wall) > DISTURBED * median(cpu))
    return Timing(min(wall), median(wall) > DISTURBED * min(wall))


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_text(seconds: float) -> str:
    """``4.30 s`` or ``47.2 ms``."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def disturbed_note(timings: list[Timing]) -> str:
    """A sentence for captions where other work came between, else nothing."""
    if not any(timing.is_disturbed for timing in timings):
        return ""
    return (
        " Other work ran at the same time: wall and processor time differ by more than "
        f"{DISTURBED - 1:.0%}, and even the least times may be too long."
    )
