"""Score folders of images on all cores, and name every file that has a problem.

Scoring starts from image files on disk, so the results of any method can be scored. data/results.py
pairs them beforehand; nothing is skipped silently.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from tqdm.contrib.concurrent import thread_map

from utils.damage import jpeg_damage
from utils.errors import UserError
from utils.evaluation.quality import PSNR, SSIM, Metric, Scorer, SetScorer
from utils.evaluation.score_cache import (
    CachedScore,
    Remark,
    ScoreCache,
    cache_key,
    digest,
    file_digest,
)
from utils.images import as_uint8, decode_gray_or_rgb, read_bytes, read_gray_or_rgb
from utils.metrics import PROTOCOLS, score
from utils.wording import size_text

NIQE = "niqe"  # the protocol without clean images; the others are in utils.metrics
Side = Literal["restored", "clean"]


@dataclass(frozen=True)
class ScoringJob:
    """One method's folder of one data set.

    ``clean`` and ``rainy`` are the folders of the set's images, None if missing, and the same
    folder twice if it holds both. ``is_input`` marks the row of the rainy images themselves.
    """

    method: str
    dataset: str
    protocol: str
    results: Path
    clean: Path | None
    is_input: bool = False
    rainy: Path | None = None

    @property
    def set_folder(self) -> Path:
        """The folder of the set's images: of clean ones, else rainy ones, else the results."""
        return self.clean or self.rainy or self.results


@dataclass
class ImageResult:
    """One image of a job: its scores (PSNR, SSIM or NIQE), or the problem that prevented them.

    ``stem`` is its name in tables, which all methods share.
    """

    stem: str
    restored: Path | None = None
    clean: Path | None = None
    scores: tuple[float, ...] | None = None
    problem: str = ""
    remarks: list[Remark] = field(default_factory=list)  # what to know about the scores
    reused: bool = False  # whether the scores are those of an earlier run
    # If ``clean`` holds both images side by side: the half with the rainy one, left or right.
    rainy_half: str = ""
    # Objects that a detector sees: counts for images.csv, and boxes for the page, each left, top,
    # right, bottom, name, score in percent.
    counts: dict[str, int] = field(default_factory=dict)
    boxes: list[list[Any]] = field(default_factory=list)
    true_boxes: list[list[Any]] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """What is wrong with it, a sentence each."""
        return [self.problem] if self.problem else []

    @property
    def is_complete(self) -> bool:
        """Whether its scores leave nothing out."""
        return self.scores is not None

    def path(self, side: Side) -> Path:
        """The file of one side. Raises UserError if it is missing."""
        path = self.restored if side == "restored" else self.clean
        if path is None:
            raise UserError(f"{self.stem} has no {side} image")
        return path

    def half(self, side: Side) -> str:
        """The half of its file that holds a side, ``left`` or ``right``; "" for all of it."""
        if self.rainy_half and side == "clean":
            return "right" if self.rainy_half == "left" else "left"
        return self.rainy_half if self.clean in (None, self.restored) else ""


@dataclass
class ClipResult(ImageResult):
    """One clip of a job: the means over its frames, or the problem that prevented them.

    ``restored`` and ``clean`` are each a video file or a folder of frames. ``frames`` are in order
    of time, followed by those without a clean frame. The frames of videos and their ``times`` in
    seconds, one for each frame, are known once the videos have been read.
    """

    frames: list[ImageResult] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        return [*super().problems, *(frame.problem for frame in self.frames if frame.problem)]

    @property
    def is_complete(self) -> bool:
        # extra frames, without a clean one, do not make the clip incomplete
        expected = [frame for frame in self.frames if frame.clean or not self.clean]
        are_scored = all(frame.scores is not None for frame in expected)
        return self.scores is not None and not self.problem and are_scored


@dataclass
class JobResult:
    """All images of a job: the expected ones in natural order, then the unexpected ones.

    ``unit`` says whether they are images or clips (``ClipResult``). ``problem`` is set if the
    folder itself could not be used; ``num_expected`` is the number of images in a complete folder.
    The images are scored by ``metrics``, the folder as a whole by ``set_metrics``; its
    ``set_scores`` are NaN if one of ``set_problems`` prevented them. ``is_reference`` marks the
    clean images themselves, which only have set scores.
    """

    job: ScoringJob
    images: list[ImageResult] = field(default_factory=list)
    num_expected: int = 0
    problem: str = ""
    unit: Literal["image", "clip"] = "image"
    metrics: tuple[Metric, ...] = (PSNR, SSIM)
    set_metrics: tuple[Metric, ...] = ()
    set_scores: tuple[float, ...] = ()
    set_problems: list[str] = field(default_factory=list)
    is_reference: bool = False

    @property
    def all_metrics(self) -> tuple[Metric, ...]:
        """The metrics of the images, then those of the whole folder."""
        return (*self.metrics, *self.set_metrics)

    @property
    def num_left_out(self) -> int:
        """Images that are not scored in full; at least one if the folder could not be used."""
        if self.is_reference:
            return 0
        num_complete = sum(image.is_complete for image in self.images)
        return max(self.num_expected - num_complete, int(bool(self.problem)))

    @property
    def scored(self) -> list[ImageResult]:
        return [image for image in self.images if image.scores is not None]

    @property
    def problems(self) -> list[str]:
        own = [self.problem] if self.problem else []
        of_images = [problem for image in self.images for problem in image.problems]
        return own + of_images + self.set_problems

    def mean(self) -> tuple[float, ...] | None:
        """The scores by ``all_metrics``, means over the scored images; None if there are none."""
        scores = [image.scores for image in self.images if image.scores is not None]
        if self.is_reference:
            scores = [(math.nan,) * len(self.metrics)]
        if not scores:
            return None
        return (*(float(value) for value in np.mean(scores, axis=0)), *self.set_scores)


def score_jobs(
    paired: list[JobResult],
    cache: ScoreCache,
    *,
    workers: int | None = None,
    crop: bool = False,
    scorers: Sequence[Scorer] = (),
    set_scorers: Sequence[SetScorer] = (),
) -> list[JobResult]:
    """Score every image of paired jobs, with a progress bar, on ``workers`` cores (default: all).

    The scores are PSNR and SSIM if there are clean images, then those of ``scorers`` for each image
    and of ``set_scorers`` for each folder. Scores that ``cache`` holds for files of the same
    content are reused. ``crop`` cuts images of different sizes to the common size, at the right
    and the bottom.
    """
    for result in paired:
        compared = () if result.job.protocol == NIQE else (PSNR, SSIM)
        result.metrics = (*compared, *(scorer.metric for scorer in scorers))
    tasks = [
        (result.job.protocol, image)
        for result in paired
        for image in result.images
        if not image.problem
    ]

    def run(task: tuple[str, ImageResult]) -> None:
        protocol, image = task
        try:
            score_image(image, protocol, cache, crop, scorers)
        except UserError as error:
            image.problem = str(error)

    # Decoding and filtering release the GIL, so threads use all cores.
    with one_opencv_thread():
        thread_map(
            run,
            tasks,
            max_workers=workers or available_cores(),
            desc="scoring",
            unit="image",
            leave=False,
            dynamic_ncols=True,
            disable=None,  # no bar in a log file
        )
    for result in paired:
        _score_set(result, set_scorers)
    return paired


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """One image per core: OpenCV's own threads would oversubscribe them."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _score_set(result: JobResult, set_scorers: Sequence[SetScorer]) -> None:
    """Fill in the scores of a whole folder; each scorer that cannot judge it adds a problem."""
    result.set_metrics = tuple(metric for scorer in set_scorers for metric in scorer.metrics)
    scores: list[float] = []
    for scorer in set_scorers:
        own = [math.nan] * len(scorer.metrics)
        if result.scored:
            try:
                own = list(scorer.score(result))
            except UserError as error:
                result.set_problems.append(f"{result.job.results}: {error}")
        scores += own
    result.set_scores = tuple(scores)


def score_image(
    image: ImageResult,
    protocol: str,
    cache: ScoreCache,
    crop: bool,
    scorers: Sequence[Scorer],
) -> None:
    """Fill in the scores of one image, from ``cache`` or from its files.

    Raises UserError, naming the files, for unreadable files, different sizes and values outside the
    range of an image.
    """
    contents = read_contents(image)
    measures: dict[str, Callable[[np.ndarray, np.ndarray | None], tuple[float, ...]]] = {}
    if protocol != NIQE:
        measures[protocol] = partial(_compare, protocol)
    for scorer in scorers:
        measures[scorer.name] = partial(_single_score, scorer)
    digests = [digest(content) for content in contents.values()]
    variant = {"": "", "right": ", side by side", "left": ", side by side, rainy left"}
    keys = {name: cache_key(name + variant[image.rainy_half], digests) for name in measures}
    found = {name: cache.get(key) for name, key in keys.items()}
    if not crop:  # scores of images that --crop cut are not reused without it
        found = {name: None if known and known.is_cut else known for name, known in found.items()}
    image.reused = None not in found.values()
    if not image.reused:
        restored, clean, damage = decode_pair(image, contents)
        restored, clean, remarks = comparable(restored, clean, crop)
        remarks += damage
        try:
            for name, measure in measures.items():
                if found[name] is None:
                    scores = tuple(measure(restored, clean))
                    known = CachedScore(scores, tuple(remarks + _identity_remarks(name, scores)))
                    cache.put(keys[name], known)
                    found[name] = known
        except UserError as error:
            raise UserError(f"{image.restored}: {error}") from error
    all_found = [known for known in found.values() if known is not None]
    image.scores = tuple(value for known in all_found for value in known.scores)
    image.remarks = list(dict.fromkeys(r for known in all_found for r in known.remarks))


def _compare(protocol: str, restored: np.ndarray, clean: np.ndarray | None) -> tuple[float, ...]:
    assert clean is not None
    return score(restored, clean, protocol)


def _single_score(
    scorer: Scorer, restored: np.ndarray, clean: np.ndarray | None
) -> tuple[float, ...]:
    return (scorer.score(restored, clean),)


def read_contents(image: ImageResult) -> dict[Side, bytes]:
    """The bytes of the files of an image. Raises UserError for unreadable ones."""
    sides: tuple[Side, ...] = ("restored", "clean") if image.clean else ("restored",)
    return {side: read_bytes(image.path(side)) for side in sides}


def decode_pair(
    image: ImageResult, contents: dict[Side, bytes]
) -> tuple[np.ndarray, np.ndarray | None, list[Remark]]:
    """The result and the clean image of ``read_contents``, uint8, (H, W, 3) RGB or (H, W) each.

    Remarks name JPEG files that could be decoded although their data are damaged.
    """
    pixels = {side: read_side(image, side, content) for side, content in contents.items()}
    remarks = [
        Remark("damaged", f"{image.path(side).name}: {damage}")
        for side, content in contents.items()
        if (damage := jpeg_damage(content))
    ]
    return pixels["restored"], pixels.get("clean"), remarks


def read_side(image: ImageResult, side: Side, content: bytes | None = None) -> np.ndarray:
    """One side of an image, uint8, (H, W, 3) RGB or (H, W); ``content`` is its file's, if read."""
    path = image.path(side)
    pixels = as_uint8(decode_gray_or_rgb(path, content or read_bytes(path)), path)
    return cut_half(pixels, image.half(side))


def cut_half(image: np.ndarray, half: str) -> np.ndarray:
    """The ``left`` or ``right`` half of an image, or all of it for ""."""
    middle = image.shape[1] // 2
    return {"": image, "left": image[:, :middle], "right": image[:, middle:]}[half]


def side_digest(image: ImageResult, side: Side) -> str:
    """Identifies the pixels of one side: the digest of its file, and the half of it."""
    return file_digest(image.path(side)) + image.half(side)


def comparable(
    restored: np.ndarray, clean: np.ndarray | None, crop: bool
) -> tuple[np.ndarray, np.ndarray | None, list[Remark]]:
    """The images, cut to one size if ``crop`` allows it, and remarks on them."""
    remarks: list[Remark] = []
    if clean is None:
        return restored, clean, remarks
    if restored.ndim != clean.ndim:
        kinds = ("gray", "in colour") if restored.ndim == 2 else ("in colour", "gray")
        remarks.append(Remark("gray", f"the result is {kinds[0]}, the clean image {kinds[1]}"))
    if restored.shape[:2] != clean.shape[:2] and crop:
        sizes = size_text(restored), size_text(clean)
        height, width = np.minimum(restored.shape[:2], clean.shape[:2])
        restored, clean = restored[:height, :width], clean[:height, :width]
        text = f"{sizes[0]} and {sizes[1]} px cut to {size_text(restored)}"
        remarks.append(Remark("cropped", text))
    return restored, clean, remarks


def is_identical(protocol: str, scores: tuple[float, ...]) -> bool:
    """Whether a comparison found no difference."""
    return protocol in PROTOCOLS and scores in ((np.inf, 1.0), (100.0, 1.0))


def _identity_remarks(protocol: str, scores: tuple[float, ...]) -> list[Remark]:
    if not is_identical(protocol, scores):
        return []
    return [Remark("identical", f"equals the clean image under {protocol}")]


def read_8bit(path: Path) -> np.ndarray:
    """An image file as uint8, (H, W, 3) RGB or (H, W), as an 8-bit PNG would hold it.

    16-bit files and float files in [0, 1] are rounded to 8 bits, which is part of every protocol.
    Raises UserError for an unreadable file and for float pixels that are not finite or not in
    that range.
    """
    return as_uint8(read_gray_or_rgb(path), path)


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
