"""Write an evaluation: the table in four formats, the statistics and the page; print the table."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utils.evaluation import formats
from utils.evaluation.latex import latex
from utils.evaluation.leaderboard import keep_in_history
from utils.evaluation.published import PUBLISHED_BIB, PublishedScore
from utils.evaluation.report import report_page
from utils.evaluation.scoring import JobResult
from utils.evaluation.statistics import (
    Comparison,
    compare_methods,
    statistics_json,
    statistics_markdown,
)
from utils.evaluation.table import Table, build_table
from utils.files import write_text
from utils.provenance import provenance
from utils.wording import plural

SHOWN = 10  # problems and remarks per folder; images.csv has all


@dataclass(frozen=True)
class TableOptions:
    """What the table and the page hold besides the scores.

    published: adds the papers' rows of the same data sets and protocols; ``more_published`` others.
    implementations: what computes the metrics besides PSNR and SSIM.
    facts: further columns, by method; ``weights``: each method's weights, for table.json.
    notes: further sentences below the table.
    baseline: the method that the others are compared with; None for the best.
    extremes: how many of the worst and best images are listed.
    embed: put the images into the page.
    """

    published: bool = True
    more_published: Sequence[PublishedScore] = ()
    implementations: Sequence[str] = ()
    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    weights: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    baseline: str | None = None
    extremes: int = 5
    embed: bool = False


def write_evaluation(
    folder: Path,
    results: list[JobResult],
    options: TableOptions,
    unmatched: Sequence[str] = (),
) -> Table:
    """Write everything into ``folder``, print the table, and name every problem.

    ``unmatched`` are problems that belong to no job. If the table's ``num_problems`` is above 0, it
    is incomplete or not what was asked for.
    """
    table = build_table(
        results,
        published=options.published,
        implementations=options.implementations,
        num_unmatched=len(unmatched),
        more_published=list(options.more_published),
        method_facts=options.facts,
        more_notes=[*options.notes, *jpeg_notes(results)],
    )
    comparisons = compare_methods(results, options.baseline)
    _write_table(folder, table, comparisons, options.weights)
    write_text(folder / "images.csv", formats.images_csv(results))
    if table.unit == "clip":
        write_text(folder / "frames.csv", formats.frames_csv(results))
    text = statistics_markdown(comparisons, results, options.extremes)
    write_text(folder / "statistics.md", text)
    page = report_page(results, table, folder, embed=options.embed, unmatched=unmatched)
    write_text(folder / "report.html", page)

    print(formats.console(table, shutil.get_terminal_size().columns))
    num_scored = sum(len(result.scored) for result in results)
    num_reused = sum(image.reused for result in results for image in result.images)
    scored = plural(num_scored, table.unit)
    print(f"\n{scored} ({num_reused} kept from before); written to {folder}/")
    _show_problems(results, unmatched, table)
    return table


def jpeg_notes(results: Sequence[JobResult]) -> list[str]:
    """A sentence for each folder of results that were stored as JPEG, whose losses are scored."""
    sentences = []
    for result in results:
        images = [image for one in result.scored for image in getattr(one, "frames", [one])]
        scored = [image for image in images if image.scores is not None]
        stored = [image.restored.suffix.lower() for image in scored if image.restored]
        num_jpeg = sum(suffix in (".jpg", ".jpeg") for suffix in stored)
        if num_jpeg and not result.job.is_input:
            files = plural(len(stored), "result" if result.unit == "image" else "frame")
            sentences.append(
                f"{num_jpeg} of the {files} of {result.job.method} on {result.job.dataset} are "
                "JPEG files, whose losses are part of the scores"
            )
    return sentences


def _write_table(
    folder: Path,
    table: Table,
    comparisons: list[Comparison],
    weights: dict[str, dict[str, str]],
) -> None:
    """Write the table in four formats; the JSON also records its provenance."""
    write_text(folder / "table.md", formats.markdown(table))
    write_text(folder / "table.csv", formats.table_csv(table))
    write_text(folder / "table.tex", latex(table, label=folder.resolve().name))
    shutil.copyfile(PUBLISHED_BIB, folder / PUBLISHED_BIB.name)
    content = {
        **formats.table_json(table),
        "statistics": statistics_json(comparisons),
        "provenance": provenance(weights=weights),
    }
    write_text(folder / "table.json", formats.dump_json(content))
    keep_in_history(folder, content)


def _show_problems(results: list[JobResult], unmatched: Sequence[str], table: Table) -> None:
    """Print to standard error what could not be scored, and the remarks on the rest."""
    for result in results:
        remarks = [
            f"{image.restored}: {remark.text}"
            for image in result.scored
            for remark in image.remarks
        ]
        _show_some("warning", remarks, result.job.results)
        _show_some("error", result.problems, result.job.results)
    for problem in unmatched:
        print(f"error: {problem}", file=sys.stderr)
    if table.num_problems:
        end = "; the table is incomplete" if table.num_left_out else ""
        print(f"{plural(table.num_problems, 'problem')}{end}", file=sys.stderr)


def _show_some(kind: str, lines: Sequence[str], folder: Path) -> None:
    """Print the first lines, and the number of further ones."""
    for line in lines[:SHOWN]:
        print(f"{kind}: {line}", file=sys.stderr)
    if len(lines) > SHOWN:
        print(f"{kind}: ... and {len(lines) - SHOWN} more in {folder}", file=sys.stderr)
