"""The table of a paper as data: methods in rows, data sets in columns, ranks, notes.

formats.py renders it as Markdown, CSV and JSON, latex.py as LaTeX.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

from utils.evaluation.published import PublishedScore, facts, published_scores
from utils.evaluation.quality import PSNR, Metric
from utils.evaluation.scoring import NIQE, JobResult
from utils.metrics import PROTOCOLS
from utils.wording import listed, plural

MEAN = "Mean"  # heading of the column over all data sets
EACH_SET = "the training part of each data set"


@dataclass(frozen=True)
class Column:
    """A data set under its protocol, with its number of images (or clips, as ``unit`` says)."""

    dataset: str
    protocol: str
    num_images: int
    unit: str = "image"

    @property
    def published_images(self) -> int | None:
        """How many images the papers score, if that is known and differs from ``num_images``."""
        known = facts(self.dataset).num_images
        return known if known != self.num_images and self.protocol != NIQE else None


@dataclass(frozen=True)
class TableCell:
    """Mean scores of one method on one data set, one for each metric; NaN if unknown.

    ``decimals`` is the number of decimals to show for each; ``complete``: no image is left out.
    """

    scores: tuple[float, ...]
    decimals: tuple[int, ...]
    num_images: int | None = None
    complete: bool = True


@dataclass
class TableRow:
    """One line: the rainy input, a measured method, or a published one with its source.

    ``cells`` follow the table's columns, None without a score; ``ranks`` maps (column, metric) to 1
    for the best and 2 for the second best. ``facts`` maps the table's ``fact_names`` to text;
    ``cite`` is the model's BibTeX key; ``notes`` are sentences on single published figures.
    """

    kind: Literal["input", "measured", "published"]
    method: str
    cells: list[TableCell | None]
    mean: TableCell | None = None
    source: str = ""
    ranks: dict[tuple[int, int], int] = field(default_factory=dict)
    cite: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def all_cells(self) -> list[TableCell | None]:
        """The cells of the data sets, then the mean over them."""
        return [*self.cells, self.mean]


@dataclass
class Table:
    """Rows over columns; all columns share the same metrics.

    ``num_problems`` counts all problems, ``num_left_out`` the images that are missing from the
    means because of them; ``remarks`` counts the remarks on images by kind. ``implementations``
    states what computes the metrics besides PSNR and SSIM.
    """

    columns: list[Column]
    metrics: tuple[Metric, ...]
    rows: list[TableRow]
    num_problems: int
    num_left_out: int
    remarks: Counter[str]
    implementations: tuple[str, ...] = ()
    fact_names: tuple[str, ...] = ()
    more_notes: tuple[str, ...] = ()

    @property
    def headings(self) -> list[str]:
        """Data sets and, if there are several, the mean over them."""
        names = [column.dataset for column in self.columns]
        return [*names, MEAN] if len(names) > 1 else names

    @property
    def unit(self) -> str:
        """What is scored: "image", or "clip" where means are over frames first."""
        return self.columns[0].unit

    @property
    def ranked(self) -> bool:
        return any(row.ranks for row in self.rows)


def build_table(
    results: list[JobResult],
    *,
    published: bool,
    implementations: Sequence[str] = (),
    num_unmatched: int = 0,
    more_published: list[PublishedScore] | None = None,
    method_facts: dict[str, dict[str, str]] | None = None,
    more_notes: Sequence[str] = (),
) -> Table:
    """The table of some jobs, with the papers' rows for the same data sets and protocols.

    ``num_unmatched`` counts problems that belong to no job; ``more_published`` are rows besides the
    papers'; ``method_facts`` are further columns, by method; ``more_notes`` further sentences.
    """
    datasets = list(dict.fromkeys(result.job.dataset for result in results))
    columns = []
    for dataset in datasets:
        of_set = [result for result in results if result.job.dataset == dataset]
        most = max(result.num_expected for result in of_set)
        columns.append(Column(dataset, of_set[0].job.protocol, most, of_set[0].unit))
    num_images = {column.dataset: column.num_images for column in columns}
    metrics = results[0].all_metrics
    rows = _measured_rows(results, datasets, metrics)
    rows += _published_rows(columns, metrics, published, more_published or [])
    for row in rows:
        row.mean = mean_cell(row.cells)
    rank_rows(rows, columns, metrics)
    fact_names = _add_facts(rows, method_facts or {})
    return Table(
        columns,
        metrics,
        rows,
        num_problems=sum(len(result.problems) for result in results) + num_unmatched,
        num_left_out=sum(
            # a missing folder leaves out the whole set
            result.num_left_out if result.num_expected else num_images[result.job.dataset]
            for result in results
        ),
        remarks=Counter(
            kind
            for result in results
            for image in result.images
            for kind in {remark.kind for remark in image.remarks}
        ),
        implementations=tuple(implementations),
        fact_names=fact_names,
        more_notes=tuple(more_notes),
    )


def notes(table: Table) -> list[str]:
    """The sentences below a table: what was measured, how, and what is missing."""
    over = "images" if table.unit == "image" else "the frames of a clip, then over clips"
    sentences = [f"{_directions(table.metrics)}; means over {over}."]
    for protocol in dict.fromkeys(column.protocol for column in table.columns):
        sets = ", ".join(_with_count(c) for c in table.columns if c.protocol == protocol)
        if protocol == NIQE:
            sentences.append(f"Without clean images: {sets}.")
        else:
            sentences.append(f"Protocol {protocol} ({PROTOCOLS[protocol]}): {sets}.")
    sentences += [f"{name}." for name in table.implementations]
    if len(table.columns) > 1:
        mean = "The mean over data sets is unweighted"
        mixed = list(dict.fromkeys(column.protocol for column in table.columns))
        if len(mixed) > 1:
            mean += f" and mixes the protocols {listed(mixed)}, as the papers' own do"
        sentences.append(f"{mean}.")
    if any(column.published_images for column in table.columns) and sources(table):
        sentences.append("Published scores on a different number of images are not ranked.")
    sentences += [f"{note}." for row in table.rows for note in row.notes]
    sentences += [f"{note}." for note in table.more_notes]
    sentences += _remark_sentences(table)
    if table.num_left_out:
        left_over = "images" if table.unit == "image" else "clips or frames"
        sentences.append(
            f"INCOMPLETE: {left_out(table)}; a mean marked with † leaves {left_over} out and is "
            "not ranked."
        )
    return sentences


def left_out(table: Table) -> str:
    """``3 images not scored``, or clips that are not scored in full."""
    whole = "" if table.unit == "image" else " in full"
    return f"{plural(table.num_left_out, table.unit)} not scored{whole}"


def sources(table: Table) -> list[str]:
    """The sources of the published rows, in order; a row shows the number of its source."""
    return list(dict.fromkeys(row.source for row in table.rows if row.kind == "published"))


def _directions(metrics: tuple[Metric, ...]) -> str:
    """ "PSNR (dB) and SSIM, higher is better; LPIPS, lower is better"."""
    parts = []
    for higher, word in ((True, "higher"), (False, "lower")):
        names = [
            f"{metric.name} (dB)" if metric == PSNR else metric.name
            for metric in metrics
            if metric.higher_is_better == higher
        ]
        if names:
            parts.append(f"{listed(names)}, {word} is better")
    return "; ".join(parts)


def _remark_sentences(table: Table) -> list[str]:
    """What the reader should know about images that were scored despite a peculiarity."""
    count = table.remarks
    sentences = []
    if count["cropped"]:
        verb = "was" if count["cropped"] == 1 else "were"
        pairs = plural(count["cropped"], "pair")
        sentences.append(f"{pairs} of different sizes {verb} cut to the common size.")
    if count["gray"]:
        pairs = plural(count["gray"], "pair")
        sentences.append(f"In {pairs} one image is gray and the other in colour.")
    if count["damaged"]:
        pairs = plural(count["damaged"], "pair")
        sentences.append(f"In {pairs} the data of a JPEG file are damaged.")
    if count["identical"]:
        results = plural(count["identical"], "result")
        text = f"{results} equal{'s' if count['identical'] == 1 else ''} the clean image"
        infinite = any(
            cell and any(map(math.isinf, cell.scores)) for row in table.rows for cell in row.cells
        )
        if infinite:
            text += "; a mean with an infinite PSNR is infinite (inf) and is not ranked"
        sentences.append(f"{text}.")
    return sentences


def _with_count(column: Column) -> str:
    """A data set with its number of images, and that of the papers if it differs."""
    count = plural(column.num_images, column.unit)
    if column.published_images:
        count += f"; papers score {column.published_images}"
    return f"{column.dataset} ({count})"


def _measured_rows(
    results: list[JobResult],
    datasets: list[str],
    metrics: tuple[Metric, ...],
) -> list[TableRow]:
    """One row for each method, the rainy input first."""
    decimals = tuple(metric.decimals for metric in metrics)
    rows: dict[tuple[bool, str], TableRow] = {}
    for result in results:
        job = result.job
        row = rows.setdefault(
            (job.is_input, job.method),
            TableRow("input" if job.is_input else "measured", job.method, [None] * len(datasets)),
        )
        mean = result.mean()
        if mean is not None:
            row.cells[datasets.index(job.dataset)] = TableCell(
                mean, decimals, len(result.scored), complete=not result.num_left_out
            )
    return sorted(rows.values(), key=lambda row: row.kind != "input")


def _published_rows(
    columns: list[Column],
    metrics: tuple[Metric, ...],
    papers: bool,
    more: list[PublishedScore],
) -> list[TableRow]:
    """One row for each model and source with a score for at least one column."""
    rows: dict[tuple[str, str], TableRow] = {}
    trained_on: dict[tuple[str, str], list[str]] = {}
    for index, column in enumerate(columns):
        for score in published_scores(column.dataset, column.protocol, more, papers=papers):
            cell = _published_cell(score, metrics)
            if cell is None:
                continue
            key = (score.model, score.source)
            row = rows.setdefault(
                key, TableRow("published", score.model, [None] * len(columns), cite=score.cite)
            )
            row.cells[index] = cell
            if score.note:
                row.notes.append(
                    f"{score.model} on {column.dataset} ({score.source}): {score.note}"
                )
            trained_on.setdefault(key, []).append(score.trained_on)
    for key, row in rows.items():
        text = _training_text(trained_on[key], columns)
        row.source = f"{key[1]}, trained on {text}" if text else key[1]
        row.facts["training_data"] = "each set's own part" if text == EACH_SET else text
    return sorted(rows.values(), key=lambda row: row.source)


def _training_text(trained_on: list[str], columns: list[Column]) -> str:
    """What a row was trained on: the sets behind its numbers, or each set's own training part."""
    different = list(dict.fromkeys(filter(None, trained_on)))
    if different and set(different) <= {column.dataset for column in columns}:
        return EACH_SET
    return ", ".join(different)


def _published_cell(score: PublishedScore, metrics: tuple[Metric, ...]) -> TableCell | None:
    """The printed figures of these metrics; None if the source lacks all of them."""
    texts = [score.scores.get(metric.key, "") for metric in metrics]
    if not any(texts):
        return None
    return TableCell(
        scores=tuple(float(text) if text else math.nan for text in texts),
        decimals=tuple(len(text.partition(".")[2]) for text in texts),
    )


def mean_cell(cells: list[TableCell | None]) -> TableCell | None:
    """Unweighted mean over data sets; None unless there are several, all with a score."""
    present = [cell for cell in cells if cell is not None]
    if len(present) < 2 or len(present) < len(cells):
        return None
    return TableCell(
        scores=tuple(fmean(values) for values in zip(*(c.scores for c in present), strict=True)),
        decimals=tuple(max(d) for d in zip(*(c.decimals for c in present), strict=True)),
        complete=all(cell.complete for cell in present),
    )


def _add_facts(rows: list[TableRow], method_facts: dict[str, dict[str, str]]) -> tuple[str, ...]:
    """Put the facts about each method into its rows; returns the names of those in use."""
    names = tuple(dict.fromkeys(name for facts in method_facts.values() for name in facts))
    for row in rows:
        known = method_facts.get(row.method, {})
        row.facts = {name: known.get(name) or row.facts.get(name, "") for name in names}
    return names


def rank_rows(rows: list[TableRow], columns: list[Column], metrics: tuple[Metric, ...]) -> None:
    """Mark the best and second best of each column and metric, by the digits that are shown.

    Two scores are compared by the decimals that both show: a paper's 0.899 equals 0.8989. The
    rainy input, which is not a method, and incomplete or infinite means are not ranked, nor are
    published scores if the papers score a different number of images.
    """
    same_images = [column.published_images is None for column in columns]
    for column, comparable in enumerate([*same_images, all(same_images)]):
        for index, metric in enumerate(metrics):
            shown: dict[int, tuple[float, int]] = {}
            for number, row in enumerate(rows):
                cell = row.all_cells[column]
                takes_part = row.kind == "measured" or (row.kind == "published" and comparable)
                if takes_part and cell and cell.complete and math.isfinite(cell.scores[index]):
                    shown[number] = cell.scores[index], cell.decimals[index]
            if len(shown) < 2:
                continue  # a single method is not ranked
            for rank in (1, 2):
                best = _unbeaten(shown, metric)
                for number in best:
                    rows[number].ranks[column, index] = rank
                    del shown[number]


def _unbeaten(shown: dict[int, tuple[float, int]], metric: Metric) -> list[int]:
    """The rows that no other row beats; values are scores with their shown decimals."""

    def beats(a: tuple[float, int], b: tuple[float, int]) -> bool:
        decimals = min(a[1], b[1])
        difference = round(a[0], decimals) - round(b[0], decimals)
        return difference > 0 if metric.higher_is_better else difference < 0

    return [
        number
        for number, score in shown.items()
        if not any(beats(other, score) for other in shown.values())
    ]
