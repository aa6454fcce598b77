"""tools/compare.py: what the comparison figure shows where."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.helpers import run_script, write_pairs
from tools.compare import (
    COLOURS,
    DPI,
    MOST_COLUMNS,
    SMALLEST_FONT,
    WIDTH,
    Box,
    Panel,
    comparison_figure,
    enlarged_crops,
    fitting_text,
    framed_image,
    parse_arguments,
    read_panels,
    telling_boxes,
)
from utils.images import read_rgb
from utils.metrics import score


def flat(value: int, height: int = 60, width: int = 80) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_frames_surround_the_crop():
    box = Box(20, 10, 30, 20)
    drawn = np.asarray(framed_image(flat(100), [box], width=800))
    framed = np.argwhere((drawn == COLOURS[0]).all(axis=2))
    assert framed.min(axis=0).tolist() == [100, 200]
    assert framed.max(axis=0).tolist() == [299, 499]
    assert (drawn[150:250, 250:450] == 100).all()


def test_crops_are_enlarged_side_by_side_in_their_colours():
    image = flat(100)
    image[10:30, 20:50] = 200
    image[40:60, 0:10] = 30
    row = np.asarray(enlarged_crops(image, [Box(20, 10, 30, 20), Box(0, 40, 10, 20)], width=408))
    height = row.shape[0]
    assert row.shape == (200, 408, 3)  # 300 + 100 px wide with a gap of 8
    assert tuple(row[0, 0]) == COLOURS[0] and tuple(row[height - 1, 407]) == COLOURS[1]
    assert (row[20:180, 20:280] == 200).all() and (row[20:180, 328:388] == 30).all()
    assert (row[:, 301:307] == 255).all()


@pytest.mark.parametrize(("count", "columns"), [(3, 3), (6, 6), (7, 4), (12, 6)])
def test_many_panels_go_into_even_rows(count: int, columns: int):
    panels = [Panel(str(i), flat(20 * i), "1 / 1") for i in range(count)]
    figure = comparison_figure(panels, [])
    assert figure.width == WIDTH
    pixels = np.asarray(figure)
    # the middle of the last panel of the first row has its own colour
    width = WIDTH // columns
    assert columns <= MOST_COLUMNS
    assert pixels[20, round((columns - 0.5) * width), 0] == 20 * (columns - 1)


def test_error_maps_are_dark_where_nothing_differs():
    clean = flat(100)
    wrong = clean.copy()
    wrong[:, 40:] = 160
    panels = [Panel("rainy", clean.copy(), ""), Panel("m", wrong, ""), Panel("clean", clean, "")]
    figure = np.asarray(comparison_figure(panels, [], error_map=True))
    width = WIDTH // 3
    maps = figure[round(0.75 * width) + 50]  # a line through the second row of images
    assert maps[width // 2].max() < 10  # the first panel equals the clean image
    assert maps[round(1.25 * width)].max() < 10 and maps[round(1.75 * width)].max() > 200
    assert (maps[-20:] == 255).all()  # the legend has a white ground


def test_places_where_methods_differ_are_found():
    clean = flat(100, 100, 100)
    one, two = clean.copy(), clean.copy()
    one[10:25, 60:75] = 130
    two[70:85, 5:20] = 140
    both = clean.copy()
    both[40:60, 40:60] = 250  # all methods fail here alike
    one[40:60, 40:60] = two[40:60, 40:60] = 250
    images = (both, one, two, clean)
    boxes = telling_boxes([Panel("", image, "") for image in images])
    assert all(box.width == box.height == 20 for box in boxes)
    for y, x in ((10, 60), (70, 5)):
        assert any(
            box.x <= x and box.y <= y and x + 15 <= box.x + 20 and y + 15 <= box.y + 20
            for box in boxes
        )


def test_long_names_shrink_then_lose_their_end():
    text, font = fitting_text("a name", 400)
    shrunk, smaller = fitting_text("a rather long name of a method", 400)
    cut, smallest = fitting_text("a name that is too long for any figure " * 3, 400)
    assert text == "a name" and shrunk == "a rather long name of a method"
    assert font.size > smaller.size >= smallest.size == SMALLEST_FONT
    assert cut.endswith("..") and smallest.getlength(cut) <= 400


def test_figure_from_folders(tmp_path: Path):
    pairs = write_pairs(tmp_path / "data" / "Rain100H", 2)
    results = tmp_path / "results" / "dmsr" / "Rain100H"
    results.mkdir(parents=True)
    restored = cv2.GaussianBlur(cv2.imread(str(pairs / "input" / "2.png")), (5, 5), 0)
    cv2.imwrite(str(results / "2.png"), restored)
    output = tmp_path / "figure.png"
    arguments = [
        *("--rainy", pairs / "input", "--clean", pairs / "target", "--results", results),
        *("--image", "2", "--output", output),
    ]
    done = run_script("tools/compare.py", *arguments, "--crop", 10, 20, 30, 20, "--error-map")
    assert done.returncode == 0, done.stderr
    with Image.open(output) as figure:
        assert figure.width == WIDTH and figure.info["dpi"] == pytest.approx((DPI, DPI), abs=0.1)
        drawn = figure.getpixel((round(WIDTH / 6), 200))
    assert drawn == pytest.approx(tuple(read_rgb(pairs / "input" / "2.png")[25, 44]), abs=60)

    for change, said in (
        (("--crop", 70, 20, 30, 20), "does not lie inside the image of 88x72 px"),
        (("--image", "3"), "no image named 3"),
        (("--names", "a", "b"), "1 folders of results, but 2 names"),
    ):
        done = run_script("tools/compare.py", *arguments, *change)
        assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr


def test_the_captions_hold_the_scores_of_the_protocol(tmp_path: Path):
    pairs = write_pairs(tmp_path / "data" / "DID-Data", 1)
    folders = [
        "--rainy",
        pairs / "input",
        "--clean",
        pairs / "target",
        "--results",
        pairs / "input",
    ]
    arguments = [*folders, "--image", "1", "--names", "copy"]
    panels = read_panels(parse_arguments([str(argument) for argument in arguments]))
    rainy, clean = (read_rgb(pairs / side / "1.png") for side in ("input", "target"))
    psnr, ssim = score(rainy, clean, "did")
    assert [(panel.name, panel.caption) for panel in panels] == [
        ("Rainy input", f"{psnr:.2f} / {ssim:.4f}"),
        ("copy", f"{psnr:.2f} / {ssim:.4f}"),
        ("Clean", "PSNR / SSIM (did)"),
    ]


def test_without_a_name_the_first_image_in_natural_order_is_shown(tmp_path: Path):
    pairs = write_pairs(tmp_path / "set", 10)
    for side in ("input", "target"):
        (pairs / side / "1.png").unlink()
    folders = [
        "--rainy",
        pairs / "input",
        "--clean",
        pairs / "target",
        "--results",
        pairs / "input",
    ]
    panels = read_panels(parse_arguments([str(argument) for argument in folders]))
    np.testing.assert_array_equal(panels[-1].image, read_rgb(pairs / "target" / "2.png"))
