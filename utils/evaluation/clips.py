"""Scoring clips frame by frame: PSNR, SSIM and flicker, in the memory of a few frames.

A clip is a video file or a folder of frames. Each score is the mean over the frames of a clip;
data sets are means over their clips.

Flicker is the mean absolute change of the error between neighbouring frames, in grey levels:

    E_t = restored_t - clean_t                                  R, G and B in 0..255
    flicker = mean of |E_t - E_(t-1)| over pixels, channels and t = 2 .. T

With ``flow``, E_(t-1) is first moved to frame t: a pixel p takes E_(t-1)(p + F(p)), interpolated
linearly, where F is OpenCV's DIS flow (medium preset) from the clean frame t to the clean frame
t - 1. Two kinds of pixels are left out: those that F takes out of the frame, and occluded ones,
where the flow B back does not cancel F (Sundaram, Brox and Keutzer, ECCV 2010):

    |F(p) + B(p + F(p))|^2 > 0.01 (|F(p)|^2 + |B(p + F(p))|^2) + 0.5

The idea is the temporal warping error of Lai et al. ("Learning Blind Video Temporal Consistency",
ECCV 2018): the mean squared difference between a restored frame and its warped neighbour, in
[0, 1], by FlowNet2. Here the error takes the place of the frame, so that whatever changes in the
clean clip itself costs nothing, and absolute differences in grey levels that of squared ones.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from utils.errors import UserError
from utils.evaluation.quality import PSNR, SSIM, Metric, Scorer, as_rgb
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
    decode_pair,
    is_identical,
    one_opencv_thread,
    read_contents,
    side_digest,
)
from utils.images import list_images, to_uint8
from utils.inference.video import is_video
from utils.metrics import score
from utils.wording import plural, size_text

if TYPE_CHECKING:
    from utils.inference.video.reader import VideoReader

FLICKER = Metric("flicker", "Flicker", 3, higher_is_better=False)
FLICKER_FLOW = Metric("flicker_flow", "Flicker (flow)", 3, higher_is_better=False)
MIN_FLOW_SIDE = 16  # pixels; OpenCV's DIS flow crashes on smaller frames

Images = tuple[np.ndarray, np.ndarray | None]  # restored and clean, uint8, (H, W, 3) or (H, W)


def flicker_caption(flow: bool) -> str:
    """What the caption of a table says of the figure."""
    moved = (
        ", the earlier error moved by DIS flow of the clean clip; occluded pixels and those that "
        "leave the frame are left out"
    )
    return (
        "Flicker: mean absolute change of the error (restored - clean; R, G and B in 0..255) from "
        f"frame to frame{moved if flow else ''}; after the warping error of Lai et al., ECCV 2018"
    )


def flicker(now: Images, before: Images, flow: bool = False) -> float:
    """Mean absolute change of the error from one frame to the next, in grey levels.

    NaN if ``flow`` leaves no pixel. Raises UserError for frames of different sizes, and with
    ``flow`` for frames below ``MIN_FLOW_SIDE``.
    """
    error, earlier = _error(*now), _error(*before)
    if error.shape[:2] != earlier.shape[:2]:
        raise UserError(f"it has {size_text(error)} px, the frame before it {size_text(earlier)}")
    if error.ndim != earlier.ndim:
        error, earlier = np.atleast_3d(error), np.atleast_3d(earlier)
    if not flow:
        return float(np.abs(error - earlier).mean(dtype=np.float64))
    assert now[1] is not None and before[1] is not None
    moved, is_seen = _moved(earlier, now[1], before[1])
    change = np.abs(error - moved)[is_seen]
    return float(change.mean(dtype=np.float64)) if change.size else math.nan


def _error(restored: np.ndarray, clean: np.ndarray | None) -> np.ndarray:
    assert clean is not None
    if restored.ndim != clean.ndim:
        restored, clean = as_rgb(restored), as_rgb(clean)
    return restored.astype(np.float32) - clean


def _moved(
    earlier: np.ndarray, clean: np.ndarray, clean_before: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The error of the frame before, where its pixels are now; and which of them are seen in both.

    ``earlier`` is (H, W) or (H, W, C), float32; the mask is (H, W).
    """
    height, width = clean.shape[:2]
    if min(height, width) < MIN_FLOW_SIDE:
        raise UserError(
            f"the frame has {size_text(clean)} px; --flow needs at least "
            f"{MIN_FLOW_SIDE}x{MIN_FLOW_SIDE}"
        )
    there, back = _dis_flow(clean, clean_before), _dis_flow(clean_before, clean)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    x, y = columns + there[..., 0], rows + there[..., 1]
    back = cv2.remap(back, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    moved = cv2.remap(earlier, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    is_inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    lengths = (there**2).sum(axis=2) + (back**2).sum(axis=2)
    is_consistent = ((there + back) ** 2).sum(axis=2) <= 0.01 * lengths + 0.5
    return moved.reshape(earlier.shape), is_inside & is_consistent


def _dis_flow(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(H, W, 2) float32: pixel p of ``start`` is found in ``end`` at p + flow."""
    gray = [cv2.cvtColor(i, cv2.COLOR_RGB2GRAY) if i.ndim == 3 else i for i in (start, end)]
    # A new one each time: several threads cannot share it. Any: its types forbid None as the start.
    dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return dis.calc(*gray, None)


# --- scoring -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Measures:
    """What is computed for each frame, ``metrics`` in this order."""

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
        """All that the values depend on, besides the content of the clips."""
        keys = " ".join(metric.key for metric in self.metrics)
        return "; ".join([f"clip, {self.protocol}, {keys}", *(one.name for one in self.scorers)])

    def fill_in(self, frame: ImageResult, now: Images, before: Images | None) -> None:
        """The scores of a frame; its flicker is NaN without a frame ``before`` it."""
        restored, clean = now
        try:
            scores: list[float] = []
            if clean is not None:
                change = flicker(now, before, self.flow) if before else math.nan
                scores += [*score(restored, clean, self.protocol), change]
            scores += [scorer.score(restored, clean) for scorer in self.scorers]
            frame.scores = tuple(scores)
        except UserError as error:
            frame.problem = f"{_place(frame)}: {error}"


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

    The arguments are those of ``score_jobs``; ``flow`` is that of ``flicker``. A clip with frames
    that cannot be scored has the means over the others and is not complete.
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
    """Work for threads; adding waits while there is much, so that memory holds a few frames."""

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
    """Read the frames of a clip one after another, and score them in the queue's threads."""
    remarks: dict[str, list[str]] = {}
    before: Images | None = None
    for frame, images, found in _read_frames(clip, bar):
        bar.update()
        if images is None:
            before = None  # the next frame has no neighbour
            continue
        restored, clean, more = comparable(*images, crop)
        if clean is not None and restored.shape[:2] != clean.shape[:2]:
            raise UserError(
                f"{_place(frame)}: the sizes differ: the restored frame has {size_text(restored)} "
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
    """What the cache keeps: time and scores of one frame after another."""
    times = clip.times or [math.nan] * len(clip.frames)
    rows = [(t, *(frame.scores or ())) for t, frame in zip(times, clip.frames, strict=True)]
    return tuple(itertools.chain.from_iterable(rows))


def _unpack(clip: ClipResult, known: CachedScore, width: int) -> None:
    """Fill in the frames from what ``_pack`` made, ``width`` numbers for each."""
    rows = [known.scores[at : at + width] for at in range(0, len(known.scores), width)]
    if not clip.frames:
        clip.times = [row[0] for row in rows]
        paths = filter(None, (clip.restored, clip.clean))
        sides = [_frame_files(path, len(rows)) for path in paths]
        clip.frames = [
            ImageResult(f"{clip.stem}/{_time_text(time)}", *files)
            for time, *files in zip(clip.times, *sides, strict=True)
        ]
    paired = (frame for frame in clip.frames if not frame.problem)
    for frame, row in zip(paired, rows, strict=True):
        frame.scores = tuple(row[1:])
    clip.remarks = list(known.remarks)


def _digests(clip: ClipResult) -> list[str]:
    """A name for the content of each side: of its frames in order, or of the video."""
    sides: tuple[Side, ...] = ("restored", "clean") if clip.clean else ("restored",)
    paired = [frame for frame in clip.frames if not frame.problem]
    if clip.frames:
        parts = [[side_digest(frame, side) for frame in paired] for side in sides]
    else:
        parts = [list(map(file_digest, _frame_files(clip.path(side), 1))) for side in sides]
    return [digest("".join(names).encode()) for names in parts]


# --- reading -------------------------------------------------------------------------------------

# A frame, its pixels (None if it has a problem), and remarks on its files.
Read = tuple[ImageResult, Images | None, Sequence[Remark]]


def _read_frames(clip: ClipResult, bar: tqdm) -> Iterator[Read]:
    """The frames of a clip in order; those of videos are added to it as they are read."""
    if not clip.frames:
        yield from _read_videos(clip, bar)
        return
    for frame in clip.frames:
        read: Read = frame, None, ()
        if not frame.problem:
            try:
                restored, clean, remarks = decode_pair(frame, read_contents(frame))
                read = frame, (restored, clean), remarks
            except UserError as error:
                frame.problem = str(error)
        yield read


class _SideFrame(NamedTuple):
    """A frame of one side: its file, its time in a video, its pixels or why they cannot be read."""

    path: Path
    seconds: float | None
    pixels: np.ndarray | None
    problem: str = ""
    remarks: Sequence[Remark] = ()


class _Side:
    """The frames of a video or of a folder, one after another; an iterator.

    rate: frames per second of a video, None for a folder.
    problems: after the last frame, what is wrong with the video.
    """

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        self.rate: float | None = None
        self.problems: list[str] = []
        if path.is_dir():
            files = list_images(path)
            self.num_frames = len(files)
            self._frames: Iterator[_SideFrame] = map(_read_file, files)
        else:
            from utils.inference.video.reader import VideoReader  # PyAV, which images do not need

            reader = stack.enter_context(VideoReader(path))
            self.rate, self.num_frames = float(reader.picture.rate), reader.num_frames
            self._frames = self._read_video(reader)

    def __iter__(self) -> Iterator[_SideFrame]:
        return self._frames

    def _read_video(self, reader: VideoReader) -> Iterator[_SideFrame]:
        for pixels in reader.frames():
            seconds = float(reader.times[-1] * reader.picture.time_base)
            yield _SideFrame(self.path, seconds, to_uint8(pixels))
        self.problems = reader.problems()


def _read_file(path: Path) -> _SideFrame:
    try:
        frame = ImageResult(path.stem, path)
        pixels, _, remarks = decode_pair(frame, read_contents(frame))
        return _SideFrame(path, None, pixels, remarks=remarks)
    except UserError as error:
        return _SideFrame(path, None, None, str(error))


def _read_videos(clip: ClipResult, bar: tqdm) -> Iterator[Read]:
    """The frames of a clip with a video on at least one side.

    Raises UserError for a video and a folder with different numbers of frames.
    """
    assert clip.restored is not None
    with ExitStack() as stack:
        restored = _Side(clip.restored, stack)
        clean = _Side(clip.clean, stack) if clip.clean else None
        bar.total = (bar.total or 0) + (clean or restored).num_frames
        if clean is None:
            matched: Iterator[tuple[_SideFrame | None, _SideFrame | None]] = (
                (frame, None) for frame in restored
            )
        elif restored.rate and clean.rate:
            matched = _by_time(iter(restored), iter(clean), 0.25 / clean.rate)
        else:
            matched = itertools.zip_longest(restored, clean)
        for one, other in matched:
            yield _add_frame(clip, one, other)
        clip.problem = " ".join([*restored.problems, *(clean.problems if clean else ())])
        counts = [
            sum(bool(getattr(f, side)) for f in clip.frames) for side in ("restored", "clean")
        ]
        if clean and not (restored.rate and clean.rate) and counts[0] != counts[1]:
            clip.frames.clear()
            raise UserError(
                f"{restored.path} has {plural(counts[0], 'frame')}, {clean.path} {counts[1]}; a "
                "video and a folder of frames are paired by position and need the same number"
            )


def _by_time(
    restored: Iterator[_SideFrame], clean: Iterator[_SideFrame], tolerance: float
) -> Iterator[tuple[_SideFrame | None, _SideFrame | None]]:
    """Frames of two videos whose times are at most ``tolerance`` seconds apart, or one alone."""
    one, other = next(restored, None), next(clean, None)
    while one or other:
        apart = _seconds(one) - _seconds(other)
        has_one, has_other = apart <= tolerance, apart >= -tolerance
        yield (one if has_one else None), (other if has_other else None)
        one = next(restored, None) if has_one else one
        other = next(clean, None) if has_other else other


def _seconds(frame: _SideFrame | None) -> float:
    """The time of a frame; behind all others after the last one."""
    return frame.seconds if frame and frame.seconds is not None else math.inf


def _add_frame(clip: ClipResult, one: _SideFrame | None, other: _SideFrame | None) -> Read:
    """Add a frame with its restored and its clean side, of which one may be missing."""
    seconds = min(_seconds(one), _seconds(other))
    at = _time_text(seconds) if math.isfinite(seconds) else str(len(clip.frames) + 1)
    frame = ImageResult(f"{clip.stem}/{at}", one and one.path, other and other.path)
    clip.frames.append(frame)
    clip.times.append(seconds)
    sides = [side for side in (one, other) if side]
    frame.problem = next((side.problem for side in sides if side.problem), "")
    if clip.clean and one is None:
        frame.problem = f"missing: {clip.restored} has no frame at {at}"
    elif clip.clean and other is None:
        frame.problem = f"extra: {clip.restored} has a frame at {at}, {clip.clean} has none"
    if frame.problem or one is None or one.pixels is None:
        return frame, None, ()
    images = one.pixels, other.pixels if other else None
    return frame, images, [remark for side in sides for remark in side.remarks]


def _frame_files(path: Path, count: int) -> list[Path]:
    """The file of each frame of a side: one of a folder, or the same video ``count`` times."""
    return list_images(path) if path.is_dir() else [path] * count


def _time_text(seconds: float) -> str:
    return f"{seconds:.3f} s"


def _place(frame: ImageResult) -> str:
    """Where a frame is, for messages."""
    path = frame.restored or frame.clean
    at = frame.stem.rpartition("/")[2]
    return f"{path} at {at}" if path and is_video(path) else str(path)
