"""The process that started this one, torchrun or srun, and what happens when it dies.

train.py imports this before PyTorch, which takes seconds to load: the launcher may die in them.
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
    """From now on, stop this process as SIGTERM does when the one that started it has ended.

    torchrun and srun take their processes with them, but not where they are killed themselves;
    the orphans would keep training unnoticed and hold their GPUs and the run's folder. The run is
    saved before it ends; a process that has not ended after a minute, because it waits for one that
    has died, ends without saving.
    """
    main_thread = threading.get_ident()
    # A fork of the process that loaded this module was started by that one.
    launcher = _LAUNCHER if os.getpid() == _LOADED_BY else os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(1)
        threading.Thread(target=_say_so, daemon=True).start()  # a full pipe may block it
        # To the main thread, which may wait in a call that only its own signals interrupt.
        signal.pthread_kill(main_thread, signal.SIGTERM)
        time.sleep(SECONDS_TO_END)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _say_so() -> None:
    with contextlib.suppress(OSError):  # the reader may have gone
        os.write(2, b"error: The process that started this one has ended, and so does this one.\n")
