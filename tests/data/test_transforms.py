"""Crops and augmentations: the same geometry for both images, nothing out of range."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from data.transforms import Augmentation, augment, crop, crop_rotated, dihedral, to_tensor
from tests.helpers import smooth_image


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose pixels hold their row and column."""
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
        piece, _ = crop((image, image), (10, 10), rng(seed))
        top, left = piece[0, 0, 0], piece[0, 0, 1]
        assert np.array_equal(piece, image[top : top + 10, left : left + 10])
        corners.add((int(top), int(left)))
    assert corners == {(t, l) for t in range(3) for l in range(6)}  # noqa: E741


@pytest.mark.parametrize("size", [(5, 40), (40, 5), (3, 3), (1, 1)])
def test_images_smaller_than_the_patch_are_reflected(size: tuple[int, int]) -> None:
    image = coordinates(*size)
    piece, _ = crop((image, image), (16, 16), rng())
    assert piece.shape == (16, 16, 3)
    rows = piece[:, 0, 0].astype(int)
    steps = np.abs(np.diff(rows))
    # Reflection moves by one row at a time, back and forth; a repeated edge would give a step of 0.
    assert set(steps) == ({1} if size[0] > 1 else {0})


def test_the_eight_flips_and_rotations_differ() -> None:
    image = coordinates(4, 4)
    turned = [dihedral((image, image), which)[0] for which in range(8)]
    assert np.array_equal(turned[0], image)
    assert len({t.tobytes() for t in turned}) == 8
    assert all(sorted(t.ravel()) == sorted(image.ravel()) for t in turned)


def test_rotation_leaves_no_black_corners_by_default() -> None:
    white = np.full((200, 200, 3), 255, np.uint8)
    for seed in range(10):
        turned, _ = crop_rotated((white, white), (64, 64), 30.0, rng(seed))
        assert turned.shape == (64, 64, 3) and turned.min() == 255
    how = Augmentation(geometry="none", rotation=30.0, black_corners=True)
    corners = [augment((white, white), 64, how, rng(seed))[0][:, 0, 0].max() for seed in range(9)]
    assert min(corners) == 0


def test_rotation_is_around_the_centre_by_the_angle() -> None:
    image = np.zeros((201, 201, 3), np.uint8)
    image[100, 100:180] = 255  # a ray to the right
    turned, _ = crop_rotated((image, image), (201 - 64, 201 - 64), 90.0, rng(3))
    rows, columns = np.nonzero(turned[..., 0] > 128)
    assert np.ptp(columns) <= 1 and np.ptp(rows) > 30  # now a column


def test_saturation_changes_in_both_images_at_the_given_rate() -> None:
    image = smooth_image(2, 16, 16)
    how = Augmentation(geometry="none", saturation=(0.8, 1.2), saturation_probability=1 / 3)
    plain = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)
    changed = 0
    for seed in range(300):
        rainy, clean = augment((image, image), 16, how, rng(seed))
        assert torch.equal(rainy, clean)
        changed += not torch.allclose(rainy, plain)
    assert 70 < changed < 130


def test_a_crop_draws_height_and_width_independently_and_shrinks_linearly() -> None:
    """Compared with cv2.resize of every possible crop, as DCSFN's release cuts and resizes."""
    image = smooth_image(5, 14, 15)
    how = Augmentation(geometry="none", crop=(12, 14))
    possible = {
        cv2.resize(image[y : y + h, x : x + w], (10, 10), interpolation=cv2.INTER_LINEAR).tobytes():
            (h, w)
        for h in (12, 13, 14) for w in (12, 13, 14) for y in range(15 - h) for x in range(16 - w)
    }  # fmt: skip
    drawn = set()
    for seed in range(150):
        rainy, _ = augment((image, image), 10, how, rng(seed))
        pixels = (rainy.numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8)
        drawn.add(possible[pixels.tobytes()])
    assert drawn == {(h, w) for h in (12, 13, 14) for w in (12, 13, 14)}


def test_a_patch_without_crop_is_not_resized() -> None:
    image = coordinates(30, 30)
    rainy, _ = augment((image, image), 10, Augmentation(geometry="none"), rng())
    rows = (rainy[0, :, 0] * 255).round().int().tolist()
    assert rows == list(range(rows[0], rows[0] + 10))


@pytest.mark.parametrize("black_corners", [False, True])
def test_rotation_goes_both_ways_up_to_its_limit(black_corners: bool) -> None:
    """The angle is measured in the picture: the gradient of a plane rotates with it."""
    plane = np.tile((np.arange(160)[None, :, None] - 80) * 1.2 + 128, (160, 1, 3)).astype(np.uint8)
    how = Augmentation(geometry="none", rotation=30.0, black_corners=black_corners)
    angles = []
    for seed in range(60):
        middle = augment((plane, plane), 64, how, rng(seed))[0][0, 22:42, 22:42].numpy()
        down, right = (np.mean(np.gradient(middle, axis=axis)) for axis in (0, 1))
        angles.append(np.degrees(np.arctan2(down, right)))
    assert -31 < min(angles) < -25 and 25 < max(angles) < 31
    assert abs(np.mean(angles)) < 6 and 14 < np.std(angles) < 21  # 60 / sqrt(12) = 17.3


def test_hflip_flips_half_of_all_and_nothing_else() -> None:
    image = smooth_image(6, 12, 12)
    plain = to_tensor(image)
    flips = []
    for seed in range(200):
        rainy, _ = augment((image, image), 12, Augmentation(geometry="hflip"), rng(seed))
        flips.append(torch.equal(rainy, plain.flip(-1)))
        assert flips[-1] or torch.equal(rainy, plain)
    assert 75 < sum(flips) < 125


@pytest.mark.parametrize(("geometry", "share"), [("dihedral", 1 / 8), ("dihedral9", 2 / 9)])
def test_identity_is_drawn_as_often_as_in_the_releases(geometry: str, share: float) -> None:
    image = smooth_image(6, 12, 12)
    plain, how = to_tensor(image), Augmentation(geometry=geometry)
    drawn = [augment((image, image), 12, how, rng(seed))[0] for seed in range(900)]
    assert sum(torch.equal(x, plain) for x in drawn) / 900 == pytest.approx(share, abs=0.035)
    assert len({x.numpy().tobytes() for x in drawn}) == 8


def test_saturation_is_a_blend_with_gray_within_its_range() -> None:
    image = np.full((4, 4, 3), (100, 140, 120), np.uint8)
    gray = float(np.dot((100, 140, 120), (0.2989, 0.587, 0.114)))  # ITU-R 601
    how = Augmentation(geometry="none", saturation=(0.8, 1.2), saturation_probability=1.0)
    factors = []
    for seed in range(100):
        rainy, _ = augment((image, image), 4, how, rng(seed))
        blend = (rainy[:, 0, 0].numpy() * 255 - gray) / (np.array((100, 140, 120)) - gray)
        assert np.ptp(blend) < 0.01
        factors.append(blend.mean())
    assert 0.79 < min(factors) < 0.83 and 1.17 < max(factors) < 1.21


def test_an_unknown_geometry_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of dihedral, dihedral9"):
        Augmentation(geometry="diagonal")
