"""How fast evaluate.py scores, beside scikit-image on the same pairs.

    python tools/benchmark_scores.py

Makes pairs of 481x321 px, as in Rain100H, and scores them from their PNGs as evaluate.py does: on
one core, on two and on all. The yardstick is the time of scikit-image's SSIM with a PSNR on
decoded images; the authors' script under GNU Octave takes 3.2 times as long as that (68 and 21 ms
on one machine), which gives the last column. The fastest of several rounds counts, because other
work on a machine only ever slows them down.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # the repository's root holds our packages

from data.results import pair_results
from utils.errors import run_main
from utils.evaluation.score_cache import ScoreCache
from utils.evaluation.scoring import ScoringJob, available_cores, read_8bit, score_jobs
from utils.images import write_png
from utils.metrics import PROTOCOLS

OCTAVE_OVER_SKIMAGE = 68 / 21
HEIGHT, WIDTH = 321, 481


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    cores = [n for n in (1, 2) if n <= available_cores()]
    if available_cores() > 2:
        cores.append(available_cores())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pairs(folder, args.pairs)
        paths = [(folder / side / f"{i}.png") for i in range(args.pairs) for side in ("r", "t")]
        measured: dict[str, Callable[[], object]] = {
            "scikit-image, 1 core, without decoding": skimage_scores(paths),
            "decoding alone, 1 core": lambda: [read_8bit(path) for path in paths],
        }
        for protocol in PROTOCOLS:
            for n in cores if protocol == "rain13k" else cores[:1]:
                label = f"{protocol}, {n} core{'s' if n > 1 else ''}"
                measured[label] = our_scores(folder, protocol, n)
        best = dict.fromkeys(measured, float("inf"))
        for _ in range(args.rounds):
            for label, run in measured.items():
                start = time.perf_counter()
                run()
                best[label] = min(best[label], (time.perf_counter() - start) / args.pairs)
    octave = best["scikit-image, 1 core, without decoding"] * OCTAVE_OVER_SKIMAGE
    print(f"{'':40} {'ms a pair':>10} {'pairs/s':>8} {'x Octave':>9}")
    for label, seconds in best.items():
        print(f"{label:40} {seconds * 1e3:10.2f} {1 / seconds:8.1f} {octave / seconds:9.1f}")
    for n in cores[1:]:
        ratio = best["rain13k, 1 core"] / best[f"rain13k, {n} cores"]
        print(f"{n} cores are {ratio:.2f} times as fast as one")


def make_pairs(folder: Path, count: int) -> None:
    """Pieces of photographs in ``t`` and the same with noise in ``r``."""
    rng = np.random.default_rng(0)
    photos = [skimage.data.astronaut(), skimage.data.coffee()[:, :512], skimage.data.chelsea()]
    photos = [cv2.resize(photo, (640, 480)) for photo in photos]
    for number in range(count):
        photo = photos[number % len(photos)]
        y, x = rng.integers(0, [480 - HEIGHT, 640 - WIDTH])
        clean = photo[y : y + HEIGHT, x : x + WIDTH]
        noisy = np.clip(clean + rng.normal(0, 8, clean.shape), 0, 255).astype(np.uint8)
        write_png(folder / "t" / f"{number}.png", clean)
        write_png(folder / "r" / f"{number}.png", noisy)


def our_scores(folder: Path, protocol: str, workers: int) -> Callable[[], object]:
    """Scoring the pairs from their files as evaluate.py does."""
    job = ScoringJob("r", "pairs", protocol, folder / "r", folder / "t")

    def run() -> object:
        nothing_kept = ScoreCache(folder / "score_cache.json", fresh=True)
        return score_jobs([pair_results(job)], nothing_kept, workers=workers)

    return run


def skimage_scores(paths: list[Path]) -> Callable[[], object]:
    """The same figures from scikit-image, on Y that is computed beforehand."""
    lumas = [cv2.cvtColor(read_8bit(path), cv2.COLOR_RGB2GRAY).astype(np.float64) for path in paths]
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}

    def run() -> object:
        return [
            (
                peak_signal_noise_ratio(y, x, data_range=255),
                structural_similarity(x, y, data_range=255, **options),
            )
            for x, y in zip(lumas[::2], lumas[1::2], strict=True)
        ]

    return run


if __name__ == "__main__":
    run_main(main)
