"""Where training patches come from: folders of pairs, or photographs on which rain is drawn.

A source knows its pairs, how often an epoch shows them, and the dataset that reads them. Nothing is
decoded before ``check`` or ``open``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from data.cache import open_cache
from data.checked import Check
from data.datasets import DecodedPairs, Share, TrainingPatches
from data.pairs import Pair, find_pairs
from data.settings import DataSettings, SynthesisSettings
from data.synthesis import SyntheticPatches, find_layers, hold_out, layers_of, read_layers
from data.transforms import Augmentation
from utils.errors import UserError
from utils.images import images_by_stem
from utils.wording import plural


@dataclass(frozen=True)
class FoundSet:
    """A folder of pairs."""

    folder: str
    layout: str
    pairs: list[Pair]
    notes: list[str]

    @property
    def description(self) -> str:
        return f"{plural(len(self.pairs), 'pair')} in {self.folder} (layout {self.layout})"


def find_set(key: str, folder: str, settings: DataSettings) -> FoundSet:
    """The pairs in a folder that the setting ``key`` names, DATA.TRAIN or DATA.VAL.

    Raises UserError if it is missing, and as ``find_pairs`` does.
    """
    if not Path(folder).exists():
        raise UserError(
            f"There is no folder {folder} ({key}); put pairs in {folder}/input and "
            f"{folder}/target, name another folder with {key} FOLDER, or run `make demo`, "
            'which makes some. The README lists known sets under "Data sets".'
        )
    found = find_pairs(Path(folder), settings.layout, settings.match, settings.half)
    return FoundSet(folder, *found)


@dataclass(frozen=True)
class TrainingSets:
    """The folders of DATA.TRAIN."""

    sets: list[FoundSet]
    visits: list[float]  # per epoch, of each pair of a set
    cache: Path | None

    @property
    def pairs(self) -> list[Pair]:
        return [pair for found in self.sets for pair in found.pairs]

    @property
    def layer_pairs(self) -> list[Pair]:
        return []

    @property
    def shares(self) -> list[Share]:
        """What an epoch shows of ``pairs``."""
        shares, first = [], 0
        for found, visits in zip(self.sets, self.visits, strict=True):
            count = len(found.pairs)
            shares.append(Share(first, count, max(1, round(visits * count))))
            first += count
        return shares

    @property
    def folders(self) -> str:
        return ", ".join(found.folder for found in self.sets)

    @property
    def description(self) -> str:
        return "; ".join(found.description for found in self.sets)

    def without(self, pairs: Collection[Pair]) -> TrainingSets:
        """The same without some pairs. Raises UserError if nothing is left."""
        kept = [
            (replace(found, pairs=left), visits)
            for found, visits in zip(self.sets, self.visits, strict=True)
            if (left := [pair for pair in found.pairs if pair not in pairs])
        ]
        if not kept:
            raise _nothing_left(self.folders)
        return replace(self, sets=[s for s, _ in kept], visits=[v for _, v in kept])

    def check(self, check: Check) -> None:
        """Raise UserError for images that cannot be trained on."""
        for found in self.sets:
            check.print_notes(found.folder, found.notes)
            if self.cache is None:  # building the cache is the same check
                check.pairs(found.pairs, found.folder)

    def open(self, augmentation: Augmentation, seed: int) -> TrainingPatches:
        images = open_cache(self.pairs, self.cache) if self.cache else DecodedPairs(self.pairs)
        return TrainingPatches(images, augmentation, seed, self.shares)


@dataclass(frozen=True)
class Photographs:
    """The photographs of DATA.SYNTHESIS; each is both images of its pair."""

    folder: str
    photos: list[Path]
    num_visits: int  # per epoch, of each
    layers: list[Pair]
    crops: list[Pair]
    settings: SynthesisSettings

    @property
    def pairs(self) -> list[Pair]:
        return [Pair(photo, photo) for photo in self.photos]

    @property
    def layer_pairs(self) -> list[Pair]:
        """The pairs whose rain is laid over the photographs."""
        return [*self.layers, *self.crops]

    @property
    def shares(self) -> list[Share]:
        """What an epoch shows of ``pairs``."""
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
        """The same without some pairs. Raises UserError if nothing is left."""
        leaky = {pair.clean for pair in pairs}
        photos = [photo for photo in self.photos if photo not in leaky]
        if not photos:
            raise _nothing_left(self.folder)
        return replace(self, photos=photos)

    def check(self, check: Check) -> None:
        """Raise UserError for images that cannot be trained on."""
        check.photos(self.photos, self.folder)

    def open(self, augmentation: Augmentation, seed: int) -> SyntheticPatches:
        return SyntheticPatches(
            self.photos,
            read_layers(self.layers),
            self.settings.mixture,
            augmentation,
            seed,
            variety=self.settings.variety,
            crops=read_layers(self.crops),
        )


TrainingSource = TrainingSets | Photographs


def find_source(settings: DataSettings) -> TrainingSource:
    """The pairs or photographs to train on.

    Raises UserError for a missing or empty folder, for images without a partner, and for settings
    that leave nothing.
    """
    if settings.synthesis:
        return _find_photos(settings.synthesis, settings.repeat)
    return TrainingSets(
        sets=[find_set("DATA.TRAIN", folder, settings) for folder, _ in settings.training],
        visits=[weight * settings.repeat for _, weight in settings.training],
        cache=settings.cache,
    )


def _find_photos(settings: SynthesisSettings, repeat: int) -> Photographs:
    photos = images_by_stem(Path(settings.clean))
    held_out = hold_out(photos, settings.hold_out)
    if len(held_out) == len(photos):
        raise UserError(
            f"DATA.SYNTHESIS.HOLD_OUT is {settings.hold_out}, which leaves none of the "
            f"{len(photos)} photographs in {settings.clean}."
        )
    layers: list[Pair] = []
    if settings.layers:
        skipping = "DATA.SYNTHESIS.SKIP_LAYERS"
        found = find_layers(Path(settings.layers), settings.skip_layers, skipping)
        layers = layers_of("train" if held_out else "", found)
    crops: list[Pair] = []
    if settings.harvest:
        crops = find_layers(Path(settings.harvest), [], "DATA.SYNTHESIS.HARVEST")
    return Photographs(
        folder=settings.clean,
        photos=[path for stem, path in photos.items() if stem not in held_out],
        num_visits=repeat,
        layers=layers,
        crops=crops,
        settings=settings,
    )


def _nothing_left(folders: str) -> UserError:
    return UserError(
        f"Every image of {folders} shows a scene of a validation or test set, and DATA.LEAKS drop "
        "leaves them all out; name other sets."
    )
