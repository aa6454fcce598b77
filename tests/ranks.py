"""Training processes as torchrun would start them, without its seconds of start-up."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import train
from losses.criteria import Criterion
from utils.errors import run_main

# Forked from the tests' own process: PyTorch is imported already.
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class At:
    """A signal that a training process sends to itself, in its n-th step or validation image."""

    signal: signal.Signals
    step: int = 0
    image: int = 0
    rank: int | None = None  # None: all of them
    to_loaders: bool = False  # to its loader processes instead
    to_launcher: bool = False  # to the process that started it instead
    to_group: bool = False  # to a process group of it and its loaders instead
    then: tuple[signal.Signals, ...] = ()  # right after it, and again when training has ended


@dataclass(frozen=True)
class Ended:
    """How the processes of a run ended: exit statuses (-9: killed) and what each printed."""

    statuses: list[int | None]
    outputs: list[str]

    @property
    def output(self) -> str:
        return "\n".join(self.outputs)


def run_ranks(
    folder: Path,
    world_size: int,
    *arguments: object,
    at: At | None = None,
    prepare: Callable[[int], None] = lambda rank: None,
    hanging: Sequence[int] = (),
    timeout: float = 180,
) -> Ended:
    """``train.py ARGUMENTS`` on ``world_size`` processes; fails if one is left hanging.

    Each calls ``prepare`` with its rank before it trains. The ranks ``hanging`` are expected to
    hang: they are killed when the others have ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    outputs = [folder / f"rank{rank}.txt" for rank in range(world_size)]
    environment = {"WORLD_SIZE": world_size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        FORK.Process(
            target=_train,
            args=([str(a) for a in arguments], {**environment, "RANK": rank}, output, at, prepare),
        )
        for rank, output in enumerate(outputs)
    ]
    for process in processes:
        process.start()
    deadline = time.monotonic() + timeout
    for rank, process in enumerate(processes):
        if rank not in hanging:
            process.join(max(0.0, deadline - time.monotonic()))
    left = [rank for rank, process in enumerate(processes) if process.is_alive()]
    for process in processes:
        process.kill()
        process.join()
    texts = [path.read_text() for path in outputs]
    if left != list(hanging):
        pytest.fail(f"processes {left} of {world_size} hang:\n" + "\n".join(texts))
    return Ended([process.exitcode for process in processes], texts)


def _train(
    arguments: list[str],
    environment: dict,
    output: Path,
    at: At | None,
    prepare: Callable[[int], None],
) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = open(1, "w", closefd=False, buffering=1)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
    os.environ.update({name: str(value) for name, value in environment.items()})
    if environment["WORLD_SIZE"] == 1:
        del os.environ["RANK"]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if at and at.rank in (None, environment["RANK"]):
        # The real functions, called after the signal.
        Criterion.forward = _after_signal(Criterion.forward, at, at.step)
        train.score = _after_signal(train.score, at, at.image)
    sys.argv = ["train.py", *arguments]
    if at and at.to_group:
        os.setsid()
    prepare(environment["RANK"])

    def main() -> int | None:
        status = train.main()
        for number in at.then if at else ():
            os.kill(os.getpid(), number)
        return status

    run_main(main)


def _after_signal(function: Callable, at: At, when: int) -> Callable:
    count = 0

    def call(*args: object, **kwargs: object) -> object:
        nonlocal count
        count += 1
        if count == when:
            loaders = [process.pid for process in multiprocessing.active_children()]
            self = os.getppid() if at.to_launcher else os.getpid()
            for pid in loaders if at.to_loaders else [self]:
                for number in (at.signal, *at.then):
                    (os.killpg if at.to_group else os.kill)(pid, number)
        return function(*args, **kwargs)

    return call
