"""Tables as text: Markdown that reads well as it is, and CSV that spreadsheets take for data."""

from __future__ import annotations

from collections.abc import Sequence

import tabulate

tabulate.MIN_PADDING = 0  # no wider than the figures, for consoles of 80 columns

# What a cell begins with that spreadsheets compute instead of showing it.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]], num_left: int = 1) -> str:
    """A pipe table; the first ``num_left`` columns are flush left, figures flush right."""
    return tabulate.tabulate(
        [[_cell(cell) for cell in row] for row in rows],
        [_cell(head) for head in heads],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=["left"] * num_left + ["right"] * (len(heads) - num_left),
    )


def csv_text(text: str) -> str:
    """A text for a CSV file: behind an apostrophe where a spreadsheet would compute it."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _cell(text: str) -> str:
    """A cell on one line, without a bar that would end it."""
    return " ".join(text.splitlines()).replace("|", "\\|")
