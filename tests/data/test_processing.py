"""Processing of both images of a pair after the rain."""

from __future__ import annotations

import numpy as np

from data.processing import process_pair
from tests.helpers import smooth_image


def gray_noise(height: int, width: int) -> np.ndarray:
    """A fine texture, (height, width, 3) uint8, from 60 to 190."""
    values = np.random.default_rng(5).integers(60, 191, (height, width, 1), dtype=np.uint8)
    return np.repeat(values, 3, axis=2)


def test_equal_images_stay_equal_and_the_given_ones_are_untouched() -> None:
    """The steps, noise and JPEG included, do the same to both images."""
    for shape in ((48, 70), (9, 33)):
        image = smooth_image(3, *shape)
        before = image.copy()
        changed = 0
        for seed in range(40):
            first, second = process_pair(image, image.copy(), np.random.default_rng(seed))
            assert first.shape == image.shape and first.dtype == np.uint8
            assert np.array_equal(first, second)
            changed += not np.array_equal(first, image)
        assert np.array_equal(image, before)
        assert changed > 20


def test_rain_stays_in_the_rainy_image() -> None:
    clean = smooth_image(4, 64, 64) // 2
    rainy = clean.copy()
    rainy[:, 30:34] += 90
    for seed in range(40):
        first, second = process_pair(rainy, clean, np.random.default_rng(seed))
        gain = first.astype(int) - second
        assert gain[8:-8, 31:33].mean() > 45
        assert abs(gain[:, :16].mean()) < 3


def test_some_photographs_get_softer_and_some_sharper() -> None:
    image = gray_noise(64, 64)
    contrasts = [
        process_pair(image, image, np.random.default_rng(seed))[0][8:-8, 8:-8].std()
        for seed in range(80)
    ]
    assert np.mean(np.array(contrasts) < 0.7 * image.std()) > 0.25
    assert np.mean(np.array(contrasts) > 1.1 * image.std()) > 0.05
