"""Training patches and validation images from a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from data.cache import open_cache
from data.datasets import Batches, DecodedPairs, TrainingPatches
from data.pairs import Pair, check_pairs, find_pairs, warn_if_swapped
from data.transforms import Augmentation
from data.workers import prepare_worker
from utils.errors import UserError


@dataclass(frozen=True)
class Loaders:
    """What training reads: ``train`` yields (rainy, clean, pair numbers) as ``batches`` says.

    ``validation`` yields single whole images, uint8 (H, W, 3), of this process's share; it is None
    where there is no validation set. ``description`` tells in words what was found.
    """

    train: DataLoader
    batches: Batches
    train_pairs: list[Pair]
    validation: DataLoader | None
    validation_pairs: list[Pair]
    description: str


def build_loaders(config: CfgNode, rank: int = 0, world_size: int = 1) -> Loaders:
    """Find, check and open the data of a configuration for process ``rank`` of ``world_size``.

    Raises UserError before anything is trained: for missing folders, images without a partner,
    broken images, different sizes, and settings that the data cannot satisfy.
    """
    node, augmentation = config.DATA, build_augmentation(config.AUGMENT)
    descriptions = []

    def find(name: str, folder: str) -> list[Pair]:
        if not Path(folder).is_dir():
            raise UserError(
                f"There is no folder {folder} (DATA.{name}); put pairs in {folder}/input and "
                f"{folder}/target, name another folder with DATA.{name} FOLDER, or run "
                "`make demo`, which makes some."
            )
        layout, pairs = find_pairs(Path(folder), node.LAYOUT)
        if rank == 0:
            warn_if_swapped(pairs)
        if name == "VAL" or not node.CACHE:  # building the cache is the same check
            check_pairs(pairs[rank::world_size], f"checking {folder}", quiet=rank > 0)
        descriptions.append(f"{len(pairs)} pairs in {folder} (layout {layout})")
        return pairs

    train_pairs = find("TRAIN", node.TRAIN)
    validation_pairs = find("VAL", node.VAL) if node.VAL else []
    stages = [(1, config.AUGMENT.PATCH, config.OPTIM.BATCH_SIZE), *config.AUGMENT.PROGRESSIVE]
    for _, _, batch_size in stages:
        _check_batch(batch_size, len(train_pairs) * node.REPEAT, config, world_size)

    images = open_cache(train_pairs, Path(node.CACHE)) if node.CACHE else DecodedPairs(train_pairs)
    batches = Batches(
        len(train_pairs) * node.REPEAT, config.RUN.SEED, config.OPTIM.ACCUMULATE, rank, world_size
    )
    pin_memory = torch.cuda.is_available()
    train = DataLoader(
        TrainingPatches(images, augmentation, config.RUN.SEED),
        batch_sampler=batches,
        num_workers=node.WORKERS,
        persistent_workers=node.WORKERS > 0,
        worker_init_fn=prepare_worker,
        pin_memory=pin_memory,
    )
    share = validation_pairs[rank::world_size]
    validation = DataLoader(
        DecodedPairs(share),
        batch_size=None,
        num_workers=min(node.WORKERS, 2),
        worker_init_fn=prepare_worker,
    )
    return Loaders(
        train,
        batches,
        train_pairs,
        validation if validation_pairs else None,
        validation_pairs,
        "; ".join(descriptions),
    )


def build_augmentation(node: CfgNode) -> Augmentation:
    """The augmentation that the AUGMENT settings describe. Raises UserError for impossible ones."""
    try:
        return Augmentation(
            geometry=node.GEOMETRY,
            saturation=tuple(node.SATURATION),
            saturation_probability=node.SATURATION_PROBABILITY,
            crop=tuple(node.CROP) or None,
            rotation=node.ROTATION,
            black_corners=node.BLACK_CORNERS,
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def _check_batch(batch_size: int, num_samples: int, config: CfgNode, world_size: int) -> None:
    parts = world_size * config.OPTIM.ACCUMULATE
    if batch_size < 1 or batch_size % parts:
        raise UserError(
            f"OPTIM.BATCH_SIZE is {batch_size}; it must be a multiple of {parts}, the number of "
            "processes times OPTIM.ACCUMULATE."
        )
    if batch_size > num_samples:
        raise UserError(
            f"{config.DATA.TRAIN} gives {num_samples} patches an epoch, less than one batch of "
            f"{batch_size}; lower OPTIM.BATCH_SIZE or raise DATA.REPEAT (now {config.DATA.REPEAT})."
        )
