"""How fast evaluate.py scores, raced against GNU Octave on the same files.

    python tools/benchmark.py scores --rounds 8

Makes pairs of 481x321 px, as in Rain100H, and scores them from their PNGs as evaluate.py does, in
turn with ``score_pairs.m``, which computes the protocols rain13k and did with Octave's own
functions, as the authors' scripts do. Times are processor time on one core, reading included.
Without Octave (Debian: octave-cli, octave-image) there is no such column, because its time does not
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
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import skimage.data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from data.results import pair_results
from utils.errors import UserError
from utils.evaluation.score_cache import ScoreCache
from utils.evaluation.scoring import ScoringJob, available_cores, read_8bit, score_jobs
from utils.images import write_png
from utils.markdown import markdown_table
from utils.metrics import PROTOCOLS

HEIGHT, WIDTH = 321, 481
OCTAVE_SCRIPT = Path(__file__).parents[1] / "score_pairs.m"
OCTAVE_PROTOCOLS = ("rain13k", "did")


class Round(NamedTuple):
    """Processor seconds per pair, and the mean PSNR and SSIM where scores were computed."""

    seconds: float
    psnr: float = math.nan
    ssim: float = math.nan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")


def run(args: argparse.Namespace) -> str:
    cv2.setNumThreads(1)
    octave = find_octave()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pairs(folder, args.pairs)
        parts = [table(race(folder, args.pairs, args.rounds, octave))]
        if octave is None:
            parts.append("No race: Octave with its package image (octave-cli, octave-image) is "
                         "not installed.")  # fmt: skip
        return "\n\n".join([*parts, *core_gains(folder, args.rounds)])


def find_octave() -> str | None:
    """Octave's command where it and its package image are installed."""
    command = shutil.which("octave-cli") or shutil.which("octave")
    if command is None:
        return None
    done = subprocess.run(
        [command, "--norc", "-q", "--eval", "pkg load image"], capture_output=True, check=False
    )
    return command if done.returncode == 0 else None


def race(folder: Path, num_pairs: int, rounds: int, octave: str | None) -> dict[str, Round]:
    """The least time of each contestant; they run in turn, so that a busy minute meets all."""
    paths = [folder / side / f"{i}.png" for i in range(num_pairs) for side in ("r", "t")]
    contestants: dict[str, Callable[[], Round]] = {
        "decoding alone": timed(lambda: [read_8bit(path) for path in paths], num_pairs),
        "scikit-image without decoding": timed(skimage_scores(paths), num_pairs),
    }
    for protocol in PROTOCOLS:
        contestants[protocol] = our_round(folder, protocol, num_pairs)
        if octave and protocol in OCTAVE_PROTOCOLS:
            contestants[f"octave {protocol}"] = octave_round(octave, folder, protocol, num_pairs)
    best: dict[str, Round] = {}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            found = contestant()
            best[name] = min(best.get(name, found), found)
    return best


def table(best: dict[str, Round]) -> str:
    rows = []
    for name, found in best.items():
        theirs = best.get(f"octave {name}")
        ratio = agreement = "-"
        if theirs:
            ratio = f"{theirs.seconds / found.seconds:.1f}"
            agreement = (
                f"{abs(theirs.psnr - found.psnr):.0e} dB, {abs(theirs.ssim - found.ssim):.0e}"
            )
        rows.append([name, f"{found.seconds * 1e3:.2f}", ratio, agreement])
    heads = ["one core", "ms per pair", "times as fast as Octave", "differs by"]
    return markdown_table(heads, rows)


def core_gains(folder: Path, rounds: int) -> list[str]:
    """How much two and all cores gain, by the clock."""
    cores = sorted({1, 2, available_cores()} & set(range(1, available_cores() + 1)))
    best = dict.fromkeys(cores, math.inf)
    for _ in range(rounds):
        for n in cores:
            start = time.perf_counter()
            our_scores(folder, "rain13k", n)()
            best[n] = min(best[n], time.perf_counter() - start)
    return [
        f"{n} cores are {best[1] / best[n]:.2f} times as fast as one (by the clock)."
        for n in cores[1:]
    ]


def timed(compute: Callable[[], tuple[float, ...] | object], num_pairs: int) -> Callable[[], Round]:
    """A contestant; mean scores that it returns are kept."""

    def once() -> Round:
        start = time.process_time()
        means = compute()
        seconds = (time.process_time() - start) / num_pairs
        return Round(seconds, *means) if isinstance(means, tuple) else Round(seconds)

    return once


def our_round(folder: Path, protocol: str, num_pairs: int) -> Callable[[], Round]:
    """Our scoring as a contestant."""
    return timed(our_scores(folder, protocol, 1), num_pairs)


def octave_round(octave: str, folder: Path, protocol: str, num_pairs: int) -> Callable[[], Round]:
    """Octave's scoring as a contestant; starting it and loading its package do not count."""
    command = [octave, "--norc", "-q", str(OCTAVE_SCRIPT), str(folder), protocol, str(num_pairs)]

    def once() -> Round:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        try:
            return Round(*map(float, done.stdout.split()))
        except (TypeError, ValueError) as error:
            raise UserError(f"Octave could not score the pairs: {done.stderr.strip()}") from error

    return once


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


def our_scores(folder: Path, protocol: str, workers: int) -> Callable[[], tuple[float, ...]]:
    """Scoring the pairs from their files as evaluate.py does; returns mean PSNR and SSIM."""
    job = ScoringJob("r", "pairs", protocol, folder / "r", folder / "t")

    def compute() -> tuple[float, ...]:
        nothing_kept = ScoreCache(folder / "score_cache.jsonl", fresh=True)
        mean = score_jobs([pair_results(job)], nothing_kept, workers=workers)[0].mean()
        assert mean is not None
        return mean

    return compute


def skimage_scores(paths: list[Path]) -> Callable[[], object]:
    """The same figures from scikit-image, on Y that is computed beforehand."""
    lumas = [cv2.cvtColor(read_8bit(path), cv2.COLOR_RGB2GRAY).astype(np.float64) for path in paths]
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}

    def compute() -> object:
        return [
            (
                peak_signal_noise_ratio(y, x, data_range=255),
                structural_similarity(x, y, data_range=255, **options),
            )
            for x, y in zip(lumas[::2], lumas[1::2], strict=True)
        ]

    return compute
