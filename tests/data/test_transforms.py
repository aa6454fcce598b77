"""Crops and augmentations: the same geometry for both images, nothing out of range."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data.transforms import Augmentation, augment, crop, crop_rotated, dihedral
from tests.helpers import smooth_image


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose pixels tell where they come from."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, rows], axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    "how",
    [
        Augmentation(),
        Augmentation(geometry="hflip", crop=(48, 80), rotation=30.0),
        Augmentation(geometry="none", rotation=30.0, black_corners=True),
    ],
)
def test_both_images_get_the_same_geometry(how: Augmentation) -> None:
    image = smooth_image(1, 120, 150)
    differing = 0
    for seed in range(20):
        rainy, clean = augment((image, image.copy()), 64, how, rng(seed))
        assert rainy.shape == clean.shape == (3, 64, 64)
        assert rainy.dtype == torch.float32 and rainy.min() >= 0 and rainy.max() <= 1
        assert torch.equal(rainy, clean)
        differing += not torch.equal(rainy, augment((image, image), 64, how, rng(seed + 99))[0])
    assert differing == 20  # and the draw decides which


def test_a_crop_is_a_piece_of_the_image_and_reaches_every_corner() -> None:
    image = coordinates(12, 15)
    corners = set()
    for seed in range(300):
        piece, _ = crop((image, image), 10, rng(seed))
        top, left = piece[0, 0, 0], piece[0, 0, 1]
        assert np.array_equal(piece, image[top : top + 10, left : left + 10])
        corners.add((int(top), int(left)))
    assert corners == {(t, l) for t in range(3) for l in range(6)}  # noqa: E741


@pytest.mark.parametrize("size", [(5, 40), (40, 5), (3, 3), (1, 1)])
def test_images_smaller_than_the_patch_are_reflected(size: tuple[int, int]) -> None:
    image = coordinates(*size)
    piece, _ = crop((image, image), 16, rng())
    assert piece.shape == (16, 16, 3)
    rows = piece[:, 0, 0].astype(int)
    steps = np.abs(np.diff(rows))
    # Reflection moves by one row at a time, to and fro; a repeated edge would give a step of 0.
    assert set(steps) == ({1} if size[0] > 1 else {0})


def test_the_eight_flips_and_rotations_differ_and_undo_nothing() -> None:
    image = coordinates(4, 4)
    turned = [dihedral((image, image), which)[0] for which in range(8)]
    assert np.array_equal(turned[0], image)
    assert len({t.tobytes() for t in turned}) == 8
    assert all(sorted(t.ravel()) == sorted(image.ravel()) for t in turned)


def test_all_eight_are_drawn() -> None:
    image = coordinates(8, 8)
    drawn = {
        augment((image, image), 8, Augmentation(), rng(seed))[0].numpy().tobytes()
        for seed in range(100)
    }
    assert len(drawn) == 8


def test_rotation_brings_in_no_black_unless_asked() -> None:
    white = np.full((200, 200, 3), 255, np.uint8)
    for seed in range(10):
        turned, _ = crop_rotated((white, white), 64, 30.0, False, rng(seed))
        assert turned.shape == (64, 64, 3) and turned.min() == 255
    released, _ = crop_rotated((white, white), 64, 30.0, True, rng())
    assert released[0, 0].max() == 0 and released[32, 32].min() == 255


def test_rotation_turns_around_the_centre_by_the_angle() -> None:
    image = np.zeros((201, 201, 3), np.uint8)
    image[100, 100:180] = 255  # a ray to the right
    turned, _ = crop_rotated((image, image), 201 - 64, 90.0, False, rng(3))
    rows, columns = np.nonzero(turned[..., 0] > 128)
    assert np.ptp(columns) <= 1 and np.ptp(rows) > 30  # now a column


def test_saturation_is_jittered_in_both_images_at_the_given_rate() -> None:
    image = smooth_image(2, 16, 16)
    how = Augmentation(geometry="none", saturation=(0.8, 1.2), saturation_probability=1 / 3)
    plain = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)
    changed = 0
    for seed in range(300):
        rainy, clean = augment((image, image), 16, how, rng(seed))
        assert torch.equal(rainy, clean)
        changed += not torch.allclose(rainy, plain)
    assert 70 < changed < 130


def test_an_unknown_geometry_is_refused() -> None:
    with pytest.raises(ValueError, match="must be dihedral, hflip or none"):
        Augmentation(geometry="diagonal")
