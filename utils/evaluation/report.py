"""report.html: the tables and every image of an evaluation in one page, opened from disk.

The page is ``pages/report.html`` with the tables, what is missing, and the data. It works
offline and needs no files but the images, which it loads when they are shown; with ``embed`` the
page contains them.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
from markupsafe import Markup

from utils.errors import UserError
from utils.evaluation.formats import finite, first_problem
from utils.evaluation.pages import render
from utils.evaluation.scoring import ClipResult, ImageResult, JobResult, Side, read_side
from utils.evaluation.table import Table, left_out
from utils.wording import plural

CLEAN = "clean"
MOST_EMBEDDED = 2000  # about half a gigabyte of small images; browsers fail beyond that
PROBLEMS_IN_SIGHT = 12  # further ones are collapsed
NAMES_IN_SIGHT = 60  # of missing images, by method and data set
ERROR_RANGE = 64  # of 255: the error that an error map shows in its brightest colour


# A link to an image, or None; for a clip, its video and times, or the links of its frames.
Link = str | dict[str, Any] | None


def report_page(
    results: list[JobResult],
    table: Table,
    folder: Path,
    *,
    embed: bool = False,
    unmatched: Sequence[str] = (),
) -> str:
    """The page as text, to be written into ``folder``; its links are relative to it.

    ``unmatched`` are problems that belong to no job. Raises UserError if there are too many images
    to ``embed``.
    """
    num_files = sum(len(result.images) for result in results)
    if embed and num_files > MOST_EMBEDDED:
        raise UserError(
            f"--embed would put at least {num_files} images into one page; {MOST_EMBEDDED} are "
            "allowed. Leave it out, or choose with --sets and --methods."
        )
    data = {
        "metrics": [
            [metric.name, metric.decimals, metric.higher_is_better] for metric in results[0].metrics
        ],
        "unit": table.unit,
        "sets": [_set_data(column.dataset, results, folder, embed) for column in table.columns],
    }
    # "<" could end the script element that holds the data
    embedded = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    problems = [problem for result in results for problem in _problems(result)] + list(unmatched)
    title = plural(len(problems), "problem")
    if table.num_left_out:
        title = f"INCOMPLETE: {left_out(table)}"
    return render(
        "report.html",
        table=table,
        problems=problems,
        problems_title=title,
        in_sight=PROBLEMS_IN_SIGHT,
        remarks=[
            f"{image.restored}: {remark.text}"
            for result in results
            for image in result.scored
            for remark in image.remarks
        ],
        error_range=ERROR_RANGE,
        error_matrix=f"{_error_gain()} {_error_gain()} {_error_gain()} 0 0 0 1 0",
        error_colours=_error_colours(),
        data=Markup(embedded),
    )


def _set_data(dataset: str, results: list[JobResult], folder: Path, embed: bool) -> dict[str, Any]:
    """The page's data on a data set: its images, and the files and scores of each method."""
    of_set = [r for r in results if r.job.dataset == dataset and not r.is_reference]
    stems = list(dict.fromkeys(image.stem for result in of_set for image in result.images))
    methods: list[dict[str, Any]] = []
    clean: dict[str, Link] = {}
    true_boxes: dict[str, list[list[Any]]] = {}
    for result in of_set:
        by_stem = {image.stem: image for image in result.images}
        restored: dict[str, Link] = {}
        scores: list[list[float | str] | None] = []
        problems: dict[int, str] = {}
        remarks: dict[int, str] = {}
        for image in result.images:
            restored[image.stem] = _link(image, "restored", folder, embed)
            clean[image.stem] = clean.get(image.stem) or _link(image, "clean", folder, embed)
        for index, stem in enumerate(stems):
            own = by_stem.get(stem)
            if own and own.problems:
                problems[index] = first_problem(own.problems)
            if own and own.remarks:
                remarks[index] = "; ".join(remark.text for remark in own.remarks)
            found = own.scores if own else None
            scores.append([finite(round(value, 6)) for value in found] if found else None)
        methods.append(
            {
                "name": result.job.method,
                "kind": "input" if result.job.is_input else "measured",
                "files": [restored.get(stem) for stem in stems],
                "scores": scores,
                "problems": problems,
                "remarks": remarks,
                "boxes": _boxes(stems, {image.stem: image.boxes for image in result.images}),
            }
        )
        true_boxes |= {image.stem: image.true_boxes for image in result.images}
    if any(clean.values()):
        files = [clean.get(stem) for stem in stems]
        methods.append(
            {"name": CLEAN, "kind": CLEAN, "files": files, "scores": None}
            | {"problems": {}, "remarks": {}, "boxes": _boxes(stems, true_boxes)}
        )
    return {"name": dataset, "images": stems, "methods": methods}


def _boxes(stems: list[str], boxes: dict[str, list[list[Any]]]) -> list[list[list[Any]]] | None:
    """Boxes by image: left, top, right, bottom, name, score in percent; None if all are empty."""
    return [boxes.get(stem, []) for stem in stems] if any(boxes.values()) else None


def _link(image: ImageResult, side: Side, folder: Path, embed: bool) -> Link:
    """The link to one side of an image, relative to the page, or the image itself as a data URL.

    For a clip: the link to the video and the times of its frames in seconds, or the links to all
    frames. The page's CSS shows half of an image whose link ends in #left or #right.
    """
    if not (image.restored if side == "restored" else image.clean):
        return None
    path = image.path(side)
    if isinstance(image, ClipResult):
        if not image.frames:  # it cannot be read
            return None
        shown = [at for at, frame in enumerate(image.frames) if frame.clean or not image.clean]
        if path.is_dir():
            return {"frames": [_link(image.frames[at], side, folder, embed) for at in shown]}
        times = [round(image.times[at], 4) for at in shown]
        return {"video": _relative(path, folder), "times": times}
    if embed:
        return _data_url(image, side)
    half = image.half(side)
    return _relative(path, folder) + (f"#{half}" if half else "")


def _relative(path: Path, folder: Path) -> str:
    path = path.resolve()
    try:
        relative = Path(os.path.relpath(path, folder.resolve())).as_posix()
        return quote(os.fsencode(relative))  # bytes: a name may not be UTF-8
    except ValueError:  # another drive on Windows
        return path.as_uri()


def _data_url(shown: ImageResult, side: Side) -> str | None:
    """The image as lossless WebP, which is a third smaller than PNG; None if unreadable."""
    try:
        image = read_side(shown, side)
    except UserError:
        return None  # reported among the problems of the evaluation
    stored = image if image.ndim == 2 else image[..., ::-1]
    _, encoded = cv2.imencode(".webp", stored, [cv2.IMWRITE_WEBP_QUALITY, 101])
    return "data:image/webp;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def _problems(result: JobResult) -> list[str]:
    """The problems of a folder; its missing images or frames share one line."""
    every = [one for image in result.images for one in (image, *getattr(image, "frames", ()))]
    missing = [image for image in every if image.problem and not image.restored]
    others = [image.problem for image in every if image.problem and image.restored]
    lines = [result.problem] if result.problem else []
    if len(missing) == 1:
        lines.append(missing[0].problem)
    elif missing:
        names = ", ".join(image.stem for image in missing[:NAMES_IN_SIGHT])
        more = len(missing) - NAMES_IN_SIGHT
        what = "images" if result.unit == "image" else "clips or frames"
        lines.append(
            f"{result.job.method} on {result.job.dataset}: {len(missing)} {what} missing in "
            f"{result.job.results}: {names}" + (f" and {more} more" if more > 0 else "")
        )
    return lines + others


def _error_gain() -> str:
    """A row of the SVG filter's matrix: the mean of the channels, times 255/ERROR_RANGE.

    The browser applies the filter to the absolute difference of two images. Colours and range are
    those of tools/compare.py.
    """
    return f"{255 / ERROR_RANGE / 3:.6f} " * 3 + "0 0"


def _error_colours() -> dict[str, str]:
    """The colours of inferno as the filter's tables, by channel."""
    levels = np.arange(256, dtype=np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO).reshape(256, 3)
    return {
        channel: " ".join(f"{value / 255:.4f}" for value in values)
        for channel, values in zip("BGR", colours.T, strict=True)
    }
