"""What training reads: loaders of patches and of validation images from a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from data.cache import open_cache
from data.checked import check_pairs
from data.datasets import (
    BatchSampler,
    DecodedPairs,
    PairImages,
    PatchLoader,
    Share,
    TrainingPatches,
)
from data.pairs import FoundPairs, Pair, find_pairs
from data.synthesis import (
    Mixture,
    SyntheticPatches,
    find_layers,
    hold_out,
    layers_of,
    read_layers,
)
from data.transforms import Augmentation
from data.workers import prepare_worker
from utils.errors import UserError
from utils.images import images_by_stem
from utils.set_names import named_folders


@dataclass(frozen=True)
class ValidationSet:
    """One of the sets of DATA.VAL: all its pairs, and a loader of this process's share of them.

    The loader yields single whole images, uint8 (H, W, 3): pairs[rank], pairs[rank + world_size] ..
    It is empty where there are fewer images than processes.
    """

    pairs: list[Pair]
    loader: DataLoader


@dataclass(frozen=True)
class Loaders:
    """``train`` yields (rainy, clean, indices into ``train_pairs``) in the order of ``sampler``.

    ``layer_pairs`` are those that synthetic rain takes its layers from, where it does.
    ``validation`` holds the sets of DATA.VAL by name, in their order; it is empty without any.
    ``description`` tells in words what was found.
    """

    train: PatchLoader
    sampler: BatchSampler
    train_pairs: list[Pair]
    layer_pairs: list[Pair]
    validation: dict[str, ValidationSet]
    description: str


def build_loaders(
    cfg: CfgNode, rank: int = 0, world_size: int = 1, *, index: Path | None = None
) -> Loaders:
    """Find, check and open the data of a configuration for process ``rank`` of ``world_size``.

    ``index`` is a file that remembers which pairs were checked before; None checks all, and the
    image cache, where there is one, remembers its own.

    Raises UserError before anything is trained: for missing folders, images without a partner,
    broken images, different sizes, and settings that the data cannot satisfy.
    """
    node, augmentation = cfg.DATA, build_augmentation(cfg.AUGMENT)
    descriptions = []

    def find(name: str, folder: str) -> list[Pair]:
        layout, pairs, notes = _find_pairs(name, folder, node)
        if rank == 0:
            for note in notes:
                print(f"{folder}: {note}", flush=True)
        if name == "VAL" or not node.CACHE:  # building the cache is the same check
            share = pairs[rank::world_size]
            check_pairs(share, f"checking {folder}", quiet=rank > 0, index=index)
        descriptions.append(f"{len(pairs)} pairs in {folder} (layout {layout})")
        return pairs

    train_pairs: list[Pair] = []
    layer_pairs: list[Pair] = []
    shares = []
    synthetic: SyntheticPatches | None = None
    if node.SYNTHESIS.CLEAN:
        synthetic = build_synthesis(node.SYNTHESIS, augmentation, cfg.RUN.SEED)
        # a photograph stands for both images of its pairs, to be named in messages
        train_pairs = [Pair(photo, photo) for photo in synthetic.photos]
        if node.SYNTHESIS.LAYERS:
            layer_pairs = find_layers(*_layers(node.SYNTHESIS))
        shares = [Share(0, len(train_pairs), node.REPEAT * len(train_pairs))]
        descriptions.append(
            f"rain of {len(synthetic.layers)} layers and drawn rain on {len(train_pairs)} "
            f"photographs of {node.SYNTHESIS.CLEAN}"
        )
    else:
        for folder, weight in training_folders(node.TRAIN):
            pairs = find("TRAIN", folder)
            num_visits = max(1, round(weight * node.REPEAT * len(pairs)))
            shares.append(Share(len(train_pairs), len(pairs), num_visits))
            train_pairs += pairs
    validation_pairs = {
        name: find("VAL", folder) for name, folder in named_folders(node.VAL, "DATA.VAL").items()
    }
    num_samples = sum(share.num_visits for share in shares)
    stages = [(1, cfg.AUGMENT.PATCH, cfg.OPTIM.BATCH_SIZE), *cfg.AUGMENT.PROGRESSIVE]
    for _, _, batch_size in stages:
        _check_batch(batch_size, num_samples, cfg, world_size)

    images: PairImages = DecodedPairs(train_pairs)
    if node.CACHE and not synthetic:
        images = open_cache(train_pairs, Path(node.CACHE))
    sampler = BatchSampler(num_samples, cfg.RUN.SEED, cfg.OPTIM.ACCUMULATE, rank, world_size)
    patches = synthetic or TrainingPatches(images, augmentation, cfg.RUN.SEED, shares)
    train = PatchLoader(patches, sampler, node.WORKERS)
    validation = {
        name: ValidationSet(pairs, _validation_loader(pairs[rank::world_size], node.WORKERS))
        for name, pairs in validation_pairs.items()
    }
    return Loaders(train, sampler, train_pairs, layer_pairs, validation, "; ".join(descriptions))


def build_synthesis(node: CfgNode, augmentation: Augmentation, seed: int) -> SyntheticPatches:
    """Training patches drawn from clean photographs, as the DATA.SYNTHESIS settings describe.

    Raises UserError for a missing or empty folder and for settings that leave nothing.
    """
    if bool(node.LAYERS) != (node.SHARE_LAYERS > 0):
        raise UserError(
            "DATA.SYNTHESIS.LAYERS and a SHARE_LAYERS above 0 go together; give both or neither."
        )
    photos = images_by_stem(Path(node.CLEAN))
    held_out = hold_out(photos, node.HOLD_OUT)
    if len(held_out) == len(photos):
        raise UserError(
            f"DATA.SYNTHESIS.HOLD_OUT is {node.HOLD_OUT}, which leaves none of the {len(photos)} "
            f"photographs in {node.CLEAN}."
        )
    layers: list[np.ndarray] = []
    if node.LAYERS:
        layers = layers_of("train" if held_out else "", read_layers(*_layers(node)))
    return SyntheticPatches(
        [path for stem, path in photos.items() if stem not in held_out],
        layers,
        Mixture(
            layers=node.SHARE_LAYERS,
            light=node.SHARE_LIGHT,
            dry=node.SHARE_DRY,
            downpours=node.SHARE_DOWNPOURS,
        ),
        augmentation,
        seed,
        relit=node.SHARE_RELIT,
        patterns=node.SHARE_PATTERNS,
    )


def _layers(node: CfgNode) -> tuple[Path, list[str], str]:
    """The arguments of ``find_layers`` and ``read_layers``."""
    return Path(node.LAYERS), node.SKIP_LAYERS, "DATA.SYNTHESIS.SKIP_LAYERS"


def training_folders(setting: str | Sequence[Any]) -> list[tuple[str, float]]:
    """The folders of DATA.TRAIN with their weights: FOLDER, or a list of FOLDER, [FOLDER, WEIGHT].

    Raises UserError for anything else.
    """
    found = []
    for entry in [setting] if isinstance(setting, str) else setting:
        folder, weight = (entry, 1.0) if isinstance(entry, str) else _two(entry)
        is_weight = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not isinstance(folder, str) or not is_weight or not 0 < weight < float("inf"):
            raise UserError(
                f"DATA.TRAIN holds {entry!r}; each entry is a folder or [folder, weight], where a "
                "weight of 2 shows each of its pairs twice an epoch and 0.5 half of them."
            )
        found.append((folder, float(weight)))
    if not found:
        raise UserError("DATA.TRAIN is an empty list; name a folder of pairs.")
    return found


def _two(entry: Any) -> tuple[Any, Any]:
    """The two elements of a list; what is none gives values that are refused."""
    return tuple(entry) if isinstance(entry, (list, tuple)) and len(entry) == 2 else (None, None)


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


def _find_pairs(name: str, folder: str, node: CfgNode) -> FoundPairs:
    if not Path(folder).exists():
        raise UserError(
            f"There is no folder {folder} (DATA.{name}); put pairs in {folder}/input and "
            f"{folder}/target, name another folder with DATA.{name} FOLDER, or run `make demo`, "
            'which makes some. The README lists known sets under "Data sets".'
        )
    return find_pairs(Path(folder), node.LAYOUT, node.MATCH, node.RAINY_HALF)


def _validation_loader(pairs: list[Pair], workers: int) -> DataLoader:
    return DataLoader(
        DecodedPairs(pairs),
        batch_size=None,
        num_workers=min(workers, 2),
        worker_init_fn=prepare_worker,
        generator=torch.Generator(),  # as in PatchLoader
    )


def _check_batch(batch_size: int, num_samples: int, cfg: CfgNode, world_size: int) -> None:
    parts = world_size * cfg.OPTIM.ACCUMULATE
    setting = "OPTIM.BATCH_SIZE" if batch_size == cfg.OPTIM.BATCH_SIZE else "AUGMENT.PROGRESSIVE"
    if batch_size < 1 or batch_size % parts:
        raise UserError(
            f"{setting} asks for batches of {batch_size}; a batch must be a multiple of {parts}, "
            "the number of processes times OPTIM.ACCUMULATE."
        )
    if batch_size > num_samples:
        folders = ", ".join(folder for folder, _ in training_folders(cfg.DATA.TRAIN))
        folders = cfg.DATA.SYNTHESIS.CLEAN or folders
        raise UserError(
            f"{folders} gives {num_samples} patches an epoch, less than one batch of {batch_size} "
            f"({setting}); lower that or raise DATA.REPEAT (now {cfg.DATA.REPEAT})."
        )
