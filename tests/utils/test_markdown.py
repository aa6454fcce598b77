"""Tables in Markdown and cells of CSV, whatever the texts hold."""

from __future__ import annotations

import pytest

from utils.markdown import csv_text, markdown_table


def test_figures_are_flush_right_and_bars_and_line_breaks_stay_in_their_cell() -> None:
    table = markdown_table(["method", "a|b", "LPIPS"], [["x\ny|z", "1", "0.25"], ["m", "20", ""]])
    assert table.splitlines() == [
        r"| method | a\|b | LPIPS |",
        r"|:-------|-----:|------:|",
        r"| x y\|z |    1 |  0.25 |",
        r"| m      |   20 |       |",
    ]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_text_for_a_spreadsheet_is_not_a_formula(start: str) -> None:
    assert csv_text(f"{start}1") == f"'{start}1"
    assert csv_text(f"1{start}") == f"1{start}"
