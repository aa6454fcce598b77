"""Batches on their way from the loader processes to the device."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data.datasets import BatchSampler, DecodedPairs, Patch
from data.pairs import Pair
from data.workers import prepare_worker

# PyTorch's warning about more workers than cores; build_loaders prints a note instead.
warnings.filterwarnings("ignore", message="This DataLoader will create")

# Rainy and clean, (B, 3, H, W) each, for ``to_unit_range``; the numbers of their pairs.
Batch = tuple[Tensor, Tensor, list[int]]
Arrays = tuple[np.ndarray, np.ndarray, list[int]]  # a micro-batch on its way between processes


class PatchLoader(DataLoader[Patch]):
    """Loads micro-batches (rainy, clean, indices), as ``Batch`` describes them.

    The images are uint8 if no augmentation needs floats: a quarter of the bytes travels to the
    device, where ``to_unit_range`` makes floats of them. Batches come from a loader process through
    its pipe. PyTorch's default, tensors in shared memory, costs three files and three connections
    per micro-batch, which is more than cutting small patches takes.
    """

    def __init__(self, dataset: Dataset[Patch], sampler: BatchSampler, num_workers: int) -> None:
        super().__init__(
            dataset,
            batch_sampler=sampler,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=prepare_worker,
            collate_fn=_stack,
            # Else each start of the loader would draw from the training's random numbers.
            generator=torch.Generator(),
        )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # PyTorch names its own class
        for rainy, clean, indices in super().__iter__():
            yield _pinned(rainy), _pinned(clean), indices


def _stack(patches: list[Patch]) -> Arrays:
    rainy, clean, indices = zip(*patches, strict=True)
    return torch.stack(rainy).numpy(), torch.stack(clean).numpy(), list(indices)


def _pinned(images: np.ndarray) -> Tensor:
    """As a tensor; with CUDA in page-locked memory, from which the GPU copies asynchronously."""
    tensor = torch.from_numpy(images)
    return tensor.pin_memory() if torch.cuda.is_available() else tensor


class Prefetcher(Iterator[Batch]):
    """The micro-batches of an iterator, each of which can be loaded before it is needed."""

    def __init__(self, micro_batches: Iterator[Batch]) -> None:
        self.micro_batches = micro_batches
        self.fetched: Batch | None = None

    def fetch(self) -> None:
        """Load the next micro-batch, unless it is loaded already or was the last."""
        if self.fetched is None:
            self.fetched = next(self.micro_batches, None)

    def __next__(self) -> Batch:
        self.fetch()
        if self.fetched is None:
            raise StopIteration
        batch, self.fetched = self.fetched, None
        return batch


def to_unit_range(images: Tensor) -> Tensor:
    """Images as float32 in [0, 1] on their device; uint8 values are divided by 255."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def validation_loader(
    pairs: Sequence[Pair], num_workers: int
) -> DataLoader[tuple[np.ndarray, np.ndarray]]:
    """Whole images, one pair at a time, through the pipes of at most two loader processes.

    PyTorch's default, tensors in shared memory, hangs if /dev/shm is too small for an image: the
    thread that fails to put one there drops it silently.
    """
    return DataLoader(
        DecodedPairs(pairs),
        batch_size=None,
        num_workers=min(num_workers, 2),
        collate_fn=_unchanged,
        worker_init_fn=prepare_worker,
        generator=torch.Generator(),  # as in PatchLoader
    )


def _unchanged(images: Any) -> Any:
    return images
