"""Rainy pairs drawn from clean photographs: for files once, and for training while loading.

A mixture says which share of the pairs gets which kind of rain: the layers of another data set's
pairs, light rain, none at all, and the synthetic rain of ``data/rain.py`` for the rest. Training
from ``SyntheticPatches`` sees no streak twice; a sample depends on the seed, the epoch, its own
number and its step alone, as those of ``TrainingPatches`` do.
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

from data.checked import read_sound_pair
from data.datasets import Draw, to_bytes
from data.pairs import Pair, find_pairs
from data.rain import (
    add_rain,
    extract_layer,
    fade_layer,
    lay_over,
    random_downpour,
    random_rain,
    streak_layer,
    vary_layer,
)
from data.scenes import draw_pattern, vary_light
from data.transforms import Augmentation, augment
from utils.errors import UserError
from utils.images import as_uint8, read_rgb, to_uint8

# PSNR of lightly rainy photographs, in dB.
LIGHT_RAIN = (24.0, 30.0)

# Where photographs are held out, every fifth layer is held out with them.
LAYER_HOLD_OUT = 5

Layer = TypeVar("Layer")


@dataclass(frozen=True)
class Mixture:
    """Shares of the kinds of rain, 0 to 1; what is left of 1 is synthetic rain of any strength."""

    layers: float = 0.0
    """Rain layers taken from pairs."""
    light: float = 0.0
    """Rain of either kind, faded to ``LIGHT_RAIN``."""
    dry: float = 0.0
    """No rain."""
    downpours: float = 0.0
    """How much of the synthetic rain is a downpour like those of the data sets."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ``Rain`` that are not drawn at random."""

    def __post_init__(self) -> None:
        shares = (self.layers, self.light, self.dry)
        if sum(shares) > 1:
            raise UserError(f"The shares {', '.join(map(str, shares))} add up to more than 1.")


def make_rainy(
    clean: np.ndarray,
    mixture: Mixture,
    layers: Sequence[np.ndarray],
    rng: np.random.Generator,
) -> np.ndarray:
    """A clean photograph, (H, W, 3) uint8, in a rain of the mixture."""
    height, width = clean.shape[:2]
    kind = rng.random()
    if kind < mixture.dry:
        return clean
    kind -= mixture.dry

    downpour = mixture.downpours > 0 and rng.random() < mixture.downpours
    rain = random_downpour(rng) if downpour else random_rain(rng)
    rain = replace(rain, **mixture.fixed)
    light = kind < mixture.light
    if light:
        # Light rain of the data sets' kind and of ours, in the same proportion as heavy rain.
        kind = rng.uniform(mixture.light, 1 - mixture.dry)
    kind -= mixture.light

    if kind < mixture.layers:
        layer = vary_layer(layers[int(rng.integers(len(layers)))], height, width, rng)
    elif light:
        layer = streak_layer(height, width, rain, rng)
    else:
        return add_rain(clean, rain, rng)
    return lay_over(clean, fade_layer(layer, rng.uniform(*LIGHT_RAIN)) if light else layer)


class SyntheticPatches(Dataset[tuple[Tensor, Tensor, int]]):
    """Patches with rain drawn while loading: ``dataset[Draw(...)]`` is (rainy, clean, number).

    The photograph is cut and augmented first and the rain falls on the result, so that flips and
    quarter turns of the scene leave the rain falling downwards. Numbers past the last photograph
    start over.
    """

    def __init__(
        self,
        photos: Sequence[Path],
        layers: Sequence[np.ndarray],
        mixture: Mixture,
        augmentation: Augmentation,
        seed: int,
        *,
        relit: float = 0.0,
        patterns: float = 0.0,
    ) -> None:
        """``relit``, ``patterns``: shares of the scenes that ``data/scenes.py`` varies."""
        self.photos = photos
        self.layers = layers
        self.mixture = mixture
        self.augmentation = augmentation
        self.seed = seed
        self.relit = relit
        self.patterns = patterns

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor, int]:
        which = draw.number % len(self.photos)
        rng = np.random.default_rng((self.seed, draw.epoch, draw.number))
        of_step = np.random.default_rng((self.seed, draw.epoch, draw.step, 0))
        photo = read_photo(self.photos[which])
        _, patch = augment((photo, photo), draw.patch, self.augmentation, rng, of_step)
        clean = to_uint8(patch.numpy().transpose(1, 2, 0))
        if rng.random() < self.relit:
            clean = vary_light(clean, rng)
        mixture = self.mixture
        if rng.random() < self.patterns:
            clean = draw_pattern(clean, rng)
            if rng.random() < 0.5:  # to be left alone; the others teach to tell it from rain
                mixture = Mixture(dry=1)
        rainy = make_rainy(clean, mixture, self.layers, rng)
        return to_bytes(rainy), to_bytes(clean), which


def read_photo(path: Path) -> np.ndarray:
    """A photograph of any bit depth as (H, W, 3) uint8 RGB."""
    return as_uint8(read_rgb(path), path)


def find_layers(folder: Path, skipped: Sequence[str], what: str) -> list[Pair]:
    """The pairs of a folder that rain layers come from, but those whose rainy stem is ``skipped``.

    ``what`` names the option or setting that skips, for the sentence that refuses it.
    """
    pairs = find_pairs(folder).pairs
    stems = {pair.rainy.stem for pair in pairs}
    for stem in skipped:
        if stem not in stems:
            raise UserError(f"{what} names {stem}, and {folder} has no such pair.")
    pairs = [pair for pair in pairs if pair.rainy.stem not in skipped]
    if not pairs:
        raise UserError(f"{what} leaves no pair of {folder}.")
    return pairs


def read_layers(pairs: Sequence[Pair]) -> list[np.ndarray]:
    """The rain layers of pairs, (H, W) each. Raises UserError for a broken or damaged image."""
    return [extract_layer(*read_sound_pair(pair)) for pair in pairs]


def layers_of(part: str, layers: Sequence[Layer]) -> list[Layer]:
    """The layers, or their pairs, for a part of the data set: "train", "val", or "" for all.

    The two parts are disjoint, but a single layer cannot be divided; both parts get it.
    """
    held_out = layers[::LAYER_HOLD_OUT]
    if not part or len(layers) == len(held_out):
        return list(layers)
    if part == "val":
        return list(held_out)
    return [layer for index, layer in enumerate(layers) if index % LAYER_HOLD_OUT]


def hold_out(stems: Iterable[str], count: int) -> set[str]:
    """The ``count`` stems with the smallest digests.

    Neither a seed nor the order of the files changes the choice, so what once was held out for
    validation is never trained on.
    """
    by_digest = sorted(stems, key=lambda stem: hashlib.sha256(stem.encode()).digest())
    return set(by_digest[:count])
