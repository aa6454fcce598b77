"""Metrics of detection and segmentation over whole folders of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from utils.errors import UserError
from utils.evaluation.quality import Metric
from utils.evaluation.score_cache import CachedScore, ScoreCache, cache_key, file_digest
from utils.evaluation.scoring import ImageResult, JobResult, Side, read_side, side_digest
from utils.evaluation.tasks.boxes import Agreement, Boxes, agreement, mean_average_precision
from utils.evaluation.tasks.labels import LabelSet, labels_beside, read_boxes, read_mask
from utils.evaluation.tasks.networks import Detector, Segmenter

MAP = Metric("map", "mAP", 2)
MAP50 = Metric("map50", "mAP50", 2)
PRECISION = Metric("precision", "precision", 2)
RECALL = Metric("recall", "recall", 2)
BOX_IOU = Metric("box_iou", "box IoU", 2)
DETECTIONS = Metric("detections", "objects", 2)
CONFIDENCE = Metric("confidence", "confidence", 2)
MASK_IOU = Metric("mask_iou", "mIoU", 2)
PIXEL_ACCURACY = Metric("pixel_accuracy", "pixel accuracy", 2)

AGREEMENT = "agreement with the clean images"


class TaskScorer(Protocol):
    """A ``SetScorer`` that can also judge the clean images of a job."""

    metrics: tuple[Metric, ...]

    @property
    def name(self) -> str: ...

    def score(self, result: JobResult, of_clean: bool = False) -> tuple[float, ...]: ...


class DetectionScorer:
    """mAP, precision, recall and IoU of one detector on the images of a folder, in percent.

    The true boxes are ``labels``, or those that ``labels_beside`` finds in the data set; without
    labels, the boxes that the detector finds in the clean images. If neither exists (``truth`` is
    false), the metrics are the number of confident detections per image and their mean score, which
    are weak evidence.
    """

    def __init__(
        self, detector: Detector, cache: ScoreCache, *, truth: bool, labels: Path | None = None
    ) -> None:
        self.metrics: tuple[Metric, ...] = (
            (MAP, MAP50, PRECISION, RECALL, BOX_IOU) if truth else (DETECTIONS, CONFIDENCE)
        )
        self._detector, self._cache = detector, cache
        self._has_truth, self._labels = truth, labels
        self._truths: set[str] = set()
        self._read: dict[Path, LabelSet] = {}
        self._unknown: list[str] = []

    @property
    def name(self) -> str:
        """The sentence for a caption: detector, library and ground truth."""
        if not self._has_truth:
            return (
                f"Objects found with a score of 0.5 or more and their mean score, by "
                f"{self._detector.name}; weak evidence, as the true objects are unknown"
            )
        truth = "; ".join([*sorted(self._truths), *self._unknown]) or AGREEMENT
        return (
            f"Detection by {self._detector.name}, in percent: mAP of COCO by pycocotools; "
            f"precision, recall and mean IoU of matched boxes at score 0.5 and IoU 0.5; {truth}"
        )

    def score(self, result: JobResult, of_clean: bool = False) -> tuple[float, ...]:
        """The metrics of a job's scored images; ``of_clean``: of their clean images instead.

        Fills in the images' boxes and counts. Raises UserError if the figures are not defined.
        """
        images = result.scored
        found = self._detect(images, "clean" if of_clean else "restored")
        if not self._has_truth:
            confident = [boxes.confident() for boxes in found]
            scores = np.concatenate([boxes.scores for boxes in confident])
            for image, boxes in zip(images, confident, strict=True):
                image.counts = {"objects": len(boxes)}
                image.boxes = self._named(boxes)
            mean = float(scores.mean()) if len(scores) else float("nan")
            return len(scores) / len(images), 100 * mean
        truth = self._truth(result, images)
        total = Agreement()
        for image, true, boxes in zip(images, truth, found, strict=True):
            one = agreement(true, boxes)
            total += one
            if not of_clean:
                image.counts = {
                    "true": one.num_true,
                    "found": one.num_found,
                    "matched": one.num_matched,
                }
                image.boxes, image.true_boxes = self._named(boxes.confident()), self._named(true)
        both = mean_average_precision(truth, found)
        return tuple(100 * x for x in (*both, total.precision, total.recall, total.mean_iou))

    def _truth(self, result: JobResult, images: Sequence[ImageResult]) -> list[Boxes]:
        folder = self._labels or labels_beside(result.job.set_folder)
        if folder is None:
            self._truths.add(AGREEMENT)
            return [boxes.confident() for boxes in self._detect(images, "clean")]
        if folder not in self._read:
            sizes = {_stem(image): _size_of(image) for image in images}
            labels = read_boxes(folder, self._detector.categories, sizes)
            self._read[folder] = labels
            if labels.left_out:
                names = ", ".join(f"{name} ({n})" for name, n in labels.left_out.most_common(5))
                self._unknown.append(f"left out, as the detector does not know them: {names}")
        labels = self._read[folder]
        missing = [_stem(image) for image in images if _stem(image) not in labels.boxes]
        if missing:
            raise UserError(
                f"{folder} has no labels for {len(missing)} of {len(images)} images, such as "
                f"{missing[0]}"
            )
        self._truths.add(f"held to the {labels.format} labels of {result.job.dataset}")
        return [labels.boxes[_stem(image)] for image in images]

    def _detect(self, images: Sequence[ImageResult], side: Side) -> list[Boxes]:
        """The boxes in all images, from the cache if they are known."""
        keys, found = [], []
        for image in images:
            key = cache_key(f"boxes, {self._detector.name}", [side_digest(image, side)])
            known = self._cache.get(key)
            keys.append(key)
            found.append(None if known is None else _unpack(known.scores))
        waiting = [number for number, boxes in enumerate(found) if boxes is None]
        with _bar(len(waiting), f"detecting, {side}") as bar:
            for start in range(0, len(waiting), self._detector.batch):
                numbers = waiting[start : start + self._detector.batch]
                pixels = [read_side(images[number], side) for number in numbers]
                for number, boxes in zip(numbers, self._detector(pixels), strict=True):
                    self._cache.put(keys[number], CachedScore(_pack(boxes)))
                    found[number] = boxes
                bar.update(len(numbers))
        return [boxes for boxes in found if boxes is not None]

    def _named(self, boxes: Boxes) -> list[list[Any]]:
        """Boxes for the page: left, top, right, bottom, name, score in percent."""
        return [
            [*(round(float(c), 1) for c in corners), self._detector.categories[label], round(s)]
            for corners, label, s in zip(
                boxes.corners, boxes.labels, 100 * boxes.scores, strict=True
            )
        ]


class SegmentationScorer:
    """Mean IoU and pixel accuracy of one segmenter on the images of a folder, in percent.

    The true classes are those of masks (PNG); without masks, those that the segmenter finds in the
    clean images. The mean is over the classes that occur in the set, true or found.
    """

    def __init__(self, segmenter: Segmenter, cache: ScoreCache, labels: Path | None = None) -> None:
        self.metrics: tuple[Metric, ...] = (MASK_IOU, PIXEL_ACCURACY)
        self._segmenter, self._cache, self._labels = segmenter, cache, labels
        self._truths: set[str] = set()

    @property
    def name(self) -> str:
        """The sentence for a caption: segmenter and ground truth."""
        truth = " and ".join(sorted(self._truths)) or AGREEMENT
        return f"Segmentation by {self._segmenter.name}, in percent; {truth}"

    def score(self, result: JobResult, of_clean: bool = False) -> tuple[float, ...]:
        """The metrics of a job's scored images; ``of_clean``: of their clean images instead."""
        side: Side = "clean" if of_clean else "restored"
        folder = self._labels or labels_beside(result.job.set_folder, masks=True)
        masks = {}
        if folder is not None:
            masks = {path.stem: path for path in folder.iterdir() if path.suffix.lower() == ".png"}
            self._truths.add(f"held to the masks of {result.job.dataset}")
        else:
            self._truths.add(AGREEMENT)
        count = len(self._segmenter.categories)
        confusion = np.zeros((count, count))
        with _bar(len(result.scored), f"segmenting, {side}") as bar:
            for image in result.scored:
                if masks and _stem(image) not in masks:
                    raise UserError(f"{folder} has no mask named {_stem(image)}.png")
                confusion += self._confusion(image, side, masks.get(_stem(image)))
                bar.update()
        return tuple(100 * value for value in mask_figures(confusion))

    def _confusion(self, image: ImageResult, side: Side, mask: Path | None) -> np.ndarray:
        """Pixels by true class (rows) and found class, cached by the content of the files."""
        truth = file_digest(mask) if mask else side_digest(image, "clean")
        digests = [side_digest(image, side), truth]
        key = cache_key(f"confusion, {self._segmenter.name}", digests)
        count = len(self._segmenter.categories)
        known = self._cache.get(key)
        if known is None:
            found = self._segmenter(read_side(image, side))
            true = read_mask(mask, count) if mask else self._segmenter(read_side(image, "clean"))
            if true.shape != found.shape:
                raise UserError(
                    f"{mask or image.clean} and the result {image.restored} have different sizes"
                )
            known = CachedScore(tuple(map(float, confusion_matrix(true, found, count).ravel())))
            self._cache.put(key, known)
        return np.reshape(known.scores, (count, count))


def confusion_matrix(true: np.ndarray, found: np.ndarray, count: int) -> np.ndarray:
    """Pixels, (count, count): true class in rows, found class in columns; 255 is left out."""
    counted = true != 255
    pairs = true[counted].astype(np.int64) * count + found[counted]
    return np.bincount(pairs, minlength=count * count).reshape(count, count)


def mask_figures(confusion: np.ndarray) -> tuple[float, float]:
    """Mean IoU over the classes that occur, and the share of pixels classified correctly."""
    right = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - right
    occurs = union > 0
    return float((right[occurs] / union[occurs]).mean()), float(right.sum() / confusion.sum())


def _stem(image: ImageResult) -> str:
    """The name of an image's labels: that of the clean image, else of the rainy one."""
    return image.clean.stem if image.clean else image.stem


def _size_of(image: ImageResult) -> Callable[[], tuple[int, int]]:
    return lambda: read_side(image, "restored").shape[:2]


def _pack(boxes: Boxes) -> tuple[float, ...]:
    """Boxes as the numbers that the cache keeps: corners, category, score, one after another."""
    columns = np.column_stack([boxes.corners, boxes.labels, boxes.scores])
    return tuple(float(value) for value in columns.ravel())


def _unpack(values: Iterable[float]) -> Boxes:
    columns = np.array(list(values)).reshape(-1, 6)
    return Boxes.of(columns[:, :4], columns[:, 4].astype(np.int64), columns[:, 5])


def _bar(total: int, title: str) -> tqdm:
    return tqdm(total=total, desc=title, unit="image", leave=False, disable=None if total else True)
