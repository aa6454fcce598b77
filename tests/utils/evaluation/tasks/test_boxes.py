"""Detections against true boxes, compared with typed values and with pycocotools."""

from __future__ import annotations

import contextlib
import io
import math

import numpy as np
import pytest

from utils.errors import UserError
from utils.evaluation.tasks.boxes import Agreement, Boxes, agreement, iou, mean_average_precision

CAT, DOG = 17, 18


def test_iou_of_hand_made_boxes() -> None:
    one = np.array([[0, 0, 10, 10], [5, 5, 15, 25]], float)
    two = np.array([[0, 0, 10, 5], [10, 10, 20, 20], [0, 0, 10, 10]], float)
    expected = [
        [0.5, 0, 1],  # half of the box; touching at a corner; the box itself
        [0, 50 / 250, 25 / 275],  # 5 x 10 of 200 + 100; 5 x 5 of 200 + 100
    ]
    np.testing.assert_allclose(iou(one, two), expected, atol=1e-15)
    assert iou(np.zeros((0, 4)), two).shape == (0, 3)


def test_agreement_counts_each_object_once() -> None:
    truth = Boxes.of([[0, 0, 10, 10], [20, 0, 30, 10], [0, 20, 10, 40]], [CAT, CAT, DOG])
    found = Boxes.of(
        [
            [0, 0, 10, 8],  # cat, IoU 0.8
            [0, 0, 10, 10],  # the same cat again, IoU 1, but less confident
            [20, 0, 30, 10],  # taken for a dog
            [0, 20, 10, 32],  # dog, IoU 0.6
            [60, 60, 70, 70],  # nothing there
            [20, 0, 30, 10],  # cat, but below the confidence threshold
        ],
        [CAT, CAT, DOG, DOG, CAT, CAT],
        [0.9, 0.8, 0.7, 0.6, 0.5, 0.49],
    )
    result = agreement(truth, found)
    assert (result.num_matched, result.num_found, result.num_true) == (2, 5, 3)
    assert result.iou_sum == pytest.approx(0.8 + 0.6)
    assert result.precision == pytest.approx(2 / 5)
    assert result.recall == pytest.approx(2 / 3)
    assert result.mean_iou == pytest.approx(0.7)
    both = result + Agreement(1, 1, 4, 0.9)
    assert (both.precision, both.recall, both.mean_iou) == pytest.approx((3 / 6, 3 / 7, 2.3 / 3))


def test_an_iou_below_a_half_does_not_match() -> None:
    truth = Boxes.of([[0, 0, 10, 10]], [CAT])
    for bottom, num_matched in ((5.0, 1), (4.9, 0)):
        found = Boxes.of([[0, 0, 10, bottom]], [CAT], [0.9])
        assert agreement(truth, found).num_matched == num_matched


def test_ignored_objects_are_not_counted() -> None:
    truth = Boxes.of([[0, 0, 10, 10], [20, 0, 30, 10]], [CAT, CAT], None, [True, False])
    found = Boxes.of([[0, 0, 10, 10], [20, 0, 30, 10]], [CAT, CAT], [0.9, 0.8])
    result = agreement(truth, found)
    assert (result.num_matched, result.num_found, result.num_true) == (1, 1, 1)


def test_without_detections_or_without_objects() -> None:
    none = Boxes.of([], [])
    some = Boxes.of([[0, 0, 10, 10]], [CAT])
    assert math.isnan(agreement(some, none).precision) and agreement(some, none).recall == 0
    assert math.isnan(agreement(none, some).recall) and agreement(none, some).precision == 0


def test_map_of_hand_made_boxes() -> None:
    """One category, two images with one object each; one is found with an IoU of 0.7.

    COCO averages the precision at 101 recalls. At IoU 0.5 to 0.7 both are found: AP 1 for 5 of the
    10 thresholds. At 0.75 to 0.95 the less confident one is wrong: the precision is 1 up to a
    recall of a half, which 51 of the 101 recalls are.
    """
    pytest.importorskip("pycocotools")
    truth = [Boxes.of([[0, 0, 100, 100]], [CAT]), Boxes.of([[0, 0, 100, 100]], [CAT])]
    found = [
        Boxes.of([[0, 0, 100, 100]], [CAT], [0.9]),
        Boxes.of([[0, 0, 100, 71]], [CAT], [0.8]),
    ]
    mean, at_half = mean_average_precision(truth, found)
    assert at_half == pytest.approx(1.0)
    assert mean == pytest.approx((5 * 1.0 + 5 * 51 / 101) / 10)


def test_map_equals_that_of_pycocotools_on_many_boxes() -> None:
    """The same boxes, written to COCO files and evaluated by pycocotools directly."""
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(5)
    truth, found, annotations, detections = [], [], [], []
    for image in range(6):
        low = rng.uniform(0, 200, (8, 2))
        true = np.hstack([low, low + rng.uniform(15, 120, (8, 2))])
        labels = rng.choice([CAT, DOG], 8)
        moved = true + rng.normal(0, 6, true.shape)
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        scores = rng.uniform(0, 1, 8)
        truth.append(Boxes.of(true, labels))
        found.append(Boxes.of(moved[1:], labels[1:], scores[1:]))
        for box, label in zip(true, labels, strict=True):
            width, height = box[2:] - box[:2]
            entry = {"bbox": [*box[:2], width, height], "area": width * height, "iscrowd": 0}
            number = len(annotations) + 1
            entry |= {"id": number, "image_id": image, "category_id": int(label)}
            annotations.append(entry)
        for box, label, score in zip(moved[1:], labels[1:], scores[1:], strict=True):
            sides = [*box[:2], *(box[2:] - box[:2])]
            detections.append([image, *sides, score, int(label)])
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = {
            "images": [{"id": image} for image in range(6)],
            "categories": [{"id": CAT}, {"id": DOG}],
            "annotations": annotations,
            "info": {},
        }
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(np.array(detections)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert mean_average_precision(truth, found) == pytest.approx(tuple(evaluation.stats[:2]))
    assert 0.1 < evaluation.stats[0] < 0.9


def test_labels_without_boxes_are_refused_in_one_sentence() -> None:
    pytest.importorskip("pycocotools")
    with pytest.raises(UserError, match="no true box in any image"):
        mean_average_precision([Boxes.of([], [])], [Boxes.of([[0, 0, 9, 9]], [CAT], [0.9])])
