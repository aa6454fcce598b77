"""What tiles, precision and self-ensemble cost or gain, in dB and time, with trained weights.

    python tools/benchmark.py options --weights weights/petrichor.safetensors \\
        --input datasets/Rain100H/test/input --target datasets/Rain100H/test/target

Tiles change a result at their borders, and where a network sees its whole map at once (spectra,
attention over pixels, instance norms, channel means). Scores are PSNR and SSIM of the protocol
rain13k on 8-bit results, as evaluate.py computes them, with the mean change from the first row.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from models import load_published, load_weights
from tools.benchmarks.timing import positive
from utils.devices import add_device_option
from utils.errors import UserError
from utils.images import images_by_stem, read_rgb
from utils.inference.memory import keep_freed_memory
from utils.inference.restorer import Restorer
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE")
    parser.add_argument("--model", metavar="NAME", help="network of an authors' checkpoint")
    parser.add_argument("--input", type=Path, required=True, metavar="FOLDER", help="rainy images")
    parser.add_argument("--target", type=Path, required=True, metavar="FOLDER", help="clean images")
    parser.add_argument("--images", type=positive, metavar="N", help="only the first N pairs")
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads (default: 1)")
    add_device_option(parser)


def run(args: argparse.Namespace) -> str:
    keep_freed_memory()  # as test.py does
    torch.set_num_threads(args.threads)
    network = load_published(args.model, args.weights) if args.model else load_weights(args.weights)
    network.to(args.device)
    pairs = read_pairs(args.input, args.target, args.images)
    with tqdm(total=len(OPTIONS) * len(pairs), unit="image") as bar:
        means = {
            name: measure(Restorer(network, device=args.device, **options), pairs, bar)
            for name, options in OPTIONS.items()
        }
    first_psnr, _, first_seconds = means["default"]
    rows = [
        [
            name,
            f"{psnr:.3f}",
            f"{psnr - first_psnr:+.3f}",
            f"{ssim:.4f}",
            f"{seconds / first_seconds:.2f}",
        ]
        for name, (psnr, ssim, seconds) in means.items()
    ]
    table = markdown_table(["option", "PSNR", "change", "SSIM", "time"], rows)
    return f"{table}\n\n{args.weights.name}, {len(pairs)} images; time: default = 1."


def read_pairs(inputs: Path, targets: Path, limit: int | None) -> Pairs:
    """Images with the same name in both folders."""
    rainy, clean = images_by_stem(inputs), images_by_stem(targets)
    missing = [rainy[stem] for stem in rainy if stem not in clean]
    if missing:
        raise UserError(f"{missing[0]} has no partner in {targets}.")
    return [(read_rgb(rainy[stem]), read_rgb(clean[stem])) for stem in list(rainy)[:limit]]


def measure(restorer: Restorer, pairs: Pairs, bar: tqdm) -> tuple[float, float, float]:
    """PSNR, SSIM and seconds, means over the images."""
    figures = []
    for rainy, clean in pairs:
        start = time.perf_counter()
        restored = restorer(rainy)
        seconds = time.perf_counter() - start
        figures.append((*score(restored, clean), seconds))
        bar.update()
    psnr, ssim, seconds = np.mean(figures, axis=0)
    return psnr, ssim, seconds
