"""The processes of one training run, as torchrun starts them, and what they share."""

from __future__ import annotations

import datetime
import os
import random
import signal
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from utils.errors import UserError


@dataclass(frozen=True)
class Processes:
    """This process's number, how many there are, and its device."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes files and prints."""
        return self.rank == 0

    def sum(self, values: list[float]) -> list[float]:
        """The element-wise sum over all processes, in float64 and the same on every one."""
        if self.world_size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()


def init_distributed() -> Processes:
    """Join the other processes that torchrun started, or be the only one.

    CUDA devices are taken by local rank where there are any; otherwise everything runs on the CPU
    and the processes talk through gloo.
    """
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        local_rank = int(os.environ.get("LOCAL_RANK", 0))
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"Process {local_rank} of this machine has no GPU; start at most "
                f"{torch.cuda.device_count()} with torchrun --nproc_per_node."
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if world_size > 1:
        # Long enough for one process to build the cache of a large data set.
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=datetime.timedelta(hours=2))
    return Processes(rank, world_size, device)


def destroy_distributed() -> None:
    """Leave the group of processes, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


class StopSignal:
    """Notes SIGINT and SIGTERM, so that the step under way is finished and saved first.

    A second SIGINT interrupts at once.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, NumPy and PyTorch, which decide the initial weights."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (libraries may use the global generator)
    torch.manual_seed(seed)


def random_states() -> dict[str, Any]:
    """The states of all global random generators as plain values and tensors."""
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": [name, keys.tolist(), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Put back what ``random_states`` returned."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
