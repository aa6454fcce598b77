"""Training patches and validation images, and the order in which they are drawn.

A training sample depends on the seed, the epoch and its own number alone: not on the process that
loads it, on how many there are, or on what was loaded before. That makes a resumed run and a run on
several processes take the same steps as an undisturbed one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from data.pairs import Pair
from data.transforms import Augmentation, augment


class PairImages(Protocol):
    """Pairs by number, as two uint8 (H, W, 3) arrays: decoded files or a cache."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]: ...


class Draw(NamedTuple):
    """One sample to load: the number of a pair within an epoch, and the patch to cut."""

    epoch: int
    index: int
    patch: int


class TrainingPatches(Dataset):
    """Augmented patches: ``dataset[Draw(...)]`` is (rainy, clean, index of the pair).

    Numbers past the last pair start over, so that an epoch can visit each pair several times.
    """

    def __init__(
        self,
        images: PairImages,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        self.images = images
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor, int]:
        which = draw.index % len(self.images)
        rng = np.random.default_rng((self.seed, draw.epoch, draw.index))
        rainy, clean = augment(self.images[which], draw.patch, self.augmentation, rng)
        return rainy, clean, which


class DecodedPairs(Dataset):
    """Pairs decoded from their files at every access: (rainy, clean), uint8 (H, W, 3) arrays."""

    def __init__(self, pairs: list[Pair]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.pairs[index].read_uint8()


class Batches(Sampler[list[Draw]]):
    """The draws of one process for the remaining steps of one epoch, a list for each pass.

    The epoch's order is a permutation of ``num_samples`` numbers that depends on seed and epoch;
    step s takes numbers s*B .. (s+1)*B of it, process r of N the r-th N-th of these, in
    ``accumulate`` passes. An incomplete last batch is left out.
    """

    def __init__(
        self, num_samples: int, seed: int, accumulate: int, rank: int, world_size: int
    ) -> None:
        self.num_samples = num_samples
        self.seed = seed
        self.accumulate = accumulate
        self.rank = rank
        self.world_size = world_size

    def start(self, epoch: int, step: int, patch: int, batch_size: int) -> None:
        """Set what the next iteration yields: the epoch (from 1), its first step, the patch."""
        self.epoch, self.step, self.patch, self.batch_size = epoch, step, patch, batch_size

    def __len__(self) -> int:
        """Passes that are left of the epoch."""
        return (self.num_samples // self.batch_size - self.step) * self.accumulate

    def __iter__(self) -> Iterator[list[Draw]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.num_samples)
        share = self.batch_size // self.world_size
        part = share // self.accumulate
        for step in range(self.step, self.num_samples // self.batch_size):
            first = step * self.batch_size + self.rank * share
            for begin in range(first, first + share, part):
                yield [Draw(self.epoch, int(i), self.patch) for i in order[begin : begin + part]]
