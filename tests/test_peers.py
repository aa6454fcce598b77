"""Published results of other methods: folders with any file names, and rows of papers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import evaluate
from tests.helpers import smooth_image, streaked
from utils.images import read_rgb
from utils.metrics import score

NUMBERS = (1, 2, 10)
# The rainy and clean files of a set, and the names that methods give their results.
SETS = {
    "Rain100L": ("input/{:04}.png", "target/{:04}.png"),
    "Rain100H": ("rainy/rain-{:03}.png", "norain-{:03}.png"),
    "Rain200H": ("rain/X2/norain-{}x2.png", "norain/norain-{}.png"),
    "DDN-Data": ("rainy_image/{}_1.jpg", "ground_truth/{}.jpg"),
}
NAMES = {
    "Rain100L": ("{:04}_derained.png", "{:04}x2.png", "NAFNet_{}.JPG", "im{:03}-x1.webp"),
    "Rain100H": ("rain-{:03}_RESTORMER.jpg", "norain-{:03}x2.png", "{}.png", "rain_{:03}.png"),
    "Rain200H": ("norain-{}x2_out.png", "norain-{}.jpeg", "{}_MPRNet.png", "norain-{}x2.png"),
    "DDN-Data": ("{}_1_derained.png", "{}_1.jpg", "{}.png", "{:03}_1.bmp"),
}


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])


def write_set(name: str) -> None:
    rainy, clean = SETS[name]
    for number in NUMBERS:
        image = smooth_image(number, 40, 56)
        write(Path("datasets") / name / rainy.format(number), streaked(image, number))
        write(Path("datasets") / name / clean.format(number), image)


def run(*arguments: str) -> int:
    return evaluate.main(["--benchmark", "results", "--datasets", "datasets", *arguments])


def table() -> dict:
    return json.loads(Path("evaluation/table.json").read_text())


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("dataset", SETS)
def test_results_under_any_name_and_format_find_their_images(dataset: str) -> None:
    write_set(dataset)
    made: dict[tuple[str, str], tuple[Path, Path]] = {}
    rainy, clean = SETS[dataset]
    for method, name in zip("abcd", NAMES[dataset], strict=True):
        for number in NUMBERS:
            path = Path("results") / method / dataset / name.format(number)
            seed = 100 * ord(method) + number  # different streaks for each method and image
            write(path, streaked(smooth_image(number, 40, 56), seed))
            target = Path("datasets") / dataset / clean.format(number)
            made[method, Path(rainy.format(number)).stem] = path, target
    assert run("--protocol", "rgb") == 0
    lines = [row for row in csv.DictReader(Path("evaluation/images.csv").read_text().splitlines())
             if row["method"] != "rainy input"]  # fmt: skip
    assert len(lines) == len(made) == 12
    for line in lines:
        expected, _ = score(*map(read_rgb, made[line["method"], Path(line["image"]).name]), "rgb")
        assert float(line["psnr"]) == pytest.approx(expected, abs=1e-6)
    # JPEG lowers scores, so the table names the methods whose results are JPEGs
    notes = " ".join(table()["notes"])
    assert "rainy input" not in notes
    for method, name in zip("abcd", NAMES[dataset], strict=True):
        said = f"3 of the 3 results of {method} on {dataset} are JPEG files"
        assert (said in notes) == name.lower().endswith((".jpg", ".jpeg"))


def test_results_of_other_sizes_and_missing_or_extra_files_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Results are never resized: one of another size is only scored with --crop."""
    write_set("Rain100L")
    folder = Path("results/theirs/Rain100L")
    for number in NUMBERS:
        height = 36 if number == 2 else 40  # as cropped by a network that needs multiples
        write(folder / f"{number:04}_out.png", smooth_image(number, 40, 56)[:height])
    write(folder / "0001_out_2.png", smooth_image(1, 40, 56))
    (folder / "0010_out.png").unlink()
    assert run() == 1
    printed = capsys.readouterr().err
    for said in ("0002_out.png", "56x36", "has no result named 0010", "0001_out_2.png"):
        assert said in printed, printed
    (row,) = (row for row in table()["rows"] if row["method"] == "theirs")
    cell = row["scores"]["Rain100L"]
    assert (cell["num_images"], cell["complete"]) == (1, False)
    # published rows share the column
    sources = {row["source"] for row in table()["rows"] if row["kind"] == "published"}
    assert "DMSR paper Table 1, trained on Rain13K" in sources
    assert run("--crop") == 1
    assert "56x40 and 56x36" not in capsys.readouterr().out
    lines = list(csv.DictReader(Path("evaluation/images.csv").read_text().splitlines()))
    (cut,) = (line for line in lines if line["image"] == "0002" and line["method"] == "theirs")
    assert cut["psnr"] and "cut to" in cut["remarks"]
