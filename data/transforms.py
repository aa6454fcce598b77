"""Random crops and augmentations of a training pair.

A NumPy generator decides everything, so that a sample depends on nothing else. Geometry is drawn
once and applied to both images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.functional import adjust_saturation

from utils.images import to_float

Images = tuple[np.ndarray, np.ndarray]  # rainy and clean, (H, W, 3) uint8, the same shape


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training pair; the fields are the AUGMENT settings of a configuration.

    ``geometry`` is dihedral (the eight flips and rotations by 90 degrees), hflip or none;
    ``saturation`` the range of a factor applied with ``saturation_probability``; ``crop`` the range
    of side lengths that are cut out and resized to the patch (empty: the patch itself);
    ``rotation`` the largest angle in degrees.
    """

    geometry: str = "dihedral"
    saturation: tuple[float, float] = (1.0, 1.0)
    saturation_probability: float = 0.0
    crop: tuple[int, int] | None = None
    rotation: float = 0.0
    black_corners: bool = False

    def __post_init__(self) -> None:
        if self.geometry not in ("dihedral", "hflip", "none"):
            raise ValueError(
                f"AUGMENT.GEOMETRY is {self.geometry!r}; it must be dihedral, hflip or none."
            )


def augment(
    pair: Images, patch: int, how: Augmentation, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """A random piece of a pair, augmented: two (3, patch, patch) float32 tensors in [0, 1].

    Images smaller than the crop are extended by reflection first.
    """
    side = patch if how.crop is None else int(rng.integers(how.crop[0], how.crop[1] + 1))
    angle = rng.uniform(-how.rotation, how.rotation) if how.rotation else 0.0
    pair = crop_rotated(pair, side, angle, how.black_corners, rng)
    if side != patch:
        shrinks = cv2.INTER_AREA if side > patch else cv2.INTER_LINEAR
        pair = _both(pair, lambda x: cv2.resize(x, (patch, patch), interpolation=shrinks))
    if how.geometry == "dihedral":
        pair = dihedral(pair, int(rng.integers(8)))
    elif how.geometry == "hflip" and rng.random() < 0.5:
        pair = _both(pair, lambda x: x[:, ::-1])
    rainy, clean = to_tensor(pair[0]), to_tensor(pair[1])
    if how.saturation_probability and rng.random() < how.saturation_probability:
        factor = rng.uniform(*how.saturation)
        rainy, clean = adjust_saturation(rainy, factor), adjust_saturation(clean, factor)
    return rainy, clean


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) pixels as (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(to_float(image).transpose(2, 0, 1)))


def crop_rotated(
    pair: Images, side: int, angle: float, black_corners: bool, rng: np.random.Generator
) -> Images:
    """A random ``side`` x ``side`` square of both images, turned by ``angle`` degrees.

    The square is cut from a larger one that holds all its turned corners; with ``black_corners`` it
    is cut first and turned then, as DCSFN's release does, which brings in black.
    """
    if not angle:
        return crop(pair, side, rng)
    if black_corners:
        return _both(crop(pair, side, rng), lambda x: _turn(x, angle, side))
    radians = np.deg2rad(abs(angle))
    larger = int(np.ceil(side * (np.cos(radians) + np.sin(radians)))) + 2
    return _both(crop(pair, larger, rng), lambda x: _turn(x, angle, side))


def crop(pair: Images, side: int, rng: np.random.Generator) -> Images:
    """The same random ``side`` x ``side`` square of both images, reflected where they are small."""
    height, width = pair[0].shape[:2]
    top = int(rng.integers(max(height - side, 0) + 1))
    left = int(rng.integers(max(width - side, 0) + 1))
    pair = _both(pair, lambda x: x[top : top + side, left : left + side])
    missing = (max(side - height, 0), max(side - width, 0))
    if any(missing):
        # NumPy reflects again and again where one reflection is not enough.
        padding = [(m // 2, m - m // 2) for m in missing] + [(0, 0)]
        pair = _both(pair, lambda x: np.pad(x, padding, mode="reflect"))
    return pair


def dihedral(pair: Images, which: int) -> Images:
    """One of the eight flips and rotations of both images, ``which`` in 0..7; 0 changes nothing."""

    def turn(image: np.ndarray) -> np.ndarray:
        turned = np.rot90(image, which % 4)
        return turned[:, ::-1] if which >= 4 else turned

    return _both(pair, turn)


def _turn(image: np.ndarray, angle: float, side: int) -> np.ndarray:
    """The middle ``side`` x ``side`` square of an image turned around its centre, bilinear."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    matrix[:, 2] -= ((width - side) / 2, (height - side) / 2)
    return cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR)


def _both(pair: Images, function: Callable[[np.ndarray], np.ndarray]) -> Images:
    return function(pair[0]), function(pair[1])
