"""The comparison figure of papers: panels with scores, framed crops below, optional error maps.

Drawn with matplotlib; all positions are in inches. tools/compare.py is the command line.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath

from utils.errors import UserError
from utils.evaluation.report import ERROR_RANGE
from utils.files import atomic_write

# Inches and points.
GAP = 0.055  # between panels; half of it inside a panel
FONT_SIZE = 8.0
SMALLEST_FONT = 5.5
LINE_HEIGHT = 1.35 * FONT_SIZE / 72
FRAME = 1.2

MOST_COLUMNS = 6  # more panels go into further rows
COLOURS = ("#dc1e1e", "#1e64e6", "#14963c", "#eba000")
VECTOR = (".pdf", ".svg", ".eps")
FORMATS = (*VECTOR, ".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp")
STYLE: dict[Any, Any] = {
    "font.size": FONT_SIZE,
    "pdf.fonttype": 42,  # whole TrueType fonts, which conferences ask for
    "ps.fonttype": 42,
    "svg.fonttype": "none",
}


class Box(NamedTuple):
    """A region of an image in pixels."""

    x: int
    y: int
    width: int
    height: int

    def cut(self, image: np.ndarray) -> np.ndarray:
        return image[self.y : self.y + self.height, self.x : self.x + self.width]


class Panel(NamedTuple):
    """One column: a uint8 RGB image, (H, W, 3), its method and the scores below."""

    name: str
    image: np.ndarray
    caption: str = ""


@dataclass(frozen=True)
class ComparedImage:
    """One image by all methods; the clean image, if known, is also the last panel."""

    name: str
    panels: list[Panel]
    clean: np.ndarray | None
    boxes: list[Box]


def telling_boxes(
    panels: Sequence[Panel], clean: np.ndarray | None = None, count: int = 2
) -> list[Box]:
    """Boxes where the methods differ most, a fifth of each side of the image, not overlapping.

    ``panels`` are the rainy input, the methods and the clean image, in this order. The methods'
    errors against ``clean`` are compared, or without it the images themselves.
    """
    methods = [panel for panel in panels if panel.image is not clean]
    methods = methods[1:] if len(methods) > 2 else methods
    reference = np.zeros_like(methods[0].image) if clean is None else clean
    spread = np.ptp([absolute_error(panel.image, reference) for panel in methods], axis=0)
    height, width = spread.shape
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


class Canvas:
    """A figure whose parts are placed in inches from its top left corner."""

    def __init__(self, width: float, height: float, dpi: float, own_pixels: bool) -> None:
        self.figure = Figure((width, height), dpi=dpi)
        self.width, self.height = width, height
        self.own_pixels = own_pixels

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        share = (
            left / self.width,
            1 - (top + height) / self.height,
            width / self.width,
            height / self.height,
        )
        axes: Axes = self.figure.add_axes(share)
        axes.set_axis_off()
        return axes

    def image(self, pixels: np.ndarray, left: float, top: float, width: float, height: float,
              **options: Any) -> Axes:  # fmt: skip
        axes = self.axes(left, top, width, height)
        shrinks = pixels.shape[1] > width * self.figure.dpi
        sampling = "none" if self.own_pixels else "lanczos" if shrinks else "bicubic"
        axes.imshow(pixels, aspect="auto", interpolation=sampling, **options)
        return axes

    def text(self, text: str, left: float, top: float, width: float) -> None:
        """Draw a line of text centred in ``width``, in a smaller font if it would not fit."""
        text, size = fitting_text(text, width)
        place = ((left + width / 2) / self.width, 1 - (top + LINE_HEIGHT / 2) / self.height)
        self.figure.text(*place, text, size=size, ha="center", va="center_baseline")


def draw_figure(
    comparisons: Sequence[ComparedImage],
    *,
    width: float,
    dpi: float,
    columns: int | None = None,
    error_map: bool = False,
    own_pixels: bool = False,
) -> Figure:
    """Draw the figure, ``width`` inches wide; each comparison takes one or more rows of panels.

    The methods' names are below the last comparison, or below every row if a comparison takes
    several. ``own_pixels`` embeds the images at their own resolution, for vector formats;
    otherwise they are resampled to ``dpi``. Raises UserError if the columns do not fit.
    """
    most = max(len(comparison.panels) for comparison in comparisons)
    columns = min(most, columns or MOST_COLUMNS)
    num_rows = -(-most // columns)
    columns = -(-most // num_rows)  # 7 panels become 4 and 3, not 6 and 1
    panel_width = (width - (columns - 1) * GAP) / columns
    if panel_width <= 0:
        raise UserError(
            f"{columns} columns do not fit {width} inches; use fewer or a larger width."
        )

    rows: list[tuple[ComparedImage, list[Panel], bool, float, float]] = []
    top = 0.0
    for comparison in comparisons:
        for first in range(0, len(comparison.panels), columns):
            panels = comparison.panels[first : first + columns]
            named = num_rows > 1 or comparison is comparisons[-1]
            high = panel_height(comparison, panel_width, named=named, error_map=error_map)
            rows.append((comparison, panels, named, top, high))
            top += high + GAP
    canvas = Canvas(width, top - GAP, dpi, own_pixels)
    for comparison, panels, named, row_top, _ in rows:
        for column, panel in enumerate(panels):
            left = column * (panel_width + GAP)
            draw_panel(canvas, comparison, panel, left, row_top, panel_width, named, error_map)
    return canvas.figure


def panel_height(
    comparison: ComparedImage, width: float, *, named: bool, error_map: bool = False
) -> float:
    """The height of a panel of the comparison with its text, in inches."""
    height, image_width = comparison.panels[0].image.shape[:2]
    image_height = width * height / image_width
    parts = [image_height] * (1 + error_map)
    if comparison.boxes:
        parts.append(crops_height(comparison.boxes, width))
    lines = named + any(panel.caption for panel in comparison.panels)
    return sum(parts) + (len(parts) - 1) * GAP / 2 + lines * LINE_HEIGHT


def crops_height(boxes: Sequence[Box], width: float) -> float:
    """The height at which the crops, side by side, fill ``width``."""
    usable = width - (len(boxes) - 1) * GAP / 2
    return usable / sum(box.width / box.height for box in boxes)


def draw_panel(
    canvas: Canvas,
    comparison: ComparedImage,
    panel: Panel,
    left: float,
    top: float,
    width: float,
    named: bool,
    error_map: bool,
) -> None:
    """Draw one panel: the image with frames, the crops, the optional error map, the text."""
    height = width * panel.image.shape[0] / panel.image.shape[1]
    axes = canvas.image(panel.image, left, top, width, height)
    for box, colour in zip(comparison.boxes, COLOURS, strict=False):
        frame(axes, (box.x - 0.5, box.y - 0.5), box.width, box.height, colour)
    top += height
    if comparison.boxes:
        top += GAP / 2
        draw_crops(canvas, panel.image, comparison.boxes, left, top, width)
        top += crops_height(comparison.boxes, width)
    if error_map and comparison.clean is not None:
        top += GAP / 2
        if panel.image is comparison.clean:
            draw_error_scale(canvas, left, top, width, height)
        else:
            error = absolute_error(panel.image, comparison.clean)
            canvas.image(error, left, top, width, height, cmap="inferno", vmin=0, vmax=ERROR_RANGE)
        top += height
    for text in ([panel.name] if named else []) + ([panel.caption] if panel.caption else []):
        canvas.text(text, left, top, width)
        top += LINE_HEIGHT


def draw_crops(
    canvas: Canvas, image: np.ndarray, boxes: Sequence[Box], left: float, top: float, width: float
) -> None:
    """Draw the crops side by side at equal height, framed in their colours, to fill ``width``."""
    height = crops_height(boxes, width)
    for box, colour in zip(boxes, COLOURS, strict=False):
        across = height * box.width / box.height
        axes = canvas.image(box.cut(image), left, top, across, height)
        frame(axes, (-0.5, -0.5), box.width, box.height, colour)
        left += across + GAP / 2


def frame(axes: Axes, corner: tuple[float, float], width: int, height: int, colour: str) -> None:
    axes.add_patch(
        Rectangle(corner, width, height, fill=False, ec=colour, lw=FRAME, joinstyle="miter")
    )


def draw_error_scale(canvas: Canvas, left: float, top: float, width: float, height: float) -> None:
    """Draw the legend of the error maps, in the place of the clean image's error map."""
    canvas.text("|restored - clean| of 255", left, top + height / 2 - 1.7 * LINE_HEIGHT, width)
    axes = canvas.axes(left + 0.1 * width, top + height / 2 - LINE_HEIGHT / 2, 0.8 * width, 0.1)
    axes.set_axis_on()
    colours = ScalarMappable(Normalize(0, ERROR_RANGE), "inferno")
    bar = canvas.figure.colorbar(
        colours, cax=axes, orientation="horizontal", ticks=[0, ERROR_RANGE // 2, ERROR_RANGE]
    )
    bar.ax.tick_params(labelsize=SMALLEST_FONT, length=2, pad=1)
    if bar.solids is not None:
        bar.solids.set_rasterized(True)  # otherwise viewers draw white lines between its 256 cells


def fitting_text(text: str, width: float) -> tuple[str, float]:
    """The text and the size in points at which it fits ``width`` inches.

    A text that does not fit in the smallest font is cut off.
    """

    def length(candidate: str) -> float:  # inches at the full size
        return float(TextPath((0, 0), candidate, size=FONT_SIZE).get_extents().width) / 72

    whole = length(text) if text else 0.0
    if whole <= width:
        return text, FONT_SIZE
    if whole * SMALLEST_FONT / FONT_SIZE <= width:
        return text, FONT_SIZE * width / whole
    ends = range(len(text))
    fits = bisect_right(
        ends, width, key=lambda end: length(text[:end] + "..") * SMALLEST_FONT / FONT_SIZE
    )
    return text[: max(0, fits - 1)] + "..", SMALLEST_FONT


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the suffix: reproducible, and lossless except for JPEG."""
    options: dict[str, dict[str, Any]] = {
        ".pdf": {"metadata": {"CreationDate": None}},
        ".svg": {"metadata": {"Date": None}},
        ".webp": {"pil_kwargs": {"lossless": True}},
        ".jpg": {"pil_kwargs": {"quality": 95, "subsampling": 0}},
    }
    options[".jpeg"] = options[".jpg"]
    chosen = options.get(path.suffix.lower(), {})
    with matplotlib.rc_context(STYLE):
        atomic_write(path, lambda file: figure.savefig(file, dpi=figure.dpi, **chosen))
