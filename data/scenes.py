"""Variations of clean scenes before rain is added: light, colours, and drawn patterns.

A network that has seen parallel bright lines only as rain removes all of them. One that has seen
only gray weather leaves gray stains where streaks covered saturated colours. So some training
scenes get other light and colours, and some get a lattice, a fence, a blind, fur or text, which
belong to the scene and must stay.

Images are (H, W, 3) uint8 RGB. The same generator gives the same scene.
"""

from __future__ import annotations

import cv2
import numpy as np

_LETTERS = np.array(list("ABCDEFGHKLMNOPRSTUVWXYZabdefghiklmnoprstuvwxyz0123456789.:/-"))
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX)


def vary_light(scene: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The scene in other light: brighter, up to a white sky, darker, or with other colours."""
    pixels = scene.astype(np.float32)
    kind = rng.random()
    if kind < 0.5:
        # one factor for all channels; bright parts reach white, as an overcast sky does
        pixels *= np.exp(rng.uniform(np.log(0.4), np.log(1.9)))
    elif kind < 0.8:
        pixels *= np.exp(rng.uniform(-0.5, 0.5, 3)).astype(np.float32)
    else:
        pixels = pixels[..., rng.permutation(3)]
        gray = pixels.mean(axis=2, keepdims=True)
        pixels = gray + np.float32(rng.uniform(1, 1.8)) * (pixels - gray)
    return np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)


def dim_scene(scene: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The scene at nightfall or in mist: dark or of low contrast, where rain shows most."""
    pixels = scene.astype(np.float32)
    if rng.random() < 0.4:
        pixels *= rng.uniform(0.1, 0.5)
    else:
        # The mist gets thicker towards one side, as it does with distance.
        height, width = scene.shape[:2]
        kept = cv2.resize(
            rng.uniform(0.1, 0.7, (2, 2)).astype(np.float32),
            (width, height),
            interpolation=cv2.INTER_LINEAR,
        )[..., None]
        mist = (rng.uniform(30, 210) + rng.normal(0, 6, 3)).astype(np.float32)
        pixels = mist + kept * (pixels - mist)
    return np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)


def draw_pattern(scene: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The scene with a pattern that resembles rain: bars, a lattice, fur or text."""
    kind = rng.choice(("bars", "lattice", "fur", "text"), p=(0.35, 0.3, 0.2, 0.15))
    drawn = scene.copy()
    if kind == "fur":
        _draw_fur(drawn, rng)
    elif kind == "text":
        _draw_text(drawn, rng)
    else:
        # Bright, upright bars in front of a dark room look most like rain.
        is_dark = rng.random() < 0.4
        angle = rng.uniform(60, 120) if rng.random() < 0.5 else rng.uniform(0, 180)
        if is_dark:
            drawn = np.rint(drawn * rng.uniform(0, 0.3)).astype(np.uint8)
        _draw_bars(drawn, angle, is_dark, rng)
        if kind == "lattice":
            _draw_bars(drawn, angle + rng.choice((90.0, rng.uniform(40, 140))), is_dark, rng)
    if rng.random() < 0.5:
        drawn = cv2.GaussianBlur(drawn, (0, 0), rng.uniform(0.3, 1.0))
    return drawn


def _draw_bars(image: np.ndarray, angle: float, are_bright: bool, rng: np.random.Generator) -> None:
    """Draw parallel lines of one colour at nearly equal distances all over the image, in place.

    ``angle`` is in degrees; at 90 the lines are vertical.
    """
    height, width = image.shape[:2]
    spacing = float(np.exp(rng.uniform(np.log(4), np.log(40))))
    thick = int(rng.integers(1, max(2, round(min(spacing / 2, 8))) + 1))
    are_bright = are_bright or rng.random() < 0.6
    gray = rng.uniform(140, 256) if are_bright else rng.uniform(0, 140)
    colour = np.clip(gray + rng.normal(0, 15, 3), 0, 255).tolist()
    direction = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    normal = np.array([-direction[1], direction[0]])
    reach = np.hypot(height, width) / 2 + spacing
    offsets = np.arange(-reach, reach, spacing) + rng.uniform(0, spacing)
    offsets += rng.normal(0, rng.choice((0.0, 0.04)) * spacing, len(offsets))
    for offset in offsets:
        middle = np.array([width / 2, height / 2]) + offset * normal
        ends = np.rint((middle[None] + np.array([[-reach], [reach]]) * direction) * 16)
        start, end = ends.astype(int).tolist()
        cv2.line(image, start, end, colour, thick, cv2.LINE_AA, 4)


def _draw_fur(image: np.ndarray, rng: np.random.Generator) -> None:
    """Draw short, nearly parallel strokes, each in a lighter or darker local colour, in place."""
    height, width = image.shape[:2]
    angle, length = rng.uniform(0, 180), rng.uniform(5, 25)
    count = int(height * width * rng.uniform(0.1, 0.5) / length)
    rows, columns = rng.integers(height, size=count), rng.integers(width, size=count)
    colours = image[rows, columns].astype(np.float32) * rng.uniform(0.6, 1.5, (count, 1))
    angles = np.radians(angle + rng.normal(0, 8, count))
    reach = np.stack([np.cos(angles), np.sin(angles)], axis=1) * length / 2
    starts = np.stack([columns, rows], axis=1) - reach
    lines = np.rint(np.stack([starts, starts + 2 * reach], axis=1) * 16).astype(int).tolist()
    for (start, end), colour in zip(lines, np.clip(colours, 0, 255).tolist(), strict=True):
        cv2.line(image, start, end, colour, 1, cv2.LINE_AA, 4)


def _draw_text(image: np.ndarray, rng: np.random.Generator) -> None:
    """Draw lines of random characters across the image, in place."""
    height, width = image.shape[:2]
    scale = rng.uniform(0.3, 1.2)
    colour = rng.uniform(0, 256, 3).tolist()
    font = _FONTS[rng.integers(len(_FONTS))]
    for baseline in np.arange(24 * scale, height + 24 * scale, 32 * scale):
        text = "".join(rng.choice(_LETTERS, max(4, round(width / (14 * scale)))))
        place = (int(rng.integers(-10, 10)), round(baseline))
        cv2.putText(image, text, place, font, scale, colour, int(rng.integers(1, 3)), cv2.LINE_AA)
