"""Detection and segmentation of whole folders: rain lowers the scores, clean images restore them.

Nothing is downloaded: the detector and the segmenter of most tests are one small network that
learns to find drawn shapes within seconds; torchvision's have random weights where a test is only
about input and output.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from utils.errors import UserError
from utils.evaluation.score_cache import ScoreCache
from utils.evaluation.scoring import ImageResult, JobResult, ScoringJob
from utils.evaluation.tasks.boxes import Boxes
from utils.evaluation.tasks.networks import Detector, Segmenter
from utils.evaluation.tasks.scorers import (
    DetectionScorer,
    SegmentationScorer,
    confusion_matrix,
    mask_figures,
)
from utils.images import read_rgb, write_png

pytest.importorskip("pycocotools")
pytestmark = pytest.mark.extras

SHAPES = ("square", "disc")
COLOURS = {"square": (200, 60, 60), "disc": (60, 90, 200)}


def draw(seed: int, size: int = 96) -> tuple[np.ndarray, np.ndarray, list[tuple[str, list[int]]]]:
    """An image of two shapes on a gray background, its class mask, and the objects' boxes."""
    rng = np.random.default_rng(seed)
    image = np.full((size, size, 3), rng.integers(90, 150), np.uint8)
    mask = np.zeros((size, size), np.uint8)
    objects = []
    for number, shape in enumerate(SHAPES, 1):
        side = int(rng.integers(20, 32))
        left = int(rng.integers(4, size - side - 4))
        top = int(rng.integers(4, size // 2 - side)) + (number - 1) * (size // 2)
        cell = np.zeros_like(mask)
        if shape == "square":
            cell[top : top + side, left : left + side] = 1
        else:
            cv2.circle(cell, (left + side // 2, top + side // 2), side // 2, 1, -1)
        image[cell > 0] = COLOURS[shape]
        mask[cell > 0] = number
        rows, columns = np.where(cell)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        objects.append((shape, [int(edge) for edge in box]))
    return image, mask, objects


def rained_upon(clean: np.ndarray, seed: int) -> np.ndarray:
    """Bright vertical streaks over half of the image, which cut objects into pieces."""
    rng = np.random.default_rng(seed)
    drops = (rng.random(clean.shape[:2]) > 0.985).astype(np.float32)
    rain = cv2.dilate(drops, np.ones((21, 2)))[..., None] * 0.9
    return (clean * (1 - rain) + 240 * rain).astype(np.uint8)


class SmallSeer:
    """A network of three convolutions that classifies pixels; objects are connected regions."""

    categories = ("background", *SHAPES)
    name = "small seer"
    batch = 2

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.network = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)),
            *(nn.ReLU(), nn.Conv2d(16, 3, 1)),
        )
        optimizer = torch.optim.Adam(self.network.parameters(), 1e-2)
        samples = [draw(seed)[:2] for seed in range(100, 108)]
        images = torch.stack([self.planes(image) for image, _ in samples])
        masks = torch.stack([torch.from_numpy(mask).long() for _, mask in samples])
        for _ in range(60):
            loss = nn.functional.cross_entropy(self.network(images), masks)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    @staticmethod
    def planes(image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(image.transpose(2, 0, 1)).float() / 255

    @torch.no_grad()
    def shares(self, image: np.ndarray) -> np.ndarray:
        """Probability of each class, (classes, H, W)."""
        return self.network(self.planes(image)[None])[0].softmax(0).numpy()

    def __call__(self, images: list[np.ndarray]) -> list[Boxes]:
        return [self.detect(image) for image in images]

    def detect(self, image: np.ndarray) -> Boxes:
        shares = self.shares(image)
        corners, labels, scores = [], [], []
        for number in (1, 2):
            regions, _ = ndimage.label(shares.argmax(0) == number)
            for region, place in enumerate(ndimage.find_objects(regions), 1):
                inside = regions == region
                if inside.sum() < 20:
                    continue
                rows, columns = place
                corners.append([columns.start, rows.start, columns.stop, rows.stop])
                labels.append(number)
                scores.append(float(shares[number][inside].mean()))
        return Boxes.of(corners, labels, scores)


class SmallSegmenter:
    """The same network as a segmenter."""

    def __init__(self, seer: SmallSeer) -> None:
        self.categories, self.name, self.shares = seer.categories, seer.name, seer.shares

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return self.shares(image).argmax(0).astype(np.uint8)


@pytest.fixture(scope="module")
def seer() -> SmallSeer:
    return SmallSeer()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of five drawings in heavy rain, with boxes as COCO's JSON and with masks."""
    folder = tmp_path_factory.mktemp("tasks")
    annotations, images = [], []
    for number in range(1, 6):
        clean, mask, objects = draw(number)
        write_png(folder / "target" / f"{number}.png", clean)
        write_png(folder / "input" / f"{number}.png", rained_upon(clean, number))
        write_png(folder / "masks" / f"{number}.png", mask)
        images.append({"id": number, "file_name": f"{number}.png"})
        for shape, (left, top, right, bottom) in objects:
            box = [left, top, right - left, bottom - top]
            category = SHAPES.index(shape) + 5
            annotations.append({"image_id": number, "category_id": category, "bbox": box})
    names = [{"id": number + 5, "name": shape} for number, shape in enumerate(SHAPES)]
    content = {"images": images, "annotations": annotations, "categories": names}
    (folder / "boxes.json").write_text(json.dumps(content))
    return folder


def job_of(folder: Path, side: str) -> JobResult:
    """A job over the images of one side, already scored."""
    images = [
        ImageResult(path.stem, path, folder / "target" / path.name, scores=(30.0, 0.9))
        for path in sorted((folder / side).iterdir())
    ]
    job = ScoringJob("some", "drawings", "rain13k", folder / side, folder / "target")
    return JobResult(job, images, num_expected=len(images))


@pytest.mark.parametrize("labels", ["boxes.json", None])
def test_rain_lowers_the_scores_and_clean_images_restore_them(
    labels: str | None, folders: Path, seer: SmallSeer, tmp_path: Path
) -> None:
    """Against labelled boxes, and against what the detector finds in the clean images."""
    folder = tmp_path / "set"
    shutil.copytree(folders, folder, ignore=shutil.ignore_patterns("masks", "boxes.json"))
    cache = ScoreCache(tmp_path / "cache.jsonl")
    path = folders / labels if labels else None
    scorer = DetectionScorer(seer, cache, truth=True, labels=path)
    rainy, ideal = job_of(folder, "input"), job_of(folder, "target")
    in_rain, restored = scorer.score(rainy), scorer.score(ideal)
    # all 10 objects are found in the clean images; COCO's mAP needs exact boxes
    assert restored[1:4] == (100, 100, 100) and restored[0] > 80
    assert in_rain[0] < 60 and in_rain[1] < 80 and in_rain[2] < 80
    truth = "COCO labels of drawings" if labels else "agreement with the clean images"
    assert truth in scorer.name
    assert ideal.images[0].counts == {"true": 2, "found": 2, "matched": 2}
    assert {box[4] for box in ideal.images[0].true_boxes} == set(SHAPES)
    assert len(ideal.images[0].boxes) == 2


def test_figures_follow_the_plain_definition(
    folders: Path, seer: SmallSeer, tmp_path: Path
) -> None:
    """Precision, recall and IoU over the set, computed by a loop over all pairs of boxes."""
    scorer_cache = ScoreCache(tmp_path / "cache.jsonl")
    scorer = DetectionScorer(seer, scorer_cache, truth=True, labels=folders / "boxes.json")
    figures = scorer.score(job_of(folders, "input"))
    matched, found_count, ious = 0, 0, []
    for number in range(1, 6):
        _, _, objects = draw(number)
        boxes = seer.detect(read_rgb(folders / "input" / f"{number}.png"))
        keep = boxes.scores >= 0.5
        found_count += int(keep.sum())
        for shape, true in objects:
            best = 0.0
            for box, label in zip(boxes.corners[keep], boxes.labels[keep], strict=True):
                width = min(box[2], true[2]) - max(box[0], true[0])
                height = min(box[3], true[3]) - max(box[1], true[1])
                if label != SHAPES.index(shape) + 1 or width <= 0 or height <= 0:
                    continue
                areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, true)]
                best = max(best, width * height / (sum(areas) - width * height))
            if best >= 0.5:
                matched += 1
                ious.append(best)
    assert 0 < matched < 10
    expected = (100 * matched / found_count, 100 * matched / 10, 100 * float(np.mean(ious)))
    assert figures[2:] == pytest.approx(expected)


def test_segmentation_by_masks_and_by_agreement(
    folders: Path, seer: SmallSeer, tmp_path: Path
) -> None:
    cache = ScoreCache(tmp_path / "cache.jsonl")
    rainy, ideal = job_of(folders, "input"), job_of(folders, "target")
    by_masks = SegmentationScorer(SmallSegmenter(seer), cache, folders / "masks")
    in_rain, restored = by_masks.score(rainy), by_masks.score(ideal)
    assert restored[0] > 90 and restored[1] > 99
    assert in_rain[0] < restored[0] - 10 and in_rain[1] < restored[1] - 1
    assert "masks of drawings" in by_masks.name
    shutil.copytree(folders / "input", tmp_path / "set" / "input")
    shutil.copytree(folders / "target", tmp_path / "set" / "target")
    agreeing = SegmentationScorer(SmallSegmenter(seer), cache)
    assert agreeing.score(job_of(tmp_path / "set", "target")) == (100, 100)
    assert agreeing.score(job_of(tmp_path / "set", "input"))[0] < 90
    assert "agreement with the clean images" in agreeing.name


def test_figures_of_a_mask_by_hand() -> None:
    """Six pixels count: class 0 has 2 of 4 right, class 1 has 2 of 3, class 2 occurs nowhere."""
    true = np.array([[0, 0, 0, 1], [1, 1, 255, 255]], np.uint8)
    found = np.array([[0, 0, 1, 1], [1, 0, 2, 0]], np.uint8)
    confusion = confusion_matrix(true, found, 4)
    np.testing.assert_array_equal(confusion[:2, :2], [[2, 1], [1, 2]])
    assert confusion.sum() == 6
    assert mask_figures(confusion) == pytest.approx(((2 / 4 + 2 / 4) / 2, 4 / 6))


def test_detections_are_cached(folders: Path, seer: SmallSeer, tmp_path: Path) -> None:
    """The cache is keyed by the content of a file and the name of the detector."""
    path = tmp_path / "cache.jsonl"
    first = DetectionScorer(seer, ScoreCache(path), truth=True).score(job_of(folders, "input"))

    class Refusing(SmallSeer):
        def __init__(self) -> None:
            """Skips the training, because it must not be called."""

        def __call__(self, images: list[np.ndarray]) -> list[Boxes]:
            raise AssertionError("it was asked again")

    again = DetectionScorer(Refusing(), ScoreCache(path), truth=True)
    assert again.score(job_of(folders, "input")) == first
    other = DetectionScorer(Refusing(), ScoreCache(path), truth=True)
    other._detector.name = "another"
    with pytest.raises(AssertionError, match="asked again"):
        other.score(job_of(folders, "input"))


def test_images_without_labels_are_named(folders: Path, seer: SmallSeer, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "1.txt").write_text("0 0.5 0.5 0.2 0.2")
    scorer = DetectionScorer(seer, ScoreCache(tmp_path / "c.jsonl"), truth=True, labels=labels)
    with pytest.raises(UserError, match="has no labels for 4 of 5 images, such as 2"):
        scorer.score(job_of(folders, "input"))


def test_real_rain_counts_objects(folders: Path, seer: SmallSeer, tmp_path: Path) -> None:
    scorer = DetectionScorer(seer, ScoreCache(tmp_path / "c.jsonl"), truth=False)
    number, confidence = scorer.score(job_of(folders, "target"))
    assert number == 2 and 50 < confidence <= 100 and "weak evidence" in scorer.name


@pytest.mark.parametrize("key", ["ssdlite320_mobilenet_v3_large"])
def test_torchvisions_detector_from_a_file(key: str, tmp_path: Path) -> None:
    """With random weights: the test is only about input and output."""
    from torchvision.models import get_model

    torch.manual_seed(2)
    torch.save(get_model(key, weights=None, weights_backbone=None).state_dict(), tmp_path / "w.pth")
    detector = Detector(key, tmp_path / "w.pth", torch.device("cpu"), batch=2)
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 256, (60 + n, 80, 3), dtype=np.uint8) for n in range(3)]
    found = detector(images)
    assert len(found) == 3 and detector.categories[1] == "person"
    for boxes, image in zip(found, images, strict=True):
        assert boxes.corners.shape == (len(boxes), 4) and len(boxes) > 0
        assert (boxes.corners.max(axis=0) <= [80, image.shape[0], 80, image.shape[0]]).all()
    assert key in detector.name and "weights" in detector.name
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not hold the weights of torchvision's ssdlite"):
        Detector(key, tmp_path / "other.pth", torch.device("cpu"), batch=1)


def test_torchvisions_segmenter_from_a_file(tmp_path: Path) -> None:
    from torchvision.models import get_model

    key = "deeplabv3_mobilenet_v3_large"
    torch.manual_seed(2)
    network = get_model(key, weights=None, weights_backbone=None, aux_loss=True)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    segmenter = Segmenter(key, tmp_path / "w.pth", torch.device("cpu"))
    found = segmenter(draw(1)[0])
    assert found.shape == (96, 96) and found.dtype == np.uint8 and found.max() < 21


def test_missing_weights_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # a closed port: no network
    with pytest.raises(UserError, match=r"get it from https://download.pytorch.org/models/ssdlite"):
        Detector("ssdlite320_mobilenet_v3_large", None, torch.device("cpu"), batch=1)
