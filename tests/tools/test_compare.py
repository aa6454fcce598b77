"""tools/compare.py: what the comparison figure shows, where, and how exactly."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from tests.helpers import run_script, smooth_image, streaked, write_pairs
from tools.compare import Wanted, parse_arguments, read_comparisons
from utils.errors import UserError
from utils.evaluation.figure import (
    COLOURS,
    FONT_SIZE,
    GAP,
    LINE_HEIGHT,
    MOST_COLUMNS,
    SMALLEST_FONT,
    Box,
    ComparedImage,
    Panel,
    draw_figure,
    fitting_text,
    telling_boxes,
    write_figure,
)
from utils.images import read_rgb
from utils.metrics import score

RED, BLUE = (np.round(np.array(to_rgb(colour)) * 255).astype(int) for colour in COLOURS[:2])


def flat(value: int, height: int = 60, width: int = 80) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def rendered(comparisons: list[ComparedImage], **options: object) -> np.ndarray:
    """The figure at 100 dpi, int RGB (H, W, 3)."""
    file = io.BytesIO()
    draw_figure(comparisons, **{"width": 8.0, "dpi": 100, **options}).savefig(file, dpi=100)
    return np.asarray(Image.open(file).convert("RGB")).astype(int)


def extent(mask: np.ndarray) -> list[int]:
    """First row, first column, last row, last column."""
    found = np.argwhere(mask)
    return [*found.min(axis=0).tolist(), *found.max(axis=0).tolist()]


def arguments(folder: Path, *more: object) -> list[str]:
    """Of a data set's folder whose rainy images are the results too."""
    fixed = ["--input", folder / "input", "--target", folder / "target"]
    return [str(word) for word in (*fixed, "--results", folder / "input", *more)]


def test_frames_surround_the_crop():
    box = Box(20, 10, 30, 20)
    pixels = rendered([ComparedImage("1", [Panel("", flat(100))], None, [box])])
    frame = extent((np.abs(pixels - RED).max(axis=2) < 40)[:600])
    assert frame == pytest.approx([100, 200, 300, 500], abs=2)  # ten times as large
    assert (pixels[110:290, 210:490] == 100).all()


def test_crops_are_enlarged_side_by_side_in_their_colours():
    image = flat(100)
    image[10:30, 20:50] = 200
    image[40:60, 0:10] = 30
    boxes = [Box(20, 10, 30, 20), Box(0, 40, 10, 20)]
    pixels = rendered([ComparedImage("1", [Panel("", image)], None, boxes)])
    crops = pixels[600 + round(50 * GAP) :]
    height = (800 - 50 * GAP) / (1.5 + 0.5)
    middle = round(height / 2)
    for row in (20, middle, round(height) - 20):
        assert (crops[row, 20 : round(1.5 * height) - 20] == 200).all()
        assert (crops[row, -round(0.5 * height) + 20 : -20] == 30).all()
    line = crops[middle]
    assert extent((np.abs(line - RED).max(axis=1) < 40)[:, None])[::2] == pytest.approx(
        [0, 1.5 * height], abs=2
    )
    assert extent((np.abs(line - BLUE).max(axis=1) < 40)[:, None])[::2] == pytest.approx(
        [800 - 0.5 * height, 799], abs=2
    )


@pytest.mark.parametrize(
    ("count", "asked", "columns"),
    [(3, None, 3), (6, None, 6), (7, None, 4), (12, None, 6), (4, 2, 2)],
)
def test_many_panels_go_into_even_rows(count: int, asked: int | None, columns: int):
    panels = [Panel(str(i), flat(20 * i), "1 / 1") for i in range(count)]
    pixels = rendered([ComparedImage("1", panels, None, [])], columns=asked)
    assert pixels.shape[1] == 800
    width = 800 // columns
    assert columns <= MOST_COLUMNS
    # the middle of the last panel of the first row has its own colour
    assert pixels[20, round((columns - 0.5) * width), 0] == 20 * (columns - 1)
    rows = -(-count // columns)
    panel = (8 - (columns - 1) * GAP) / columns
    high = rows * (panel * 0.75 + 2 * LINE_HEIGHT) + (rows - 1) * GAP
    assert pixels.shape[0] == pytest.approx(100 * high, abs=1)


def test_several_images_stand_below_one_another():
    first = [Panel("a", flat(40), "1"), Panel("b", flat(80), "2")]
    second = [Panel("a", flat(120, 80, 80), "3"), Panel("b", flat(160, 80, 80), "4")]
    pixels = rendered([ComparedImage("1", first, None, []), ComparedImage("2", second, None, [])])
    width = (8 - GAP) / 2
    below = 0.75 * width + LINE_HEIGHT + GAP  # the names stand below the last image alone
    for top, values in ((0.1, (40, 80)), (below + 0.1, (120, 160))):
        assert [pixels[round(100 * top), x, 0] for x in (200, 600)] == list(values)
    high = below + width + 2 * LINE_HEIGHT
    assert pixels.shape[0] == pytest.approx(100 * high, abs=1)


def test_too_many_columns_for_the_width_are_refused():
    panels = [Panel("", flat(1))] * 12
    with pytest.raises(UserError, match="12 columns do not fit"):
        draw_figure([ComparedImage("1", panels, None, [])], width=0.5, dpi=100, columns=12)


def test_error_maps_are_dark_where_nothing_differs():
    clean = flat(100)
    wrong = clean.copy()
    wrong[:, 40:] = 160
    panels = [Panel("rainy", clean.copy()), Panel("m", wrong), Panel("clean", clean)]
    pixels = rendered([ComparedImage("1", panels, clean, [])], error_map=True)
    width = 800 // 3
    maps = pixels[round(0.75 * width) + 30]  # a line through the second row of images
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
    for with_clean in (True, False):
        images = (both, one, two, clean) if with_clean else (both, one, two)
        boxes = telling_boxes([Panel("", image) for image in images], clean if with_clean else None)
        assert all(box.width == box.height == 20 for box in boxes)
        for y, x in ((10, 60), (70, 5)):
            assert any(
                box.x <= x and box.y <= y and x + 15 <= box.x + 20 and y + 15 <= box.y + 20
                for box in boxes
            )


def test_long_names_shrink_then_lose_their_end():
    assert fitting_text("a name", 1.3) == ("a name", FONT_SIZE)
    text, size = fitting_text("a rather long name of a method", 1.5)
    assert text == "a rather long name of a method" and SMALLEST_FONT < size < FONT_SIZE
    cut, smallest = fitting_text("a name that is too long for any figure " * 3, 1.3)
    assert cut.endswith("..") and smallest == SMALLEST_FONT
    assert 15 < len(cut) < 60


def test_a_crop_belongs_to_the_image_before_it():
    words = ["--image", "3", *["--crop", "1", "2", "3", "4"], *["--crop", "5", "6", "7", "8"]]
    words += ["--image", "9", "12", *["--crop", "9", "9", "9", "9"]]
    args = parse_arguments(["--target", "t", "--results", "r", *words])
    assert args.wanted == (
        Wanted("3", (Box(1, 2, 3, 4), Box(5, 6, 7, 8))),
        Wanted("9"),
        Wanted("12", (Box(9, 9, 9, 9),)),
    )
    alone = parse_arguments(["--target", "t", "--results", "r", "--crop", "1", "2", "3", "4"])
    assert alone.wanted == (Wanted("", (Box(1, 2, 3, 4),)),)


def test_figure_from_folders(tmp_path: Path):
    pairs = write_pairs(tmp_path / "datasets" / "Rain100H", 2)
    results = tmp_path / "results" / "dmsr" / "Rain100H"
    results.mkdir(parents=True)
    restored = cv2.GaussianBlur(cv2.imread(str(pairs / "input" / "2.png")), (5, 5), 0)
    cv2.imwrite(str(results / "2.png"), restored)
    output, crops = tmp_path / "figure.png", tmp_path / "crops"
    fixed = [
        *("--input", pairs / "input", "--target", pairs / "target", "--results", results),
        *("--image", "2", "--output", output),
    ]
    done = run_script(
        "tools/compare.py", *fixed, "--crop", 10, 20, 30, 20, "--error-map",
        "--width", 3.5, "--dpi", 200, "--crops", crops,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--image 2 --crop 10 20 30 20" in done.stdout and "3 crops" in done.stdout
    with Image.open(output) as figure:
        assert figure.width == 700 and figure.info["dpi"] == pytest.approx((200, 200), abs=0.1)
        drawn = figure.convert("RGB").getpixel((116, 40))
    expected = read_rgb(pairs / "input" / "2.png")[15, 44].tolist()
    assert drawn == pytest.approx(tuple(expected), abs=60)
    assert sorted(path.name for path in crops.iterdir()) == [
        "2_Clean_1.png", "2_Rainy_input_1.png", "2_dmsr_1.png",
    ]  # fmt: skip
    np.testing.assert_array_equal(read_rgb(crops / "2_dmsr_1.png"), restored[20:40, 10:40, ::-1])

    for change, said in (
        (("--crop", 70, 20, 30, 20), "is not inside the image of 88x72 px"),
        (("--image", "3"), "no image named 3"),
        (("--names", "a", "b"), "1 folders of results, but 2 names"),
        (("--results", results, results), "Several methods are called dmsr"),
        (("--results", tmp_path / "absent"), f"no folder {tmp_path / 'absent'}"),
    ):
        with pytest.raises(UserError, match=said):
            read_comparisons(parse_arguments([str(word) for word in (*fixed, *change)]))


def test_a_pdf_has_lossless_images_and_fonts(tmp_path: Path):
    panels = [Panel(name, streaked(flat(90), i), "1 / 1") for i, name in enumerate("abc")]
    one = ComparedImage("1", panels, None, [Box(1, 2, 30, 40), Box(40, 2, 30, 40)])
    files = [tmp_path / "one.pdf", tmp_path / "two.pdf"]
    for file in files:
        write_figure(draw_figure([one], width=7, dpi=300, own_pixels=True), file)
    content = files[0].read_bytes()
    assert content.count(b"/Subtype /Image") == 9 and b"DCTDecode" not in content
    assert b"/FontFile2" in content and b"/Type3" not in content
    assert content == files[1].read_bytes()  # nothing in it depends on the time


@pytest.mark.extras
def test_the_pixels_and_the_text_of_a_pdf_can_be_taken_out(tmp_path: Path):
    if not shutil.which("pdfimages"):
        pytest.skip("poppler-utils are not installed")
    pairs = write_pairs(tmp_path / "wet", 1)
    output = tmp_path / "figure.pdf"
    words = arguments(pairs, "--names", "copy", "--crop", 10, 20, 30, 20, "--output", output)
    assert run_script("tools/compare.py", *words).returncode == 0
    subprocess.run(["pdfimages", "-png", output, tmp_path / "image"], check=True)
    images = [read_rgb(path) for path in sorted(tmp_path.glob("image-*.png"))]
    rainy, clean = (read_rgb(pairs / side / "1.png") for side in ("input", "target"))
    expected = [part for image in (rainy, rainy, clean) for part in (image, image[20:40, 10:40])]
    assert len(images) == len(expected)
    for found, source in zip(images, expected, strict=True):
        np.testing.assert_array_equal(found[::-1], source)  # stored from the bottom up
    text = subprocess.run(["pdftotext", output, "-"], capture_output=True, text=True, check=True)
    assert {"Rainy input", "copy", "Clean"} <= set(text.stdout.splitlines())


def test_the_captions_hold_the_scores_of_the_protocol(tmp_path: Path):
    pairs = write_pairs(tmp_path / "datasets" / "DID-Data", 1)
    (one,) = read_comparisons(parse_arguments(arguments(pairs, "--image", "1", "--names", "copy")))
    rainy, clean = (read_rgb(pairs / side / "1.png") for side in ("input", "target"))
    psnr, ssim = score(rainy, clean, "did")
    assert [(panel.name, panel.caption) for panel in one.panels] == [
        ("Rainy input", f"{psnr:.2f} / {ssim:.4f}"),
        ("copy", f"{psnr:.2f} / {ssim:.4f}"),
        ("Clean", "PSNR / SSIM (did)"),
    ]


def test_without_a_name_the_first_image_in_natural_order_is_shown(tmp_path: Path):
    pairs = write_pairs(tmp_path / "set", 10)
    for side in ("input", "target"):
        (pairs / side / "1.png").unlink()
    (one,) = read_comparisons(parse_arguments(arguments(pairs, "--names", "copy")))
    assert one.name == "2" and one.clean is one.panels[-1].image
    np.testing.assert_array_equal(one.clean, read_rgb(pairs / "target" / "2.png"))


def test_real_rain_has_no_clean_image_and_no_scores(tmp_path: Path):
    rainy = write_pairs(tmp_path / "real", 2) / "input"
    words = ["--input", rainy, "--results", rainy, "--names", "copy", "--image", "2"]
    (one,) = read_comparisons(parse_arguments([str(word) for word in words]))
    assert one.clean is None
    assert [(panel.name, panel.caption) for panel in one.panels] == [
        ("Rainy input", ""), ("copy", ""),
    ]  # fmt: skip
    with pytest.raises(SystemExit):
        parse_arguments([*map(str, words), "--error-map"])


@pytest.mark.parametrize("half", ["left", "right"])
def test_the_halves_of_side_by_side_files(tmp_path: Path, half: str):
    """The rainy half is a panel, the clean one another, and captions compare with the clean one."""
    clean = smooth_image(3, 48, 60)
    rainy = streaked(clean, 3)
    halves = [rainy, clean] if half == "left" else [clean, rainy]
    restored = cv2.addWeighted(rainy, 0.25, clean, 0.75, 0)
    for folder, image in (("set", np.hstack(halves)), ("results", restored)):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "1.png"), image)
    words = ["--input", tmp_path / "set", "--target", tmp_path / "set"]
    words += ["--results", tmp_path / "results", "--names", "ours"]
    for options in ((), ("--rainy-half", half)):
        (one,) = read_comparisons(parse_arguments([str(word) for word in (*words, *options)]))
        expected = {"Rainy input": rainy, "ours": restored, "Clean": clean}
        assert [panel.name for panel in one.panels] == list(expected)
        for panel, image in zip(one.panels, expected.values(), strict=True):
            np.testing.assert_array_equal(panel.image, image[..., ::-1])
        psnr, ssim = score(restored[..., ::-1], clean[..., ::-1], "rain13k")
        assert one.panels[1].caption == f"{psnr:.2f} / {ssim:.4f}"
    other = "right" if half == "left" else "left"
    (one,) = read_comparisons(
        parse_arguments([str(word) for word in (*words, "--rainy-half", other)])
    )
    np.testing.assert_array_equal(one.panels[0].image, clean[..., ::-1])


def test_a_crop_may_touch_the_border_and_not_pass_it(tmp_path: Path):
    pairs = write_pairs(tmp_path / "set", 1)  # 88 wide, 72 high
    for box in ((0, 0, 88, 72), (87, 71, 1, 1), (0, 71, 88, 1)):
        words = arguments(pairs, "--names", "copy", "--image", "1", "--crop", *box)
        (one,) = read_comparisons(parse_arguments(words))
        assert one.boxes == [Box(*box)]
    for box in ((0, 0, 89, 72), (0, 0, 88, 73), (1, 0, 88, 72), (0, 1, 88, 72), (-1, 0, 9, 9),
                (0, -1, 9, 9), (0, 0, 0, 9), (0, 0, 9, 0)):  # fmt: skip
        words = arguments(pairs, "--names", "copy", "--image", "1", "--crop", *box)
        with pytest.raises(UserError, match="is not inside the image of 88x72 px"):
            read_comparisons(parse_arguments(words))


def test_a_damaged_jpeg_is_shown_and_named(tmp_path: Path, capsys):
    pairs = write_pairs(tmp_path / "set", 1)
    image = cv2.imread(str(pairs / "input" / "1.png"))
    (pairs / "input" / "1.png").unlink()
    path = pairs / "input" / "1.jpg"
    cv2.imwrite(str(path), image)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 40] = bytes(40)
    path.write_bytes(content)
    read_comparisons(parse_arguments(arguments(pairs, "--names", "copy")))
    assert f"warning: {path} is damaged: " in capsys.readouterr().err
