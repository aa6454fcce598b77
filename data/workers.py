"""Signals and threads of the processes that load training data."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

import cv2


def count_cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def prepare_worker(worker: int) -> None:
    """Set up a loader process: one thread, and an end with its trainer, not before.

    A signal to a whole group of processes (Ctrl-C, torchrun, job schedulers) must not reach the
    loaders: the trainer wants to finish its step first. They end when the trainer ends them, or
    within seconds of its death: PyTorch's loaders look for that between two batches only, and one
    that waits to hand over a batch would wait for ever.
    """
    cv2.setNumThreads(0)  # OpenCV would start a thread for each core in every process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # of a terminal that is closed
    # PyTorch's own handler dies of any SIGTERM; ignoring it altogether would keep the loaders
    # alive when the trainer ends with an error. (macOS cannot tell who sent a signal.)
    if hasattr(signal, "sigtimedwait"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    threading.Thread(target=_end_with_trainer, daemon=True).start()


def _end_with_trainer() -> None:
    trainer = multiprocessing.parent_process()
    # Not asked by its number: a fork server may stand between the two.
    while trainer is not None and trainer.is_alive():
        if not hasattr(signal, "sigtimedwait"):
            time.sleep(1)
            continue
        received = signal.sigtimedwait([signal.SIGTERM], 1)
        if received is not None and received.si_pid == trainer.pid:
            break
    os._exit(0)
