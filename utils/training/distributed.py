"""The processes of one training run, as torchrun or SLURM starts them, and what they share."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from utils.errors import UserError
from utils.training.attendance import Attendance
from utils.training.failures import reason_of
from utils.training.launcher import end_with_launcher
from utils.training.stopping import RunStopped, StopSignal

# PyTorch's own limit for a collective operation. Attendance ends a hang long before it; one process
# may need hours to build the cache of a large data set while the others wait.
LONGEST_WAIT = datetime.timedelta(hours=6)


@dataclass(frozen=True)
class Processes:
    """This process's number, how many there are, and its device.

    All processes call every method together; no call may depend on a condition that can differ
    between them.
    """

    rank: int
    world_size: int
    device: torch.device
    attendance: Attendance | None = None  # None: a single process

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes files and prints."""
        return self.rank == 0

    def mean_tensor(self, values: Tensor) -> Tensor:
        """The element-wise mean over all processes, in float64 and the same on every one."""
        values = values.double()
        if self.world_size > 1:
            self._arrive()
            dist.all_reduce(values)
        return values / self.world_size

    def sum(self, values: list[float], *, patient: bool = False) -> list[float]:
        """The element-wise sum over all processes, in float64 and the same on every one.

        A process that is ``patient`` may wait for others longer than RUN.TIMEOUT.
        """
        if self.world_size == 1:
            return values
        self._arrive(patient=patient)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` holds on at least one process."""
        return self.sum([float(flag)])[0] > 0

    def in_step(self, network: nn.Module) -> nn.Module:
        """The network, wrapped to average its gradients over all processes if there are several.

        All copies become that of the main process.
        """
        if self.world_size == 1:
            return network
        device_ids = [self.device.index] if self.device.type == "cuda" else None
        # About 1x1 kernels, whose strides of height and width mean nothing.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        self._arrive()
        # As views, gradients need no memory besides the buckets that are sent.
        model = DistributedDataParallel(
            network, device_ids=device_ids, gradient_as_bucket_view=True
        )
        # A lambda, without annotations: PyTorch compares them with its classes, ours are strings.
        model.register_comm_hook(None, lambda state, bucket: self._exchange(bucket))
        return model

    def share_buffers(self, network: nn.Module) -> None:
        """Give all processes the main one's buffers, such as the statistics of batch norms.

        On a CPU each process has the statistics of its share of the batches; a checkpoint holds
        the main one's.
        """
        if self.world_size > 1:
            self._arrive()
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    def barrier(self) -> None:
        """Wait until all processes have come here."""
        self.sum([0.0])

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, by rank."""
        if self.world_size == 1:
            return [value]
        self._arrive()
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def check_same(self, facts: Mapping[str, object]) -> None:
        """End all processes with status 1, and one sentence, if any of the facts differs."""
        hosts_and_facts = self.gather((socket.gethostname(), dict(facts)))
        host, expected = hosts_and_facts[0]
        differences = [
            f"{name} is {expected.get(name)} in process 0 on {host} and {theirs.get(name)} in "
            f"process {rank} on {other_host}"
            for rank, (other_host, theirs) in enumerate(hosts_and_facts)
            for name in expected | theirs
            if theirs.get(name) != expected.get(name)
        ]
        if not differences:
            return
        more = f" ({len(differences) - 3} more differences)" if len(differences) > 3 else ""
        self._end_all(
            "The processes do not start from the same thing: "
            f"{'; '.join(differences[:3])}{more}. Give them the same files and settings."
        )

    @contextlib.contextmanager
    def alike(self) -> Iterator[None]:
        """A UserError in the block, which all processes raise or none, is printed once.

        All processes end with status 1.
        """
        try:
            yield
        except UserError as error:
            if self.world_size == 1:
                raise
            self._end_all(str(error))

    @contextlib.contextmanager
    def all_or_none(self, stop: StopSignal) -> Iterator[None]:
        """What the block does succeeds on all processes, or all of them end with status 1.

        The block itself must not call other methods of this class. A process that raises
        UserError prints it at once, unless another one has; any other error is raised again when
        the others know of it. A signal to one process raises RunStopped in all of them.
        """
        if self.world_size == 1:
            with stop.interruptible():
                yield
            return
        error: Exception | None = None
        try:
            with stop.interruptible():
                yield
        except UserError as caught:
            error = caught
            message = f"error: {reason_of(caught)}"
            if self.attendance is None or self.attendance.is_first_to_say(message):
                print(message, file=sys.stderr, flush=True)
        except Exception as caught:
            error = caught
        is_stopped = isinstance(error, RunStopped)
        failed, stopped = self.sum(
            [float(error is not None and not is_stopped), float(is_stopped)], patient=True
        )
        if error is not None and not is_stopped and not isinstance(error, UserError):
            raise error
        if failed:
            destroy_distributed()
            sys.exit(1)
        if stopped:
            raise RunStopped

    def _end_all(self, message: str) -> NoReturn:
        """Print the message of all processes once; end them together, with status 1.

        A launcher kills the others when the first one has ended, which may not have printed it yet.
        """
        if self.is_main:
            print(f"error: {message}", file=sys.stderr, flush=True)
        self.end_together()

    def end_together(self) -> NoReturn:
        """End all processes with status 1."""
        self.barrier()
        destroy_distributed()
        sys.exit(1)

    def _exchange(self, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        self._arrive()  # within backward(), where a process waits for the others too
        return allreduce_hook(None, bucket)  # type: ignore[arg-type]  # None: all processes

    def _arrive(self, *, patient: bool = False) -> None:
        if self.attendance:
            self.attendance.arrive(patient=patient)


def init_distributed(backend: str = "auto", timeout: float = 10.0) -> Processes:
    """Join the other processes that torchrun or srun started, or be the only one.

    The environment variables RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT tell them
    apart. The local rank selects the CUDA device; without CUDA everything runs on the CPU.
    ``backend`` is auto (NCCL on CUDA, gloo on the CPU) or gloo, with which several processes may
    share one GPU. A process that has waited for another one for ``timeout`` minutes names it and
    ends.

    Raises UserError if a process is left without a GPU, for variables without a meaning, and if
    the processes do not meet.
    """
    rank, world_size = _number("RANK", 0), _number("WORLD_SIZE", 1)
    if not 0 <= rank < world_size:
        raise UserError(
            f"RANK is {rank} and WORLD_SIZE {world_size}; the ranks are 0 to WORLD_SIZE - 1."
        )
    device = torch.device("cpu")
    if torch.cuda.is_available():
        local_rank, num_gpus = _number("LOCAL_RANK", 0), torch.cuda.device_count()
        if local_rank >= num_gpus and backend != "gloo":
            raise UserError(
                f"Process {local_rank} of this machine has no GPU; start at most {num_gpus} with "
                "torchrun --nproc_per_node, or let them share with RUN.BACKEND gloo."
            )
        device = torch.device("cuda", local_rank % num_gpus)
        torch.cuda.set_device(device)
    if "RANK" in os.environ:
        end_with_launcher()
    if world_size == 1:
        return Processes(rank, world_size, device)
    if backend == "auto":
        backend = "nccl" if device.type == "cuda" else "gloo"
    return Processes(rank, world_size, device, _meet(backend, rank, world_size, timeout))


@contextlib.contextmanager
def alike_before_meeting() -> Iterator[None]:
    """``Processes.alike`` for a block that runs before ``init_distributed``.

    The main process prints the message first, since the processes may fail to meet.
    """
    try:
        yield
    except UserError as error:
        if _number("WORLD_SIZE", 1) == 1:
            raise
        if _number("RANK", 0) == 0:
            print(f"error: {error}", file=sys.stderr, flush=True)
        init_distributed("gloo").end_together()


def destroy_distributed() -> None:
    """Leave the group of processes, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _number(name: str, default: int) -> int:
    """The number that an environment variable holds."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise UserError(
            f"The environment variable {name} is {text!r}; it must be a number, as torchrun and "
            "tools/slurm_train.sh set it."
        )
    return int(text)


def _meet(backend: str, rank: int, world_size: int, timeout: float) -> Attendance:
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise UserError(
            f"WORLD_SIZE is {world_size}, but {' and '.join(missing)}, where the processes meet, "
            f"{'is' if len(missing) == 1 else 'are'} not set; start them with torchrun or "
            "tools/slurm_train.sh, or unset WORLD_SIZE for a single process."
        )
    place = f"{os.environ['MASTER_ADDR']}:{_number('MASTER_PORT', 0)}"
    try:
        minutes = datetime.timedelta(minutes=timeout)
        store, _, _ = next(rendezvous("env://", rank, world_size, timeout=minutes))
        attendance = Attendance(rank, world_size, timeout)
        attendance.arrive()
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=world_size, timeout=LONGEST_WAIT
        )
    except (dist.DistError, OSError) as error:
        raise UserError(
            f"The {world_size} processes do not meet at {place}: {_meeting_problem(error)}"
        ) from error
    return attendance


def _meeting_problem(error: Exception) -> str:
    message = str(error)
    if "EADDRINUSE" in message or "already in use" in message:
        return "another program uses that port; choose another MASTER_PORT."
    joined = re.search(r"(\d+/\d+) clients joined", message)
    if joined:
        return f"only {joined[1]} arrived in time (RUN.TIMEOUT)."
    return f"{reason_of(error)}."
