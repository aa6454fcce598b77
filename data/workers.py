"""The processes that load training data: their signals and threads."""

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
    """Set up a loader process: one thread, and a life exactly as long as its trainer's.

    A signal to a whole process group (Ctrl-C, torchrun, job schedulers) must not stop the loaders,
    because the trainer finishes its step first. They end when the trainer ends them, or within
    seconds of its death: PyTorch's loaders check for that between two batches only, and one that
    waits to hand over a batch would wait forever.
    """
    cv2.setNumThreads(0)  # OpenCV would start a thread per core in every process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal was closed
    # PyTorch's handler ends the process on any SIGTERM. Ignoring SIGTERM altogether would keep the
    # loaders alive if the trainer ends with an error. (macOS does not say who sent a signal.)
    if hasattr(signal, "sigtimedwait"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    threading.Thread(target=_end_with_trainer, daemon=True).start()


def _end_with_trainer() -> None:
    trainer = multiprocessing.parent_process()
    # Not os.getppid(): the parent may be a fork server.
    while trainer is not None and trainer.is_alive():
        if not hasattr(signal, "sigtimedwait"):
            time.sleep(1)
            continue
        received = signal.sigtimedwait([signal.SIGTERM], 1)
        if received is not None and received.si_pid == trainer.pid:
            break
    os._exit(0)
