"""Training patches and whole images, and the order in which an epoch draws them.

A training sample depends only on the seed, the epoch, its number within the epoch and its step: not
on the process that loads it, on the number of processes, or on what was loaded before. So a resumed
run and a run on several processes take the same steps as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from data.pairs import Pair
from data.transforms import Augmentation, augment, cut_patch

Patch = tuple[Tensor, Tensor, int]  # rainy, clean, the number of the pair


class PairImages(Protocol):
    """Pairs by number, as two uint8 (H, W, 3) arrays: decoded files or a cache."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]: ...


class Draw(NamedTuple):
    """One sample to load: its number within the epoch, the patch's side in pixels, its step."""

    epoch: int
    number: int
    patch: int
    step: int = 0


class Share(NamedTuple):
    """A set's part of an epoch: ``num_visits`` samples of ``num_pairs`` pairs from ``first`` on."""

    first: int
    num_pairs: int
    num_visits: int


def pair_of(shares: Sequence[Share], epoch: int, number: int) -> int:
    """The pair that sample ``number`` of an epoch shows.

    A set's visits cycle through its pairs, and each epoch continues where the last one stopped: if
    an epoch shows half of a set's pairs, the next one shows the other half.
    """
    for share in shares:
        if number < share.num_visits:
            visit = (epoch - 1) * share.num_visits + number
            return share.first + visit % share.num_pairs
        number -= share.num_visits
    raise IndexError("the sample's number is beyond the epoch")


class TrainingPatches(Dataset[Patch]):
    """Augmented patches: ``dataset[Draw(...)]`` is (rainy, clean, index of the pair).

    The patches are (3, patch, patch); uint8 unless an augmentation needs floats, else float32 in
    [0, 1]. ``batches.to_unit_range`` makes floats of both.
    """

    def __init__(
        self,
        images: PairImages,
        augmentation: Augmentation,
        seed: int,
        shares: Sequence[Share] | None = None,
    ) -> None:
        """``shares`` say which pair a sample shows; by default each pair once per epoch."""
        self.images = images
        self.augmentation = augmentation
        self.seed = seed
        self.shares = shares or (Share(0, len(images), len(images)),)

    def __len__(self) -> int:
        return sum(share.num_visits for share in self.shares)

    def __getitem__(self, draw: Draw) -> Patch:
        index = pair_of(self.shares, draw.epoch, draw.number)
        rng = np.random.default_rng((self.seed, draw.epoch, draw.number))
        how, images = self.augmentation, self.images[index]
        of_step = None
        if how.geometry == "dihedral_batch":
            of_step = np.random.default_rng((self.seed, draw.epoch, draw.step, 0))
        if how.saturation_probability:
            return *augment(images, draw.patch, how, rng, of_step), index
        rainy, clean = cut_patch(images, draw.patch, how, rng, of_step)
        return to_bytes(rainy), to_bytes(clean), index


def to_bytes(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 pixels as (3, H, W) uint8."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


class DecodedPairs(Dataset[tuple[np.ndarray, np.ndarray]]):
    """Pairs decoded from their files at each access: (rainy, clean), uint8 (H, W, 3) arrays."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.pairs[index].read_uint8()


class BatchSampler(Sampler[list[Draw]]):
    """The draws of one process for the remaining steps of one epoch, a list for each micro-batch.

    Seed and epoch decide the epoch's order, a permutation of ``num_samples`` numbers. Step s takes
    places s*B to (s+1)*B of it; process r of N takes the r-th of N equal parts of these, in
    ``accumulate`` micro-batches. An incomplete last batch is left out.
    """

    def __init__(
        self, num_samples: int, seed: int, accumulate: int, rank: int, world_size: int
    ) -> None:
        self.num_samples = num_samples
        self.seed = seed
        self.accumulate = accumulate
        self.rank = rank
        self.world_size = world_size
        self._epoch: tuple[int, int, int, int] | None = None

    def set_epoch(self, epoch: int, *, patch: int, batch_size: int, first_step: int = 0) -> None:
        """Set what the next iteration yields: the epoch (from 1), its patch and batch size.

        ``first_step`` is the step at which a resumed run continues the epoch.
        """
        self._epoch = epoch, patch, batch_size, first_step

    def __len__(self) -> int:
        """The micro-batches that remain of the epoch."""
        _, _, batch_size, first_step = self._current()
        return (self.num_samples // batch_size - first_step) * self.accumulate

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, patch, batch_size, first_step = self._current()
        order = np.random.default_rng((self.seed, epoch)).permutation(self.num_samples)
        share = batch_size // self.world_size
        part = share // self.accumulate
        for step in range(first_step, self.num_samples // batch_size):
            first = step * batch_size + self.rank * share
            for begin in range(first, first + share, part):
                yield [Draw(epoch, int(i), patch, step) for i in order[begin : begin + part]]

    def _current(self) -> tuple[int, int, int, int]:
        if self._epoch is None:
            raise RuntimeError("call set_epoch(...) of the sampler before reading its loader")
        return self._epoch
