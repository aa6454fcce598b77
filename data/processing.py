"""Processing of a photograph after the rain: blur, resizing, sharpening, noise, JPEG.

Both images of a pair go through the same steps. So a network learns to remove rain that was
blurred, enlarged or compressed with its scene, and to leave the traces of these steps alone.

Images are (H, W, 3) uint8 RGB. The same generator gives the same result.
"""

from __future__ import annotations

import cv2
import numpy as np

from data.rain import store_as_jpeg


def process_pair(
    rainy: np.ndarray, clean: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Both images after the same random steps, in the order in which a camera takes them."""
    shape = rainy.shape
    images: list[np.ndarray] = [image.astype(np.float32) for image in (rainy, clean)]
    if rng.random() < 0.3:
        sigma = rng.uniform(0.3, 1.0)
        images = [cv2.GaussianBlur(image, (0, 0), sigma) for image in images]
    if rng.random() < 0.4:
        # A smaller photograph enlarged to this size, as by phones and web pages.
        factor = rng.uniform(0.5, 0.95)
        small = (max(round(shape[1] * factor), 1), max(round(shape[0] * factor), 1))
        enlarging = int(rng.choice((cv2.INTER_LINEAR, cv2.INTER_CUBIC)))
        images = [
            cv2.resize(
                cv2.resize(image, small, interpolation=cv2.INTER_AREA),
                (shape[1], shape[0]),
                interpolation=enlarging,
            )
            for image in images
        ]
    if rng.random() < 0.3:
        amount, sigma = rng.uniform(0.3, 1.2), rng.uniform(0.7, 1.5)
        images = [
            cv2.addWeighted(image, 1 + amount, cv2.GaussianBlur(image, (0, 0), sigma), -amount, 0)
            for image in images
        ]
    if rng.random() < 0.3:
        # Mostly gray noise.
        noise = rng.normal(0, rng.uniform(0.5, 4), (*shape[:2], 1))
        noise = (noise + rng.normal(0, 0.5, shape)).astype(np.float32)
        images = [image + noise for image in images]
    done = [np.rint(np.clip(image, 0, 255)).astype(np.uint8) for image in images]
    if rng.random() < 0.5:
        quality = int(rng.integers(60, 97))
        done = [store_as_jpeg(image, quality) for image in done]
    return done[0], done[1]
