"""What training reads: from a configuration to loaders of patches and of validation images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from data.batches import PatchLoader, validation_loader
from data.checked import Check
from data.datasets import BatchSampler, Share
from data.leaks import Leak, find_leaks, leaks_sentence
from data.pairs import Pair, find_pairs
from data.scene_hashes import Rows, pack_scenes, scene_hashes
from data.settings import DataSettings, read_settings
from data.sources import FoundSet, TrainingSource, find_set, find_source
from data.workers import count_cores
from utils.console import say
from utils.errors import UserError
from utils.wording import plural


@dataclass(frozen=True)
class ValidationSet:
    """One of the sets of DATA.VAL: all its pairs, and a loader of this process's share of them.

    The loader yields single whole images as (rainy, clean), uint8 (H, W, 3) arrays: pairs[rank],
    pairs[rank + world_size] .. It is empty if there are fewer images than processes.
    """

    pairs: list[Pair]
    loader: DataLoader[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Loaders:
    """``train`` yields (rainy, clean, indices into ``train_pairs``) in the order of ``sampler``.

    ``shares`` say which of ``train_pairs`` a sample shows.
    ``layer_pairs`` are those whose rain is laid over photographs, if any.
    ``validation`` holds the sets of DATA.VAL by name, in their order; it may be empty.
    ``description`` says in words what was found. ``leaks`` are the training pairs whose scene is in
    a validation or test set, dropped ones included; ``scenes`` are the training scenes as weights
    record them.
    """

    train: PatchLoader
    sampler: BatchSampler
    shares: list[Share]
    train_pairs: list[Pair]
    layer_pairs: list[Pair]
    validation: dict[str, ValidationSet]
    description: str
    leaks: list[Leak]
    scenes: str


def build_loaders(
    cfg: CfgNode, rank: int = 0, world_size: int = 1, *, index: Path | None = None
) -> Loaders:
    """Find, check and open the data of a configuration for process ``rank`` of ``world_size``.

    ``index`` is a file that records which images were checked before; None checks them all.

    Raises UserError before anything is trained: for missing folders, images without a partner,
    broken or damaged images, two sizes, and settings that the data cannot satisfy.
    """
    settings = read_settings(cfg, world_size)
    is_main = rank == 0

    # Pairs by their names.
    source = find_source(settings)
    validation = {
        name: find_set("DATA.VAL", folder, settings) for name, folder in settings.validation.items()
    }
    num_samples = count_samples(settings, source)

    # Pairs that are sound; each process checks its share.
    check = Check(rank, world_size, index)
    source.check(check)
    for found in validation.values():
        check.print_notes(found.folder, found.notes)
        check.pairs(found.pairs, found.folder, settings.protocol)

    # Pairs whose scenes are not validated or tested on.
    leaks: list[Leak] = []
    scenes = ""
    if settings.leaks != "ignore":
        rows = scene_hashes(source.pairs, index, quiet=not is_main)
        leaks = search_leaks(settings, source, validation, rows, index, is_main=is_main)
        if leaks and settings.leaks == "drop":
            leaky = {leak.training for leak in leaks}
            rows = rows[[pair not in leaky for pair in source.pairs]]
            source = source.without(leaky)
            num_samples = count_samples(settings, source)
        scenes = pack_scenes(rows)

    # Datasets and their loaders.
    if is_main and (cores := count_cores()) < settings.num_workers:
        say(
            f"note: DATA.WORKERS is {settings.num_workers}, more than the "
            f"{plural(cores, 'core')} of this machine; loading may be slower than with fewer"
        )
    sampler = BatchSampler(num_samples, settings.seed, settings.accumulate, rank, world_size)
    patches = source.open(settings.augmentation, settings.seed)
    return Loaders(
        train=PatchLoader(patches, sampler, settings.num_workers),
        sampler=sampler,
        shares=source.shares,
        train_pairs=source.pairs,
        layer_pairs=source.layer_pairs,
        validation={
            name: ValidationSet(
                found.pairs, validation_loader(found.pairs[rank::world_size], settings.num_workers)
            )
            for name, found in validation.items()
        },
        description="; ".join(found.description for found in (source, *validation.values())),
        leaks=leaks,
        scenes=scenes,
    )


def count_samples(settings: DataSettings, source: TrainingSource) -> int:
    """The patches of an epoch. Raises UserError if they do not fill each of the run's batches."""
    num_samples = sum(share.num_visits for share in source.shares)
    for setting, batch_size in settings.batch_sizes:
        if batch_size > num_samples:
            raise UserError(
                f"{source.folders} gives {num_samples} patches per epoch, less than one batch of "
                f"{batch_size} ({setting}); lower that or raise DATA.REPEAT (now "
                f"{settings.repeat})."
            )
    return num_samples


def search_leaks(
    settings: DataSettings,
    source: TrainingSource,
    validation: Mapping[str, FoundSet],
    rows: Rows,
    index: Path | None,
    *,
    is_main: bool,
) -> list[Leak]:
    """The training pairs whose scene is in a set of DATA.VAL or in an existing one of TEST.SETS.

    ``rows`` are the training pairs' hashes. The main process reports what was found. Raises
    UserError if DATA.LEAKS refuses it.
    """
    sets: dict[str, Sequence[Pair]] = {name: found.pairs for name, found in validation.items()}
    known = {found.folder for found in validation.values()}
    for name, folder in settings.tests.items():
        if folder in known or not Path(folder).exists():
            continue
        try:
            sets[f"{name} (test)" if name in sets else name] = find_pairs(Path(folder)).pairs
        except UserError as error:
            if is_main:
                say(f"note: {folder} (TEST.SETS) is not searched for training scenes: {error}")
    leaks = find_leaks(source.pairs, sets, index, rows=rows, quiet=not is_main)
    sentence = leaks_sentence(leaks, len(source.pairs), settings.leaks)
    if sentence and is_main:
        say(f"warning: {sentence}")
    return leaks
