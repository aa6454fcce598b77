"""What tiles, precision and self-ensemble cost or gain, in dB and time, with trained weights.

    python tools/benchmark.py options --weights weights/petrichor.safetensors \\
        --input datasets/Rain100H/test/input --target datasets/Rain100H/test/target

Tiles change a result where a network looks at its whole map at once (spectra, attention over
pixels, instance norms, channel means) and at their borders. Scores are PSNR and SSIM of the rain13k
protocol on 8-bit results, as evaluate.py gives them, and the mean difference from the first row.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from models import load_published, load_weights
from utils.devices import add_device_option
from utils.errors import UserError
from utils.images import images_by_stem, read_rgb
from utils.inference.memory import keep_freed_memory
from utils.inference.restorer import Restorer
from utils.inference.tiling import Network
from utils.markdown import markdown_table
from utils.metrics import score

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "whole image": {"tile": "whole"},
    "released windows": {"tile": "released"},
    **{
        f"tiles of {tile}, overlap {overlap}": {"tile": tile, "overlap": overlap}
        for tile in (128, 256)
        for overlap in (0, 32, 64)
    },
    "bf16": {"precision": "bf16"},
    "ensemble of 8": {"ensemble": 8},
}

Pairs = list[tuple[np.ndarray, np.ndarray]]  # rainy and clean, (H, W, 3) each


@dataclass(frozen=True)
class OptionScore:
    """Means over all images."""

    name: str
    psnr: float
    ssim: float
    seconds: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--model", metavar="NAME", help="network of an authors' checkpoint")
    parser.add_argument("--input", type=Path, required=True, metavar="FOLDER", help="rainy images")
    parser.add_argument("--target", type=Path, required=True, metavar="FOLDER", help="clean ones")
    parser.add_argument("--images", type=int, metavar="N", help="only the first N pairs")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    add_device_option(parser)


def run(args: argparse.Namespace) -> str:
    if args.images is not None and args.images < 1:
        raise UserError(f"--images is {args.images}; it must be at least 1.")
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    network = load_published(args.model, args.weights) if args.model else load_weights(args.weights)
    pairs = read_pairs(args.input, args.target, args.images)
    with tqdm(total=len(OPTIONS) * len(pairs), unit="image") as bar:
        rows = [measure(network.to(args.device), args.device, n, pairs, bar) for n in OPTIONS]
    return table(rows, args.weights, len(pairs))


def read_pairs(inputs: Path, targets: Path, limit: int | None) -> Pairs:
    """Images with the same name in both folders."""
    rainy, clean = images_by_stem(inputs), images_by_stem(targets)
    missing = [rainy[stem] for stem in rainy if stem not in clean]
    if missing:
        raise UserError(f"{missing[0]} has no partner in {targets}.")
    return [(read_rgb(rainy[stem]), read_rgb(clean[stem])) for stem in list(rainy)[:limit]]


def measure(
    network: Network, device: torch.device, name: str, pairs: Pairs, bar: tqdm
) -> OptionScore:
    restorer = Restorer(network, device=device, **OPTIONS[name])
    scores, seconds = [], 0.0
    for rainy, clean in pairs:
        start = time.perf_counter()
        restored = restorer(rainy)
        seconds += time.perf_counter() - start
        scores.append(score(restored, clean))
        bar.update()
    psnr = float(np.mean([s.psnr for s in scores]))
    ssim = float(np.mean([s.ssim for s in scores]))
    return OptionScore(name, psnr, ssim, seconds / len(pairs))


def table(rows: list[OptionScore], weights: Path, num_images: int) -> str:
    """Markdown; differences are from the first row."""
    first = rows[0]
    lines = [
        [
            row.name,
            f"{row.psnr:.3f}",
            f"{row.psnr - first.psnr:+.3f}",
            f"{row.ssim:.4f}",
            f"{row.seconds / first.seconds:.2f}",
        ]
        for row in rows
    ]
    caption = f"{weights.name}, {num_images} images; time: {first.name} = 1."
    return f"{markdown_table(['option', 'PSNR', 'change', 'SSIM', 'time'], lines)}\n\n{caption}"
