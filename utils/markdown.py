"""Tables as text: Markdown that reads well unrendered, and CSV without formulas."""

from __future__ import annotations

from collections.abc import Sequence

import tabulate

tabulate.MIN_PADDING = 0  # no wider than the figures, for consoles of 80 columns

# A cell that begins with one of these is a formula to a spreadsheet.
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
    """A text for a CSV file, with an apostrophe before what a spreadsheet would compute."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _cell(text: str) -> str:
    """A cell on one line, without a bar that would end it."""
    return " ".join(text.splitlines()).replace("|", "\\|")
