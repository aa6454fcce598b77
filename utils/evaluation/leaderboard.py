"""The leaderboard: all runs of evaluate.py below a folder, in one table and page.

Every run copies its table.json into ``history/`` of its output folder, so that a later run into the
same folder does not remove it.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from natsort import natsorted

from utils.errors import UserError
from utils.evaluation import formats
from utils.evaluation.pages import render
from utils.evaluation.quality import Metric
from utils.evaluation.table import (
    Column,
    Table,
    TableCell,
    TableRow,
    mean_cell,
    rank_rows,
)
from utils.files import write_text
from utils.wording import plural

HISTORY = "history"
FACTS = ("date", "run", "commit")
PARTS = ("metrics", "columns", "rows")  # of a table.json
# Data set, protocol, number of images or clips, unit: scores are comparable if all four agree.
COLUMN = tuple[str, str, int, str]


@dataclass(frozen=True)
class EvaluationRun:
    """One run: its output folder, date, commit and table.

    ``latest`` says whether the folder's other files belong to this run too.
    """

    folder: Path
    latest: bool
    date: str
    commit: str
    content: dict[str, Any]


def keep_in_history(folder: Path, content: dict[str, Any]) -> None:
    """Add a table to the history of its folder, unless it equals the last one there."""
    before = natsorted((folder / HISTORY).glob("*.json"), key=lambda path: path.name)
    if before:
        last = _read_json(before[-1])
        if all(last.get(part) == content[part] for part in PARTS):
            return
    # no colons: some file systems do not allow them in names
    name = content["provenance"]["date"].partition("+")[0].replace(":", "-")
    taken = {path.stem for path in before}
    number = 2
    while name in taken:
        name, number = f"{name.partition('_')[0]}_{number}", number + 1
    write_text(folder / HISTORY / f"{name}.json", formats.dump_json(content))


def write_leaderboard(root: Path) -> tuple[Table, int]:
    """Write leaderboard.html, .md and .csv into ``root``; returns the table and the number of runs.

    Raises UserError if ``root`` holds no run, or a table.json that evaluate.py did not write.
    """
    runs = read_runs(root)
    table, folders = leaderboard_table(runs, root)
    write_text(root / "leaderboard.md", formats.markdown(table))
    write_text(root / "leaderboard.csv", formats.table_csv(table))
    page = render(
        "leaderboard.html",
        num_runs=len(runs),
        table=table,
        links=[_report_link(folder, root) for folder in folders],
    )
    write_text(root / "leaderboard.html", page)
    return table, len(runs)


def read_runs(root: Path) -> list[EvaluationRun]:
    """All runs whose tables are below ``root``, newest first."""
    if not root.is_dir():
        raise UserError(f"There is no folder {root}.")
    runs = []
    for path in [*root.rglob(f"{HISTORY}/*.json"), *root.rglob("table.json")]:
        content = _read_json(path)
        if not all(isinstance(content.get(part), list) for part in PARTS):
            raise UserError(f"{path} is not a table of evaluate.py; move it out of {root}.")
        made = content.get("provenance", {})
        folder = path.parent.parent if path.parent.name == HISTORY else path.parent
        commit = (made.get("commit") or "")[:8]
        latest = path.parent == folder
        runs.append(EvaluationRun(folder, latest, made.get("date", ""), commit, content))
    if not runs:
        raise UserError(
            f"{root} holds no table.json; evaluate.py writes one into its --output folder."
        )
    # table.json equals the last file of its history, or is a later run with the same scores
    distinct = {(run.folder, json.dumps([run.content[p] for p in PARTS])): run for run in runs}
    return sorted(distinct.values(), key=lambda run: run.date, reverse=True)


def leaderboard_table(runs: Sequence[EvaluationRun], root: Path) -> tuple[Table, list[Path | None]]:
    """The table of all runs, and for each row the folder with its report, None without one.

    Scores share a column if data set, protocol and number of images are the same. Equal scores of
    one method become one row, with the date of the newest run. Published scores are kept only where
    they are comparable.
    """
    columns: dict[COLUMN, Column] = {}
    metrics: dict[str, Metric] = {}
    for run in runs:
        for metric in run.content["metrics"]:
            metrics.setdefault(metric["key"], Metric(**metric))
        for column in run.content["columns"]:
            columns.setdefault(_key(column), Column(**column))
    keys = natsorted(columns, key=str)
    found: dict[tuple[Any, ...], tuple[TableRow, Path | None]] = {}
    for run in runs:
        for entry in run.content["rows"]:
            row = _row(entry, run, keys, columns, list(metrics.values()), root)
            same = (row.kind, row.method, row.source, tuple(row.cells))
            if any(row.cells):
                links = run.latest and row.kind != "published"
                found.setdefault(same, (row, run.folder if links else None))
    first = next(iter(metrics.values()))

    def order(item: tuple[TableRow, Path | None]) -> tuple[int, float]:
        row = item[0]
        score = next((cell.scores[0] for cell in row.cells if cell), math.nan)
        worst_last = -score if first.higher_is_better else score
        kinds = ("input", "measured", "published")
        return kinds.index(row.kind), math.inf if math.isnan(score) else worst_last

    ordered = sorted(found.values(), key=order)
    rows = [row for row, _ in ordered]
    shown = _named(keys, columns)
    for row in rows:
        row.mean = mean_cell(row.cells)
    rank_rows(rows, [columns[key] for key in keys], tuple(metrics.values()))
    left_out = sum(
        max(0, column.num_images - (cell.num_images or 0))
        for row in rows
        for cell, column in zip(row.cells, shown, strict=True)
        if cell and not cell.complete
    )
    table = Table(
        shown,
        tuple(metrics.values()),
        rows,
        num_problems=left_out,
        num_left_out=left_out,
        remarks=Counter(),
        fact_names=FACTS,
    )
    return table, [folder for _, folder in ordered]


def _row(
    entry: dict[str, Any],
    run: EvaluationRun,
    keys: Sequence[COLUMN],
    columns: dict[COLUMN, Column],
    metrics: Sequence[Metric],
    root: Path,
) -> TableRow:
    """A run's row in the columns of all runs; published scores only where the images agree."""
    cells: list[TableCell | None] = [None] * len(keys)
    published = entry["kind"] == "published"
    digits = {metric.key: metric.decimals for metric in metrics}
    if published:  # as many decimals as the source prints
        for metric in metrics:
            texts = (str(s[metric.key]) for s in entry["scores"].values() if s and metric.key in s)
            digits[metric.key] = max((len(t.partition(".")[2]) for t in texts), default=0)
    for column in run.content["columns"]:
        score = entry["scores"].get(column["dataset"])
        key = _key(column)
        if score is None or (published and columns[key].published_images is not None):
            continue
        cells[keys.index(key)] = TableCell(
            tuple(float(score.get(metric.key, math.nan)) for metric in metrics),
            tuple(digits[metric.key] for metric in metrics),
            score["num_images"],
            score["complete"],
        )
    facts = dict.fromkeys(FACTS, "")
    if not published:
        date = run.date[:16].replace("T", " ")
        facts = {"date": date, "run": _relative(run.folder, root), "commit": run.commit}
    return TableRow(entry["kind"], entry["method"], cells, source=entry["source"], facts=facts)


def _named(keys: Sequence[COLUMN], columns: dict[COLUMN, Column]) -> list[Column]:
    """The columns, with headings that distinguish one set under two protocols or sizes."""
    names = Counter(dataset for dataset, *_ in keys)
    return [
        Column(f"{name} ({protocol}, {plural(count, unit)})", protocol, count, unit)
        if names[name] > 1
        else columns[name, protocol, count, unit]
        for name, protocol, count, unit in keys
    ]


def _key(column: dict[str, Any]) -> COLUMN:
    unit = column.get("unit", "image")  # tables from before clips were supported do not record it
    return column["dataset"], column["protocol"], column["num_images"], unit


def _relative(folder: Path, root: Path) -> str:
    return Path(os.path.relpath(folder, root)).as_posix()


def _report_link(folder: Path | None, root: Path) -> str:
    """The link to the report of a row's run; "" without a report."""
    if folder is None or not (folder / "report.html").exists():
        return ""
    return quote(f"{_relative(folder, root)}/report.html")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise UserError(f"{path} is not a JSON file ({error}); move it away.") from error
    return content if isinstance(content, dict) else {}
