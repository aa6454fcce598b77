"""Rainy pairs drawn from clean photographs: for files once, and for training while loading.

A mixture says which share of the pairs gets which kind of rain: layers of another data set's pairs,
layers composed of crops of real rain, light rain, no rain, and the synthetic rain of
``data/rain.py`` for the rest. Training from ``SyntheticPatches`` sees no streak twice. A sample
depends on the seed, the epoch, its number and its step alone, as in ``TrainingPatches``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from data.checked import read_sound, read_sound_pair
from data.datasets import Draw, to_bytes
from data.pairs import Pair, find_pairs
from data.processing import process_pair
from data.rain import (
    Rain,
    add_rain,
    lay_over,
    random_downpour,
    random_fine_rain,
    random_rain,
    random_soft_rain,
    streak_layer,
)
from data.rain_layers import compose_layer, extract_layer, fade_layer, vary_layer
from data.scenes import dim_scene, draw_pattern, vary_light
from data.transforms import Augmentation, augment
from utils.errors import UserError
from utils.images import (
    as_uint8,
    is_image,
    list_images,
    read_gray_or_rgb,
    read_rgb,
    to_float,
    to_uint8,
)

# PSNR of lightly rainy photographs, in dB.
LIGHT_RAIN = (24.0, 30.0)

# If photographs are held out, every fifth layer is held out with them.
LAYER_HOLD_OUT = 5

Layer = TypeVar("Layer")


@dataclass(frozen=True)
class Mixture:
    """Shares of the kinds of rain, 0 to 1; the rest is synthetic rain of any strength."""

    layers: float = 0.0
    """Rain layers taken from pairs."""
    light: float = 0.0
    """Rain layers or synthetic rain, faded to ``LIGHT_RAIN``."""
    dry: float = 0.0
    """No rain."""
    downpours: float = 0.0
    """Share of the synthetic rain that is a downpour like those of the data sets."""
    harvested: float = 0.0
    """Layers composed of crops of real rain."""
    faint: float = 0.0
    """Share of the synthetic rain that is finer, softer or fainter than that of the data sets."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ``Rain`` that are not drawn at random."""

    def __post_init__(self) -> None:
        shares = (self.layers, self.light, self.dry, self.harvested)
        if sum(shares) > 1:
            raise UserError(f"The shares {', '.join(map(str, shares))} add up to more than 1.")
        if self.downpours + self.faint > 1:
            raise UserError(
                f"The shares {self.downpours} and {self.faint} of downpours and of faint rain add "
                "up to more than 1."
            )


@dataclass(frozen=True)
class SceneVariety:
    """Shares of the training pairs, 0 to 1, that are varied in other ways than by rain."""

    relit: float = 0.0
    """The light or colours of the scene change (``vary_light``)."""
    dim: float = 0.0
    """The scene becomes dark or misty (``dim_scene``)."""
    patterns: float = 0.0
    """A pattern that resembles rain is drawn on it (``draw_pattern``); half of these stay dry."""
    processed: float = 0.0
    """After the rain, both images are blurred, resized or compressed (``process_pair``)."""


def make_rainy(
    clean: np.ndarray,
    mixture: Mixture,
    layers: Sequence[np.ndarray],
    rng: np.random.Generator,
    crops: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """A clean photograph, (H, W, 3) uint8, in a rain of the mixture.

    ``layers`` are rain layers of any size, ``crops`` upright real rain for ``compose_layer``.
    """
    height, width = clean.shape[:2]
    kind = rng.random()
    if kind < mixture.dry:
        return clean
    kind -= mixture.dry
    if kind < mixture.harvested:
        layer = compose_layer(crops, height, width, rng)
        return lay_over(clean, layer, screen=rng.choice((1.0, rng.random())))
    kind -= mixture.harvested

    rain = replace(random_rain_of(mixture, rng), **mixture.fixed)
    light = kind < mixture.light
    if light:
        # It is made of layers and of synthetic streaks in the same proportion as heavy rain.
        kind = rng.uniform(mixture.light, 1 - mixture.dry - mixture.harvested)
    kind -= mixture.light

    if kind < mixture.layers:
        layer = vary_layer(layers[int(rng.integers(len(layers)))], height, width, rng)
    elif light:
        layer = streak_layer(height, width, rain, rng)
    else:
        return add_rain(clean, rain, rng)
    return lay_over(clean, fade_layer(layer, rng.uniform(*LIGHT_RAIN)) if light else layer)


def random_rain_of(mixture: Mixture, rng: np.random.Generator) -> Rain:
    """Synthetic rain of one of the mixture's kinds."""
    kind = rng.random() if mixture.downpours or mixture.faint else 1.0
    if kind < mixture.downpours:
        return random_downpour(rng)
    if kind < mixture.downpours + mixture.faint:
        return random_fine_rain(rng) if rng.random() < 0.5 else random_soft_rain(rng)
    return random_rain(rng)


class SyntheticPatches(Dataset[tuple[Tensor, Tensor, int]]):
    """Patches with rain drawn while loading: ``dataset[Draw(...)]`` is (rainy, clean, number).

    The photograph is cropped and augmented before the rain is added, so the rain falls downwards
    even where the scene is flipped or turned. Numbers past the last photograph start over.
    """

    def __init__(
        self,
        photos: Sequence[Path],
        layers: Sequence[np.ndarray],
        mixture: Mixture,
        augmentation: Augmentation,
        seed: int,
        *,
        variety: SceneVariety | None = None,
        crops: Sequence[np.ndarray] = (),
    ) -> None:
        """By default no scene is varied; ``crops`` are for ``compose_layer``."""
        self.photos = photos
        self.layers = layers
        self.mixture = mixture
        self.augmentation = augmentation
        self.seed = seed
        self.variety = variety or SceneVariety()
        self.crops = crops

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor, int]:
        which = draw.number % len(self.photos)
        rng = np.random.default_rng((self.seed, draw.epoch, draw.number))
        of_step = np.random.default_rng((self.seed, draw.epoch, draw.step, 0))
        photo = read_photo(self.photos[which])
        _, patch = augment((photo, photo), draw.patch, self.augmentation, rng, of_step)
        clean = to_uint8(patch.numpy().transpose(1, 2, 0))
        varied = self.variety
        if rng.random() < varied.relit:
            clean = vary_light(clean, rng)
        if varied.dim and rng.random() < varied.dim:
            clean = dim_scene(clean, rng)
        mixture = self.mixture
        if rng.random() < varied.patterns:
            clean = draw_pattern(clean, rng)
            if rng.random() < 0.5:  # to be left alone; the others teach the difference from rain
                mixture = Mixture(dry=1)
        rainy = make_rainy(clean, mixture, self.layers, rng, self.crops)
        if rng.random() < varied.processed:
            rainy, clean = process_pair(rainy, clean, rng)
        return to_bytes(rainy), to_bytes(clean), which


def read_photo(path: Path) -> np.ndarray:
    """A photograph of any bit depth as (H, W, 3) uint8 RGB."""
    return as_uint8(read_rgb(path), path)


def find_layers(folder: Path, skipped: Sequence[str], what: str) -> list[Pair]:
    """The pairs of a folder from which rain layers are taken, except those with a ``skipped`` stem.

    A folder of gray images only holds layers, black where it is dry; each of them serves as both
    images of a pair. ``what`` names the option or setting of ``skipped`` in error messages.
    """
    holds_images = folder.is_dir() and any(is_image(path) for path in folder.iterdir())
    if holds_images and all(read_gray_or_rgb(path).ndim == 2 for path in list_images(folder)):
        pairs = [Pair(path, path) for path in list_images(folder)]
    else:
        pairs = find_pairs(folder).pairs
    stems = {pair.rainy.stem for pair in pairs}
    for stem in skipped:
        if stem not in stems:
            raise UserError(f"{what} names {stem}, and {folder} has no such pair or layer.")
    pairs = [pair for pair in pairs if pair.rainy.stem not in skipped]
    if not pairs:
        raise UserError(f"{what} leaves nothing of {folder}.")
    return pairs


def read_layers(pairs: Sequence[Pair]) -> list[np.ndarray]:
    """The rain layers of pairs from ``find_layers``, (H, W) float32: 0 for no rain, 1 for white.

    Raises UserError for a broken or damaged image.
    """
    return [_read_layer(pair) for pair in pairs]


def _read_layer(pair: Pair) -> np.ndarray:
    if pair.side_by_side and not pair.half:
        return to_float(read_sound(pair.rainy)[..., 0])
    return extract_layer(*read_sound_pair(pair))


def layers_of(part: str, layers: Sequence[Layer]) -> list[Layer]:
    """The layers, or their pairs, for a part of the data set: "train", "val", or "" for all.

    The two parts are disjoint, except that both get a single layer.
    """
    held_out = layers[::LAYER_HOLD_OUT]
    if not part or len(layers) == len(held_out):
        return list(layers)
    if part == "val":
        return list(held_out)
    return [layer for index, layer in enumerate(layers) if index % LAYER_HOLD_OUT]


def hold_out(stems: Iterable[str], count: int) -> set[str]:
    """The ``count`` stems with the smallest digests.

    The choice depends neither on a seed nor on the order of the files, so a photograph that was
    once held out for validation is never trained on.
    """
    by_digest = sorted(stems, key=lambda stem: hashlib.sha256(stem.encode()).digest())
    return set(by_digest[:count])
