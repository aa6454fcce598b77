"""How much memory a computation needs, and keeping freed memory for the next one."""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from utils.inference.tiling import Network, legal_size

DEFAULT_MEMORY = 4 * 2**30
# The side of the image on which the memory per pixel is measured.
PROBE_SIZE = 128
# Memory of a process besides the tensors of a network: PyTorch, the weights.
FIXED_MEMORY = 2**29
# Bytes in use per byte of live tensors: scratch memory inside operators and gaps in the heap
# come on top; measured 1.1 to 2.0 over all networks.
MEMORY_FACTOR = 2.0


class _LiveTensors(TorchDispatchMode):
    """Tracks the bytes of all tensors that were created inside it and are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.live = self.peak = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        results = function(*args, **(kwargs or {}))
        for tensor in results if isinstance(results, (tuple, list)) else (results,):
            if isinstance(tensor, torch.Tensor):
                self._follow(tensor.untyped_storage())
        return results

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata  # views share their storage
        if key not in self.sizes:
            self.sizes[key] = storage.nbytes()
            self.live += self.sizes[key]
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.live -= self.sizes.pop(key)


def peak_tensor_bytes(compute: Callable[[], object]) -> int:
    """The most bytes that tensors created by ``compute`` occupy together at any moment.

    Scratch memory inside operators and the allocator's rounding are not counted; they added at most
    half as much again for the networks of this project.
    """
    with _LiveTensors() as tensors:
        compute()
    return tensors.peak


# What Apple's GPU and the CPU say, in a plain RuntimeError.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@contextlib.contextmanager
def out_of_memory_suppressed() -> Iterator[None]:
    """Suppresses the errors of a device that is out of memory, and no others."""
    try:
        yield
    except torch.OutOfMemoryError:
        pass
    except RuntimeError as error:
        if not any(words in str(error) for words in OUT_OF_MEMORY):
            raise


class MemoryPlan:
    """How many pixels a network can take at once: measured once, corrected by what failed.

    budget: bytes that this process may use; None means 4 GiB, or 90% of what is free on a GPU.
    compute: runs the network on (1, 3, H, W) as restoring does, autocast included.
    """

    def __init__(
        self,
        network: Network,
        device: torch.device,
        budget: int | None,
        compute: Callable[[Tensor], object],
    ) -> None:
        self.network = network
        self.device = device
        self.budget = budget
        self.compute = compute
        self.limit = math.inf  # half of what turned out not to fit
        self._bytes_per_pixel: float | None = None

    def pixels(self, image_bytes: int) -> float:
        """How many pixels fit beside an image of ``image_bytes``; 0 if none do."""
        return min(self.limit, max(self._free(image_bytes), 0) / self.bytes_per_pixel)

    def halve(self, failed_pixels: int) -> None:
        """Remember that so many pixels did not fit, and empty the cache."""
        self.limit = failed_pixels / 2
        self.empty_cache()

    def empty_cache(self) -> None:
        """Release the memory that PyTorch caches for its next tensors."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()

    @property
    def bytes_per_pixel(self) -> float:
        """Infinite if not even the probe fits; the smallest tile may still fit."""
        if self._bytes_per_pixel is None:
            side = legal_size(self.network, PROBE_SIZE)
            peak = math.inf
            with out_of_memory_suppressed():
                peak = peak_tensor_bytes(
                    lambda: self.compute(torch.rand(1, 3, side, side, device=self.device))
                )
            self._bytes_per_pixel = MEMORY_FACTOR * peak / side**2
        return self._bytes_per_pixel

    def _free(self, image_bytes: int) -> float:
        if self.budget is None and self.device.type == "cuda":
            unused = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(
                self.device
            )
            return 0.9 * (torch.cuda.mem_get_info(self.device)[0] + unused)
        # The image itself, its result, one that is being read and two being written.
        return (self.budget or DEFAULT_MEMORY) - FIXED_MEMORY - 5 * image_bytes


def keep_freed_memory() -> bool:
    """Make this process keep freed memory for its next tensors; returns whether it will.

    By default large blocks are returned to the kernel when they are freed, and their pages are
    cleared when they are allocated again: a tenth of a network's time on a CPU. The peak does not
    change. Only glibc, the usual C library of Linux, has this setting.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
    return bool(mallopt(mmap_threshold, 1 << 30) and mallopt(trim_threshold, (1 << 31) - 1))
