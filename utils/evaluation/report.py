"""report.html: the tables and every image of an evaluation in one page, opened from disk.

The page is ``report_template.html`` with three places filled in. It needs no network and no other
file but the images, which it loads two at a time; with ``embed`` they are in the page themselves.
"""

from __future__ import annotations

import base64
import html
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2

from utils.errors import UserError
from utils.evaluation.formats import INCOMPLETE, finite, number_text
from utils.evaluation.scoring import JobResult, read_8bit
from utils.evaluation.table import Table, notes, sources

TEMPLATE = Path(__file__).with_name("report_template.html")
CLEAN = "clean"
RANK_CLASSES = {1: "best", 2: "second"}
MOST_EMBEDDED = 2000  # about half a gigabyte of small images; browsers give up beyond


def report_page(
    results: list[JobResult], table: Table, folder: Path, *, embed: bool = False
) -> str:
    """The page as text, to be written into ``folder``: its links start there.

    Raises UserError where ``embed`` is asked for too many images.
    """
    num_files = sum(len(result.images) for result in results)
    if embed and num_files > MOST_EMBEDDED:
        raise UserError(
            f"--embed would put {num_files} images and more into one page; up to {MOST_EMBEDDED} "
            "are possible. Leave it out, or choose with --sets and --methods."
        )
    data = {
        "metrics": [
            [metric.name, metric.decimals, metric.higher_is_better] for metric in table.metrics
        ],
        "sets": [_set_data(column.dataset, results, folder, embed) for column in table.columns],
    }
    # "<" could end the script element that holds the data
    embedded = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    places = {"NOTES": _notes_html(table), "TABLE": _table_html(table), "DATA": embedded}
    page = TEMPLATE.read_text(encoding="utf-8")
    for name, content in places.items():
        page = page.replace(f"<!--{name}-->", content)
    return page


def _set_data(dataset: str, results: list[JobResult], folder: Path, embed: bool) -> dict[str, Any]:
    """What the page knows of a data set: its images, and of each method files and scores."""
    of_set = [result for result in results if result.job.dataset == dataset]
    stems = list(dict.fromkeys(image.stem for result in of_set for image in result.images))
    methods = []
    clean_files: dict[str, Path] = {}
    for result in of_set:
        by_stem = {image.stem: image for image in result.images}
        files, scores = {}, []
        for image in result.images:
            if image.restored:
                files[image.stem] = image.restored
            if image.clean:
                clean_files[image.stem] = image.clean
        for stem in stems:
            image = by_stem.get(stem)
            found = image.scores if image else None
            scores.append([finite(round(value, 6)) for value in found] if found else None)
        methods.append(
            {
                "name": result.job.method,
                "files": _files_data(stems, files, folder, embed),
                "scores": scores,
            }
        )
    if clean_files:
        files = _files_data(stems, clean_files, folder, embed)
        methods.append({"name": CLEAN, "files": files, "scores": None})
    return {"name": dataset, "images": stems, "methods": methods}


def _files_data(
    stems: list[str], files: dict[str, Path], folder: Path, embed: bool
) -> list[str | None]:
    """A link to each image, relative to the page, or the image itself as a data URL."""
    return [
        None
        if stem not in files
        else _data_url(files[stem])
        if embed
        else _link(files[stem], folder)
        for stem in stems
    ]


def _link(path: Path, folder: Path) -> str:
    try:
        relative = os.path.relpath(path.resolve(), folder.resolve())
    except ValueError:  # another drive on Windows
        return path.resolve().as_uri()
    return quote(Path(relative).as_posix())


def _data_url(path: Path) -> str | None:
    """The image losslessly as WebP, which is a third smaller than PNG; None if unreadable."""
    try:
        image = read_8bit(path)
    except UserError:
        return None  # named among the problems of the evaluation
    stored = image if image.ndim == 2 else image[..., ::-1]
    _, encoded = cv2.imencode(".webp", stored, [cv2.IMWRITE_WEBP_QUALITY, 101])
    return "data:image/webp;base64," + base64.b64encode(encoded).decode("ascii")


def _notes_html(table: Table) -> str:
    lines = [" ".join(notes(table))]
    lines += [f"[{number}] {source}" for number, source in enumerate(sources(table), start=1)]
    return "\n".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _table_html(table: Table) -> str:
    """The table of scores; the page's script makes its headings sort it."""
    span = len(table.metrics)
    heads = "".join(
        f'<th colspan="{span}" scope="colgroup">{html.escape(heading)}</th>'
        for heading in table.headings
    )
    names = "".join(
        f'<th scope="col">{metric.name}</th>' for _ in table.headings for metric in table.metrics
    )
    numbers = sources(table)
    body = []
    for row in table.rows:
        name = html.escape(row.method)
        if row.kind == "published":
            name += f' <span class="source">published [{numbers.index(row.source) + 1}]</span>'
        cells = []
        for column in range(len(table.headings)):
            cell = row.all_cells[column]
            for index in range(span):
                if cell is None:
                    cells.append('<td class="number">-</td>')
                    continue
                text = number_text(cell.scores[index], cell.decimals[index])
                rank = RANK_CLASSES.get(row.ranks.get((column, index), 0), "")
                mark = "" if cell.complete else INCOMPLETE
                value = cell.scores[index]
                cells.append(f'<td class="number {rank}" data-value="{value}">{text}{mark}</td>')
        body.append(f'<tr class="{row.kind}"><th scope="row">{name}</th>{"".join(cells)}</tr>')
    return (
        f'<thead><tr><td></td>{heads}</tr><tr><th scope="col">Method</th>{names}</tr></thead>\n'
        f"<tbody>\n{chr(10).join(body)}\n</tbody>"
    )
