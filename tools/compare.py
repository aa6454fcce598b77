"""The field's comparison figure: rainy, methods and clean side by side, with zoomed crops.

    python tools/compare.py --rainy data/Rain100H/input --clean data/Rain100H/target \\
        --results results/PReNet/Rain100H results/dmsr/Rain100H --names PReNet DMSR \\
        --image 12 --crop 120 60 80 60 --crop 300 180 80 60 --output figure.png

Without --crop two places are chosen where the results differ most. The figure is 7 inches wide at
300 dpi, the width of a paper's page, and its text 8 points high there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # the repository's root holds our packages

from utils.errors import UserError, run_main
from utils.evaluation.folders import dataset_name, method_name
from utils.evaluation.formats import number_text
from utils.evaluation.published import facts
from utils.evaluation.scoring import read_8bit
from utils.evaluation.table import PSNR, SSIM
from utils.files import atomic_write
from utils.images import images_by_stem
from utils.metrics import PROTOCOLS, score, size_text

WIDTH = 2100  # pixels: 7 inches at 300 dpi
DPI = 300
FONT_SIZE = round(8 / 72 * DPI)  # 8 points, as small text in papers
SMALLEST_FONT = round(5.5 / 72 * DPI)
GAP = 16  # between panels; half of it inside a panel
LINE = 6  # width of the coloured frames
MOST_COLUMNS = 6  # more panels go into further rows
COLOURS = ((220, 30, 30), (30, 100, 230), (20, 150, 60), (235, 160, 0))
ERROR_RANGE = 64  # of 255: the brightest colour of the error map
FORMATS = (".png", ".pdf", ".tif", ".tiff", ".jpg", ".jpeg", ".webp")


class Box(NamedTuple):
    """A region of an image in pixels."""

    x: int
    y: int
    width: int
    height: int

    def cut(self, image: np.ndarray) -> np.ndarray:
        return image[self.y : self.y + self.height, self.x : self.x + self.width]


class Panel(NamedTuple):
    """One column of the figure: a uint8 RGB image, (H, W, 3), and two lines of text below."""

    name: str
    image: np.ndarray
    caption: str


def main() -> None:
    args = parse_arguments()
    panels = read_panels(args)
    clean = panels[-1].image
    boxes = [Box(*crop) for crop in args.crop or []] or telling_boxes(panels)
    for box in boxes:
        check_box(box, clean)
    figure = comparison_figure(panels, boxes, error_map=args.error_map)
    atomic_write(args.output, lambda file: figure.save(file, dpi=(DPI, DPI)))
    for number, box in enumerate(boxes, start=1):
        print(f"crop {number}: --crop {' '.join(map(str, box))}")
    print(f"wrote {args.output}, {figure.width}x{figure.height} px")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = {"type": Path, "metavar": "FOLDER"}
    parser.add_argument("--rainy", required=True, **folder, help="rainy images")
    parser.add_argument("--clean", required=True, **folder, help="clean images")
    parser.add_argument("--results", required=True, nargs="+", **folder, help="one for each method")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="default: the folders' names")
    parser.add_argument(
        "--image", metavar="STEM", help="file name without suffix (default: the first)"
    )
    parser.add_argument(
        "--crop",
        nargs=4,
        type=int,
        action="append",
        metavar=("X", "Y", "WIDTH", "HEIGHT"),
        help="a region to enlarge; up to four",
    )
    parser.add_argument("--error-map", action="store_true", help="add |restored - clean| in colour")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), help="default: the data set's own")
    parser.add_argument("--output", type=Path, default=Path("comparison.png"), metavar="FILE")
    args = parser.parse_args(arguments)
    if args.crop and len(args.crop) > len(COLOURS):
        parser.error(f"at most {len(COLOURS)} --crop are possible")
    if args.output.suffix.lower() not in FORMATS:
        parser.error(f"--output is {args.output}; its suffix must be one of {', '.join(FORMATS)}")
    return args


def read_panels(args: argparse.Namespace) -> list[Panel]:
    """The rainy image, one of each method and the clean one, with their scores below."""
    dataset = dataset_name(args.clean)
    names = args.names or [method_name(folder, dataset) for folder in args.results]
    if len(names) != len(args.results):
        raise UserError(
            f"There are {len(args.results)} folders of results, but {len(names)} names."
        )
    protocol = args.protocol or facts(dataset).protocol
    stem = args.image or next(iter(images_by_stem(args.clean)))
    clean = read_image(args.clean, stem)
    panels = []
    for name, folder in zip(["Rainy input", *names], [args.rainy, *args.results], strict=True):
        image = read_image(folder, stem)
        if image.shape[:2] != clean.shape[:2]:
            raise UserError(
                f"The image {stem} has {size_text(image)} px in {folder} and "
                f"{size_text(clean)} px in {args.clean}; a figure needs one size."
            )
        psnr, ssim = score(image, clean, protocol)
        caption = f"{number_text(psnr, PSNR.decimals)} / {number_text(ssim, SSIM.decimals)}"
        panels.append(Panel(name, as_rgb(image), caption))
    return [*panels, Panel("Clean", as_rgb(clean), f"PSNR / SSIM ({protocol})")]


def read_image(folder: Path, stem: str) -> np.ndarray:
    """The image of that stem in a folder, uint8 (H, W, 3) or (H, W)."""
    files = images_by_stem(folder)
    if stem not in files:
        raise UserError(f"{folder} has no image named {stem}; its first is {next(iter(files))}.")
    return read_8bit(files[stem])


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
            f"The crop {' '.join(map(str, box))} (x, y, width, height) does not lie inside the "
            f"image of {size_text(image)} px."
        )


def telling_boxes(panels: Sequence[Panel], count: int = 2) -> list[Box]:
    """Places where the methods' errors differ most, a fifth of the image each, not overlapping.

    ``panels`` are the rainy input, the methods and the clean image, in this order.
    """
    clean = panels[-1].image
    height, width = clean.shape[:2]
    methods = panels[1:-1] if len(panels) > 3 else panels[:-1]
    errors = [absolute_error(panel.image, clean) for panel in methods]
    spread = np.ptp(errors, axis=0)
    box_width, box_height = max(1, width // 5), max(1, height // 5)
    means = cv2.blur(spread, (box_width, box_height), anchor=(0, 0))
    means = means[: height - box_height + 1, : width - box_width + 1]  # by top left corner
    boxes = []
    for _ in range(count):
        y, x = np.unravel_index(np.argmax(means), means.shape)
        boxes.append(Box(int(x), int(y), box_width, box_height))
        means[max(0, y - box_height) : y + box_height, max(0, x - box_width) : x + box_width] = -1
    return sorted(boxes)


def absolute_error(image: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Mean absolute difference over the channels, float32 (H, W) in 0..255."""
    return np.abs(image.astype(np.float32) - clean).mean(axis=2)


def comparison_figure(
    panels: Sequence[Panel], boxes: Sequence[Box], *, error_map: bool = False
) -> Image.Image:
    """The figure, ``WIDTH`` pixels wide; ``panels`` end with the clean image."""
    columns = min(len(panels), MOST_COLUMNS)
    num_rows = -(-len(panels) // columns)
    columns = -(-len(panels) // num_rows)  # 7 panels become 4 and 3, not 6 and 1
    width = (WIDTH - (columns - 1) * GAP) // columns
    drawn = [draw_panel(panel, panels[-1].image, boxes, width, error_map) for panel in panels]
    height = drawn[0].height
    figure = Image.new("RGB", (WIDTH, num_rows * height + (num_rows - 1) * GAP), "white")
    for number, panel in enumerate(drawn):
        row, column = divmod(number, columns)
        figure.paste(panel, (column * (width + GAP), row * (height + GAP)))
    return figure


def draw_panel(
    panel: Panel, clean: np.ndarray, boxes: Sequence[Box], width: int, error_map: bool
) -> Image.Image:
    """One column: the image with its boxes, the crops, perhaps the error map, the text."""
    parts = [framed_image(panel.image, boxes, width)]
    if boxes:
        parts.append(enlarged_crops(panel.image, boxes, width))
    if error_map:
        if panel.image is clean:
            parts.append(error_scale(parts[0].size))
        else:
            error = absolute_error(panel.image, clean)
            parts.append(Image.fromarray(colour_errors(error)).resize(parts[0].size))
    line_height = round(1.3 * FONT_SIZE)
    height = sum(part.height + GAP // 2 for part in parts) + 2 * line_height
    column = Image.new("RGB", (width, height), "white")
    top = 0
    for part in parts:
        column.paste(part, (0, top))
        top += part.height + GAP // 2
    draw = ImageDraw.Draw(column)
    for number, text in enumerate((panel.name, panel.caption)):
        text, font = fitting_text(text, width)
        place = (width / 2, top + (number + 0.5) * line_height)
        draw.text(place, text, fill="black", font=font, anchor="mm")
    return column


def framed_image(image: np.ndarray, boxes: Sequence[Box], width: int) -> Image.Image:
    """The image scaled to ``width`` with the boxes drawn in their colours."""
    scale = width / image.shape[1]
    scaled = Image.fromarray(np.ascontiguousarray(image)).resize(
        (width, round(image.shape[0] * scale)), Image.Resampling.LANCZOS
    )
    draw = ImageDraw.Draw(scaled)
    for box, colour in zip(boxes, COLOURS, strict=False):
        corners = [
            (round(box.x * scale), round(box.y * scale)),
            (round((box.x + box.width) * scale) - 1, round((box.y + box.height) * scale) - 1),
        ]
        draw.rectangle(corners, outline=colour, width=LINE)
    return scaled


def enlarged_crops(image: np.ndarray, boxes: Sequence[Box], width: int) -> Image.Image:
    """The crops side by side at one height, each framed in its colour, ``width`` in all."""
    gap = GAP // 2
    usable = width - (len(boxes) - 1) * gap
    height = round(usable / sum(box.width / box.height for box in boxes))
    row = Image.new("RGB", (width, height), "white")
    left = 0
    for number, (box, colour) in enumerate(zip(boxes, COLOURS, strict=False)):
        last = number == len(boxes) - 1
        crop_width = width - left if last else round(height * box.width / box.height)
        crop = Image.fromarray(np.ascontiguousarray(box.cut(image)))
        crop = crop.resize((crop_width, height), Image.Resampling.BICUBIC)
        frame = [(0, 0), (crop_width - 1, height - 1)]
        ImageDraw.Draw(crop).rectangle(frame, outline=colour, width=LINE)
        row.paste(crop, (left, 0))
        left += crop_width + gap
    return row


def colour_errors(error: np.ndarray) -> np.ndarray:
    """Errors in 0..255, (H, W), as colours from black over red to bright yellow, (H, W, 3)."""
    scaled = np.clip(error * (255 / ERROR_RANGE), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(scaled, cv2.COLORMAP_INFERNO)[..., ::-1])


def error_scale(size: tuple[int, int]) -> Image.Image:
    """The legend of the error maps, in the clean image's place."""
    width, height = size
    legend = Image.new("RGB", size, "white")
    ramp = np.tile(np.linspace(0, ERROR_RANGE, max(2, round(0.8 * width))), (FONT_SIZE, 1))
    bar = Image.fromarray(colour_errors(ramp))
    left, top = (width - bar.width) // 2, height // 2
    legend.paste(bar, (left, top))
    draw = ImageDraw.Draw(legend)
    text, font = fitting_text("|restored - clean|", width)
    draw.text((width / 2, top - FONT_SIZE / 2), text, fill="black", font=font, anchor="mb")
    below = top + 1.3 * FONT_SIZE
    font = ImageFont.load_default(FONT_SIZE)
    draw.text((left, below), "0", fill="black", font=font, anchor="lt")
    draw.text((left + bar.width, below), f"{ERROR_RANGE}/255", fill="black", font=font, anchor="rt")
    return legend


def fitting_text(text: str, width: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """The text and a font in which it fits; a name that is far too long loses its end."""

    def fits(candidate: str, size: int) -> bool:
        return ImageFont.load_default(size).getlength(candidate) <= width

    size = next((s for s in range(FONT_SIZE, SMALLEST_FONT, -1) if fits(text, s)), SMALLEST_FONT)
    if not fits(text, size):
        while text and not fits(text + "..", size):
            text = text[:-1]
        text += ".."
    return text, ImageFont.load_default(size)


if __name__ == "__main__":
    run_main(main)
