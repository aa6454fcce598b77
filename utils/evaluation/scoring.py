"""Scoring folders of images: on all cores, and what was wrong with which file.

The PNG on disk is the border: any method's images can be scored. Who belongs to whom is found
before (data/results.py), and nothing is skipped without being named.
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
from utils.images import as_uint8, read_gray_or_rgb
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

    ``clean`` and ``rainy`` are the folders of the set's images, None for what is not there, and the
    same folder twice where rainy and clean images lie in one. ``is_input`` marks the rainy images
    themselves, which are a row of every table.
    """

    method: str
    dataset: str
    protocol: str
    results: Path
    clean: Path | None
    is_input: bool = False
    rainy: Path | None = None


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
    cropped: bool = False  # to the size that it has in common with the clean image
    reused: bool = False  # the scores are those of an earlier run
    # The clean image is the left half of its file, the rainy image the right half of the same.
    side_by_side: bool = False


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


def score_jobs(
    paired: list[JobResult],
    kept: ScoreCache,
    *,
    workers: int | None = None,
    crop: bool = False,
    no_reference: NoReferenceScorer | None = None,
) -> list[JobResult]:
    """Score every image of paired jobs, with a progress bar, on ``workers`` cores (default: all).

    Files that did not change since ``kept`` was filled are not read again; it is written also
    where the run is interrupted. ``crop`` lets two sizes that differ pass, both cut at the right
    and the bottom. ``no_reference`` scores the images of jobs under the protocol ``niqe``.
    """
    tasks = [
        (result.job.protocol, image)
        for result in paired
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
    return paired


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
    kept_as += ", side by side" * image.side_by_side
    state = file_state(files)  # before reading: a file that changes meanwhile is read again
    found = kept.get(files, kept_as, state)
    if found is not None and (crop or not found.cropped):
        image.scores, image.cropped, image.reused = found.scores, found.cropped, True
        return
    pixels = [read_8bit(path) for path in files]
    if image.side_by_side:
        width = pixels[-1].shape[1] // 2
        if image.restored == files[-1]:
            pixels[0] = pixels[0][:, width:]
        if image.clean:
            pixels[-1] = pixels[-1][:, :width]
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
    return as_uint8(read_gray_or_rgb(path), path)


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
