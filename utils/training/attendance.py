"""Names the process that the others wait for, when a run hangs."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import threading
import time

import torch.distributed as dist


class Attendance:
    """Counts each process's collective operations, in the store where the processes met.

    A collective operation waits for all processes. A process that has waited ``timeout`` minutes
    names the missing ones, those with a smaller count, and ends with status 1. PyTorch's own
    timeout does not know them and ends with a traceback.
    """

    def __init__(self, rank: int, world_size: int, timeout: float) -> None:
        self._rank = rank
        self._world_size = world_size
        self._seconds = 60 * timeout
        self._count = 0
        self._is_patient = False
        self._since = time.monotonic()
        # torchrun's store outlives the processes that it starts again.
        self._attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._own, self._watcher = self._connect(), self._connect()  # one for each thread
        threading.Thread(target=self._watch, daemon=True).start()

    def arrive(self, *, patient: bool = False) -> None:
        """This process is about to wait for the others.

        If it is ``patient``, because the others may be busy for long, it only prints their names.
        """
        self._count += 1
        self._is_patient = patient
        self._since = time.monotonic()
        self._own.set(f"{self._attempt}/{self._rank}", str(self._count))

    def missing(self) -> list[int]:
        """The processes that have not got as far as this one."""
        return [
            rank
            for rank in range(self._world_size)
            if rank != self._rank and self._count_of(rank) < self._count
        ]

    def is_first_to_say(self, message: str) -> bool:
        """Whether no other process has asked this before, since all may meet the same mistake."""
        key = hashlib.sha256(message.encode(errors="surrogateescape")).hexdigest()
        return self._own.add(f"{self._attempt}/{key}", 1) == 1

    def _connect(self) -> dist.Store:
        store = dist.TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            wait_for_workers=False,
            timeout=datetime.timedelta(seconds=60),
        )
        return dist.PrefixStore("attendance", store)

    def _count_of(self, rank: int) -> int:
        key = f"{self._attempt}/{rank}"
        return int(self._watcher.get(key)) if self._watcher.check([key]) else 0

    def _watch(self) -> None:
        noted = 0  # the count at which a patient wait was noted
        while True:
            time.sleep(min(1.0, self._seconds / 4))
            count, waited = self._count, time.monotonic() - self._since
            if waited < self._seconds or noted == count:
                continue
            try:
                missing = self.missing()
            except RuntimeError:  # the process that holds the store has ended; so will this one
                return
            if not missing or count != self._count:
                continue  # this process works; others may be waiting for it
            noted = count
            who = f"process{'es' * (len(missing) > 1)} {', '.join(map(str, missing))}"
            is_or_are = "are" if len(missing) > 1 else "is"
            if self._is_patient:
                self._say(f"note: process {self._rank} waits for {who}, still preparing")
                continue
            self._say(
                f"error: {who[0].upper()}{who[1:]} {is_or_are} missing: process {self._rank} has "
                f"waited for {waited / 60:.2g} minutes (RUN.TIMEOUT). Look at what {who} last "
                "printed; --resume continues from the last checkpoint."
            )
            os._exit(1)  # the main thread waits in a call that cannot be interrupted

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # nobody may read it
            os.write(2, f"{line}\n".encode())
