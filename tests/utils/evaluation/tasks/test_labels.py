"""Label files: the same objects in the formats of COCO, VOC and YOLO give the same labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.errors import UserError
from utils.evaluation.tasks.labels import find_labels, is_masks, read_boxes, read_mask

CATEGORIES = ["__background__", "person", "N/A", "motorcycle", "cat"]
# left, top, right, bottom in an image "1" with 100 rows and 200 columns
PERSON, MOTORCYCLE = [20.0, 10.0, 60.0, 90.0], [100.0, 50.0, 180.0, 100.0]
SIZES = {"1": lambda: (100, 200), "2": lambda: (50, 50)}


def write_coco(folder: Path) -> Path:
    content = {
        "images": [{"id": 7, "file_name": "sub/1.jpg"}, {"id": 9, "file_name": "2.jpg"}],
        "categories": [
            {"id": 31, "name": "person"},
            {"id": 32, "name": "motorcycle"},
            {"id": 33, "name": "unicorn"},
        ],
        "annotations": [
            {"image_id": 7, "category_id": 31, "bbox": [20, 10, 40, 80], "iscrowd": 0},
            {"image_id": 7, "category_id": 32, "bbox": [100, 50, 80, 50], "iscrowd": 1},
            {"image_id": 9, "category_id": 33, "bbox": [0, 0, 5, 5], "iscrowd": 0},
        ],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(content), encoding="utf-8-sig")
    return path


def write_voc(folder: Path) -> Path:
    folder = folder / "Annotations"
    folder.mkdir()
    rows = [
        ("person", (21, 11, 60, 90), 0),
        ("motorbike", (101, 51, 180, 100), 1),
    ]
    objects = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}"
        f"</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, box, difficult in rows
    )
    (folder / "1.xml").write_text(f"<annotation>{objects}</annotation>")
    unicorn = objects.replace("person", "unicorn").split("<object>")[1]
    (folder / "2.xml").write_text(f"<annotation><object>{unicorn}</annotation>")
    return folder


def write_yolo(folder: Path) -> Path:
    folder = folder / "labels"
    folder.mkdir()
    (folder / "classes.txt").write_text("unicorn\nmotorbike\nperson\n")
    (folder / "1.txt").write_text("2 0.2 0.5 0.2 0.8\n1 0.7 0.75 0.4 0.5\n")
    (folder / "2.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    return folder


@pytest.mark.parametrize("write", [write_coco, write_voc, write_yolo])
def test_the_same_objects_in_three_formats(write: object, tmp_path: Path) -> None:
    path = write(tmp_path)
    assert find_labels(tmp_path) == path and not is_masks(path)
    labels = read_boxes(path, CATEGORIES, SIZES)
    assert labels.format == {"coco": "COCO", "voc": "VOC", "yolo": "YOLO"}[write.__name__[6:]]
    one = labels.boxes["1"]
    np.testing.assert_allclose(one.corners, [PERSON, MOTORCYCLE])
    np.testing.assert_array_equal(one.labels, [1, 3])
    np.testing.assert_array_equal(one.ignored, [False, labels.format != "YOLO"])
    assert len(labels.boxes["2"]) == 0 and labels.left_out == {"unicorn": 1}


def test_yolo_without_names_uses_the_order_of_coco(tmp_path: Path) -> None:
    folder = write_yolo(tmp_path)
    (folder / "classes.txt").unlink()
    (folder / "1.txt").write_text("1 0.5 0.5 0.2 0.4\n")
    labels = read_boxes(folder, CATEGORIES, {"1": SIZES["1"]})
    np.testing.assert_array_equal(labels.boxes["1"].labels, [3])  # person, motorcycle, cat
    (tmp_path / "data.yaml").write_text("names: {0: cat, 1: person}\n")
    labels = read_boxes(folder, CATEGORIES, {"1": SIZES["1"]})
    np.testing.assert_array_equal(labels.boxes["1"].labels, [1])


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.json", "{}", "does not hold annotations in COCO's JSON"),
        ("1.xml", "<annotation>", "is not an annotation in VOC's XML"),
        ("1.xml", "<!DOCTYPE x><annotation/>", "it has a document type"),
        ("1.txt", "0 0.5 0.5", "does not hold YOLO's labels"),
        ("1.txt", "99 0.5 0.5 0.1 0.1", "does not hold YOLO's labels"),
        ("1.csv", "", "holds no labels"),
    ],
)
def test_a_file_in_another_format_is_refused_in_one_sentence(
    name: str, content: str, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=sentence):
        read_boxes(tmp_path, CATEGORIES, SIZES)


def test_two_kinds_of_labels_beside_the_images_are_not_guessed(tmp_path: Path) -> None:
    write_voc(tmp_path)
    write_yolo(tmp_path)
    with pytest.raises(UserError, match=r"holds several labels .* choose with --labels"):
        find_labels(tmp_path)


def test_masks_hold_the_numbers_of_classes(tmp_path: Path) -> None:
    numbers = np.array([[0, 2, 255], [20, 1, 0]], np.uint8)
    palette = Image.fromarray(numbers).convert("L").convert("P")
    palette.putdata(numbers.ravel().tolist())
    palette.save(tmp_path / "1.png")
    Image.fromarray(numbers).save(tmp_path / "2.png")
    assert is_masks(tmp_path)
    for name in ("1.png", "2.png"):
        np.testing.assert_array_equal(read_mask(tmp_path / name, 21), numbers)
    with pytest.raises(UserError, match="holds the class 20; the segmenter has 0 to 10"):
        read_mask(tmp_path / "2.png", 11)
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "3.png")
    with pytest.raises(UserError, match="is a mask in RGB"):
        read_mask(tmp_path / "3.png", 21)
