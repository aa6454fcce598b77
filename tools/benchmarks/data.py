"""How fast training patches come from files, from the cache, and with no files at all.

    python tools/benchmark.py data                      (makes its own 481x321 pairs, PNG and JPEG)
    python tools/benchmark.py data --data datasets/Rain200H/train
    python tools/benchmark.py data --start 100000       (only: how long a large set takes to start)

Real loaders, as train.py uses them, with 0, 1 and 2 loader processes: patches of 64 pixels in
batches of 12 and of 256 pixels one by one. The time of a batch is the processor time of the process
that needs most for it, the least of several turns: what it takes where each process has a core of
its own, also on a busy machine. "none" cuts patches out of one image in memory.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from data.cache import open_cache
from data.checked import check_pairs
from data.datasets import (
    BatchSampler,
    DecodedPairs,
    PairImages,
    PatchLoader,
    Share,
    TrainingPatches,
)
from data.pairs import Pair, find_pairs
from data.transforms import Augmentation
from utils.errors import UserError
from utils.markdown import markdown_table

HEIGHT, WIDTH = 321, 481  # of Rain100H and BSDS500
SHAPES = ((64, 12), (256, 1))  # patch and batch size, as DMSR and NeRD-Rain train
WORKERS = (0, 1, 2)
TURNS = 3


class OneImage:
    """The same pair again and again: what cutting and carrying patches costs by itself."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.pair = tuple(rng.integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8))

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rainy, clean = self.pair
        return rainy, clean


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="a folder of pairs; made up where not given")
    parser.add_argument("--pairs", type=int, default=64, help="pairs to use or make (default: 64)")
    parser.add_argument(
        "--start", type=int, metavar="N", help="time the start with N small pairs, and no patches"
    )
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="time for each of three turns (default: 1)"
    )


def run(args: argparse.Namespace) -> str:
    if not Path("/proc/self/stat").exists():
        raise UserError("benchmark.py data reads processor times from /proc; it needs Linux.")
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.start:
            return measure_start(folder, args.start)
        kinds = {"given": args.data}
        if args.data is None:
            kinds = {kind: folder / kind for kind in ("png", "jpg")}
            for kind, place in kinds.items():
                make_pairs(place, args.pairs, kind)
        pairs_of = {kind: find_pairs(place).pairs[: args.pairs] for kind, place in kinds.items()}
        return measure(pairs_of, folder / "cache", args.seconds)


def make_pairs(folder: Path, count: int, suffix: str, size: tuple[int, int] | None = None) -> None:
    """Photograph-like pairs: a smooth scene, texture and noise; ``size`` is (height, width)."""
    rng = np.random.default_rng(0)
    height, width = size or (HEIGHT, WIDTH)
    for name in ("input", "target"):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            coarse = rng.uniform(0, 255, (12, 16, 3))
            scene = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
            texture = cv2.GaussianBlur(rng.normal(0, 60, (height, width, 3)), (0, 0), 1.5)
            noise = rng.normal(0, 4, (height, width, 3))
            image = (scene + texture + noise).clip(0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / name / f"{i + 1}.{suffix}"), image)


def measure(pairs_of: dict[str, list[Pair]], cache: Path, most_seconds: float) -> str:
    """Ways of reading against loader processes, patches per second."""
    ways: dict[str, PairImages] = {}
    for kind, pairs in pairs_of.items():
        ways[f"decode {kind}"] = DecodedPairs(pairs)
    ways["cache"] = open_cache(next(iter(pairs_of.values())), cache)
    ways["none"] = OneImage()
    parts = []
    for patch, batch_size in SHAPES:
        rows = []
        for name, images in ways.items():
            # turns go round the numbers of workers, so that a busy minute hits all of them
            seconds = dict.fromkeys(WORKERS, float("inf"))
            for _, workers in itertools.product(range(TURNS), WORKERS):
                loader = build_loader(images, patch, batch_size, workers)
                seconds[workers] = min(seconds[workers], batch_seconds(loader, most_seconds))
            rows.append([name, *(f"{batch_size / seconds[n]:,.0f}" for n in WORKERS)])
        parts.append(f"Patches of {patch}, batches of {batch_size}: patches per second")
        parts.append(markdown_table(["way", *(f"{n} workers" for n in WORKERS)], rows))
    return "\n\n".join(parts)


def build_loader(images: PairImages, patch: int, batch_size: int, workers: int) -> PatchLoader:
    """A loader of an epoch that does not end while it is measured."""
    num_samples = 10**6
    sampler = BatchSampler(num_samples, seed=0, accumulate=1, rank=0, world_size=1)
    sampler.set_epoch(1, patch=patch, batch_size=batch_size)
    shares = [Share(0, len(images), num_samples)]
    return PatchLoader(TrainingPatches(images, Augmentation(), 0, shares), sampler, workers)


def batch_seconds(loader: PatchLoader, most_seconds: float) -> float:
    """Processor seconds per batch of this process or of a loader, whichever is more."""
    batches = iter(loader)
    for _ in range(3 + 2 * loader.num_workers):  # the first also start the loaders
        next(batches)
    before, started, count = processor_times(), time.perf_counter(), 0
    while time.perf_counter() - started < most_seconds or count < 20:
        next(batches)
        count += 1
    own, *others = (after - b for after, b in zip(processor_times(), before, strict=True))
    return max(own, sum(others) / max(len(others), 1)) / count


def processor_times() -> list[float]:
    """Processor seconds of this process and of each loader that it has started, in their order."""
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    loaders = [
        fields
        for child in children
        if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes()
        for fields in [Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()]
    ]
    ticks = os.sysconf("SC_CLK_TCK")  # per second
    return [time.process_time(), *((int(f[11]) + int(f[12])) / ticks for f in loaders)]


def measure_start(folder: Path, count: int) -> str:
    """How long the first and the second start with ``count`` small pairs take."""
    make_pairs(folder / "pairs", min(count, 100), "png", (32, 32))
    for name in ("input", "target"):
        contents = [p.read_bytes() for p in sorted((folder / "pairs" / name).iterdir())]
        for i in range(len(contents), count):
            path = folder / "pairs" / name / f"{i + 1}.png"
            path.write_bytes(contents[i % len(contents)])
    rows = []
    for name in ("first", "second"):
        times = [time.process_time()]
        pairs = find_pairs(folder / "pairs").pairs
        times.append(time.process_time())
        num = check_pairs(pairs, "checking", index=folder / "checked")
        times.append(time.process_time())
        found, checked = np.diff(times)
        rows.append([name, f"{found:.1f} s", f"{checked:.1f} s", f"{num:,} pairs"])
    return markdown_table(["start", "finding pairs", "checking", "of it decoded"], rows)
