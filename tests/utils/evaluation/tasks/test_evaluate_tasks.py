"""evaluate.py --tasks from the command to the table, images.csv and the page.

The detector is torchvision's with random weights and a bias that finds one object everywhere: the
tests are only about the way from the command to the files.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

import evaluate
from tests.helpers import DETECTOR, SEGMENTER, write_pairs, write_task_networks

pytest.importorskip("pycocotools")
pytestmark = pytest.mark.extras


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_task_networks(tmp_path_factory.mktemp("weights"))


def page_data(folder: Path) -> dict:
    page = (folder / "report.html").read_text()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(data[1])


def test_one_folder_with_both_tasks(weights: dict[str, Path], tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "set", 2, 64, 64)
    status = evaluate.main(
        [
            *("--results", str(pairs / "input"), "--target", str(pairs / "target")),
            *("--tasks", "detection", "segmentation", "--detector", DETECTOR),
            *("--detector-weights", str(weights[DETECTOR])),
            *("--segmenter-weights", str(weights[SEGMENTER])),
            *("--output", str(tmp_path / "out")),
        ]
    )
    assert status == 0
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    text = (tmp_path / "out" / "table.md").read_text()
    assert "agreement with the clean images" in text and f"Detection by {DETECTOR}" in text
    for heading in ("mAP", "precision", "recall", "box IoU", "mIoU", "pixel accuracy"):
        assert heading in text and heading in (tmp_path / "out" / "table.tex").read_text()
    rows = {row["method"]: row for row in table["rows"]}
    clean = rows["clean images"]
    assert clean != rows["input"] and "nan" not in text.lower()
    with open(tmp_path / "out" / "images.csv") as file:
        lines = list(csv.DictReader(file))
    assert [line["image"] for line in lines] == ["1", "2"]
    assert all(int(line["found"]) >= int(line["matched"]) for line in lines)
    (drawn,) = page_data(tmp_path / "out")["sets"]
    boxes = {method["name"]: method["boxes"] for method in drawn["methods"]}
    assert len(boxes["input"]) == 2 and boxes["clean"][0][0][4] == "car"
    assert [len(found) for found in boxes["input"]] == [int(line["found"]) for line in lines]


def test_labels_inside_a_set_of_a_benchmark_are_found(
    weights: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("voc set", "yolo set"):
        folder = write_pairs(tmp_path / "datasets" / name, 2, 64, 64)
        for side in ("first", "second"):
            (tmp_path / "results" / side).mkdir(parents=True, exist_ok=True)
            (tmp_path / "results" / side / name).symlink_to(folder / "input")
        labels = folder / "labels"
        labels.mkdir()
        for number in (1, 2):
            if name == "voc set":
                box = "<xmin>11</xmin><ymin>21</ymin><xmax>42</xmax><ymax>52</ymax>"
                entry = f"<object><name>car</name><bndbox>{box}</bndbox></object>"
                (labels / f"{number}.xml").write_text(f"<annotation>{entry}</annotation>")
            else:  # the same box: x from 10 to 42, y from 20 to 52, of 64; car is COCO's class 3
                (labels / f"{number}.txt").write_text("2 0.40625 0.5625 0.5 0.5\n")
    evaluate.main(
        [
            *("--benchmark", str(tmp_path / "results"), "--datasets", str(tmp_path / "datasets")),
            *("--tasks", "detection", "--detector", DETECTOR),
            *("--detector-weights", str(weights[DETECTOR])),
            *("--output", str(tmp_path / "out")),
        ]
    )
    text = (tmp_path / "out" / "table.md").read_text()
    assert "held to the VOC labels of voc set" in text
    assert "held to the YOLO labels of yolo set" in text
    for dataset in page_data(tmp_path / "out")["sets"]:
        clean = next(method for method in dataset["methods"] if method["kind"] == "clean")
        assert clean["boxes"] == [[[10.0, 20.0, 42.0, 52.0, "car", 100]]] * 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--labels", "x"), "--labels belongs to --tasks"),
        (("--tasks", "detection", "--batch", "0"), "--batch is 0"),
    ],
)
def test_options_without_effect_are_refused(
    options: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        evaluate.main(["--results", "a", "--target", "b", *options])
    assert end.value.code == 2 and sentence in capsys.readouterr().err
