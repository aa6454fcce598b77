"""Random crops and augmentations of a training pair.

A NumPy generator draws everything, so that a sample depends on nothing else. Geometry is drawn once
and applied to both images.
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


GEOMETRIES = ("dihedral", "dihedral9", "dihedral_batch", "hflip", "none")


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training pair; the fields are the AUGMENT settings of a configuration.

    ``geometry`` is dihedral (the eight flips and rotations by 90 degrees), dihedral9 (the same, but
    identity is drawn twice as often, as in DMSR's and NeRD-Rain's releases), dihedral_batch (one
    for all images of a step, as in MSPFN's), hflip or none. ``saturation`` is the range of a factor
    that is applied with ``saturation_probability``. ``crop`` is the range of the height and of the
    width of a crop that is resized to the patch (None: the crop is the patch). ``rotation`` is the
    largest angle in degrees, and ``black_corners`` says whether rotation may leave black corners.
    """

    geometry: str = "dihedral"
    saturation: tuple[float, float] = (1.0, 1.0)
    saturation_probability: float = 0.0
    crop: tuple[int, int] | None = None
    rotation: float = 0.0
    black_corners: bool = False

    def __post_init__(self) -> None:
        if self.geometry not in GEOMETRIES:
            raise ValueError(
                f"AUGMENT.GEOMETRY is {self.geometry!r}; it must be one of {', '.join(GEOMETRIES)}."
            )


def augment(
    pair: Images,
    patch: int,
    how: Augmentation,
    rng: np.random.Generator,
    batch_rng: np.random.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """``cut_patch`` with a drawn saturation: two (3, patch, patch) float32 tensors in [0, 1]."""
    pair = cut_patch(pair, patch, how, rng, batch_rng)
    rainy, clean = to_tensor(pair[0]), to_tensor(pair[1])
    if how.saturation_probability and rng.random() < how.saturation_probability:
        factor = rng.uniform(*how.saturation)
        rainy, clean = adjust_saturation(rainy, factor), adjust_saturation(clean, factor)
    return rainy, clean


def cut_patch(
    pair: Images,
    patch: int,
    how: Augmentation,
    rng: np.random.Generator,
    batch_rng: np.random.Generator | None = None,
) -> Images:
    """A random crop of a pair with its geometry drawn: two (patch, patch, 3) uint8 arrays.

    Images smaller than the crop are extended by reflection first. ``batch_rng`` draws what all
    images of a step share; only dihedral_batch needs it.
    """
    size = (patch, patch)
    if how.crop is not None:
        height, width = rng.integers(how.crop[0], how.crop[1] + 1, 2)
        size = (int(height), int(width))
    angle = rng.uniform(-how.rotation, how.rotation) if how.rotation else 0.0
    turns_last = how.black_corners and angle != 0
    pair = crop(pair, size, rng) if turns_last else crop_rotated(pair, size, angle, rng)
    if size != (patch, patch):
        pair = _both(pair, lambda x: cv2.resize(x, (patch, patch), interpolation=cv2.INTER_LINEAR))
    if how.geometry == "dihedral":
        pair = dihedral(pair, int(rng.integers(8)))
    elif how.geometry == "dihedral9":
        pair = dihedral(pair, int(rng.integers(9)) % 8)
    elif how.geometry == "dihedral_batch":
        assert batch_rng is not None
        pair = dihedral(pair, int(batch_rng.integers(8)))
    elif how.geometry == "hflip" and rng.random() < 0.5:
        pair = _both(pair, lambda x: x[:, ::-1])
    if turns_last:
        pair = _both(pair, lambda x: _turn(np.ascontiguousarray(x), angle, (patch, patch)))
    return pair


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) pixels as (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(to_float(image).transpose(2, 0, 1)))


def crop_rotated(
    pair: Images, size: tuple[int, int], angle: float, rng: np.random.Generator
) -> Images:
    """A random crop of both images, ``size`` (height, width), rotated by ``angle`` degrees.

    It is cut from a larger crop that contains its rotated corners, so that none of them is black.
    """
    if not angle:
        return crop(pair, size, rng)
    sine, cosine = abs(np.sin(np.deg2rad(angle))), np.cos(np.deg2rad(angle))
    height, width = size
    larger = (height * cosine + width * sine, width * cosine + height * sine)
    pair = crop(pair, (int(np.ceil(larger[0])) + 2, int(np.ceil(larger[1])) + 2), rng)
    return _both(pair, lambda x: _turn(x, angle, size))


def crop(pair: Images, size: tuple[int, int], rng: np.random.Generator) -> Images:
    """The same random crop of both images, ``size`` (height, width), extended by reflection."""
    wanted, given = np.array(size), np.array(pair[0].shape[:2])
    top, left = (int(rng.integers(spare + 1)) for spare in np.maximum(given - wanted, 0))
    pair = _both(pair, lambda x: x[top : top + size[0], left : left + size[1]])
    missing = np.maximum(wanted - given, 0)
    if missing.any():
        # NumPy repeats the reflection as often as needed.
        padding = [(m // 2, m - m // 2) for m in missing.tolist()] + [(0, 0)]
        pair = _both(pair, lambda x: np.pad(x, padding, mode="reflect"))
    return pair


def dihedral(pair: Images, which: int) -> Images:
    """One of the eight flips and rotations of both images, ``which`` in 0..7; 0 changes nothing."""

    def turn(image: np.ndarray) -> np.ndarray:
        turned = np.rot90(image, which % 4)
        return turned[:, ::-1] if which >= 4 else turned

    return _both(pair, turn)


def _turn(image: np.ndarray, angle: float, size: tuple[int, int]) -> np.ndarray:
    """The centre crop, ``size``, of an image rotated around its centre; black outside the image."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    matrix[:, 2] -= ((width - size[1]) / 2, (height - size[0]) / 2)
    return cv2.warpAffine(image, matrix, size[::-1], flags=cv2.INTER_LINEAR)


def _both(pair: Images, function: Callable[[np.ndarray], np.ndarray]) -> Images:
    return function(pair[0]), function(pair[1])
