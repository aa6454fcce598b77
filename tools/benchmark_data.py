"""How fast training patches come from files and from the cache, and what memory that takes.

    python tools/benchmark_data.py                      (makes its own 481x321 PNG pairs)
    python tools/benchmark_data.py --data datasets/Rain200H/train

Both ways cut the same random 64-pixel patches, on one core, in turns within one run, so that the
ratio holds on a busy machine too. Memory is this process's own: pages of the mapped cache belong
to the system, which shares them among all loader processes and drops them when it needs them.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the root holds our packages

from data.cache import open_cache
from data.datasets import DecodedPairs, Draw, PairImages, TrainingPatches
from data.pairs import Pair, find_pairs
from data.transforms import Augmentation
from utils.errors import run_main
from utils.images import write_png

HEIGHT, WIDTH = 321, 481  # of Rain100H and BSDS500
PATCH = 64
TURNS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure decoding against the cache.")
    parser.add_argument("--data", type=Path, help="paired folders; made up where not given")
    parser.add_argument("--pairs", type=int, default=64, help="pairs to use or make (default 64)")
    args = parser.parse_args()
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as temporary:
        if args.data is None:
            make_pairs(Path(temporary) / "pairs", 4 * args.pairs)
        pairs = find_pairs(args.data or Path(temporary) / "pairs")[1]
        measure(pairs, args.pairs, Path(temporary))


def make_pairs(folder: Path, count: int) -> None:
    """Photograph-like PNGs: a smooth scene, texture and noise."""
    rng = np.random.default_rng(0)
    for i in range(count):
        for name in ("input", "target"):
            scene = cv2.resize(rng.uniform(0, 255, (12, 16, 3)), (WIDTH, HEIGHT), None, 0, 0, 2)
            texture = cv2.GaussianBlur(rng.normal(0, 60, (HEIGHT, WIDTH, 3)), (0, 0), 1.5)
            noise = rng.normal(0, 4, (HEIGHT, WIDTH, 3))
            image = (scene + texture + noise).clip(0, 255).astype(np.uint8)
            write_png(folder / name / f"{i + 1}.png", image)


def measure(pairs: list[Pair], few: int, folder: Path) -> None:
    started = time.perf_counter()
    cache = open_cache(pairs, folder / "cache")
    built = time.perf_counter() - started
    few_cached = open_cache(pairs[:few], folder / "few")
    decoded, cached = [], []
    for turn in range(TURNS):
        decoded.append(pairs_a_second(DecodedPairs(pairs[:few]), few, 32, turn))
        cached.append(pairs_a_second(few_cached, few, 2000, turn))
    ratio = statistics.median(c / d for c, d in zip(cached, decoded, strict=True))
    print(f"{len(pairs)} pairs; the cache took {built:.1f} s to build, once")
    print("| way | pairs a second |\n|---|---|")
    print(f"| decode and crop | {statistics.median(decoded):.0f} |")
    print(f"| cache | {statistics.median(cached):.0f} |")
    print(f"ratio of the medians of {TURNS} turns: {ratio:.1f}")
    before = own_memory()
    pairs_a_second(few_cached, few, 4 * few, 0)
    small = own_memory()
    pairs_a_second(cache, len(pairs), 4 * len(pairs), 0)
    print(
        f"memory of the process: {before:.0f} MiB before, {small:.0f} MiB after {few} pairs, "
        f"{own_memory():.0f} MiB after {len(pairs)}"
    )


def pairs_a_second(images: PairImages, num_pairs: int, count: int, turn: int) -> float:
    """Training samples (crop, flip, float tensors) that one core delivers a second."""
    patches = TrainingPatches(images, Augmentation(), seed=0)
    order = np.random.default_rng(turn).integers(num_pairs, size=count)
    started = time.perf_counter()
    for index in order:
        patches[Draw(turn, int(index), PATCH)]
    return count / (time.perf_counter() - started)


def own_memory() -> float:
    """Memory that belongs to this process alone, in MiB (RssAnon of Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", status)[1]) / 1024


if __name__ == "__main__":
    run_main(main)
