"""From folders of results and the clean images to a table and a figure, in Python.

    python examples/compare_methods.py --target datasets/val/target --output comparison \\
        --results results/petrichor results/dmsr

writes the scores of every image to comparison/table.csv, draws comparison/figure.png and prints the
means. It shows how to use this project as a library; evaluate.py does the same for whole
benchmarks, and tools/compare.py draws figures for papers.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the root holds our packages

from utils.errors import UserError, run_main
from utils.files import atomic_write
from utils.images import images_by_stem, read_rgb
from utils.markdown import csv_text
from utils.metrics import PROTOCOLS, Score, score

matplotlib.use("agg")  # draws into files, without a window
import matplotlib.pyplot as plt


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", type=Path, required=True, help="folder of the clean images")
    parser.add_argument(
        "--results", type=Path, nargs="+", required=True, help="one folder per method"
    )
    parser.add_argument("--output", type=Path, default=Path("comparison"))
    parser.add_argument("--protocol", choices=PROTOCOLS, default="rain13k")
    args = parser.parse_args(arguments)

    if len({folder.name for folder in args.results}) < len(args.results):
        raise UserError("Two folders of results have the same name; rename one of them.")
    clean = images_by_stem(args.target)
    scores = {folder.name: score_folder(folder, clean, args.protocol) for folder in args.results}
    write_table(args.output / "table.csv", scores)
    draw_figure(args.output / "figure.png", scores, args.results[0], clean)
    for method, of_images in scores.items():
        psnr, ssim = np.mean(list(of_images.values()), axis=0)
        print(f"{method:20} {psnr:6.2f} dB  {ssim:.4f}  ({len(of_images)} images)")
    print(f"Look at {args.output / 'figure.png'}.")


def score_folder(folder: Path, clean: Mapping[str, Path], protocol: str) -> dict[str, Score]:
    """PSNR and SSIM of each clean image and the result of the same name without suffix.

    Raises UserError if a result is missing, since means over different images cannot be compared.
    """
    restored = images_by_stem(folder)
    if missing := clean.keys() - restored.keys():
        raise UserError(f"{folder} has no result for {', '.join(sorted(missing)[:5])}.")
    return {
        name: score(read_rgb(restored[name]), read_rgb(path), protocol)
        for name, path in clean.items()
    }


def write_table(path: Path, scores: Mapping[str, Mapping[str, Score]]) -> None:
    """One line per image, with the PSNR and SSIM of each method."""
    methods = list(scores)
    heads = ["image", *(f"{method} {name}" for method in methods for name in Score._fields)]
    lines = [[csv_text(head) for head in heads]]
    for image in scores[methods[0]]:
        values = [value for method in methods for value in scores[method][image]]
        lines.append([csv_text(image), *(f"{value:.4f}" for value in values)])

    def write(temporary: Path) -> None:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(lines)

    atomic_write(path, write)


def draw_figure(
    path: Path,
    scores: Mapping[str, Mapping[str, Score]],
    first: Path,
    clean: Mapping[str, Path],
) -> None:
    """PSNR by image and method, and the first method's worst image beside the clean one."""
    of_first = scores[first.name]
    worst = min(of_first, key=lambda image: of_first[image].psnr)
    figure, axes = plt.subplots(1, 3, figsize=(12, 4), width_ratios=(1.5, 1, 1))
    for method, of_images in scores.items():
        axes[0].plot([of_images[image].psnr for image in clean], marker="o", label=method)
    axes[0].set(xlabel="image", ylabel="PSNR in dB")
    axes[0].legend()
    titled = {
        f"{first.name}: {worst}, {of_first[worst].psnr:.2f} dB": images_by_stem(first)[worst],
        "clean": clean[worst],
    }
    for axis, (title, image) in zip(axes[1:], titled.items(), strict=True):
        axis.imshow(read_rgb(image))
        axis.set(title=title, xticks=[], yticks=[])
    figure.tight_layout()
    atomic_write(path, lambda file: figure.savefig(file, dpi=150))
    plt.close(figure)


if __name__ == "__main__":
    run_main(main)
