"""A table as Markdown, for the console, as LaTeX (booktabs), CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import textwrap
from typing import Any

from utils.evaluation.table import Cell, Metric, Table, TableRow, notes, sources

INCOMPLETE = "†"
MARKS_MARKDOWN = {1: "**{}**", 2: "*{}*"}
MARKS_LATEX = {1: r"\textbf{{{}}}", 2: r"\underline{{{}}}"}


def number_text(value: float, decimals: int) -> str:
    """A score as people read it; ``inf`` for identical images."""
    return f"{value:.{decimals}f}" if math.isfinite(value) else str(value)


def markdown(table: Table) -> str:
    """The whole table with its notes, as a Markdown document."""
    columns = list(range(len(table.headings)))
    return "\n\n".join([_markdown_grid(table, columns), *_notes_below(table)]) + "\n"


def console(table: Table, width: int) -> str:
    """The Markdown table for a terminal: one block for each data set where it is too wide."""
    columns = list(range(len(table.headings)))
    grids = [_markdown_grid(table, columns)]
    if max(len(line) for line in grids[0].splitlines()) > width:
        grids = [_markdown_grid(table, [column]) for column in columns]
    wrapped = "\n".join(textwrap.fill(note, width) for note in _notes_below(table))
    return "\n\n".join([*grids, wrapped])


def latex(table: Table) -> str:
    """A ``table`` environment for packages booktabs and inputenc."""
    metrics = table.metrics
    columns = range(len(table.headings))
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}[t]",
        "\\centering",
        f"\\caption{{{_latex_text(' '.join(notes(table)))}{_latex_marks(table)}}}",
        "\\smallskip",
        f"\\begin{{tabular}}{{l{'c' * len(metrics) * len(columns)}}}",
        "\\toprule",
    ]
    heads = (f"\\multicolumn{{{len(metrics)}}}{{c}}{{{_latex_text(h)}}}" for h in table.headings)
    lines.append(" & ".join(["", *heads]).strip() + r" \\")
    rules = (
        f"\\cmidrule(lr){{{2 + i * len(metrics)}-{1 + (i + 1) * len(metrics)}}}" for i in columns
    )
    lines.append("".join(rules))
    names = [metric.name for _ in columns for metric in metrics]
    lines += [" & ".join(["Method", *names]) + r" \\", "\\midrule"]
    previous = table.rows[0].kind
    for row in table.rows:
        if row.kind != previous:
            lines.append("\\midrule")
        previous = row.kind
        name = _latex_text(_row_name(row, table))
        cells = [_cell_text(row, c, m, MARKS_LATEX, table) for c in columns for m in metrics]
        cells = [cell.replace(INCOMPLETE, r"$^\dagger$") for cell in cells]
        lines.append(" & ".join([name, *cells]) + r" \\")
    lines += ["\\bottomrule", "\\end{tabular}"]
    for number, source in enumerate(sources(table), start=1):
        lines.append(f"\\\\ {{\\footnotesize [{number}] {_latex_text(source)}}}")
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def table_csv(table: Table) -> str:
    """One line for each row, every digit; the headings name data set, metric and protocol."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    protocols = [column.protocol for column in table.columns] + ["mean over data sets"]
    heads = [
        f"{heading} {metric.name} ({protocols[index]})"
        for index, heading in enumerate(table.headings)
        for metric in table.metrics
    ]
    writer.writerow(["method", "kind", "source", "complete", *heads])
    for row in table.rows:
        cells = row.all_cells[: len(table.headings)]
        scores = [
            repr(cell.scores[i]) if cell else ""
            for cell in cells
            for i in range(len(table.metrics))
        ]
        complete = all(cell is None or cell.complete for cell in cells)
        writer.writerow([row.method, row.kind, row.source, str(complete).lower(), *scores])
    return text.getvalue()


def table_json(table: Table) -> dict[str, Any]:
    """The table as plain values for ``json.dump``; infinite scores are the text ``inf``."""
    return {
        "notes": notes(table),
        "complete": table.num_problems == 0,
        "metrics": [metric._asdict() for metric in table.metrics],
        "columns": [vars(column) for column in table.columns],
        "rows": [
            {
                "method": row.method,
                "kind": row.kind,
                "source": row.source,
                "scores": {
                    heading: _cell_json(row, index, table)
                    for index, heading in enumerate(table.headings)
                },
            }
            for row in table.rows
        ],
    }


def dump_json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def finite(value: float) -> float | str:
    """A number that JSON can hold; text for the infinite ones."""
    return value if math.isfinite(value) else str(value)


def _cell_json(row: TableRow, column: int, table: Table) -> dict[str, Any] | None:
    cell = row.all_cells[column]
    if cell is None:
        return None
    content: dict[str, Any] = {
        metric.key: finite(score) for metric, score in zip(table.metrics, cell.scores, strict=True)
    }
    for index, metric in enumerate(table.metrics):
        if (column, index) in row.ranks:
            content[f"{metric.key}_rank"] = row.ranks[column, index]
    return {**content, "num_images": cell.num_images, "complete": cell.complete}


def _row_name(row: TableRow, table: Table) -> str:
    if row.kind == "published":
        return f"{row.method} (published) [{sources(table).index(row.source) + 1}]"
    return row.method


def _cell_text(
    row: TableRow, column: int, metric: Metric, marks: dict[int, str], table: Table
) -> str:
    cell: Cell | None = row.all_cells[column]
    if cell is None:
        return "-"
    index = table.metrics.index(metric)
    text = number_text(cell.scores[index], cell.decimals[index])
    if not cell.complete:
        text += INCOMPLETE
    rank = row.ranks.get((column, index))
    return marks[rank].format(text) if rank else text


def _notes_below(table: Table) -> list[str]:
    """The caption, then the sources that published rows refer to."""
    marks = " Best of a column in **bold**, second best in *italics*." if table.ranked else ""
    numbered = (f"[{number}] {source}" for number, source in enumerate(sources(table), start=1))
    return [" ".join(notes(table)) + marks, *numbered]


def _markdown_grid(table: Table, columns: list[int]) -> str:
    """The pipe table of some columns, padded so that it reads well as plain text too."""
    alone = len(table.headings) == 1  # the caption names the only data set
    heads = [
        metric.name if alone else f"{table.headings[column]} {metric.name}"
        for column in columns
        for metric in table.metrics
    ]
    lines = [["Method", *heads]]
    for row in table.rows:
        cells = [
            _cell_text(row, column, metric, MARKS_MARKDOWN, table)
            for column in columns
            for metric in table.metrics
        ]
        if any(cell != "-" for cell in cells) or row.kind != "published":
            lines.append([_row_name(row, table).replace("|", "\\|"), *cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]

    def padded(line: list[str]) -> str:
        first = line[0].ljust(widths[0])
        rest = [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
        return "| " + " | ".join([first, *rest]) + " |"

    rule = (
        "|"
        + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
        + "|"
    )
    return "\n".join([padded(lines[0]), rule, *map(padded, lines[1:])])


def _latex_text(text: str) -> str:
    special = {
        "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
        INCOMPLETE: r"$^\dagger$", **{character: "\\" + character for character in "&%$#_{}"},
    }  # fmt: skip
    return "".join(special.get(character, character) for character in text)


def _latex_marks(table: Table) -> str:
    return " Best in \\textbf{bold}, second best underlined." if table.ranked else ""
