"""Tables for people: Markdown that reads well as plain text too."""

from __future__ import annotations

from collections.abc import Sequence

import tabulate

tabulate.MIN_PADDING = 0  # no wider than the figures, for consoles of 80 columns


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]], num_left: int = 1) -> str:
    """A pipe table; the first ``num_left`` columns are flush left, figures flush right."""
    return tabulate.tabulate(
        [[cell.replace("|", "\\|") for cell in row] for row in rows],
        heads,
        tablefmt="pipe",
        disable_numparse=True,
        colalign=["left"] * num_left + ["right"] * (len(heads) - num_left),
    )
