"""How much memory a computation needs, and keeping freed memory at hand."""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class _LiveTensors(TorchDispatchMode):
    """Follows the bytes of all tensors that were made inside it and are still alive."""

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
    """The most bytes that tensors made by ``compute`` take up together at any moment.

    Scratch memory inside an operator is not seen; an allocator rounds and splits as well. Both
    came to at most half as much again for the networks of this project.
    """
    with _LiveTensors() as tensors:
        compute()
    return tensors.peak


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next tensor; whether it will.

    By default large blocks go back to the kernel as soon as they are free and come again as pages
    to be cleared, which takes a tenth of a network's time on a CPU. The peak stays as it is. Only
    glibc, Linux's usual C library, can be told.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
    return bool(mallopt(mmap_threshold, 1 << 30) and mallopt(trim_threshold, (1 << 31) - 1))
