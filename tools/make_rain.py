"""Make rainy/clean pairs, or clips, from clean photographs.

    python tools/make_rain.py --clean PHOTOS --output PAIRS --variants 4
    python tools/make_rain.py --clean PHOTOS --output PAIRS --density 0.2 --angle 20
    python tools/make_rain.py --clean skimage --output PAIRS --hold-out astronaut,chelsea

writes PAIRS/input/NAME.png and PAIRS/target/NAME.png, or the same in PAIRS/train and PAIRS/val if
photographs are held out. Each rain is drawn at random, from a drizzle to a cloudburst, except for
what options fix. A pair depends only on the seed, the photograph and the number of the variant, so
more photographs or variants leave the other pairs as they are.

A training set mixes four kinds of rain by share: layers taken from the pairs of another data set,
light rain, no rain (so that a network learns to leave dry photographs alone), and synthetic rain
for the rest:

    python tools/make_rain.py --clean PHOTOS --output PAIRS --variants 7 --hold-out 20 \\
        --layers PAIRS_OF_A_DATA_SET --share-layers 0.4 --share-light 0.1 --share-dry 0.05

A training that draws its rain while loading (DATA.SYNTHESIS) needs only the validation pairs:
--variants 0 makes no others.

    python tools/make_rain.py --clean PHOTOS --output CLIPS --clip 50 --size 320x240
    python tools/make_rain.py --clean PHOTOS --output CLIPS --clip 50 --pan 0 --video 25

writes clips: the camera pans over the photograph, and the streaks fall from frame to frame. A clip
is a folder of frames, CLIPS/input/NAME/0001.png and CLIPS/target/NAME/0001.png, or, with --video,
a video to measure with, CLIPS/input/NAME.mp4 and CLIPS/target/NAME.mp4: lossless H.264 in 4:4:4,
which not all players show.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import skimage
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the root holds our packages

from data.checked import read_sound
from data.clips import draw_clip, smallest_photo
from data.synthesis import (
    LIGHT_RAIN,
    Mixture,
    find_layers,
    hold_out,
    layers_of,
    make_rainy,
    random_rain_of,
    read_layers,
)
from utils.errors import UserError, run_main
from utils.images import images_by_stem, to_float, write_png

# Photographs inside every scikit-image wheel, so nothing is downloaded. Its other images are
# drawings, medical images and the right view of the motorcycle.
SKIMAGE_PHOTOS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "motorcycle_left.png",
    "rocket.jpg",
)


DEFAULT_PAN = 1.5


@dataclass(frozen=True)
class Job:
    """One pair of images or of clips to write; a clip is a folder or a video."""

    photo: Path
    variant: int
    rainy: Path
    clean: Path
    layers: Sequence[np.ndarray]


@dataclass(frozen=True)
class Shot:
    """How clips are taken.

    size: height and width; None for three quarters of the photograph's.
    pan: pixels by which the scene moves per frame.
    rate: frames per second of a video; None for a folder of frames.
    """

    num_frames: int
    size: tuple[int, int] | None
    pan: float
    rate: Fraction | None


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the pairs or clips that the command line asks for."""
    options = parse(arguments)
    shot = chosen_shot(options)
    if bool(options.layers) != (options.share_layers > 0):
        raise UserError("--layers FOLDER and a --share-layers above 0 go together; give both.")
    given = {name: getattr(options, name) for name in FIXABLE}
    mixture = Mixture(
        layers=options.share_layers,
        light=options.share_light,
        dry=options.share_dry,
        downpours=options.share_downpours,
        fixed={name: value for name, value in given.items() if value is not None},
    )
    photos = skimage_photos() if options.clean == "skimage" else images_by_stem(Path(options.clean))
    layers = []
    if options.layers:
        layers = read_layers(find_layers(options.layers, options.skip_layers, "--skip-layers"))
    held_out = choose_held_out(photos, options.hold_out)
    if not options.variants and not held_out:
        raise UserError("--variants 0 makes only pairs of photographs that --hold-out names.")

    suffix = ".png" if shot is None else ".mp4" if shot.rate else ""
    jobs = []
    for stem, photo in photos.items():
        part = "" if not held_out else "val" if stem in held_out else "train"
        folder = options.output / part
        variants = options.val_variants if part == "val" else options.variants
        for variant in range(1, variants + 1):
            name = f"{stem}_{variant}{suffix}" if variants > 1 else f"{stem}{suffix}"
            jobs.append(
                Job(
                    photo=photo,
                    variant=variant,
                    rainy=folder / "input" / name,
                    clean=folder / "target" / name,
                    layers=layers_of(part, layers),
                )
            )
    for job in jobs:
        for path in (job.rainy, job.clean):
            if path.exists():
                raise UserError(f"{path} already exists; choose another --output or delete it.")

    def make(job: Job) -> None:
        if shot is None:
            write_pair(job, mixture, options.seed)
        else:
            write_clip(job, shot, mixture, options.seed)

    cv2.setNumThreads(1)  # the pool has one thread per core
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # OpenCV and NumPy draw and compress outside the interpreter's lock.
        done = pool.map(make, jobs)
        for _ in tqdm(done, "making rain", len(jobs), unit="clip" if shot else "pair"):
            pass


def generator(seed: int, stem: str, variant: int) -> np.random.Generator:
    """The random numbers of one pair: the same on every machine and in every order."""
    digest = hashlib.sha256(f"{seed}/{variant}/{stem}".encode()).digest()
    return np.random.default_rng(list(digest))


def write_pair(job: Job, mixture: Mixture, seed: int) -> None:
    """Read a photograph, add rain, and write both images."""
    clean = read_sound(job.photo)
    rng = generator(seed, job.photo.stem, job.variant)
    write_png(job.rainy, make_rainy(clean, mixture, job.layers, rng))
    write_png(job.clean, clean)


def chosen_shot(options: argparse.Namespace) -> Shot | None:
    """How clips are taken; None for single images. Raises UserError for contradictions."""
    if options.clip is None:
        for name in ("size", "pan", "video"):
            if getattr(options, name) is not None:
                raise UserError(f"--{name} is for clips; add --clip FRAMES.")
        return None
    for name in ("share_layers", "share_light", "share_dry"):
        if getattr(options, name):
            raise UserError(
                f"--{name.replace('_', '-')} is for single images; the rain of a --clip is "
                "synthetic, and --density and --brightness make it light."
            )
    pan = DEFAULT_PAN if options.pan is None else options.pan
    return Shot(options.clip, options.size, pan, options.video)


def write_clip(job: Job, shot: Shot, mixture: Mixture, seed: int) -> None:
    """Read a photograph, draw a clip of it, and write its rainy and its clean frames."""
    photo = read_sound(job.photo)
    height, width = photo.shape[:2]
    size = shot.size or (max(height * 3 // 4, 1), max(width * 3 // 4, 1))
    needed = smallest_photo(size, shot.pan)
    if height < needed[0] or width < needed[1]:
        raise UserError(
            f"{job.photo} has {width}x{height} pixels, but its clip needs {needed[1]}x{needed[0]}; "
            "reduce --size or --pan."
        )

    def frames() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng = generator(seed, job.photo.stem, job.variant)
        rain = replace(random_rain_of(mixture, rng), **mixture.fixed)
        return itertools.islice(draw_clip(photo, size, shot.pan, rain, rng), shot.num_frames)

    if shot.rate:  # drawn twice, since neither of the two fits into memory
        write_video(job.rainy, (rainy for rainy, _ in frames()), shot, size)
        write_video(job.clean, (clean for _, clean in frames()), shot, size)
        return
    for number, (rainy, clean) in enumerate(frames(), 1):
        write_png(job.rainy / f"{number:04}.png", rainy)
        write_png(job.clean / f"{number:04}.png", clean)


def write_video(
    path: Path, frames: Iterator[np.ndarray], shot: Shot, size: tuple[int, int]
) -> None:
    """Write frames, (H, W, 3) uint8 RGB, as H.264 that loses nothing but by rounding to Y'CbCr."""
    # FFmpeg is loaded only when videos are written.
    from utils.inference.video.colours import LIMITED, Tags
    from utils.inference.video.display import Display
    from utils.inference.video.encoding import write_piece
    from utils.inference.video.reader import Picture
    from utils.inference.video.yuv import BT709, Layout, from_rgb

    assert shot.rate is not None
    layout = Layout(BT709, full=False, across=1, down=1)
    picture = Picture(
        height=size[0],
        width=size[1],
        layout=layout,
        tags=Tags(LIMITED, BT709, BT709, BT709),
        pixel_aspect=None,
        time_base=1 / shot.rate,
        rate=shot.rate,
        display=Display(),
    )
    planes = (from_rgb(to_float(frame), layout) for frame in frames)
    write_piece(path, planes, range(shot.num_frames), picture, codec="h264", crf=0)


def skimage_photos() -> dict[str, Path]:
    """The photographs inside scikit-image by stem."""
    folder = Path(skimage.__file__).parent / "data"
    return {Path(name).stem: folder / name for name in SKIMAGE_PHOTOS}


def choose_held_out(photos: dict[str, Path], wanted: str) -> set[str]:
    """The stems that go to val: those that ``wanted`` names, or as many as it says."""
    if wanted.isdecimal():
        if int(wanted) >= len(photos):
            raise UserError(f"--hold-out {wanted} leaves none of the {len(photos)} photographs.")
        return hold_out(photos, int(wanted))
    stems = set(_stems(wanted))
    for stem in sorted(stems - set(photos)):
        raise UserError(f"--hold-out names {stem}, but there is no such photograph.")
    if len(stems) == len(photos):
        raise UserError("--hold-out names every photograph; leave some for training.")
    return stems


# Fields of Rain that the command line can fix: smallest and largest value, meaning.
FIXABLE: dict[str, tuple[float, float, str]] = {
    "density": (0, 5, "area of the streaks over the area of the picture; 0.03 drizzle, 1 storm"),
    "length": (2, 1000, "length of the nearest streaks in pixels"),
    "width": (0.1, 5, "width of the nearest streaks in pixels"),
    "angle": (-90, 90, "degrees from the vertical; positive falls towards the left"),
    "brightness": (0, 1, "brightness of the brightest streak on black"),
    "num_layers": (1, 20, "number of depths"),
    "depth": (1, 20, "how many times as far away the last layer is as the first"),
    "spread": (0, 90, "standard deviation of the layers' angles in degrees"),
    "blur": (0, 10, "defocus of the nearest streaks, Gaussian sigma in pixels"),
    "veil": (0, 1, "share of the scene that airlight replaces"),
}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; argparse refuses malformed values with status 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--clean", required=True, help="folder of clean photographs, or skimage for bundled ones")
    add("--output", required=True, type=Path, help="folder for the pairs; nothing is overwritten")
    add("--variants", type=number(int, 0, 10_000), default=1, help="pairs per photograph (1)")
    add("--seed", type=number(int, 0, 2**63), default=0, help="another seed gives other rain (0)")
    add("--hold-out", default="", help="photographs for OUTPUT/val: how many, or STEM,STEM,...")
    add("--val-variants", type=number(int, 1, 10_000), default=1, help="pairs of each of them (1)")
    add("--layers", type=Path, help="pairs whose rain is added, or gray images of rain")
    add("--skip-layers", type=_stems, default=[], help="STEM,STEM,... of pairs to leave out")
    for kind, meaning in (
        ("layers", "of pairs with rain taken from --layers"),
        ("light", f"of pairs faded to {LIGHT_RAIN[0]:g}-{LIGHT_RAIN[1]:g} dB"),
        ("dry", "of pairs without any rain"),
        ("downpours", "of the synthetic rain that is like the data sets' heaviest"),
    ):
        share = number(float, 0, 1)
        add(f"--share-{kind}", type=share, default=0.0, help=f"share {meaning} (0)")
    frames = number(int, 2, 100_000)
    add("--clip", type=frames, metavar="FRAMES", help="make clips of so many frames")
    size_help = "size of the frames of clips (three quarters of the photograph's)"
    add("--size", type=_size, metavar="WxH", help=size_help)
    add("--pan", type=number(float, 0, 100), help=f"pixels per frame of clips ({DEFAULT_PAN})")
    add("--video", type=_rate, metavar="FPS", help="write clips as MP4 with this frame rate")
    for name, (low, high, meaning) in FIXABLE.items():
        kind_of = int if name.startswith("num_") else float
        add(f"--{name.replace('_', '-')}", type=number(kind_of, low, high), help=meaning)
    return parser.parse_args(arguments)


def number(kind: type[int] | type[float], low: float, high: float) -> Callable[[str], float]:
    """A converter for argparse that also checks the range."""

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            noun = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text} is not {noun} from {low:g} to {high:g}")
        return value

    return convert


def _size(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT as height and width."""
    sides = re.fullmatch(r"([1-9]\d{1,4})x([1-9]\d{1,4})", text)
    if sides is None:
        raise argparse.ArgumentTypeError(f"{text} is not WIDTHxHEIGHT in pixels, such as 320x240")
    return int(sides[2]), int(sides[1])


def _rate(text: str) -> Fraction:
    """Frames per second, exactly: 29.97 is 2997/100."""
    number(float, 1, 240)(text)
    return Fraction(text)


def _stems(text: str) -> list[str]:
    return [stem for stem in text.split(",") if stem]


if __name__ == "__main__":
    run_main(main)
