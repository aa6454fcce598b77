"""Training patches and validation images, and the order in which they are drawn.

A training sample depends on the seed, the epoch, its own number and its step alone: not on the
process that loads it, on how many there are, or on what was loaded before. So a resumed run and a
run on several processes take the same steps as an undisturbed one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from data.pairs import Pair
from data.transforms import Augmentation, augment, cut_patch
from data.workers import prepare_worker


class PairImages(Protocol):
    """Pairs by number, as two uint8 (H, W, 3) arrays: decoded files or a cache."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]: ...


class Draw(NamedTuple):
    """One sample to load: its number within an epoch, the side of the patch, and its step."""

    epoch: int
    number: int
    patch: int
    step: int = 0


class Share(NamedTuple):
    """A set's part of an epoch: ``num_visits`` samples of pairs ``first`` .. + ``num_pairs``."""

    first: int
    num_pairs: int
    num_visits: int


def pair_of(shares: Sequence[Share], epoch: int, number: int) -> int:
    """The pair that sample ``number`` of an epoch shows.

    A set's visits go through its pairs in a circle, and each epoch goes on where the last one
    stopped: half of a set's pairs an epoch are the other half in the next.
    """
    for share in shares:
        if number < share.num_visits:
            visit = (epoch - 1) * share.num_visits + number
            return share.first + visit % share.num_pairs
        number -= share.num_visits
    raise IndexError("the sample's number is beyond the epoch")


class TrainingPatches(Dataset[tuple[Tensor, Tensor, int]]):
    """Augmented patches: ``dataset[Draw(...)]`` is (rainy, clean, index of the pair).

    The patches are (3, patch, patch); uint8 unless an augmentation needs floats, else float32 in
    [0, 1]. ``to_unit_range`` makes floats of both.
    """

    def __init__(
        self,
        images: PairImages,
        augmentation: Augmentation,
        seed: int,
        shares: Sequence[Share] | None = None,
    ) -> None:
        """``shares`` say which pair a sample shows; by default each pair once an epoch."""
        self.images = images
        self.augmentation = augmentation
        self.seed = seed
        self.shares = shares or (Share(0, len(images), len(images)),)

    def __len__(self) -> int:
        return sum(share.num_visits for share in self.shares)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor, int]:
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


Patch = tuple[Tensor, Tensor, int]  # rainy, clean, the number of the pair
# Rainy and clean, (B, 3, H, W) each, for ``to_unit_range``; the pairs that they show.
Batch = tuple[Tensor, Tensor, list[int]]
Arrays = tuple[np.ndarray, np.ndarray, list[int]]  # a micro-batch on its way between processes


class PatchLoader(DataLoader[Patch]):
    """Loads micro-batches (rainy, clean, indices), as ``Batch`` describes them.

    The images are uint8 if no augmentation needs floats, so a quarter of the bytes travels to the
    device, which makes floats of them by ``to_unit_range``. From a loader process they come through
    its pipe. PyTorch's own way, tensors in shared memory, costs three files and three connections
    per micro-batch: more than cutting small patches.
    """

    def __init__(self, dataset: Dataset[Patch], sampler: BatchSampler, num_workers: int) -> None:
        super().__init__(
            dataset,
            batch_sampler=sampler,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=prepare_worker,
            collate_fn=_stack,
            # Its own: what a loader draws at its start must not move training's random numbers.
            generator=torch.Generator(),
        )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # PyTorch names its own class
        for rainy, clean, indices in super().__iter__():
            yield _pinned(rainy), _pinned(clean), indices


class Prefetcher(Iterator[Batch]):
    """The micro-batches of an iterator, each of which can be loaded before it is asked for."""

    def __init__(self, micro_batches: Iterator[Batch]) -> None:
        self.micro_batches = micro_batches
        self.fetched: Batch | None = None

    def fetch(self) -> None:
        """Load the next one, if there is one and it is not there yet."""
        if self.fetched is None:
            self.fetched = next(self.micro_batches, None)

    def __next__(self) -> Batch:
        self.fetch()
        if self.fetched is None:
            raise StopIteration
        batch, self.fetched = self.fetched, None
        return batch


def _stack(patches: list[Patch]) -> Arrays:
    rainy, clean, indices = zip(*patches, strict=True)
    return torch.stack(rainy).numpy(), torch.stack(clean).numpy(), list(indices)


def _pinned(images: np.ndarray) -> Tensor:
    """As a tensor; in page-locked memory if there is CUDA, which copies from there by itself."""
    tensor = torch.from_numpy(images)
    return tensor.pin_memory() if torch.cuda.is_available() else tensor


def to_unit_range(images: Tensor) -> Tensor:
    """Images as float32 in [0, 1] on their device; uint8 values are divided by 255."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


class DecodedPairs(Dataset[tuple[np.ndarray, np.ndarray]]):
    """Pairs decoded from their files at every access: (rainy, clean), uint8 (H, W, 3) arrays."""

    def __init__(self, pairs: list[Pair]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.pairs[index].read_uint8()


class BatchSampler(Sampler[list[Draw]]):
    """The draws of one process for the remaining steps of one epoch, a list for each micro-batch.

    The epoch's order is a permutation of ``num_samples`` numbers that depends on seed and epoch;
    step s takes numbers s*B .. (s+1)*B of it, process r of N the r-th N-th of these, in
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
        """Say what the next iteration yields: the epoch (from 1), its patch and batch size.

        ``first_step`` is the first step that is left of the epoch, in a resumed run.
        """
        self._epoch = epoch, patch, batch_size, first_step

    def __len__(self) -> int:
        """Micro-batches that are left of the epoch."""
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
