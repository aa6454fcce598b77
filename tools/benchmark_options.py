"""What tiles, precision and self-ensemble cost or bring, in dB and time, with trained weights.

    python tools/benchmark_options.py --weights weights/petrichor.safetensors \\
        --input datasets/Rain100H/test/input --target datasets/Rain100H/test/target

Tiles change a result where a network looks at its whole map at once (spectra, attention over
pixels, instance norms, channel means) and at their borders. Scores are PSNR and SSIM of the rain13k
protocol on 8-bit results, as evaluate.py gives them, and the mean difference from the first row.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the root holds our packages

from models import load_published, load_weights
from utils.devices import add_device_option
from utils.errors import UserError, run_main
from utils.files import write_text
from utils.images import images_by_stem, read_rgb
from utils.inference.memory import keep_freed_memory
from utils.inference.restorer import Restorer
from utils.inference.tiling import Network
from utils.metrics import score

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "whole image": {"tile": "whole"},
    "released windows": {"tile": "released"},
    "tiles of 128, overlap 0": {"tile": 128, "overlap": 0},
    "tiles of 128, overlap 32": {"tile": 128, "overlap": 32},
    "tiles of 128, overlap 64": {"tile": 128, "overlap": 64},
    "tiles of 256, overlap 0": {"tile": 256, "overlap": 0},
    "tiles of 256, overlap 32": {"tile": 256, "overlap": 32},
    "tiles of 256, overlap 64": {"tile": 256, "overlap": 64},
    "bf16": {"precision": "bf16"},
    "ensemble of 8": {"ensemble": 8},
}


@dataclass(frozen=True)
class OptionScore:
    """Means over all images."""

    name: str
    psnr: float
    ssim: float
    seconds: float


def main() -> None:
    args = parse_arguments()
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    network = load_published(args.model, args.weights) if args.model else load_weights(args.weights)
    pairs = read_pairs(args.input, args.target, args.images)
    bar = tqdm(total=len(OPTIONS) * len(pairs), unit="image")
    rows = [measure(network.to(args.device), args.device, name, pairs, bar) for name in OPTIONS]
    bar.close()
    text = table(rows, args.weights, len(pairs))
    print(text)
    if args.output:
        write_text(args.output, text + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--model", metavar="NAME", help="network of an authors' checkpoint")
    parser.add_argument("--input", type=Path, required=True, metavar="FOLDER", help="rainy images")
    parser.add_argument("--target", type=Path, required=True, metavar="FOLDER", help="clean ones")
    parser.add_argument("--images", type=int, metavar="N", help="only the first N pairs")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: 1)")
    add_device_option(parser)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the table there too")
    args = parser.parse_args()
    if args.images is not None and args.images < 1:
        parser.error(f"--images is {args.images}; it must be at least 1")
    return args


def read_pairs(
    inputs: Path, targets: Path, limit: int | None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rainy and clean images of one name, (H, W, 3) each."""
    rainy, clean = images_by_stem(inputs), images_by_stem(targets)
    missing = [rainy[stem] for stem in rainy if stem not in clean]
    if missing:
        raise UserError(f"{missing[0]} has no partner in {targets}.")
    return [(read_rgb(rainy[stem]), read_rgb(clean[stem])) for stem in list(rainy)[:limit]]


def measure(
    network: Network,
    device: str,
    name: str,
    pairs: list[tuple[np.ndarray, np.ndarray]],
    bar: tqdm,
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
        "| option                   |    PSNR |   change |   SSIM |  time |",
        "| ------------------------ | ------: | -------: | -----: | ----: |",
    ]
    lines += [
        f"| {row.name:24} | {row.psnr:7.3f} | {row.psnr - first.psnr:+8.3f} | {row.ssim:.4f} "
        f"| {row.seconds / first.seconds:5.2f} |"
        for row in rows
    ]
    caption = f"{weights.name}, {num_images} images; time: {first.name} = 1."
    return "\n".join([*lines, "", caption])


if __name__ == "__main__":
    run_main(main)
