"""Scoring folders of images: who belongs to whom, on all cores, what was wrong with which file.

The PNG on disk is the border: any method's images can be scored, pairs are found by file stem, and
nothing is skipped without being named.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import numpy as np
from tqdm import tqdm

from utils.errors import UserError
from utils.evaluation.score_cache import Kept, ScoreCache, file_state
from utils.images import images_by_stem, read_gray_or_rgb, to_uint8
from utils.metrics import score

NIQE = "niqe"  # the protocol without clean images, beside those of utils.metrics

Item = TypeVar("Item")
Result = TypeVar("Result")


class NoReferenceScorer(Protocol):
    """Scores an image without a clean one.

    ``name`` tells the implementation and whatever else its scores depend on.
    """

    name: str

    def score(self, image: np.ndarray) -> float:
        """Score of a uint8 image, (H, W, 3) RGB or (H, W)."""


@dataclass(frozen=True)
class ScoringJob:
    """One method's folder of one data set.

    ``expected`` is the folder whose stems the results must have: the clean images or, under the
    protocol ``niqe``, the rainy ones (None where the results stand alone). ``is_input`` marks the
    rainy images themselves, which are a row of every table.
    """

    method: str
    dataset: str
    protocol: str
    results: Path
    expected: Path | None
    is_input: bool = False


@dataclass
class ImageResult:
    """One image of a job: its scores (PSNR, SSIM or NIQE), or the problem that prevented them."""

    stem: str
    restored: Path | None = None
    clean: Path | None = None
    scores: tuple[float, ...] | None = None
    problem: str = ""
    cropped: bool = False  # to the size that it has in common with the clean image
    reused: bool = False  # the scores are those of an earlier run


@dataclass
class JobResult:
    """All images of a job: the expected ones in natural order, then those nobody expected.

    ``problem`` is set where the folder itself could not be used; ``num_expected`` counts the
    images that a complete folder has.
    """

    job: ScoringJob
    images: list[ImageResult] = field(default_factory=list)
    num_expected: int = 0
    problem: str = ""

    @property
    def scored(self) -> list[ImageResult]:
        return [image for image in self.images if image.scores is not None]

    @property
    def problems(self) -> list[str]:
        own = [self.problem] if self.problem else []
        return own + [image.problem for image in self.images if image.problem]

    def mean(self) -> tuple[float, ...] | None:
        """Mean of each metric over the scored images; None where there is none."""
        scores = [image.scores for image in self.scored]
        return tuple(float(value) for value in np.mean(scores, axis=0)) if scores else None


def pair_images(job: ScoringJob) -> JobResult:
    """Find every image of a job and, by stem, its partner; name those without one."""
    try:
        results = images_by_stem(job.results)
        expected = images_by_stem(job.expected) if job.expected else results
    except UserError as error:
        return JobResult(job, problem=str(error))
    compared = job.protocol != NIQE
    images = []
    for stem, partner in expected.items():
        image = ImageResult(stem, results.get(stem), partner if compared else None)
        if image.restored is None:
            image.problem = f"missing: {job.results} has no result named {stem} (for {partner})"
        images.append(image)
    for stem, path in results.items():
        if stem not in expected:
            images.append(
                ImageResult(stem, path, problem=f"extra: {path} has no partner in {job.expected}")
            )
    paired = JobResult(job, images, num_expected=len(expected))
    if not any(stem in expected for stem in results):
        paired.problem = (
            f"no name in common: {job.results} holds images like {next(iter(results))}, "
            f"{job.expected} like {next(iter(expected))}; pairs have the same name but for the "
            "suffix"
        )
    return paired


def score_jobs(
    jobs: list[ScoringJob],
    kept: ScoreCache,
    *,
    workers: int | None = None,
    crop: bool = False,
    no_reference: NoReferenceScorer | None = None,
) -> list[JobResult]:
    """Score every image of every job, with a progress bar, on ``workers`` cores (default: all).

    Files that did not change since ``kept`` was filled are not read again; it is written also
    where the run is interrupted. ``crop`` lets two sizes that differ pass, both cut at the right
    and the bottom. ``no_reference`` scores the images of jobs under the protocol ``niqe``.
    """
    results = [pair_images(job) for job in jobs]
    tasks = [
        (result.job.protocol, image)
        for result in results
        for image in result.images
        if not image.problem
    ]

    def run(task: tuple[str, ImageResult]) -> None:
        protocol, image = task
        try:
            score_image(image, protocol, kept, crop, no_reference)
        except UserError as error:
            image.problem = str(error)

    threads_before = cv2.getNumThreads()
    cv2.setNumThreads(1)  # one image a core; OpenCV's own threads would only get in the way
    try:
        done = map_on_cores(run, tasks, workers or available_cores())
        # disable=None: no bar where nobody looks, as in a log file
        bar = tqdm(
            done, "scoring", len(tasks), unit="image", leave=False, dynamic_ncols=True, disable=None
        )
        for _ in bar:
            pass
    finally:
        cv2.setNumThreads(threads_before)
        kept.write()
    return results


def score_image(
    image: ImageResult,
    protocol: str,
    kept: ScoreCache,
    crop: bool,
    no_reference: NoReferenceScorer | None,
) -> None:
    """Fill in the scores of one image, from ``kept`` or from its files.

    Raises UserError naming the files for unreadable ones, different sizes and values that are no
    image.
    """
    files = [path for path in (image.restored, image.clean) if path is not None]
    kept_as = no_reference.name if protocol == NIQE else protocol
    state = file_state(files)  # before reading: a file that changes meanwhile is read again
    found = kept.get(files, kept_as, state)
    if found is not None and (crop or not found.cropped):
        image.scores, image.cropped, image.reused = found.scores, found.cropped, True
        return
    pixels = [read_8bit(path) for path in files]
    try:
        if protocol == NIQE:
            image.scores = (no_reference.score(pixels[0]),)
        else:
            if pixels[0].shape[:2] != pixels[1].shape[:2] and crop:
                height, width = np.minimum(pixels[0].shape[:2], pixels[1].shape[:2])
                pixels = [array[:height, :width] for array in pixels]
                image.cropped = True
            image.scores = tuple(score(*pixels, protocol))
    except UserError as error:
        raise UserError(f"{image.restored}: {error}") from error
    kept.put(files, kept_as, Kept(state, image.scores, image.cropped))


def read_8bit(path: Path) -> np.ndarray:
    """An image file as uint8, (H, W, 3) RGB or (H, W), as an 8-bit PNG would hold it.

    16-bit files and float files in [0, 1] are rounded to 8 bits, which is part of every protocol.
    Raises UserError for an unreadable file and for float pixels that are not finite or not in
    that range.
    """
    image = read_gray_or_rgb(path)
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return to_uint8(image / np.float64(65535))
    if not np.issubdtype(image.dtype, np.floating):
        raise UserError(f"{path} holds {image.dtype} pixels; 8-bit, 16-bit or float are expected")
    broken = image.size - int(np.count_nonzero(np.isfinite(image)))
    if broken:
        raise UserError(f"{path} has {broken} pixel values that are NaN or infinite")
    # A network may overshoot [0, 1] a little; twice as far it is another range, such as 0..255.
    if image.min() < -1 or image.max() > 2:
        raise UserError(
            f"{path} holds float values from {image.min():.4g} to {image.max():.4g}; float images "
            "are expected in [0, 1]"
        )
    return to_uint8(image)


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_on_cores(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Results of ``function`` in order, from threads; few items are under way at any time.

    Decoding and filtering run outside the interpreter's lock, so threads use all cores.
    """
    with ThreadPoolExecutor(workers) as pool:
        pending = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= 4 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
