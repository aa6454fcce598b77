"""Rain on clean photographs: synthetic streaks, and rain layers taken from existing pairs.

A rainy photograph is built as the field's data sets are: gray streaks added to the scene, clipped
at white (Yang et al., Deep Joint Rain Detection and Removal, CVPR 2017), after an optional veil of
airlight that far drops scatter into the lens:

    rainy = clip((1 - veil) * clean + veil * airlight + layer * (1 - screen * scene))

The layer is a sum over depths. A drop falls during the exposure, so it is a line; twice as far
away it is half as long and half as wide, and where it gets thinner than a pixel it gets fainter
instead. Near drops are out of focus. The same generator gives the same rain.

Images here are (H, W, 3) uint8 RGB; layers are (H, W) float32 with 0 for no rain and 1 for the
step from black to white. Nothing touches a disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

# A layer's drops differ in brightness; this many levels are drawn. Streaks of one level do not add
# up where they cross, those of different levels do.
_BRIGHTNESS_LEVELS = np.linspace(0.4, 1.0, 5)


@dataclass(frozen=True)
class Rain:
    """What a rain looks like. Lengths are in pixels, angles in degrees."""

    density: float = 0.4
    """Area of all streaks over the area of the picture: 0.03 is drizzle, over 1 a cloudburst."""
    length: float = 40.0
    """Mean length of the nearest streaks."""
    width: float = 2.0
    """Mean width of the nearest streaks."""
    angle: float = 0.0
    """Direction from the vertical; positive rain falls towards the left."""
    brightness: float = 0.5
    """The brightest streak alone on black, 0 to 1."""
    num_layers: int = 3
    """Number of depths."""
    depth: float = 2.0
    """How many times farther the last layer is than the first; at least 1."""
    spread: float = 3.0
    """Standard deviation of the layers' angles around ``angle``: gusts, crossing streaks."""
    taper: float = 0.3
    """Share of the brightness that a streak loses towards its ends, 0 (cut off) to 1."""
    blur: float = 0.5
    """Gaussian sigma at the nearest streaks: defocus. Far layers get less."""
    unevenness: float = 0.2
    """How much the strength varies across the picture, 0 to 1."""
    veil: float = 0.0
    """Share of the scene's light that the airlight replaces where the veil is thickest, 0 to 1."""
    airlight: float = 0.8
    """Gray value of the veil, 0 to 1."""
    screen: float = 0.0
    """0 adds streaks and clips, as the data sets do; 1 never exceeds white, as light drops do."""
    jpeg_quality: int = 0
    """Quality at which the rainy picture was stored as JPEG; 0 for not at all."""


def random_rain(rng: np.random.Generator) -> Rain:
    """One rain out of the whole range from a drizzle to a cloudburst."""
    heaviness = rng.random()
    length = _log_uniform(rng, 18, 140)
    crossing = rng.random() < 0.25
    gale = rng.random() < 0.25
    return Rain(
        density=0.04 * 40**heaviness,
        length=length,
        width=min(_log_uniform(rng, 1, 4), max(1.0, length / 14)),
        angle=float(np.clip(rng.normal(0, 25 if gale else 9), -60, 60)),
        brightness=rng.uniform(0.2, 0.75) + 0.2 * rng.random() * (1 - heaviness),
        num_layers=int(rng.integers(1, 6)),
        depth=rng.uniform(1, 3),
        spread=rng.uniform(8, 20) if crossing else rng.uniform(0, 4),
        taper=rng.choice((0.0, rng.random())),
        blur=rng.choice((0.5, rng.uniform(0.5, 1.6))),
        unevenness=rng.uniform(0, 0.5),
        veil=rng.uniform(0, 0.1 + 0.25 * heaviness) if rng.random() < 0.25 else 0.0,
        airlight=rng.uniform(0.55, 0.95),
        screen=rng.choice((0.0, 0.0, rng.random())),
        jpeg_quality=int(rng.integers(70, 97)) if rng.random() < 0.15 else 0,
    )


def random_downpour(rng: np.random.Generator) -> Rain:
    """A rain like the heaviest of the data sets' layers (``tools/rain_statistics.py``).

    Sharp streaks of even brightness cover nearly all of the picture, and hide what they cover
    where it is bright.
    """
    density = _log_uniform(rng, 0.5, 2.5)
    return replace(
        random_rain(rng),
        density=density,
        length=_log_uniform(rng, 20, 90),
        width=rng.uniform(1, 3),
        # the real layers' mean is a third of white at most
        brightness=min(rng.uniform(0.25, 0.9), 0.6 / density),
        num_layers=int(rng.integers(2, 6)),
        depth=rng.uniform(1, 2),
        taper=0.0,
        blur=0.45,
        screen=0.0,
    )


def random_fine_rain(rng: np.random.Generator) -> Rain:
    """Many short, faint streaks, as real rain is before dark cloth, trees and asphalt.

    They are several times as dense as what the data sets draw, and as short as dots.
    """
    width = _log_uniform(rng, 0.7, 2.5)
    return replace(
        random_rain(rng),
        density=_log_uniform(rng, 0.3, 3),
        length=width * _log_uniform(rng, 3, 20),
        width=width,
        brightness=_log_uniform(rng, 0.06, 0.5),
        num_layers=int(rng.integers(1, 5)),
        depth=rng.uniform(1, 2.5),
        spread=rng.uniform(0, 6),
        taper=rng.random(),
        blur=rng.uniform(0.4, 1.2),
        screen=rng.random(),
        jpeg_quality=0,
    )


def random_soft_rain(rng: np.random.Generator) -> Rain:
    """Wide, out-of-focus streaks close to the camera, from hardly visible to bright."""
    width = _log_uniform(rng, 2, 9)
    return replace(
        random_rain(rng),
        density=_log_uniform(rng, 0.2, 2),
        length=width * _log_uniform(rng, 8, 40),
        width=width,
        brightness=_log_uniform(rng, 0.05, 0.6),
        num_layers=int(rng.integers(1, 5)),
        depth=rng.uniform(1, 3),
        taper=rng.random(),
        blur=width * rng.uniform(0.1, 0.5),
        screen=rng.random(),
        jpeg_quality=0,
    )


def add_rain(clean: np.ndarray, rain: Rain, rng: np.random.Generator) -> np.ndarray:
    """The clean photograph in this rain, of the same shape and type."""
    height, width = clean.shape[:2]
    layer = streak_layer(height, width, rain, rng)
    scene = clean.astype(np.float32) / 255
    if rain.veil > 0:
        # Thicker where the scene is far: nobody knows where, so anywhere, smoothly.
        veil = rain.veil * _smooth_field(height, width, 0.3, rng)[..., None]
        scene = scene + veil * (rain.airlight - scene)
    return store_as_jpeg(_compose(scene, layer, rain.screen), rain.jpeg_quality)


def streak_layer(height: int, width: int, rain: Rain, rng: np.random.Generator) -> np.ndarray:
    """The streaks of all depths added up, (H, W); crossing streaks may exceed 1."""
    total = np.zeros((height, width), np.float32)
    for nearness in np.geomspace(1, 1 / rain.depth, rain.num_layers):
        thickness = max(rain.width * nearness, 1.0)
        brightness = rain.brightness * rain.width * nearness / thickness
        angle = rain.angle + rng.normal(0, rain.spread)
        length = max(rain.length * nearness, 2.0)
        layer = np.zeros_like(total)
        for level in _BRIGHTNESS_LEVELS:
            density = rain.density / rain.num_layers / len(_BRIGHTNESS_LEVELS)
            drawn = _draw_streaks(
                (height, width), density, length, thickness, angle, rain.taper, rng
            )
            cv2.scaleAdd(drawn.astype(np.float32), brightness * level / 255, layer, layer)
        # Streaks are drawn with hard edges; even in focus a lens softens them by half a pixel.
        sigma = max(rain.blur * nearness, 0.45)
        total += cv2.GaussianBlur(layer, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    if rain.unevenness > 0:
        total *= _smooth_field(height, width, 1 - rain.unevenness, rng)
    return total


def extract_layer(rainy: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """The rain layer of a pair made by adding gray streaks and clipping, (H, W).

    A channel clipped at white hides part of the rain, so the channel that gained most tells it.
    Where all three are white, the layer turned by half a circle stands in: the turn keeps the
    streaks' direction.
    """
    gain = (rainy.astype(np.float32) - clean).max(axis=2) / 255
    layer = np.maximum(gain, 0)
    hidden = rainy.min(axis=2) == 255
    turned = layer[::-1, ::-1]
    return np.where(hidden, np.maximum(layer, turned), layer)


def vary_layer(layer: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A layer made new: mirrored, shifted, sometimes turned and scaled, of another strength.

    The result is (height, width) whatever the size of ``layer``: a part of a larger layer, while a
    smaller one is repeated as often as needed. Half of the layers are not resampled, so that
    hard-edged streaks stay hard.
    """
    if rng.random() < 0.5:
        layer = layer[:, ::-1]
    if rng.random() < 0.5:
        layer = layer[::-1]
    resampled = rng.random() < 0.5
    angle, scale = rng.uniform(-15, 15), _log_uniform(rng, 0.7, 1.4)
    if resampled:
        # Big enough that the turned and scaled cut-out never leaves it.
        side = int(np.ceil(np.hypot(height, width) / scale)) + 2
        patch = _window(layer, side, side, rng)
        centre = ((side - 1) / 2, (side - 1) / 2)
        turn = np.asarray(cv2.getRotationMatrix2D(centre, angle, scale), np.float64)
        turn[:, 2] += np.array([width - side, height - side]) / 2
        varied = cv2.warpAffine(patch, turn, (width, height), flags=cv2.INTER_LINEAR)
    else:
        varied = _window(layer, height, width, rng)
    return varied * np.float32(_log_uniform(rng, 0.6, 1.25))


def compose_layer(
    crops: Sequence[np.ndarray], height: int, width: int, rng: np.random.Generator
) -> np.ndarray:
    """A layer, (height, width), of one to three crops of upright real rain laid over one another.

    Each crop is repeated in mirror images, which joins streaks at the seams, scaled, turned to
    about the same direction, and made fainter or stronger.
    """
    total = np.zeros((height, width), np.float32)
    angle = float(np.clip(rng.normal(0, 25 if rng.random() < 0.25 else 9), -60, 60))
    base = _log_uniform(rng, 0.6, 3)
    for _ in range(rng.choice((1, 2, 3), p=(0.5, 0.3, 0.2))):
        crop = crops[int(rng.integers(len(crops)))]
        scale = base * _log_uniform(rng, 0.8, 1.25)
        side = int(np.ceil(np.hypot(height, width) / scale)) + 2
        rows, columns = (
            _mirrored(rng.integers(2 * size) + np.arange(side), size) for size in crop.shape
        )
        centre = ((side - 1) / 2, (side - 1) / 2)
        turn = np.asarray(
            cv2.getRotationMatrix2D(centre, angle + rng.normal(0, 3), scale), np.float64
        )
        turn[:, 2] += np.array([width - side, height - side]) / 2
        patch = crop[np.ix_(rows, columns)]
        gain = np.float32(_log_uniform(rng, 0.5, 3))
        total += gain * cv2.warpAffine(patch, turn, (width, height), flags=cv2.INTER_LINEAR)
    return total


def fade_layer(layer: np.ndarray, psnr: float) -> np.ndarray:
    """The layer weakened so that rain and scene differ by ``psnr`` dB, clipping left aside.

    A layer that is already weaker stays as it is.
    """
    strength = float(np.sqrt(np.mean(np.square(layer))))
    wanted = 10 ** (-psnr / 20)
    return layer * np.float32(wanted / strength) if strength > wanted else layer


def lay_over(clean: np.ndarray, layer: np.ndarray, screen: float = 0.0) -> np.ndarray:
    """The clean photograph with a layer added to it and clipped at white, uint8.

    ``screen`` is ``Rain.screen``.
    """
    return _compose(clean.astype(np.float32) / 255, layer, screen)


def store_as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """What JPEG leaves of an RGB image, (H, W, 3) uint8; quality 0 leaves it alone."""
    if quality == 0:
        return image
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None  # it was encoded a line above
    return np.ascontiguousarray(decoded[..., ::-1])


def _compose(scene: np.ndarray, layer: np.ndarray, screen: float) -> np.ndarray:
    """Scene (H, W, 3) in [0, 1] and layer (H, W) to a rainy image, uint8."""
    streaks = layer[..., None]
    rainy = scene + (streaks * (1 - screen * scene) if screen else streaks)
    return np.rint(np.clip(rainy, 0, 1) * 255).astype(np.uint8)


def _draw_streaks(
    shape: tuple[int, int],
    density: float,
    length: float,
    thickness: float,
    angle: float,
    taper: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Lines all over a canvas, (H, W) uint8 with 255 at full brightness."""
    # Streaks start up to one length outside, so that the borders are as wet as the middle.
    margin = 1.5 * length
    extent = np.array(shape) + 2 * margin
    # OpenCV draws 1, 3 or 5 pixels for the thickness 1, 2 or 3: mixed, they have the mean wanted.
    thick = 1 + int((thickness - 1) / 2 + rng.random())
    count = rng.poisson(density * extent.prod() / (length * thickness))
    centres = rng.random((count, 2)) * extent - margin
    halves = length / 2 * rng.lognormal(-0.06, 0.35, count)
    angles = np.radians(angle + rng.normal(0, 1, count))
    reach = np.stack([np.cos(angles), -np.sin(angles)], axis=1) * halves[:, None]
    canvas = np.zeros(shape, np.uint8)
    for share, value in ((1.0, 255 * (1 - taper)), (0.55, 255)):
        if share == 1.0 or taper > 0:
            ends = np.stack([centres - share * reach, centres + share * reach], axis=1)
            # OpenCV wants (x, y); 4 fractional bits.
            lines = np.rint(ends[..., ::-1] * 16).astype(np.int32)
            cv2.polylines(canvas, list(lines), False, round(value), thick, cv2.LINE_8, 4)
    return canvas


def _smooth_field(height: int, width: int, low: float, rng: np.random.Generator) -> np.ndarray:
    """Values between ``low`` and 1 that change slowly over the picture, (H, W) float32."""
    coarse = rng.uniform(low, 1, (3, 3)).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def _window(layer: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A random cut-out of (height, width), of the layer repeated endlessly where it is too small.

    A layer that is larger in both directions is cut inside: a seam breaks the streaks.
    """
    rows, columns = layer.shape
    inside = rows > height and columns > width
    top = rng.integers(rows - height if inside else rows)
    left = rng.integers(columns - width if inside else columns)
    chosen_rows = np.arange(top, top + height) % rows
    chosen_columns = np.arange(left, left + width) % columns
    return layer[np.ix_(chosen_rows, chosen_columns)]


def _mirrored(indices: np.ndarray, size: int) -> np.ndarray:
    """Indices along an axis of ``size`` pixels that is repeated in mirror images for ever."""
    return np.minimum(indices % (2 * size), (-1 - indices) % (2 * size))


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
