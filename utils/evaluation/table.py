"""The table of a paper as data: methods in rows, data sets in columns, ranks, notes.

How it looks as Markdown, LaTeX, CSV and JSON is in ``formats``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal, NamedTuple

from utils.evaluation.published import PublishedScore, facts, published_scores
from utils.evaluation.scoring import NIQE, JobResult
from utils.metrics import PROTOCOLS

MEAN = "Mean"  # heading of the column over all data sets


class Metric(NamedTuple):
    """A figure of merit: its key in files, its name in headings, how it is shown and compared."""

    key: str
    name: str
    decimals: int
    higher_is_better: bool = True


PSNR = Metric("psnr", "PSNR", 2)
SSIM = Metric("ssim", "SSIM", 4)


def metrics_of(protocol: str) -> tuple[Metric, ...]:
    """What a protocol measures, in the order of ``ImageResult.scores``."""
    if protocol == NIQE:
        return (Metric("niqe", "NIQE", 3, higher_is_better=False),)
    return PSNR, SSIM


@dataclass(frozen=True)
class Column:
    """A data set under its protocol; ``num_images`` of them have a clean image here."""

    dataset: str
    protocol: str
    num_images: int

    @property
    def published_images(self) -> int | None:
        """How many images the papers score, where that is known and another number."""
        known = facts(self.dataset).num_images
        return known if known != self.num_images and self.protocol != NIQE else None


@dataclass(frozen=True)
class Cell:
    """Mean scores of one method on one data set, one for each metric.

    ``decimals`` is how many of their digits are shown; an incomplete mean leaves out images.
    """

    scores: tuple[float, ...]
    decimals: tuple[int, ...]
    num_images: int | None = None
    complete: bool = True


@dataclass
class TableRow:
    """One line: the rainy input, a measured method, or a published one with its source.

    ``cells`` follow the table's columns, None where there is no score; ``ranks`` holds 1 or 2 for
    the best and second best by (column, metric).
    """

    kind: Literal["input", "measured", "published"]
    method: str
    cells: list[Cell | None]
    mean: Cell | None = None
    source: str = ""
    ranks: dict[tuple[int, int], int] = field(default_factory=dict)

    @property
    def all_cells(self) -> list[Cell | None]:
        """The cells of the data sets, then the mean over them."""
        return [*self.cells, self.mean]


@dataclass
class Table:
    """Rows over columns; all columns share the same metrics."""

    columns: list[Column]
    metrics: tuple[Metric, ...]
    rows: list[TableRow]
    num_problems: int
    num_cropped: int
    no_reference: str = ""  # the implementation that NIQE comes from

    @property
    def headings(self) -> list[str]:
        """Data sets and, where there are several, the mean over them."""
        names = [column.dataset for column in self.columns]
        return [*names, MEAN] if len(names) > 1 else names

    @property
    def ranked(self) -> bool:
        return any(row.ranks for row in self.rows)


def build_table(
    results: list[JobResult],
    *,
    published: bool,
    extra_decimals: int = 0,
    no_reference: str = "",
    num_unmatched: int = 0,
) -> Table:
    """The table of some jobs, with the papers' rows for the same data sets and protocols.

    ``extra_decimals`` shows more digits of the measured scores than papers do; ``num_unmatched``
    counts problems that belong to no job.
    """
    datasets = list(dict.fromkeys(result.job.dataset for result in results))
    columns = []
    for dataset in datasets:
        of_set = [result for result in results if result.job.dataset == dataset]
        num_images = max(result.num_expected for result in of_set)
        columns.append(Column(dataset, of_set[0].job.protocol, num_images))
    metrics = metrics_of(columns[0].protocol)
    rows = _measured_rows(results, datasets, metrics, extra_decimals)
    if published:
        rows += _published_rows(columns)
    for row in rows:
        row.mean = _mean_cell(row.cells)
    _rank(rows, columns, metrics)
    return Table(
        columns,
        metrics,
        rows,
        num_problems=sum(len(result.problems) for result in results) + num_unmatched,
        num_cropped=sum(image.cropped for result in results for image in result.images),
        no_reference=no_reference,
    )


def notes(table: Table) -> list[str]:
    """The sentences that belong to a table: what was measured, how, and what is missing."""
    better = "higher" if table.metrics[0].higher_is_better else "lower"
    names = " and ".join(
        f"{metric.name} (dB)" if metric == PSNR else metric.name for metric in table.metrics
    )
    sentences = [f"{names}, {better} is better; means over images."]
    for protocol in dict.fromkeys(column.protocol for column in table.columns):
        sets = ", ".join(_with_count(c) for c in table.columns if c.protocol == protocol)
        what = table.no_reference if protocol == NIQE else PROTOCOLS[protocol]
        sentences.append(f"Protocol {protocol} ({what}): {sets}.")
    if len(table.columns) > 1:
        sentences.append("The mean over data sets is unweighted.")
    if any(column.published_images for column in table.columns) and sources(table):
        sentences.append("Published scores of other images than these are not ranked.")
    if table.num_cropped:
        sentences.append(
            f"{table.num_cropped} pairs of different sizes were cut to their common size."
        )
    if table.num_problems:
        count = _counted(table.num_problems, "problem")
        sentences.append(
            f"INCOMPLETE: {count}; a mean marked with † leaves images out and is not ranked."
        )
    return sentences


def sources(table: Table) -> list[str]:
    """The sources of the published rows, in order; a row shows the number of its own."""
    return list(dict.fromkeys(row.source for row in table.rows if row.kind == "published"))


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _with_count(column: Column) -> str:
    """A data set with its number of images; if the papers score another number, that too."""
    count = _counted(column.num_images, "image")
    if column.published_images:
        count += f"; papers score {column.published_images}"
    return f"{column.dataset} ({count})"


def _measured_rows(
    results: list[JobResult],
    datasets: list[str],
    metrics: tuple[Metric, ...],
    extra_decimals: int,
) -> list[TableRow]:
    """One row for each method, the rainy input first."""
    decimals = tuple(metric.decimals + extra_decimals for metric in metrics)
    rows: dict[tuple[bool, str], TableRow] = {}
    for result in results:
        job = result.job
        kind = "input" if job.is_input else "measured"
        row = rows.setdefault(
            (job.is_input, job.method), TableRow(kind, job.method, [None] * len(datasets))
        )
        mean = result.mean()
        if mean is not None:
            row.cells[datasets.index(job.dataset)] = Cell(
                mean, decimals, len(result.scored), complete=not result.problems
            )
    return sorted(rows.values(), key=lambda row: row.kind != "input")


def _published_rows(columns: list[Column]) -> list[TableRow]:
    """One row for each model and paper that has a score for one of the columns."""
    rows: dict[tuple[str, str], TableRow] = {}
    trained_on: dict[tuple[str, str], list[str]] = {}
    for index, column in enumerate(columns):
        for score in published_scores(column.dataset, column.protocol):
            key = (score.model, score.source)
            row = rows.setdefault(key, TableRow("published", score.model, [None] * len(columns)))
            row.cells[index] = _published_cell(score)
            trained_on.setdefault(key, []).append(score.trained_on)
    for key, row in rows.items():
        row.source = f"{key[1]}, trained on {_training_text(trained_on[key], columns)}"
    return sorted(rows.values(), key=lambda row: row.source)


def _training_text(trained_on: list[str], columns: list[Column]) -> str:
    """What a row was trained on: the one set behind all its numbers, or one for each."""
    different = list(dict.fromkeys(trained_on))
    if set(different) <= {column.dataset for column in columns}:
        return "the training part of each data set"
    return ", ".join(different)


def _published_cell(score: PublishedScore) -> Cell:
    texts = (score.psnr, score.ssim)
    return Cell(
        scores=tuple(float(text) for text in texts),
        decimals=tuple(len(text.partition(".")[2]) for text in texts),
    )


def _mean_cell(cells: list[Cell | None]) -> Cell | None:
    """Unweighted mean over data sets; None unless there is a score for each of several."""
    present = [cell for cell in cells if cell is not None]
    if len(present) < 2 or len(present) < len(cells):
        return None
    return Cell(
        scores=tuple(fmean(values) for values in zip(*(c.scores for c in present), strict=True)),
        decimals=tuple(max(d) for d in zip(*(c.decimals for c in present), strict=True)),
        complete=all(cell.complete for cell in present),
    )


def _rank(rows: list[TableRow], columns: list[Column], metrics: tuple[Metric, ...]) -> None:
    """Mark the best and second best of each column and metric, by the digits that are shown.

    The rainy input is no method and takes no part, nor does an incomplete mean, nor do published
    scores where the papers score other images than those that are here.
    """
    same_images = [column.published_images is None for column in columns]
    for column, comparable in enumerate([*same_images, all(same_images)]):
        for index, metric in enumerate(metrics):
            shown: dict[int, float] = {}
            for number, row in enumerate(rows):
                cell = row.all_cells[column]
                takes_part = row.kind == "measured" or (row.kind == "published" and comparable)
                if takes_part and cell is not None and cell.complete:
                    shown[number] = round(cell.scores[index], cell.decimals[index])
            if len(shown) < 2:
                continue  # one method alone is not the best of anything
            for rank, value in enumerate(_best(shown.values(), metric)[:2], start=1):
                for number, score in shown.items():
                    if score == value:
                        rows[number].ranks[column, index] = rank


def _best(values: Iterable[float], metric: Metric) -> list[float]:
    """The different values, best first."""
    return sorted(set(values), reverse=metric.higher_is_better)
