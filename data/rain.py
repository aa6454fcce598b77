"""Synthetic rain on clean photographs.

A rainy photograph is made as in the field's data sets: gray streaks are added to the scene, and the
sum is clipped at white (Yang et al., Deep Joint Rain Detection and Removal, CVPR 2017). Optionally,
distant drops first scatter a veil of airlight into the lens:

    scene = (1 - veil) * clean + veil * airlight
    rainy = clip(scene + layer * (1 - screen * scene))

The layer is a sum over depths. A drop falls during the exposure, so it appears as a line. Twice as
far away, this line is half as long and half as wide; one that would be thinner than a pixel is
drawn fainter instead. Near drops are out of focus. The same generator gives the same rain.

Images are (H, W, 3) uint8 RGB; layers are (H, W) float32 with 0 for no rain and 1 for the step from
black to white. Nothing here touches a disk.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

# The drops of a depth differ in brightness. Where streaks cross, those of different levels add up;
# those of one level do not.
_BRIGHTNESS_LEVELS = np.linspace(0.4, 1.0, 5)

# Share of the time from one frame of a clip to the next during which the shutter is open: one half,
# the 180-degree shutter of film cameras.
EXPOSURE = 0.5


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
    """Brightness of the brightest streak on black, 0 to 1."""
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
    """How much the strength of the rain varies across the picture, 0 to 1."""
    veil: float = 0.0
    """Share of the scene that the airlight replaces where the veil is thickest, 0 to 1."""
    airlight: float = 0.8
    """Gray value of the veil, 0 to 1."""
    screen: float = 0.0
    """0: streaks are added and clipped, as in the data sets; 1: they never exceed white."""
    jpeg_quality: int = 0
    """JPEG quality at which the rainy picture was stored; 0 for no JPEG."""


def random_rain(rng: np.random.Generator) -> Rain:
    """Any rain from a drizzle to a cloudburst."""
    heaviness = rng.random()
    length = log_uniform(rng, 18, 140)
    crossing = rng.random() < 0.25
    gale = rng.random() < 0.25
    return Rain(
        density=0.04 * 40**heaviness,
        length=length,
        width=min(log_uniform(rng, 1, 4), max(1.0, length / 14)),
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

    Sharp streaks of even brightness cover nearly the whole picture; where the scene is bright, they
    hide it.
    """
    density = log_uniform(rng, 0.5, 2.5)
    return replace(
        random_rain(rng),
        density=density,
        length=log_uniform(rng, 20, 90),
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
    """Many short, faint streaks, as real rain looks in front of dark cloth, trees and asphalt.

    They are several times as dense as those of the data sets, and may be as short as dots.
    """
    width = log_uniform(rng, 0.7, 2.5)
    rain = _faint_rain(
        rng, width, density=(0.3, 3), slenderness=(3, 20), brightness=(0.06, 0.5), depth=2.5
    )
    return replace(
        rain,
        spread=rng.uniform(0, 6),
        taper=rng.random(),
        blur=rng.uniform(0.4, 1.2),
        screen=rng.random(),
    )


def random_soft_rain(rng: np.random.Generator) -> Rain:
    """Wide, out-of-focus streaks close to the camera, from hardly visible to bright."""
    width = log_uniform(rng, 2, 9)
    rain = _faint_rain(
        rng, width, density=(0.2, 2), slenderness=(8, 40), brightness=(0.05, 0.6), depth=3
    )
    return replace(
        rain, taper=rng.random(), blur=width * rng.uniform(0.1, 0.5), screen=rng.random()
    )


def _faint_rain(
    rng: np.random.Generator,
    width: float,
    *,
    density: tuple[float, float],
    slenderness: tuple[float, float],
    brightness: tuple[float, float],
    depth: float,
) -> Rain:
    """Streaks of one width and of a random density, brightness and length, within these limits.

    ``slenderness`` is the length over the width; of ``depth`` only the upper limit is given.
    """
    return replace(
        random_rain(rng),
        density=log_uniform(rng, *density),
        length=width * log_uniform(rng, *slenderness),
        width=width,
        brightness=log_uniform(rng, *brightness),
        num_layers=int(rng.integers(1, 5)),
        depth=rng.uniform(1, depth),
        jpeg_quality=0,
    )


def add_rain(clean: np.ndarray, rain: Rain, rng: np.random.Generator) -> np.ndarray:
    """The clean photograph in this rain, of the same shape and type."""
    height, width = clean.shape[:2]
    layer = streak_layer(height, width, rain, rng)
    rainy = compose(add_veil(clean, rain, rng), layer, rain.screen)
    return store_as_jpeg(rainy, rain.jpeg_quality)


def add_veil(clean: np.ndarray, rain: Rain, rng: np.random.Generator) -> np.ndarray:
    """The scene behind this rain's veil of airlight, (H, W, 3) float32 in [0, 1]."""
    scene = clean.astype(np.float32) / 255
    if rain.veil > 0:
        # Distant parts of the scene have a thicker veil; which these are is chosen at random.
        height, width = clean.shape[:2]
        veil = rain.veil * _smooth_field(height, width, 0.3, rng)[..., None]
        scene = scene + veil * (rain.airlight - scene)
    return scene


def streak_layer(height: int, width: int, rain: Rain, rng: np.random.Generator) -> np.ndarray:
    """The streaks of all depths added up, (H, W); crossing streaks may exceed 1."""
    return FallingStreaks(height, width, rain, rng).layer()


class FallingStreaks:
    """The streaks of a rain, which fall from frame to frame.

    A streak is the path of a drop while the shutter is open. So, from one frame to the next, the
    drop falls by the length of its streak over ``EXPOSURE``: near drops are faster than distant
    ones. A drop that leaves the picture at the bottom enters it again at the top. The strength of
    the rain at each place of the picture stays the same.
    """

    def __init__(self, height: int, width: int, rain: Rain, rng: np.random.Generator) -> None:
        self._rain = rain
        self._shape = height, width
        self._depths: list[tuple[float, list[_Streaks]]] = []  # with their nearness, at most 1
        for nearness in np.geomspace(1, 1 / rain.depth, rain.num_layers):
            thickness = max(rain.width * nearness, 1.0)
            brightness = rain.brightness * rain.width * nearness / thickness
            angle = rain.angle + rng.normal(0, rain.spread)
            length = max(rain.length * nearness, 2.0)
            density = rain.density / rain.num_layers / len(_BRIGHTNESS_LEVELS)
            streaks = [
                _scatter(self._shape, density, length, thickness, angle, brightness * level, rng)
                for level in _BRIGHTNESS_LEVELS
            ]
            self._depths.append((nearness, streaks))
        self._strength = None
        if rain.unevenness > 0:
            self._strength = _smooth_field(height, width, 1 - rain.unevenness, rng)

    def layer(self, frame: float = 0.0) -> np.ndarray:
        """The streaks of all depths added up after ``frame`` frames, (H, W) float32."""
        total = np.zeros(self._shape, np.float32)
        for nearness, streaks_of_depth in self._depths:
            layer = np.zeros_like(total)
            for streaks in streaks_of_depth:
                drawn = _draw(streaks, self._shape, self._rain.taper, frame).astype(np.float32)
                cv2.scaleAdd(drawn, streaks.brightness / 255, layer, layer)
            # Streaks are drawn with hard edges; even in focus, a lens softens them by half a pixel.
            sigma = max(self._rain.blur * nearness, 0.45)
            total += cv2.GaussianBlur(layer, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
        return total if self._strength is None else total * self._strength


def lay_over(clean: np.ndarray, layer: np.ndarray, screen: float = 0.0) -> np.ndarray:
    """The clean photograph with a layer added to it, uint8; ``screen`` is ``Rain.screen``."""
    return compose(clean.astype(np.float32) / 255, layer, screen)


def store_as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """An RGB image, (H, W, 3) uint8, after JPEG compression; quality 0 leaves it unchanged."""
    if quality == 0:
        return image
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None  # it was encoded just above
    return np.ascontiguousarray(decoded[..., ::-1])


def compose(scene: np.ndarray, layer: np.ndarray, screen: float) -> np.ndarray:
    """Scene (H, W, 3) in [0, 1] and layer (H, W) to a rainy image, uint8."""
    streaks = layer[..., None]
    rainy = scene + (streaks * (1 - screen * scene) if screen else streaks)
    return np.rint(np.clip(rainy, 0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True)
class _Streaks:
    """N streaks of one depth and one brightness, scattered over an area larger than the picture.

    positions: (N, 2), row and column of their centres in that area.
    reaches: (N, 2), rows and columns from a streak's centre to its lower end.
    margin: rows above and columns left of the picture that the area has.
    thickness: as OpenCV takes it.
    """

    positions: np.ndarray
    reaches: np.ndarray
    margin: float
    thickness: int
    brightness: float


def _scatter(
    shape: tuple[int, int],
    density: float,
    length: float,
    thickness: float,
    angle: float,
    brightness: float,
    rng: np.random.Generator,
) -> _Streaks:
    # Streaks also start outside, so that the borders are as wet as the middle.
    margin = 1.5 * length
    extent = np.array(shape) + 2 * margin
    # OpenCV draws 1, 3 or 5 pixels for the thickness 1, 2 or 3: mixed, they have the mean wanted.
    thick = 1 + int((thickness - 1) / 2 + rng.random())
    count = rng.poisson(density * extent.prod() / (length * thickness))
    positions = rng.random((count, 2)) * extent
    halves = length / 2 * rng.lognormal(-0.06, 0.35, count)
    angles = np.radians(angle + rng.normal(0, 1, count))
    reaches = np.stack([np.cos(angles), -np.sin(angles)], axis=1) * halves[:, None]
    return _Streaks(positions, reaches, margin, thick, brightness)


def _draw(streaks: _Streaks, shape: tuple[int, int], taper: float, frame: float) -> np.ndarray:
    """The streaks after ``frame`` frames, (H, W) uint8 with 255 at full brightness."""
    extent = np.array(shape) + 2 * streaks.margin
    fallen = frame / EXPOSURE * 2 * streaks.reaches
    centres = (streaks.positions + fallen) % extent - streaks.margin
    canvas = np.zeros(shape, np.uint8)
    for share, value in ((1.0, 255 * (1 - taper)), (0.55, 255)):
        if share == 1.0 or taper > 0:
            reach = share * streaks.reaches
            ends = np.stack([centres - reach, centres + reach], axis=1)
            # OpenCV wants (x, y); 4 fractional bits.
            lines = np.rint(ends[..., ::-1] * 16).astype(np.int32)
            cv2.polylines(
                canvas, list(lines), False, round(value), streaks.thickness, cv2.LINE_8, 4
            )
    return canvas


def _smooth_field(height: int, width: int, low: float, rng: np.random.Generator) -> np.ndarray:
    """Values between ``low`` and 1 that change slowly over the picture, (H, W) float32."""
    coarse = rng.uniform(low, 1, (3, 3)).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number from ``low`` to ``high`` whose logarithm is uniformly distributed."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
