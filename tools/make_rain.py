"""Make rainy/clean pairs from clean photographs.

    python tools/make_rain.py --clean PHOTOS --output PAIRS --variants 4
    python tools/make_rain.py --clean PHOTOS --output PAIRS --density 0.2 --angle 20
    python tools/make_rain.py --clean skimage --output PAIRS --hold-out astronaut,chelsea

writes PAIRS/input/NAME.png and PAIRS/target/NAME.png, or the same in PAIRS/train and PAIRS/val
when photographs are held out. Every rain is drawn at random from a drizzle to a cloudburst except
for what an option fixes. A pair depends only on the seed, the photograph and the variant's
number, not on its neighbours: more photographs or variants leave the others as they are.

A training set mixes four kinds of rain by share: layers taken from the pairs of another data set,
light rain, no rain at all (so that a network learns to leave dry photographs alone), and
synthetic rain for the rest:

    python tools/make_rain.py --clean PHOTOS --output PAIRS --variants 7 --hold-out 20 \\
        --layers PAIRS_OF_A_DATA_SET --share-layers 0.4 --share-light 0.1 --share-dry 0.05

A training that draws its rain while loading (DATA.SYNTHESIS) needs only the validation pairs:
--variants 0 makes no others.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import skimage
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the root holds our packages

from data.checked import read_sound
from data.synthesis import (
    LIGHT_RAIN,
    Mixture,
    find_layers,
    hold_out,
    layers_of,
    make_rainy,
    read_layers,
)
from utils.errors import UserError, run_main
from utils.images import images_by_stem, write_png

# Photographs inside every scikit-image wheel, nothing to download; the rest there are drawings,
# medical images and the right eye's view of the motorcycle.
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


@dataclass(frozen=True)
class Job:
    """One pair to write."""

    photo: Path
    variant: int
    rainy: Path
    clean: Path
    layers: Sequence[np.ndarray]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the pairs that the command line asks for."""
    options = parse(arguments)
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

    jobs = []
    for stem, photo in photos.items():
        part = "" if not held_out else "val" if stem in held_out else "train"
        folder = options.output / part
        variants = options.val_variants if part == "val" else options.variants
        for variant in range(1, variants + 1):
            name = f"{stem}_{variant}.png" if variants > 1 else f"{stem}.png"
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
                raise UserError(f"{path} exists already; choose another --output or delete it.")

    cv2.setNumThreads(1)  # the pool has a thread a core
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # OpenCV and NumPy draw and compress outside the interpreter's lock.
        done = pool.map(lambda job: write_pair(job, mixture, options.seed), jobs)
        for _ in tqdm(done, "making rain", len(jobs), unit="pair"):
            pass


def generator(seed: int, stem: str, variant: int) -> np.random.Generator:
    """The random numbers of one pair: the same on every machine and in every order."""
    digest = hashlib.sha256(f"{seed}/{variant}/{stem}".encode()).digest()
    return np.random.default_rng(list(digest))


def write_pair(job: Job, mixture: Mixture, seed: int) -> None:
    """Read a photograph, make its rain, write both images."""
    clean = read_sound(job.photo)
    rng = generator(seed, job.photo.stem, job.variant)
    write_png(job.rainy, make_rainy(clean, mixture, job.layers, rng))
    write_png(job.clean, clean)


def skimage_photos() -> dict[str, Path]:
    """The photographs inside scikit-image by stem."""
    folder = Path(skimage.__file__).parent / "data"
    return {Path(name).stem: folder / name for name in SKIMAGE_PHOTOS}


def choose_held_out(photos: dict[str, Path], wanted: str) -> set[str]:
    """The stems that go to val: those named, or as many as asked for."""
    if wanted.isdecimal():
        if int(wanted) >= len(photos):
            raise UserError(f"--hold-out {wanted} leaves none of the {len(photos)} photographs.")
        return hold_out(photos, int(wanted))
    stems = set(_stems(wanted))
    for stem in sorted(stems - set(photos)):
        raise UserError(f"--hold-out names {stem}, and there is no such photograph.")
    if len(stems) == len(photos):
        raise UserError("--hold-out names every photograph; leave some for training.")
    return stems


# Fields of Rain that the command line can fix: smallest and largest value, what it means.
FIXABLE: dict[str, tuple[float, float, str]] = {
    "density": (0, 5, "area of the streaks over the area of the picture; 0.03 drizzle, 1 storm"),
    "length": (2, 1000, "length of the nearest streaks in pixels"),
    "width": (0.1, 5, "width of the nearest streaks in pixels"),
    "angle": (-90, 90, "degrees from the vertical; positive falls towards the left"),
    "brightness": (0, 1, "brightest streak on black"),
    "num_layers": (1, 20, "number of depths"),
    "depth": (1, 20, "how many times farther the last layer is than the first"),
    "spread": (0, 90, "standard deviation of the layers' angles in degrees"),
    "blur": (0, 10, "defocus of the nearest streaks, Gaussian sigma in pixels"),
    "veil": (0, 1, "share of the scene's light lost in the airlight"),
}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; argparse itself refuses what is malformed, with status 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--clean", required=True, help="folder of clean photographs, or skimage for bundled ones")
    add("--output", required=True, type=Path, help="folder for the pairs; nothing is overwritten")
    add("--variants", type=number(int, 0, 10_000), default=1, help="pairs per photograph (1)")
    add("--seed", type=number(int, 0, 2**63), default=0, help="another seed, other rain (0)")
    add("--hold-out", default="", help="photographs for OUTPUT/val: how many, or STEM,STEM,...")
    add("--val-variants", type=number(int, 1, 10_000), default=1, help="pairs of each of them (1)")
    add("--layers", type=Path, help="pairs whose rain is laid over, or gray images of rain")
    add("--skip-layers", type=_stems, default=[], help="STEM,STEM,... of pairs to leave out")
    for kind, meaning in (
        ("layers", "of pairs with rain taken from --layers"),
        ("light", f"of pairs faded to {LIGHT_RAIN[0]:g}-{LIGHT_RAIN[1]:g} dB"),
        ("dry", "of pairs without any rain"),
        ("downpours", "of the synthetic rain that is like the data sets' heaviest"),
    ):
        share = number(float, 0, 1)
        add(f"--share-{kind}", type=share, default=0.0, help=f"share {meaning} (0)")
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


def _stems(text: str) -> list[str]:
    return [stem for stem in text.split(",") if stem]


if __name__ == "__main__":
    run_main(main)
