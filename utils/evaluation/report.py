"""report.html: the tables and every image of an evaluation in one page, opened from disk.

The page is ``report.html`` with its places filled in: the style, the scripts, the tables, what is
missing, and the data. It needs no network and no other file but the images, which it loads where
they are looked at; with ``embed`` they are in the page themselves.
"""

from __future__ import annotations

import base64
import html
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import cv2
import numpy as np

from utils.errors import UserError
from utils.evaluation.formats import FACT_HEADINGS, INCOMPLETE, finite, number_text
from utils.evaluation.scoring import JobResult, read_8bit
from utils.evaluation.table import Table, TableRow, notes, sources
from utils.wording import plural

HERE = Path(__file__).parent
TABLE_SCRIPT = "report_table.js"
SCRIPTS = (TABLE_SCRIPT, "report.js", "report_pictures.js", "report_plot.js")  # one program
CLEAN = "clean"
RANK_CLASSES = {1: "best", 2: "second"}
MOST_EMBEDDED = 2000  # about half a gigabyte of small images; browsers give up beyond
PROBLEMS_IN_SIGHT = 12  # the others are folded away
NAMES_IN_SIGHT = 60  # of missing images, by method and data set
ERROR_RANGE = 64  # of 255: what the brightest colour of an error map stands for


class Shown(NamedTuple):
    """An image of the page: a file, or the "left" or "right" half of one that holds a pair."""

    path: Path
    half: str = ""


def report_page(
    results: list[JobResult],
    table: Table,
    folder: Path,
    *,
    embed: bool = False,
    unmatched: Sequence[str] = (),
) -> str:
    """The page as text, to be written into ``folder``: its links start there.

    ``unmatched`` are problems that belong to no job. Raises UserError where ``embed`` is asked for
    too many images.
    """
    num_files = sum(len(result.images) for result in results)
    if embed and num_files > MOST_EMBEDDED:
        raise UserError(
            f"--embed would put {num_files} images and more into one page; up to {MOST_EMBEDDED} "
            "are possible. Leave it out, or choose with --sets and --methods."
        )
    data = {
        "metrics": [
            [metric.name, metric.decimals, metric.higher_is_better] for metric in results[0].metrics
        ],
        "sets": [_set_data(column.dataset, results, folder, embed) for column in table.columns],
    }
    # "<" could end the script element that holds the data
    embedded = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    problems = [problem for result in results for problem in _problems(result)]
    return filled_page(
        "report.html",
        scripts=SCRIPTS,
        RANGE=str(ERROR_RANGE),
        FILTER=_error_filter(),
        PROBLEMS=_problems_html([*problems, *unmatched], table.num_left_out)
        + _remarks_html(results),
        TABLE=table_html(table),
        NOTES=notes_html(table),
        DATA=embedded,
    )


def filled_page(template: str, scripts: Sequence[str], **places: str) -> str:
    """A page of this folder: its style, its scripts and what ``places`` holds for <!--NAME-->."""
    places["STYLE"] = (HERE / "report.css").read_text(encoding="utf-8")
    places["SCRIPT"] = "\n".join((HERE / name).read_text(encoding="utf-8") for name in scripts)
    page = (HERE / template).read_text(encoding="utf-8")
    # at one go: what is filled in may hold such a mark itself
    return re.sub("<!--([A-Z]+)-->", lambda mark: places[mark[1]], page)


def _set_data(dataset: str, results: list[JobResult], folder: Path, embed: bool) -> dict[str, Any]:
    """What the page knows of a data set: its images, and of each method files and scores."""
    of_set = [result for result in results if result.job.dataset == dataset]
    stems = list(dict.fromkeys(image.stem for result in of_set for image in result.images))
    methods: list[dict[str, Any]] = []
    clean: dict[str, Shown] = {}
    for result in of_set:
        by_stem = {image.stem: image for image in result.images}
        restored: dict[str, Shown] = {}
        scores: list[list[float | str] | None] = []
        problems: dict[int, str] = {}
        remarks: dict[int, str] = {}
        for image in result.images:
            if image.restored:
                half = image.rainy_half if image.restored == image.clean else ""
                restored[image.stem] = Shown(image.restored, half)
            if image.clean:
                half = {"left": "right", "right": "left"}.get(image.rainy_half, "")
                clean[image.stem] = Shown(image.clean, half)
        for index, stem in enumerate(stems):
            own = by_stem.get(stem)
            if own and own.problem:
                problems[index] = own.problem
            if own and own.remarks:
                remarks[index] = "; ".join(remark.text for remark in own.remarks)
            found = own.scores if own else None
            scores.append([finite(round(value, 6)) for value in found] if found else None)
        methods.append(
            {
                "name": result.job.method,
                "kind": "input" if result.job.is_input else "measured",
                "files": _links(stems, restored, folder, embed),
                "scores": scores,
                "problems": problems,
                "remarks": remarks,
            }
        )
    if clean:
        links = _links(stems, clean, folder, embed)
        methods.append(
            {"name": CLEAN, "kind": CLEAN, "files": links, "scores": None}
            | {"problems": {}, "remarks": {}}
        )
    return {"name": dataset, "images": stems, "methods": methods}


def _links(
    stems: list[str], files: dict[str, Shown], folder: Path, embed: bool
) -> list[str | None]:
    """A link to each image, relative to the page, or the image itself as a data URL.

    The page's style shows half of a link that ends in #left or #right.
    """
    return [
        None
        if stem not in files
        else _data_url(files[stem])
        if embed
        else _link(files[stem], folder)
        for stem in stems
    ]


def _link(shown: Shown, folder: Path) -> str:
    path = shown.path.resolve()
    half = f"#{shown.half}" if shown.half else ""
    try:
        return quote(Path(os.path.relpath(path, folder.resolve())).as_posix()) + half
    except ValueError:  # another drive on Windows
        return path.as_uri() + half


def _data_url(shown: Shown) -> str | None:
    """The image losslessly as WebP, which is a third smaller than PNG; None if unreadable."""
    try:
        image = read_8bit(shown.path)
    except UserError:
        return None  # named among the problems of the evaluation
    if shown.half:
        middle = image.shape[1] // 2
        image = image[:, :middle] if shown.half == "left" else image[:, middle:]
    stored = image if image.ndim == 2 else image[..., ::-1]
    _, encoded = cv2.imencode(".webp", stored, [cv2.IMWRITE_WEBP_QUALITY, 101])
    return "data:image/webp;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def _problems(result: JobResult) -> list[str]:
    """What is wrong with a folder; the images that it lacks are named in one line."""
    missing = [image.stem for image in result.images if image.problem and not image.restored]
    others = [image.problem for image in result.images if image.problem and image.restored]
    lines = [result.problem] if result.problem else []
    if len(missing) == 1:
        lines += [image.problem for image in result.images if image.stem == missing[0]]
    elif missing:
        names = ", ".join(missing[:NAMES_IN_SIGHT])
        more = len(missing) - NAMES_IN_SIGHT
        lines.append(
            f"{result.job.method} on {result.job.dataset}: {len(missing)} images missing in "
            f"{result.job.results}: {names}" + (f" and {more} more" if more > 0 else "")
        )
    return lines + others


def _problems_html(problems: list[str], num_left_out: int) -> str:
    """What could not be scored, by name; the first ones in plain sight."""
    if not problems:
        return ""
    items = [f"<li>{html.escape(problem)}</li>" for problem in problems]
    first, rest = items[:PROBLEMS_IN_SIGHT], items[PROBLEMS_IN_SIGHT:]
    more = f"<details><summary>and {len(rest)} more</summary><ul>{''.join(rest)}</ul></details>"
    title = plural(len(problems), "problem")
    if num_left_out:
        title = f"INCOMPLETE: {plural(num_left_out, 'image')} not scored"
    return (
        f'<section class="problems"><h2>{title}</h2><ul>{"".join(first)}</ul>'
        f"{more if rest else ''}</section>"
    )


def _remarks_html(results: list[JobResult]) -> str:
    """What to know about images that were scored all the same."""
    items = [
        f"<li>{html.escape(f'{image.restored}: {remark.text}')}</li>"
        for result in results
        for image in result.scored
        for remark in image.remarks
    ]
    if not items:
        return ""
    return (
        f'<details class="notes"><summary>{plural(len(items), "remark")} on images that were '
        f"scored</summary><ul>{''.join(items)}</ul></details>"
    )


def notes_html(table: Table) -> str:
    """What the marks mean, the sentences that belong to the table, the sources."""
    marks = []
    if table.ranked:
        marks.append("<b>Bold</b>: the best of a column; <u>underlined</u>: the second best.")
    if any(row.kind == "published" for row in table.rows):
        marks.append("Gray rows are published scores, from the numbered sources.")
    if table.num_left_out:
        marks.append(f"{INCOMPLETE}: this mean leaves images out and takes no part in the ranking.")
    lines = [html.escape(" ".join(notes(table)))]
    lines += [
        html.escape(f"[{number}] {source}") for number, source in enumerate(sources(table), start=1)
    ]
    legend = f'<p id="marks">{" ".join(marks)}</p>\n' if marks else ""
    return legend + "\n".join(f"<p>{line}</p>" for line in lines)


def _error_filter() -> str:
    """An SVG filter: the mean of the channels, times 255/ERROR_RANGE, in the colours of inferno.

    The browser applies it to the absolute difference of two images. The same map and range as in
    tools/compare.py.
    """
    gain = f"{255 / ERROR_RANGE / 3:.6f} " * 3 + "0 0"
    colours = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_INFERNO).reshape(
        256, 3
    )
    functions = "".join(
        f'<feFunc{name} type="table" tableValues="{" ".join(f"{v / 255:.4f}" for v in values)}"/>'
        for name, values in zip("BGR", colours.T, strict=True)
    )
    return (
        f'<svg id="filters" width="0" height="0" aria-hidden="true" style="position:absolute">'
        f'<filter id="error-colours" color-interpolation-filters="sRGB" x="0" y="0" width="1" '
        f'height="1"><feColorMatrix values="{gain} {gain} {gain} 0 0 0 1 0"/>'
        f"<feComponentTransfer>{functions}</feComponentTransfer></filter></svg>"
    )


def table_html(table: Table, links: Sequence[str] = ()) -> str:
    """The table of scores; the page's script makes its headings sort it.

    ``links`` are where the names of the rows lead, "" for nowhere.
    """
    facts = [FACT_HEADINGS[name] for name in table.fact_names]
    heads = "".join(
        f'<th colspan="{len(table.metrics)}" scope="colgroup">{html.escape(heading)}</th>'
        for heading in table.headings
    )
    names = "".join(f'<th scope="col">{html.escape(heading)}</th>' for heading in facts)
    names += "".join(
        f'<th scope="col" data-better="{"higher" if metric.higher_is_better else "lower"}">'
        f"{metric.name}</th>"
        for _ in table.headings
        for metric in table.metrics
    )
    body = []
    for number, row in enumerate(table.rows):
        name = html.escape(row.method)
        if links and links[number]:
            name = f'<a href="{html.escape(links[number])}">{name}</a>'
        if row.kind == "published":
            source = sources(table).index(row.source) + 1
            name += f' <span class="source">published [{source}]</span>'
        cells = [f"<td>{html.escape(row.facts[fact]) or '-'}</td>" for fact in table.fact_names]
        cells += [
            _cell_html(row, column, index)
            for column in range(len(table.headings))
            for index in range(len(table.metrics))
        ]
        body.append(f'<tr class="{row.kind}"><th scope="row">{name}</th>{"".join(cells)}</tr>')
    return (
        f"<thead><tr><td></td>{'<td></td>' * len(facts)}{heads}</tr>"
        f'<tr><th scope="col">Method</th>{names}</tr></thead>\n'
        f"<tbody>\n{chr(10).join(body)}\n</tbody>"
    )


def _cell_html(row: TableRow, column: int, index: int) -> str:
    cell = row.all_cells[column]
    if cell is None or math.isnan(cell.scores[index]):
        return "<td>-</td>"
    text = number_text(cell.scores[index], cell.decimals[index])
    rank = RANK_CLASSES.get(row.ranks.get((column, index), 0), "")
    mark = "" if cell.complete else INCOMPLETE
    return f'<td class="{rank}" data-value="{cell.scores[index]}">{text}{mark}</td>'
