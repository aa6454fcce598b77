"""The usual comparison figure of papers: rainy, methods and clean side by side, with zoomed crops.

    python tools/compare.py --input datasets/Rain100H/input --target datasets/Rain100H/target \\
        --results results/PReNet/Rain100H results/dmsr/Rain100H --names PReNet DMSR \\
        --image 12 --crop 120 60 80 60 --crop 300 180 80 60 --image 45 --output figure.pdf

Several images are drawn below one another. A crop belongs to the image before it; an image without
crops gets two at the places where the results differ most. The figure has the width of a paper's
page and text of 8 points. A PDF keeps every pixel of the files, and text as text.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

# the repository's root holds our packages
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.layouts.halves import RAINY_HALF
from data.results import pair_results, set_folders
from utils.damage import image_damage
from utils.errors import UserError, run_main
from utils.evaluation.figure import (
    COLOURS,
    FORMATS,
    VECTOR,
    Box,
    ComparedImage,
    Panel,
    draw_figure,
    telling_boxes,
    write_figure,
)
from utils.evaluation.folders import single_jobs
from utils.evaluation.formats import number_text
from utils.evaluation.quality import PSNR, SSIM
from utils.evaluation.scoring import NIQE, ImageResult, JobResult, read_side
from utils.images import read_bytes, write_png
from utils.metrics import PROTOCOLS, score
from utils.wording import size_text


class Wanted(NamedTuple):
    """An image to show, "" for the first, and its crops."""

    name: str
    boxes: tuple[Box, ...] = ()


def main() -> None:
    args = parse_arguments()
    comparisons = read_comparisons(args)
    figure = draw_figure(
        comparisons,
        width=args.width,
        dpi=args.dpi,
        columns=args.columns,
        error_map=args.error_map,
        own_pixels=args.output.suffix.lower() in VECTOR,
    )
    write_figure(figure, args.output)
    for comparison in comparisons:
        crops = " ".join(f"--crop {' '.join(map(str, box))}" for box in comparison.boxes)
        print(f"--image {comparison.name} {crops}")
    if args.crops:
        print(f"wrote {save_crops(args.crops, comparisons)} crops to {args.crops}/")
    size = " x ".join(f"{inches:.2f}" for inches in figure.get_size_inches())
    print(f"wrote {args.output}, {size} inches at {args.dpi} dpi")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder: dict[str, Any] = {"type": Path, "metavar": "FOLDER"}
    parser.add_argument(
        "--results", required=True, nargs="+", **folder, help="one folder for each method"
    )
    parser.add_argument("--input", **folder, help="rainy images")
    parser.add_argument("--target", **folder, help="clean images, or a data set with both")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="default: the folders' names")
    parser.set_defaults(wanted=())
    parser.add_argument(
        "--image",
        action=_AddImages,
        nargs="+",
        metavar="NAME",
        help="names of files without suffix (default: the first)",
    )
    parser.add_argument(
        "--crop",
        action=_AddCrop,
        nargs=4,
        type=int,
        metavar=("X", "Y", "WIDTH", "HEIGHT"),
        help="enlarge a region of the preceding image, in pixels; up to four",
    )
    parser.add_argument("--error-map", action="store_true", help="add |restored - clean| in colour")
    parser.add_argument(
        "--columns", type=int, metavar="N", help="panels per row (default: up to 6)"
    )
    parser.add_argument(
        "--width",
        type=float,
        default=7.0,
        metavar="INCHES",
        help="width of the figure (default: 7)",
    )
    parser.add_argument(
        "--dpi", type=int, default=300, help="resolution of pixel formats (default: 300)"
    )
    parser.add_argument("--protocol", choices=list(PROTOCOLS), help="default: the set's own")
    parser.add_argument("--match", default="", metavar="PATTERN", help="as for evaluate.py")
    parser.add_argument(
        "--rainy-half",
        choices=RAINY_HALF,
        default="auto",
        help="the rainy half of side-by-side files (default: the images decide)",
    )
    parser.add_argument("--crops", **folder, help="also write each crop as a PNG, unscaled")
    parser.add_argument("--output", type=Path, default=Path("comparison.png"), metavar="FILE")
    args = parser.parse_args(arguments)
    if not args.target and not args.input:
        parser.error("give --target FOLDER, or --input FOLDER for real rain")
    if args.error_map and not args.target:
        parser.error("--error-map needs --target FOLDER")
    if any(len(image.boxes) > len(COLOURS) for image in args.wanted):
        parser.error(f"an image can have at most {len(COLOURS)} --crop")
    if args.output.suffix.lower() not in FORMATS:
        parser.error(f"--output is {args.output}; it must end in {', '.join(FORMATS)}")
    for option in ("columns", "width", "dpi"):
        value = getattr(args, option)
        if value is not None and not 0 < value < 10_000:
            parser.error(f"--{option} is {value}; it must be positive and below 10000")
    args.wanted = args.wanted or (Wanted(""),)
    return args


class _AddImages(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        namespace.wanted = (*namespace.wanted, *(Wanted(name) for name in values))


class _AddCrop(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        *before, last = namespace.wanted or (Wanted(""),)
        namespace.wanted = (*before, Wanted(last.name, (*last.boxes, Box(*values))))


# --- reading -------------------------------------------------------------------------------------


def read_comparisons(args: argparse.Namespace) -> list[ComparedImage]:
    """Every wanted image of every method.

    Raises UserError for an image that a method does not have, for images of different sizes and for
    a crop that is not inside its image.
    """
    if args.names and len(args.names) != len(args.results):
        raise UserError(
            f"There are {len(args.results)} folders of results, but {len(args.names)} names."
        )
    protocol = args.protocol if args.target else NIQE
    find_folders = partial(set_folders, match=args.match)
    jobs: list[JobResult] = []
    for folder in args.results:
        found = single_jobs(folder, args.target, args.input, protocol, find_folders)
        paired = [pair_results(job, args.match, args.rainy_half) for job in found]
        jobs += paired if not jobs else paired[-1:]  # the first has the rainy images
    for one in jobs:
        if one.problem:
            raise UserError(one.problem)
    methods = iter(args.names or [])
    names = ["Rainy input" if one.job.is_input else next(methods, one.job.method) for one in jobs]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise UserError(
            f"Several methods are called {repeated.pop()}; tell them apart with --names."
        )
    return [read_comparison(wanted, names, jobs) for wanted in args.wanted]


def read_comparison(
    wanted: Wanted, names: Sequence[str], jobs: Sequence[JobResult]
) -> ComparedImage:
    """One image of every method, with scores if there is a clean image."""
    protocol = jobs[0].job.protocol
    name = wanted.name or next((i.stem for i in jobs[-1].images if not i.problem), "")
    if not name:
        raise UserError(f"{jobs[-1].job.results} has no image that can be shown.")
    panels: list[Panel] = []
    clean: np.ndarray | None = None
    for title, one in zip(names, jobs, strict=True):
        restored, own_clean = read_image(find_image(one, name))
        clean = own_clean if clean is None else clean
        first = panels[0].image if panels else restored
        for other in (first, clean):
            if other is not None and restored.shape[:2] != other.shape[:2]:
                raise UserError(
                    f"The image {name} has {size_text(restored)} px in {one.job.results} and "
                    f"{size_text(other)} px elsewhere; a figure needs equal sizes."
                )
        caption = ""
        if clean is not None:
            psnr, ssim = score(restored, clean, protocol)
            caption = f"{number_text(psnr, PSNR.decimals)} / {number_text(ssim, SSIM.decimals)}"
        panels.append(Panel(title, as_rgb(restored), caption))
    if clean is not None:
        clean = as_rgb(clean)
        panels.append(Panel("Clean", clean, f"PSNR / SSIM ({protocol})"))
    for box in wanted.boxes:
        check_box(box, panels[0].image)
    return ComparedImage(name, panels, clean, list(wanted.boxes) or telling_boxes(panels, clean))


def find_image(one: JobResult, name: str) -> ImageResult:
    image = next((image for image in one.images if image.stem == name), None)
    if image is None or image.restored is None:
        known = [image.stem for image in one.images if image.restored]
        raise UserError(
            f"{one.job.results} has no image named {name}; its first is {known[0]}."
            if known
            else f"{one.job.results} has no image named {name}."
        )
    return image


def read_image(image: ImageResult) -> tuple[np.ndarray, np.ndarray | None]:
    """A method's image and the clean image if there is one, uint8 (H, W, 3) or (H, W)."""
    assert image.restored is not None
    for path in filter(None, dict.fromkeys((image.restored, image.clean))):
        if damage := image_damage(read_bytes(path)):
            print(f"warning: {path} is damaged: {damage}", file=sys.stderr)
    return read_side(image, "restored"), read_side(image, "clean") if image.clean else None


def as_rgb(image: np.ndarray) -> np.ndarray:
    """A gray image as three equal channels."""
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image


def check_box(box: Box, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    if (
        min(box.x, box.y) < 0
        or min(box.width, box.height) < 1
        or box.x + box.width > width
        or box.y + box.height > height
    ):
        raise UserError(
            f"The crop {' '.join(map(str, box))} (x, y, width, height) is not inside the "
            f"image of {size_text(image)} px."
        )


def save_crops(folder: Path, comparisons: Sequence[ComparedImage]) -> int:
    """Write each crop as IMAGE_METHOD_NUMBER.png; returns their number."""
    count = 0
    for comparison in comparisons:
        for panel in comparison.panels:
            for number, box in enumerate(comparison.boxes, start=1):
                name = re.sub(r"[^\w.+-]+", "_", f"{comparison.name}_{panel.name}_{number}")
                write_png(folder / f"{name}.png", box.cut(panel.image))
                count += 1
    return count


if __name__ == "__main__":
    run_main(main)
