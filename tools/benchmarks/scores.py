"""How fast evaluate.py scores, raced against GNU Octave on the same files.

    python tools/benchmark.py scores --rounds 8

Scores synthetic pairs of 481x321 pixels, the size of Rain100H, from their PNGs as evaluate.py does,
in turn with ``score_pairs.m``, which computes the protocols rain13k and did with Octave's own
functions, as the authors' scripts do. Times are processor time on one core, including reading.
Without Octave (Debian: octave-cli, octave-image) that column is empty, because its time does not
carry over between machines.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from data.results import pair_results
from tools.benchmarks.data import make_pairs
from tools.benchmarks.timing import positive
from utils.errors import UserError
from utils.evaluation.score_cache import ScoreCache
from utils.evaluation.scoring import ScoringJob, available_cores, read_8bit, score_jobs
from utils.markdown import markdown_table
from utils.metrics import PROTOCOLS

OCTAVE_SCRIPT = Path(__file__).parents[1] / "score_pairs.m"
OCTAVE_PROTOCOLS = ("rain13k", "did")

# Processor seconds of scoring all pairs, then their mean PSNR and SSIM if they were scored.
Race = Callable[[], tuple[float, ...]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=positive, default=20, help="default: %(default)s")
    parser.add_argument("--rounds", type=positive, default=5, help="default: %(default)s")


def run(args: argparse.Namespace) -> str:
    cv2.setNumThreads(1)
    octave = find_octave()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pairs(folder, args.pairs)
        parts = [one_core_table(folder, args.pairs, args.rounds, octave)]
        if octave is None:
            parts.append("No race: Octave with its package image (octave-cli, octave-image) is "
                         "not installed.")  # fmt: skip
        return "\n\n".join([*parts, *core_gains(folder, args.rounds)])


def find_octave() -> str | None:
    """Octave's command if it and its package image are installed."""
    command = shutil.which("octave-cli") or shutil.which("octave")
    if command is None:
        return None
    done = subprocess.run(
        [command, "--norc", "-q", "--eval", "pkg load image"], capture_output=True, check=False
    )
    return command if done.returncode == 0 else None


def one_core_table(folder: Path, num_pairs: int, rounds: int, octave: str | None) -> str:
    """The shortest time of each contestant; they take turns, so that a busy minute hits all."""
    files = [path for side in ("input", "target") for path in sorted((folder / side).iterdir())]
    contestants: dict[str, Race] = {
        "decoding alone": timed(partial(decode, files)),
        "scikit-image without decoding": timed(skimage_scores(files)),
    }
    for protocol in PROTOCOLS:
        contestants[protocol] = timed(partial(our_scores, folder, protocol))
        if octave and protocol in OCTAVE_PROTOCOLS:
            contestants[f"octave {protocol}"] = partial(
                octave_race, octave, folder, protocol, num_pairs
            )
    seconds = dict.fromkeys(contestants, math.inf)
    means: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            found, *means[name] = contestant()
            seconds[name] = min(seconds[name], found)
    rows = []
    for name in contestants:
        ratio = difference = "-"
        if (other := f"octave {name}") in contestants:
            ratio = f"{seconds[other] / seconds[name]:.1f}"
            psnr, ssim = np.abs(np.subtract(means[other], means[name]))
            difference = f"{psnr:.0e} dB, {ssim:.0e}"
        rows.append([name, f"{seconds[name] / num_pairs * 1e3:.2f}", ratio, difference])
    heads = ["one core", "ms per pair", "times as fast as Octave", "differs by"]
    return markdown_table(heads, rows)


def core_gains(folder: Path, rounds: int) -> list[str]:
    """How much faster two and all cores are, in wall time."""
    cores = sorted({1, min(2, available_cores()), available_cores()})
    best = dict.fromkeys(cores, math.inf)
    for _ in range(rounds):
        for n in cores:
            start = time.perf_counter()
            our_scores(folder, "rain13k", n)
            best[n] = min(best[n], time.perf_counter() - start)
    return [
        f"{n} cores are {best[1] / best[n]:.2f} times as fast as one (wall time)."
        for n in cores[1:]
    ]


def timed(compute: Callable[[], tuple[float, ...]]) -> Race:
    """A contestant in this process."""

    def race() -> tuple[float, ...]:
        start = time.process_time()
        means = compute()
        return time.process_time() - start, *means

    return race


def octave_race(octave: str, folder: Path, protocol: str, num_pairs: int) -> tuple[float, ...]:
    """Octave as a contestant; its start and loading its package do not count."""
    done = subprocess.run(
        [octave, "--norc", "-q", str(OCTAVE_SCRIPT), str(folder), protocol, str(num_pairs)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    try:
        seconds, psnr, ssim = map(float, done.stdout.split())
    except ValueError as error:
        raise UserError(f"Octave could not score the pairs: {done.stderr.strip()}") from error
    return seconds, psnr, ssim


def our_scores(folder: Path, protocol: str, workers: int = 1) -> tuple[float, ...]:
    """Mean PSNR and SSIM of the pairs, scored from their files as evaluate.py does."""
    job = ScoringJob("input", "pairs", protocol, folder / "input", folder / "target")
    nothing_kept = ScoreCache(folder / "score_cache.jsonl", fresh=True)
    mean = score_jobs([pair_results(job)], nothing_kept, workers=workers)[0].mean()
    assert mean is not None
    return mean


def decode(files: list[Path]) -> tuple[()]:
    for path in files:
        read_8bit(path)
    return ()


def skimage_scores(files: list[Path]) -> Callable[[], tuple[()]]:
    """PSNR and SSIM by scikit-image, on Y that is computed beforehand."""
    lumas = [cv2.cvtColor(read_8bit(path), cv2.COLOR_RGB2GRAY).astype(np.float64) for path in files]
    half = len(lumas) // 2
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}

    def compute() -> tuple[()]:
        for rainy, clean in zip(lumas[:half], lumas[half:], strict=True):
            peak_signal_noise_ratio(clean, rainy, data_range=255)
            structural_similarity(rainy, clean, data_range=255, **options)
        return ()

    return compute
