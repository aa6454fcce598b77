"""The processes of one training run, as torchrun or SLURM starts them, and what they share."""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from utils.errors import UserError
from utils.training.launcher import end_with_launcher


@dataclass(frozen=True)
class Processes:
    """This process's number, how many there are, and its device.

    Every method is called by all processes together; none may stand behind a condition that can
    differ between them.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes files and prints."""
        return self.rank == 0

    def mean_tensor(self, values: Tensor) -> Tensor:
        """The element-wise mean over all processes, in float64 and the same on every one."""
        values = values.double()
        if self.world_size > 1:
            dist.all_reduce(values)
        return values / self.world_size

    def sum(self, values: list[float]) -> list[float]:
        """The element-wise sum over all processes, in float64 and the same on every one."""
        if self.world_size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` holds on one process at least."""
        return self.sum([float(flag)])[0] > 0

    def in_step(self, network: nn.Module) -> nn.Module:
        """The network, behind what averages its gradients over all processes if there are several.

        Compares the copies, which makes it something that all processes do together.
        """
        if self.world_size == 1:
            return network
        device_ids = [self.device.index] if self.device.type == "cuda" else None
        # Of 1x1 kernels, whose strides of height and width mean nothing.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        return DistributedDataParallel(network, device_ids=device_ids)

    def barrier(self) -> None:
        """Go on when all processes have come here."""
        self.sum([0.0])

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, by rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    @contextlib.contextmanager
    def all_or_none(self) -> Iterator[None]:
        """What the block does succeeds on all processes, or all of them end with status 1.

        The block itself must not call other methods of this class. A process that raises
        UserError prints it at once; the others would wait for it for ever.
        """
        if self.world_size == 1:
            yield
            return
        is_failed = False
        try:
            yield
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            is_failed = True
        if self.any(is_failed):
            destroy_distributed()
            sys.exit(1)


def init_distributed(backend: str = "auto") -> Processes:
    """Join the other processes that torchrun or srun started, or be the only one.

    They say who is who by the variables RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
    CUDA devices are taken by local rank where there are any; otherwise everything runs on the CPU.
    ``backend`` is auto (NCCL on CUDA, gloo on the CPU) or gloo, with which several processes may
    share one GPU. Raises UserError where a process is left without a GPU.
    """
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        local_rank, num_gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if local_rank >= num_gpus and backend != "gloo":
            raise UserError(
                f"Process {local_rank} of this machine has no GPU; start at most {num_gpus} with "
                "torchrun --nproc_per_node, or let them share with RUN.BACKEND gloo."
            )
        device = torch.device("cuda", local_rank % num_gpus)
        torch.cuda.set_device(device)
    if "RANK" in os.environ:
        end_with_launcher()
    if world_size > 1:
        if backend == "auto":
            backend = "nccl" if device.type == "cuda" else "gloo"
        # Long enough for one process to build the cache of a large data set.
        dist.init_process_group(backend, timeout=datetime.timedelta(hours=2))
    return Processes(rank, world_size, device)


def destroy_distributed() -> None:
    """Leave the group of processes, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
