"""Ends this process when its launcher, torchrun or srun, has died.

train.py imports this before PyTorch, because the launcher may die in the seconds that PyTorch takes
to load.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

_LOADED_BY, _LAUNCHER = os.getpid(), os.getppid()

SECONDS_TO_END = 60.0


def end_with_launcher() -> None:
    """From now on, stop this process as SIGTERM does once its launcher has ended.

    torchrun and srun end their processes with them, unless they are killed themselves; the orphans
    would train on unnoticed and hold their GPUs and the run's folder. The run is saved before it
    ends. A process that still waits for a dead one after a minute ends without saving.
    """
    main_thread = threading.get_ident()
    # The launcher of a fork is the process that loaded this module.
    launcher = _LAUNCHER if os.getpid() == _LOADED_BY else os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(1)
        threading.Thread(target=_report, daemon=True).start()  # a full pipe may block it
        # To the main thread, which may wait in a call that only a signal to it interrupts.
        signal.pthread_kill(main_thread, signal.SIGTERM)
        time.sleep(SECONDS_TO_END)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _report() -> None:
    with contextlib.suppress(OSError):  # nobody may read it
        os.write(2, b"error: The process that started this one has ended, and so does this one.\n")
