"""Score clips frame by frame: PSNR, SSIM and flicker, with only a few frames in memory.

A clip is a video file or a folder of frames. Each of its scores is the mean over its frames; the
scores of a data set are means over its clips.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from utils.errors import UserError
from utils.evaluation.clip_frames import frame_files, place, read_frames, time_text
from utils.evaluation.flicker import FLICKER, FLICKER_FLOW, Images, flicker
from utils.evaluation.quality import PSNR, SSIM, Metric, Scorer
from utils.evaluation.score_cache import (
    CachedScore,
    Remark,
    ScoreCache,
    cache_key,
    digest,
    file_digest,
)
from utils.evaluation.scoring import (
    NIQE,
    ClipResult,
    ImageResult,
    JobResult,
    Side,
    available_cores,
    comparable,
    is_identical,
    one_opencv_thread,
    side_digest,
)
from utils.metrics import score
from utils.wording import plural, size_text


@dataclass(frozen=True)
class _Measures:
    """What is computed for each frame; scores are in the order of ``metrics``."""

    protocol: str
    scorers: Sequence[Scorer]
    flow: bool

    @property
    def metrics(self) -> tuple[Metric, ...]:
        of_scorers = tuple(scorer.metric for scorer in self.scorers)
        if self.protocol == NIQE:
            return of_scorers
        return (PSNR, SSIM, FLICKER_FLOW if self.flow else FLICKER, *of_scorers)

    @property
    def name(self) -> str:
        """Everything that the values depend on, except the content of the clips."""
        keys = " ".join(metric.key for metric in self.metrics)
        return "; ".join([f"clip, {self.protocol}, {keys}", *(one.name for one in self.scorers)])

    def fill_in(self, frame: ImageResult, now: Images, before: Images | None) -> None:
        """Fill in the scores of a frame; flicker is NaN if there is no frame ``before``."""
        restored, clean = now
        try:
            scores: list[float] = []
            if clean is not None:
                change = flicker(now, before, self.flow) if before else math.nan
                scores += [*score(restored, clean, self.protocol), change]
            scores += [scorer.score(restored, clean) for scorer in self.scorers]
            frame.scores = tuple(scores)
        except UserError as error:
            frame.problem = f"{place(frame)}: {error}"


def score_clips(
    paired: list[JobResult],
    cache: ScoreCache,
    *,
    workers: int | None = None,
    crop: bool = False,
    scorers: Sequence[Scorer] = (),
    flow: bool = False,
) -> list[JobResult]:
    """Score every clip of paired jobs, with a progress bar, on ``workers`` cores (default: all).

    The arguments are those of ``score_jobs``; ``flow`` is passed to ``flicker``. If some frames of
    a clip cannot be scored, its scores are the means over the others and it is incomplete.
    """
    clips = [
        (result, clip)
        for result in paired
        for clip in result.images
        if isinstance(clip, ClipResult) and not clip.problem
    ]
    for result in paired:
        result.metrics = _Measures(result.job.protocol, scorers, flow).metrics
    num_workers = workers or available_cores()
    num_frames = sum(len(clip.frames) for _, clip in clips)  # those of videos are added later
    with (
        one_opencv_thread(),
        ThreadPoolExecutor(num_workers) as pool,
        tqdm(total=num_frames, desc="scoring", unit="frame", leave=False, disable=None) as bar,
    ):
        for result, clip in clips:
            measures = _Measures(result.job.protocol, scorers, flow)
            try:
                _score_clip(clip, measures, cache, crop, _Queue(pool, 2 * num_workers), bar)
            except UserError as error:
                clip.scores, clip.problem = None, str(error)
    return paired


class _Queue:
    """Work for threads; ``add`` waits while the queue is full, so that few frames are in memory."""

    def __init__(self, pool: ThreadPoolExecutor, most: int) -> None:
        self._pool, self._most = pool, most
        self._waiting: deque[Future[None]] = deque()

    def add(self, work: Callable[..., None], *arguments: object) -> None:
        if len(self._waiting) == self._most:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(work, *arguments))

    def finish(self) -> None:
        for future in self._waiting:
            future.result()


def _score_clip(
    clip: ClipResult, measures: _Measures, cache: ScoreCache, crop: bool, queue: _Queue, bar: tqdm
) -> None:
    """Fill in the scores of a clip and its frames, from ``cache`` or from its files."""
    key = cache_key(measures.name, _digests(clip))
    known = cache.get(key)
    if known and (crop or not known.is_cut):
        clip.reused = True
        bar.update(len(clip.frames))
        _unpack(clip, known, 1 + len(measures.metrics))
    else:
        _measure(clip, measures, crop, queue, bar)
    values = np.array([frame.scores for frame in clip.frames if frame.scores is not None])
    if not len(values):
        return  # the problems of the frames say why
    with np.errstate(invalid="ignore"):  # a first frame has no flicker
        means = np.nansum(values, axis=0) / np.count_nonzero(~np.isnan(values), axis=0)
    if np.isnan(means).any():
        raise UserError(
            f"{clip.restored}: flicker needs two neighbouring frames that can be compared"
        )
    clip.scores = tuple(float(mean) for mean in means)
    if not clip.reused and not clip.problems:
        cache.put(key, CachedScore(_pack(clip), tuple(clip.remarks)))


def _measure(clip: ClipResult, measures: _Measures, crop: bool, queue: _Queue, bar: tqdm) -> None:
    """Read the frames of a clip in order, and score them in the queue's threads."""
    remarks: dict[str, list[str]] = {}
    before: Images | None = None
    for frame, images, found in read_frames(clip, bar):
        bar.update()
        if images is None:
            before = None  # the next frame has no neighbour
            continue
        restored, clean, more = comparable(*images, crop)
        if clean is not None and restored.shape[:2] != clean.shape[:2]:
            raise UserError(
                f"{place(frame)}: the sizes differ: the restored frame has {size_text(restored)} "
                f"px, the clean one {size_text(clean)} px"
            )
        for remark in (*found, *more):
            remarks.setdefault(remark.kind, []).append(remark.text)
        queue.add(measures.fill_in, frame, (restored, clean), before)
        before = restored, clean
    queue.finish()
    for kind, texts in remarks.items():
        others = f" (and {plural(len(texts) - 1, 'more frame')})" if len(texts) > 1 else ""
        clip.remarks.append(Remark(kind, texts[0] + others))
    num_identical = sum(
        is_identical(measures.protocol, frame.scores[:2]) for frame in clip.frames if frame.scores
    )
    if num_identical:
        verb = "equals" if num_identical == 1 else "equal"
        text = f"{plural(num_identical, 'frame')} {verb} the clean one under {measures.protocol}"
        clip.remarks.append(Remark("identical", text))


def _pack(clip: ClipResult) -> tuple[float, ...]:
    """The numbers that the cache keeps: time and scores, frame after frame."""
    times = clip.times or [math.nan] * len(clip.frames)
    rows = [(t, *(frame.scores or ())) for t, frame in zip(times, clip.frames, strict=True)]
    return tuple(itertools.chain.from_iterable(rows))


def _unpack(clip: ClipResult, known: CachedScore, width: int) -> None:
    """Fill in the frames from the numbers of ``_pack``, ``width`` for each frame."""
    rows = [known.scores[at : at + width] for at in range(0, len(known.scores), width)]
    if not clip.frames:
        clip.times = [row[0] for row in rows]
        paths = filter(None, (clip.restored, clip.clean))
        sides = [frame_files(path, len(rows)) for path in paths]
        clip.frames = [
            ImageResult(f"{clip.stem}/{time_text(time)}", *files)
            for time, *files in zip(clip.times, *sides, strict=True)
        ]
    paired = (frame for frame in clip.frames if not frame.problem)
    for frame, row in zip(paired, rows, strict=True):
        frame.scores = tuple(row[1:])
    clip.remarks = list(known.remarks)


def _digests(clip: ClipResult) -> list[str]:
    """The digest of each side: of its frames in order, or of the video."""
    sides: tuple[Side, ...] = ("restored", "clean") if clip.clean else ("restored",)
    paired = [frame for frame in clip.frames if not frame.problem]
    if clip.frames:
        parts = [[side_digest(frame, side) for frame in paired] for side in sides]
    else:
        parts = [list(map(file_digest, frame_files(clip.path(side), 1))) for side in sides]
    return [digest("".join(names).encode()) for names in parts]
