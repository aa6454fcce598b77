"""Boxes around objects, and how well detected boxes agree with the true ones."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.errors import UserError

MIN_SCORE = 0.5  # detections below it count only for COCO's mAP
MIN_IOU = 0.5


@dataclass(frozen=True)
class Boxes:
    """The objects of one image.

    corners: (N, 4) float64, left, top, right, bottom in pixels. labels: (N,) numbers of categories.
    scores: (N,) in [0, 1], 1 for true boxes. ignored: (N,) true boxes that count neither as found
    nor as missed, such as crowds in COCO and difficult objects in VOC.
    """

    corners: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    ignored: np.ndarray

    @classmethod
    def of(
        cls,
        corners: Sequence[Sequence[float]] | np.ndarray,
        labels: Sequence[int] | np.ndarray,
        scores: Sequence[float] | np.ndarray | None = None,
        ignored: Sequence[bool] | np.ndarray | None = None,
    ) -> Boxes:
        """Boxes from anything that NumPy converts; without ``scores`` they are true boxes."""
        count = len(labels)
        return cls(
            np.asarray(corners, np.float64).reshape(count, 4),
            np.asarray(labels, np.int64),
            np.ones(count) if scores is None else np.asarray(scores, np.float64),
            np.zeros(count, bool) if ignored is None else np.asarray(ignored, bool),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def confident(self) -> Boxes:
        """Those with a score of ``MIN_SCORE`` or more."""
        keep = self.scores >= MIN_SCORE
        return Boxes(self.corners[keep], self.labels[keep], self.scores[keep], self.ignored[keep])


@dataclass(frozen=True)
class Agreement:
    """Counts over confident detections; ``iou_sum`` adds up the IoU of the matched pairs."""

    num_matched: int = 0
    num_found: int = 0
    num_true: int = 0
    iou_sum: float = 0.0

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.num_matched + other.num_matched,
            self.num_found + other.num_found,
            self.num_true + other.num_true,
            self.iou_sum + other.iou_sum,
        )

    @property
    def precision(self) -> float:
        """The share of found boxes that are matched; NaN if nothing was found."""
        return self.num_matched / self.num_found if self.num_found else float("nan")

    @property
    def recall(self) -> float:
        """The share of true boxes that are matched; NaN if there are none."""
        return self.num_matched / self.num_true if self.num_true else float("nan")

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the matched pairs; NaN if nothing is matched."""
        return self.iou_sum / self.num_matched if self.num_matched else float("nan")


def agreement(truth: Boxes, found: Boxes) -> Agreement:
    """Match detections with a score of 0.5 or more to true boxes of the same category.

    Detections choose in order of confidence, as in PASCAL VOC. Each takes the free box with the
    largest IoU, which must be at least 0.5. A detection on an ignored box does not count.
    """
    found = found.confident()
    overlaps = iou(truth.corners, found.corners)
    overlaps[truth.labels[:, None] != found.labels[None, :]] = 0
    free = np.ones(len(truth), bool)
    num_matched, num_ignored, iou_sum = 0, 0, 0.0
    for number in np.argsort(-found.scores, kind="stable"):
        candidates = np.where(free & ~truth.ignored, overlaps[:, number], 0)
        best = int(candidates.argmax()) if len(truth) else -1
        if best >= 0 and candidates[best] >= MIN_IOU:
            free[best] = False
            num_matched += 1
            iou_sum += float(candidates[best])
        elif (overlaps[truth.ignored, number] >= MIN_IOU).any():
            num_ignored += 1
    num_true = int((~truth.ignored).sum())
    return Agreement(num_matched, len(found) - num_ignored, num_true, iou_sum)


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of corners (N, 4) and (M, 4): (N, M) in [0, 1]."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    intersection = (high - low).clip(min=0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def mean_average_precision(truth: Sequence[Boxes], found: Sequence[Boxes]) -> tuple[float, float]:
    """COCO's mAP over IoU 0.5 to 0.95, and the one at IoU 0.5, by pycocotools.

    ``truth`` and ``found`` hold one element per image, in the same order. Raises UserError if
    pycocotools is missing or no image has a true box.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise UserError("mAP needs the package pycocotools: pip install pycocotools.") from error
    if not any((~boxes.ignored).any() for boxes in truth):
        raise UserError("there is no true box in any image, so mAP is not defined")
    categories = sorted({int(label) for boxes in truth for label in boxes.labels})
    with contextlib.redirect_stdout(io.StringIO()):  # it prints every step
        reference = COCO()
        reference.dataset = {
            "info": {},
            "images": [{"id": number} for number in range(len(truth))],
            "categories": [{"id": label} for label in categories],
            "annotations": [
                {**entry, "id": number, "area": entry["bbox"][2] * entry["bbox"][3]}
                for number, entry in enumerate(_coco_entries(truth), 1)
            ],
        }
        reference.createIndex()
        entries = [entry for entry in _coco_entries(found) if entry["category_id"] in categories]
        if not entries:
            return 0.0, 0.0
        evaluation = COCOeval(reference, reference.loadRes(entries), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


def _coco_entries(images: Sequence[Boxes]) -> list[dict[str, Any]]:
    """The boxes of all images as COCO's JSON writes them: left, top, width, height."""
    return [
        {
            "image_id": number,
            "category_id": int(label),
            "bbox": [*map(float, corners[:2]), *map(float, corners[2:] - corners[:2])],
            "score": float(score),
            "iscrowd": int(ignored),
        }
        for number, boxes in enumerate(images)
        for corners, label, score, ignored in zip(
            boxes.corners, boxes.labels, boxes.scores, boxes.ignored, strict=True
        )
    ]
