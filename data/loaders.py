"""What training reads: loaders of patches and of validation images from a configuration."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from data.cache import open_cache
from data.checked import check_pairs, check_photos
from data.datasets import BatchSampler, DecodedPairs, PatchLoader, Share, TrainingPatches
from data.leaks import Leak, find_leaks, leaks_sentence, pack_scenes, scene_hashes
from data.pairs import Pair, find_pairs
from data.settings import (
    batch_sizes,
    build_augmentation,
    build_mixture,
    build_variety,
    check_batches,
    training_folders,
)
from data.synthesis import (
    Mixture,
    SceneVariety,
    SyntheticPatches,
    find_layers,
    hold_out,
    layers_of,
    read_layers,
)
from data.transforms import Augmentation
from data.workers import count_cores, prepare_worker
from utils.console import say
from utils.errors import UserError
from utils.images import images_by_stem
from utils.set_names import named_folders
from utils.wording import plural

# Of PyTorch's loaders, about more workers than cores; build_loaders prints a note instead.
warnings.filterwarnings("ignore", message="This DataLoader will create")


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
    ``layer_pairs`` are those whose rain is laid over photographs, if there are any.
    ``validation`` holds the sets of DATA.VAL by name, in their order; it is empty without any.
    ``description`` says in words what was found. ``leaks`` are the training pairs whose scene is in
    a validation or test set, also where they were dropped; ``scenes`` are the training scenes as
    weights remember them.
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

    ``index`` is a file that remembers which images were checked before; None checks them all.

    Raises UserError before anything is trained: for missing folders, images without a partner,
    broken or damaged images, two sizes, and settings that the data cannot satisfy.
    """
    data, seed = cfg.DATA, cfg.RUN.SEED
    augmentation = build_augmentation(cfg.AUGMENT)
    check_batches(cfg, world_size)

    # What there is.
    source: TrainingSource
    source = find_photos(data) if data.SYNTHESIS.CLEAN else find_training_sets(data)
    validation = {
        name: find_set("VAL", folder, data)
        for name, folder in named_folders(data.VAL, "DATA.VAL").items()
    }
    num_samples = sum(share.num_visits for share in source.shares)
    check_number_of_samples(cfg, num_samples, source.folders)

    # Whether it is sound; each process checks its share.
    check = Check(rank, world_size, index)
    source.check(check)
    for found in validation.values():
        check.pairs(found, protocol=cfg.VALIDATION.PROTOCOL)

    # Whether training sees what it will be tested on.
    leaks: list[Leak] = []
    scenes = ""
    if data.LEAKS != "ignore":
        rows = scene_hashes(source.pairs, index, quiet=rank > 0)
        leaks = check_leaks(cfg, source.pairs, rows, validation, index, is_main=rank == 0)
        if data.LEAKS == "drop" and leaks:
            leaky = {leak.training for leak in leaks}
            rows = rows[[pair not in leaky for pair in source.pairs]]
            source = source.without(leaky)
            num_samples = sum(share.num_visits for share in source.shares)
            check_number_of_samples(cfg, num_samples, source.folders)
        scenes = pack_scenes(rows)

    # How it is read.
    if rank == 0 and (cores := count_cores()) < data.WORKERS:
        say(
            f"note: DATA.WORKERS is {data.WORKERS}, more than the {plural(cores, 'core')} of this "
            "machine; loading may be slower than with fewer"
        )
    sampler = BatchSampler(num_samples, seed, cfg.OPTIM.ACCUMULATE, rank, world_size)
    found_sets = [source, *validation.values()]
    return Loaders(
        train=PatchLoader(source.open(augmentation, seed), sampler, data.WORKERS),
        sampler=sampler,
        shares=source.shares,
        train_pairs=source.pairs,
        layer_pairs=source.layer_pairs,
        validation={
            name: ValidationSet(
                found.pairs, validation_loader(found.pairs[rank::world_size], data.WORKERS)
            )
            for name, found in validation.items()
        },
        description="; ".join(found.description for found in found_sets),
        leaks=leaks,
        scenes=scenes,
    )


@dataclass(frozen=True)
class FoundSet:
    """A folder of pairs before anything in it is decoded."""

    folder: str
    layout: str
    pairs: list[Pair]
    notes: list[str]

    @property
    def description(self) -> str:
        return f"{plural(len(self.pairs), 'pair')} in {self.folder} (layout {self.layout})"


@dataclass(frozen=True)
class Check:
    """The check that this process makes of its share of the data."""

    rank: int
    world_size: int
    index: Path | None

    def pairs(self, found: FoundSet, protocol: str = "") -> None:
        if self.rank == 0:
            for note in found.notes:
                say(f"{found.folder}: {note}")
        share = found.pairs[self.rank :: self.world_size]
        self._run(partial(check_pairs, share, protocol=protocol), found.folder)

    def photos(self, photos: list[Path], folder: str) -> None:
        self._run(partial(check_photos, photos[self.rank :: self.world_size]), folder)

    def _run(self, check: Callable[..., int], folder: str) -> None:
        check(description=f"checking {folder}", quiet=self.rank > 0, index=self.index)


class TrainingSource(Protocol):
    """Where training patches come from: pairs, or photographs that rain is drawn on."""

    @property
    def pairs(self) -> list[Pair]:
        """What the patches are numbered after, to be named in messages."""

    @property
    def layer_pairs(self) -> list[Pair]:
        """The pairs whose rain is laid over photographs."""

    @property
    def shares(self) -> list[Share]:
        """What an epoch shows of ``pairs``."""

    @property
    def folders(self) -> str: ...

    @property
    def description(self) -> str: ...

    def check(self, check: Check) -> None:
        """Raise UserError for images that cannot be trained on."""

    def without(self, pairs: Collection[Pair]) -> TrainingSource:
        """The same without some pairs. Raises UserError if nothing is left."""

    def open(self, augmentation: Augmentation, seed: int) -> SyntheticPatches | TrainingPatches: ...


@dataclass(frozen=True)
class TrainingSets:
    """The folders of DATA.TRAIN."""

    sets: list[FoundSet]
    visits: list[float]  # per epoch, of each pair of a set
    cache: Path | None
    layer_pairs: list[Pair] = field(default_factory=list)  # none

    @property
    def pairs(self) -> list[Pair]:
        return [pair for found in self.sets for pair in found.pairs]

    @property
    def folders(self) -> str:
        return ", ".join(found.folder for found in self.sets)

    @property
    def description(self) -> str:
        return "; ".join(found.description for found in self.sets)

    @property
    def shares(self) -> list[Share]:
        shares, first = [], 0
        for found, visits in zip(self.sets, self.visits, strict=True):
            count = len(found.pairs)
            shares.append(Share(first, count, max(1, round(visits * count))))
            first += count
        return shares

    def without(self, pairs: Collection[Pair]) -> TrainingSets:
        kept = [
            (replace(found, pairs=left), visits)
            for found, visits in zip(self.sets, self.visits, strict=True)
            if (left := [pair for pair in found.pairs if pair not in pairs])
        ]
        if not kept:
            raise UserError(nothing_left(self.folders))
        return replace(self, sets=[s for s, _ in kept], visits=[v for _, v in kept])

    def check(self, check: Check) -> None:
        if self.cache is None:  # building the cache is the same check
            for found in self.sets:
                check.pairs(found)

    def open(self, augmentation: Augmentation, seed: int) -> TrainingPatches:
        images = open_cache(self.pairs, self.cache) if self.cache else DecodedPairs(self.pairs)
        return TrainingPatches(images, augmentation, seed, self.shares)


@dataclass(frozen=True)
class Photographs:
    """The photographs of DATA.SYNTHESIS; each stands for both images of its pairs."""

    folder: str
    photos: list[Path]
    num_visits: int  # per epoch, of each
    layers: list[Pair]
    crops: list[Pair]
    mixture: Mixture
    variety: SceneVariety

    @property
    def pairs(self) -> list[Pair]:
        return [Pair(photo, photo) for photo in self.photos]

    @property
    def layer_pairs(self) -> list[Pair]:
        return [*self.layers, *self.crops]

    @property
    def shares(self) -> list[Share]:
        return [Share(0, len(self.photos), self.num_visits * len(self.photos))]

    @property
    def folders(self) -> str:
        return self.folder

    @property
    def description(self) -> str:
        layers = plural(len(self.layers), "layer")
        if self.crops:
            layers += f", {plural(len(self.crops), 'crop')} of real rain"
        photos = plural(len(self.photos), "photograph")
        return f"rain of {layers} and drawn rain on {photos} of {self.folder}"

    def without(self, pairs: Collection[Pair]) -> Photographs:
        leaky = {pair.clean for pair in pairs}
        photos = [photo for photo in self.photos if photo not in leaky]
        if not photos:
            raise UserError(nothing_left(self.folder))
        return replace(self, photos=photos)

    def check(self, check: Check) -> None:
        check.photos(self.photos, self.folder)

    def open(self, augmentation: Augmentation, seed: int) -> SyntheticPatches:
        return SyntheticPatches(
            self.photos,
            read_layers(self.layers),
            self.mixture,
            augmentation,
            seed,
            variety=self.variety,
            crops=read_layers(self.crops),
        )


def find_training_sets(data: CfgNode) -> TrainingSets:
    """The pairs of DATA.TRAIN, and how often an epoch shows them."""
    folders = training_folders(data.TRAIN)
    return TrainingSets(
        sets=[find_set("TRAIN", folder, data) for folder, _ in folders],
        visits=[weight * data.REPEAT for _, weight in folders],
        cache=Path(data.CACHE) if data.CACHE else None,
    )


def find_photos(data: CfgNode) -> Photographs:
    """The photographs and the layers for training, as the DATA.SYNTHESIS settings describe them.

    Raises UserError for a missing or empty folder and for settings that leave nothing.
    """
    node = data.SYNTHESIS
    mixture = build_mixture(node)
    photos = images_by_stem(Path(node.CLEAN))
    held_out = hold_out(photos, node.HOLD_OUT)
    if len(held_out) == len(photos):
        raise UserError(
            f"DATA.SYNTHESIS.HOLD_OUT is {node.HOLD_OUT}, which leaves none of the {len(photos)} "
            f"photographs in {node.CLEAN}."
        )
    layers: list[Pair] = []
    if node.LAYERS:
        found = find_layers(Path(node.LAYERS), node.SKIP_LAYERS, "DATA.SYNTHESIS.SKIP_LAYERS")
        layers = layers_of("train" if held_out else "", found)
    crops = find_layers(Path(node.HARVEST), [], "DATA.SYNTHESIS.HARVEST") if node.HARVEST else []
    return Photographs(
        folder=node.CLEAN,
        photos=[path for stem, path in photos.items() if stem not in held_out],
        num_visits=data.REPEAT,
        layers=layers,
        crops=crops,
        mixture=mixture,
        variety=build_variety(node),
    )


def find_set(setting: str, folder: str, data: CfgNode) -> FoundSet:
    """The pairs in a folder of DATA.TRAIN or DATA.VAL; ``setting`` says of which."""
    if not Path(folder).exists():
        raise UserError(
            f"There is no folder {folder} (DATA.{setting}); put pairs in {folder}/input and "
            f"{folder}/target, name another folder with DATA.{setting} FOLDER, or run `make demo`, "
            'which makes some. The README lists known sets under "Data sets".'
        )
    return FoundSet(folder, *find_pairs(Path(folder), data.LAYOUT, data.MATCH, data.RAINY_HALF))


def check_leaks(
    cfg: CfgNode,
    training: list[Pair],
    rows: np.ndarray,
    validation: dict[str, FoundSet],
    index: Path | None,
    *,
    is_main: bool,
) -> list[Leak]:
    """The training pairs whose scene is in a set of DATA.VAL, or of TEST.SETS as far as they exist.

    ``rows`` are the training pairs' hashes. The main process says what was found. Raises UserError
    where DATA.LEAKS refuses that.
    """
    sets = {name: found.pairs for name, found in validation.items()}
    known = {found.folder for found in validation.values()}
    for name, folder in named_folders(cfg.TEST.SETS, "TEST.SETS").items():
        if folder in known or not Path(folder).exists():
            continue
        try:
            sets[f"{name} (test)" if name in sets else name] = find_pairs(Path(folder)).pairs
        except UserError as error:
            if is_main:
                say(f"note: {folder} (TEST.SETS) is not searched for training scenes: {error}")
    leaks = find_leaks(training, sets, index, rows=rows, quiet=not is_main)
    sentence = leaks_sentence(leaks, len(training), cfg.DATA.LEAKS)
    if sentence and is_main:
        say(f"warning: {sentence}")
    return leaks


def nothing_left(folders: str) -> str:
    return (
        f"Every image of {folders} shows a scene of a validation or test set, and DATA.LEAKS drop "
        "leaves them all out; name other sets."
    )


def check_number_of_samples(cfg: CfgNode, num_samples: int, folders: str) -> None:
    """Refuse an epoch that is shorter than one of its batches."""
    for setting, batch_size in batch_sizes(cfg):
        if batch_size > num_samples:
            raise UserError(
                f"{folders} gives {num_samples} patches per epoch, less than one batch of "
                f"{batch_size} ({setting}); lower that or raise DATA.REPEAT (now "
                f"{cfg.DATA.REPEAT})."
            )


def validation_loader(
    pairs: list[Pair], num_workers: int
) -> DataLoader[tuple[np.ndarray, np.ndarray]]:
    """Whole images one by one, through the pipes of its processes as training's patches.

    PyTorch's own way, tensors in shared memory, hangs where /dev/shm is too small for an image: the
    thread that fails to put one there drops it without a word.
    """
    return DataLoader(
        DecodedPairs(pairs),
        batch_size=None,
        num_workers=min(num_workers, 2),
        collate_fn=_as_it_is,
        worker_init_fn=prepare_worker,
        generator=torch.Generator(),  # as in PatchLoader
    )


def _as_it_is(images: Any) -> Any:
    return images
