"""How fast training patches come from files, from the cache, and from memory.

    python tools/benchmark.py data                      (on synthetic 481x321 pairs, PNG and JPEG)
    python tools/benchmark.py data --data datasets/Rain200H/train
    python tools/benchmark.py data --start 100000       (only: how long a large set takes to start)

Uses train.py's loaders with 0, 1 and 2 loader processes: patches of 64 pixels in batches of 12, and
of 256 pixels in batches of 1. The time of a batch is the processor time of the process that needs
most for it, the shortest of several turns: its time if each process has a core to itself, measured
also on a busy machine. "none" cuts patches out of one image in memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from data.batches import PatchLoader
from data.cache import open_cache
from data.checked import check_pairs
from data.datasets import BatchSampler, DecodedPairs, PairImages, Share, TrainingPatches
from data.pairs import Pair, find_pairs
from data.transforms import Augmentation
from tools.benchmarks.timing import positive
from utils.errors import UserError
from utils.markdown import markdown_table

SIZE = (321, 481)  # height and width, as in Rain100H and BSDS500
SHAPES = ((64, 12), (256, 1))  # patch and batch size, as DMSR and NeRD-Rain train
WORKERS = (0, 1, 2)
TURNS = 3


class OneImage:
    """The same pair again and again: the cost of cutting and moving patches alone."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.rainy, self.clean = rng.integers(0, 256, (2, *SIZE, 3), np.uint8)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.rainy, self.clean


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="a folder of pairs (default: synthetic pairs)")
    parser.add_argument("--pairs", type=positive, default=64, help="pairs to use (default: 64)")
    parser.add_argument(
        "--start", type=positive, metavar="N", help="time the start with N small pairs instead"
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
        folders = {"given": args.data} if args.data else {k: folder / k for k in ("png", "jpg")}
        if not args.data:
            for kind, place in folders.items():
                make_pairs(place, args.pairs, kind)
        pairs = {kind: find_pairs(place).pairs[: args.pairs] for kind, place in folders.items()}
        return measure(pairs, folder / "cache", args.seconds)


def make_pairs(folder: Path, count: int, suffix: str = "png", size: tuple[int, int] = SIZE) -> None:
    """Photograph-like pairs of (height, width): a smooth scene with texture, and noise on each."""
    rng = np.random.default_rng(0)
    height, width = size
    sides = [folder / name for name in ("input", "target")]
    for side in sides:
        side.mkdir(parents=True)
    for number in range(1, count + 1):
        coarse = rng.uniform(0, 255, (12, 16, 3))
        scene = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        texture = cv2.GaussianBlur(rng.normal(0, 60, (height, width, 3)), (0, 0), 1.5)
        for side in sides:
            image = (
                (scene + texture + rng.normal(0, 4, texture.shape)).clip(0, 255).astype(np.uint8)
            )
            cv2.imwrite(str(side / f"{number}.{suffix}"), image)


def measure(pairs_of: dict[str, list[Pair]], cache: Path, most_seconds: float) -> str:
    """Patches per second by source and number of loader processes, one table for each shape."""
    sources: dict[str, PairImages] = {
        f"decode {kind}": DecodedPairs(pairs) for kind, pairs in pairs_of.items()
    }
    sources["cache"] = open_cache(next(iter(pairs_of.values())), cache)
    sources["none"] = OneImage()
    parts = []
    for patch, batch_size in SHAPES:
        rows = []
        for name, images in sources.items():
            seconds = dict.fromkeys(WORKERS, float("inf"))
            for _ in range(TURNS):  # in turn, so that a busy minute hits all numbers of workers
                for workers in WORKERS:
                    loader = build_loader(images, patch, batch_size, workers)
                    seconds[workers] = min(seconds[workers], batch_seconds(loader, most_seconds))
            rows.append([name, *(f"{batch_size / seconds[n]:,.0f}" for n in WORKERS)])
        parts.append(f"Patches of {patch}, batches of {batch_size}: patches per second")
        parts.append(markdown_table(["source", *(f"{n} workers" for n in WORKERS)], rows))
    return "\n\n".join(parts)


def build_loader(images: PairImages, patch: int, batch_size: int, workers: int) -> PatchLoader:
    """A loader of an epoch too long to end while it is measured."""
    num_samples = 10**6
    sampler = BatchSampler(num_samples, seed=0, accumulate=1, rank=0, world_size=1)
    sampler.set_epoch(1, patch=patch, batch_size=batch_size)
    shares = [Share(0, len(images), num_samples)]
    return PatchLoader(TrainingPatches(images, Augmentation(), 0, shares), sampler, workers)


def batch_seconds(loader: PatchLoader, most_seconds: float) -> float:
    """Processor seconds per batch of this process or of a loader process, whichever is more."""
    batches = iter(loader)
    for _ in range(3 + 2 * loader.num_workers):  # the first also start the loader processes
        next(batches)
    before, started, count = processor_times(), time.perf_counter(), 0
    while time.perf_counter() - started < most_seconds or count < 20:
        next(batches)
        count += 1
    own, *others = (after - b for after, b in zip(processor_times(), before, strict=True))
    return max(own, sum(others) / max(len(others), 1)) / count


def processor_times() -> list[float]:
    """Processor seconds of this process and of each of its loader processes."""
    times = [time.process_time()]
    for process in sorted(multiprocessing.active_children(), key=lambda process: process.pid or 0):
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        times.append((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
    return times


def measure_start(folder: Path, count: int) -> str:
    """How long the first and the second start with ``count`` small pairs take."""
    pairs = folder / "pairs"
    make_pairs(pairs, min(count, 100), size=(32, 32))
    for number in range(101, count + 1):
        for side in ("input", "target"):
            source = pairs / side / f"{number % 100 or 100}.png"
            (pairs / side / f"{number}.png").write_bytes(source.read_bytes())
    rows = []
    for name in ("first", "second"):
        times = [time.process_time()]
        found = find_pairs(pairs).pairs
        times.append(time.process_time())
        num_decoded = check_pairs(found, "checking", index=folder / "checked")
        times.append(time.process_time())
        finding, checking = np.diff(times)
        rows.append([name, f"{finding:.1f} s", f"{checking:.1f} s", f"{num_decoded:,} pairs"])
    return markdown_table(["start", "finding pairs", "checking", "of it decoded"], rows)
