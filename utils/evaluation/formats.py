"""A table as Markdown, console text, CSV and JSON; scores of images and frames as CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import textwrap
from typing import Any

from utils.evaluation.quality import Metric
from utils.evaluation.scoring import ClipResult, JobResult
from utils.evaluation.table import Table, TableRow, notes, sources
from utils.markdown import csv_text, markdown_table

INCOMPLETE = "†"
MARKS = {1: "**{}**", 2: "*{}*"}
# Headings of further columns (utils.evaluation.facts)
FACT_HEADINGS = {
    "parameters": "params (M)",
    "macs": "MACs (G)",
    "seconds": "time (s)",
    "training_data": "trained on",
    "date": "date (UTC)",
    "run": "run",
    "commit": "commit",
}


def number_text(value: float, decimals: int) -> str:
    """A score as text; ``inf`` for identical images, ``-`` for an unknown one."""
    if math.isnan(value):
        return "-"
    return f"{value:.{decimals}f}" if math.isfinite(value) else str(value)


def markdown(table: Table) -> str:
    """The whole table with its notes, as a Markdown document."""
    columns = list(range(len(table.headings)))
    return "\n\n".join([_grid(table, columns, facts=True), *_notes_below(table)]) + "\n"


def console(table: Table, width: int) -> str:
    """The Markdown table for a terminal: one block for each data set if it is too wide."""
    columns = list(range(len(table.headings)))
    grids = [_grid(table, columns, facts=True)]
    if max(len(line) for line in grids[0].splitlines()) > width:
        grids = [_grid(table, [column]) for column in columns]
        if table.fact_names:
            grids.append(_grid(table, [], facts=True))
    wrapped = "\n".join(textwrap.fill(note, width) for note in _notes_below(table))
    return "\n\n".join([*grids, wrapped])


def table_csv(table: Table) -> str:
    """One line for each row, with all digits; the headings name data set, metric and protocol."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    protocols = [column.protocol for column in table.columns] + ["mean over data sets"]
    heads = [
        f"{heading} {metric.name} ({protocols[index]})"
        for index, heading in enumerate(table.headings)
        for metric in table.metrics
    ]
    names = ["method", "kind", "source", "complete", *table.fact_names, *heads]
    writer.writerow(map(csv_text, names))
    for row in table.rows:
        cells = row.all_cells[: len(table.headings)]
        scores = [
            "" if cell is None or math.isnan(cell.scores[i]) else repr(cell.scores[i])
            for cell in cells
            for i in range(len(table.metrics))
        ]
        complete = all(cell is None or cell.complete for cell in cells)
        facts = [row.facts[name] for name in table.fact_names]
        texts = [row.method, row.kind, row.source, str(complete).lower(), *facts]
        writer.writerow([*map(csv_text, texts), *scores])
    return text.getvalue()


def table_json(table: Table) -> dict[str, Any]:
    """The table as plain values for ``json.dump``; infinite scores are the text ``inf``."""
    return {
        "notes": notes(table),
        "complete": table.num_left_out == 0,
        "metrics": [metric._asdict() for metric in table.metrics],
        "columns": [vars(column) for column in table.columns],
        "rows": [
            {
                "method": row.method,
                "kind": row.kind,
                "source": row.source,
                **({"facts": row.facts} if table.fact_names else {}),
                "scores": {
                    heading: _cell_json(row, index, table)
                    for index, heading in enumerate(table.headings)
                },
            }
            for row in table.rows
        ],
    }


def images_csv(results: list[JobResult]) -> str:
    """One line for each image: its scores with all digits, or its first problem."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    metrics = results[0].metrics
    keys = [metric.key for metric in metrics]
    images = [image for result in results for image in result.images]
    counts = list(dict.fromkeys(name for image in images for name in image.counts))
    heads = [*keys, *counts, "remarks", "problem"]
    writer.writerow(["method", "dataset", "image", "protocol", *heads])
    for result in results:
        job = result.job
        empty = [""] * len(metrics)
        if result.problem:
            texts = map(csv_text, (job.method, job.dataset, "", job.protocol))
            blank = [*empty, *([""] * len(counts))]
            writer.writerow([*texts, *blank, "", csv_text(result.problem)])
        for image in result.images:
            scores = empty if image.scores is None else list(map(repr, image.scores))
            remarks = "; ".join(remark.text for remark in image.remarks)
            own = [*scores, *(image.counts.get(name, "") for name in counts)]
            texts = map(csv_text, (job.method, job.dataset, image.stem, job.protocol))
            problem = first_problem(image.problems)
            writer.writerow([*texts, *own, csv_text(remarks), csv_text(problem)])
    return text.getvalue()


def frames_csv(results: list[JobResult]) -> str:
    """One line for each frame of all clips; its flicker is the change from the frame before."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    metrics = results[0].metrics
    keys = [metric.key for metric in metrics]
    writer.writerow(["method", "dataset", "clip", "frame", "protocol", *keys, "problem"])
    for result in results:
        job = result.job
        for clip in result.images:
            for frame in clip.frames if isinstance(clip, ClipResult) else ():
                name = frame.stem.rpartition("/")[2]
                texts = map(csv_text, (job.method, job.dataset, clip.stem, name, job.protocol))
                scores = frame.scores or (math.nan,) * len(metrics)
                shown = ["" if math.isnan(value) else repr(value) for value in scores]
                writer.writerow([*texts, *shown, csv_text(frame.problem)])
    return text.getvalue()


def first_problem(problems: list[str]) -> str:
    """The first problem and the number of further ones; "" without problems."""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return problems[0] + more if problems else ""


def dump_json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def finite(value: float) -> float | str:
    """A finite number as it is; infinity and NaN, which JSON does not have, as text."""
    return value if math.isfinite(value) else str(value)


def row_name(row: TableRow, table: Table) -> str:
    """The method; a published row adds the number of its source."""
    if row.kind == "published":
        return f"{row.method} (published) [{sources(table).index(row.source) + 1}]"
    return row.method


def cell_text(
    row: TableRow, column: int, metric: Metric, marks: dict[int, str], table: Table
) -> str:
    """A score as text; ``marks`` holds the formats for the best (1) and the second best (2)."""
    cell = row.all_cells[column]
    if cell is None:
        return "-"
    index = table.metrics.index(metric)
    text = number_text(cell.scores[index], cell.decimals[index])
    if not cell.complete:
        text += INCOMPLETE
    rank = row.ranks.get((column, index))
    return marks[rank].format(text) if rank else text


def _cell_json(row: TableRow, column: int, table: Table) -> dict[str, Any] | None:
    cell = row.all_cells[column]
    if cell is None:
        return None
    content: dict[str, Any] = {
        metric.key: finite(score)
        for metric, score in zip(table.metrics, cell.scores, strict=True)
        if not math.isnan(score)
    }
    for index, metric in enumerate(table.metrics):
        if (column, index) in row.ranks:
            content[f"{metric.key}_rank"] = row.ranks[column, index]
    return {**content, "num_images": cell.num_images, "complete": cell.complete}


def _notes_below(table: Table) -> list[str]:
    """The caption, then the numbered sources of the published rows."""
    marks = " Best of a column in **bold**, second best in *italics*." if table.ranked else ""
    numbered = (f"[{number}] {source}" for number, source in enumerate(sources(table), start=1))
    return [" ".join(notes(table)) + marks, *numbered]


def _grid(table: Table, columns: list[int], *, facts: bool = False) -> str:
    """The Markdown table of some columns, padded so that it also reads well as plain text."""
    alone = len(table.headings) == 1  # the caption names the only data set
    names = table.fact_names if facts else ()
    heads = [
        metric.name if alone else f"{table.headings[column]} {metric.name}"
        for column in columns
        for metric in table.metrics
    ]
    lines = []
    for row in table.rows:
        cells = [
            cell_text(row, column, metric, MARKS, table)
            for column in columns
            for metric in table.metrics
        ]
        if any(cell != "-" for cell in cells) or row.kind != "published":
            known = [row.facts[name] or "-" for name in names]
            lines.append([row_name(row, table), *known, *cells])
    return markdown_table(["Method", *(FACT_HEADINGS[name] for name in names), *heads], lines)
