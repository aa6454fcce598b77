"""Signals and threads of the processes that load training data."""

from __future__ import annotations

import os
import signal
import threading

import cv2


def prepare_worker(worker: int) -> None:
    """Set up a loader process: one thread, and no end before its trainer's.

    A signal to a whole group of processes (Ctrl-C, torchrun, job schedulers) must not reach the
    loaders: the trainer wants to finish its step first. They still end when the trainer ends them.
    """
    cv2.setNumThreads(0)  # OpenCV would start a thread for each core in every process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    # PyTorch's own handler dies of any SIGTERM; ignoring it altogether would keep the loaders
    # alive when the trainer ends with an error. (macOS cannot tell who sent a signal.)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_with_trainer, daemon=True).start()


def _end_with_trainer() -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)
