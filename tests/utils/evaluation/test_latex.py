"""table.tex: escaped, cited, and no wider than the page when LaTeX compiles it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.utils.evaluation.test_table import result
from utils.evaluation.latex import escape, latex
from utils.evaluation.published import PUBLISHED_BIB
from utils.evaluation.table import Table, build_table

SETS = ("Rain200H", "Rain200L", "DID-Data", "DDN-Data", "SPA-Data")
NAMES = ("[1] a_b & 50% #~^\\{}$", "Jürgen Łukasz", "深度去雨 \u03b1→β \U0001f327", '<"|>†')


def wide_table() -> Table:
    """Five sets and their mean, published rows, further columns, and unusual names."""
    jobs = [
        result(name, dataset, *[(30.0 + i, 0.9)] * 10)
        for i, name in enumerate(NAMES)
        for dataset in SETS
    ]
    facts = {name: {"parameters": "12.3", "training_data": "Rain_13K"} for name in NAMES}
    return build_table(jobs, published=True, method_facts=facts)


def test_latex_is_complete_and_escaped() -> None:
    table = build_table(
        [
            result("rainy input", "my_set", (10.0, 0.5), is_input=True),
            result("a_b & 50%", "my_set", (30.0, 0.9)),
            result("c", "my_set", (31.0, 0.8)),
        ],
        published=False,
    )
    text = latex(table, label="my results/1")
    for part in (
        r"\begin{table}[t]",
        r"\begin{tabular}{lcc}",
        r"\multicolumn{2}{c}{my\_set} \\",
        r"\cmidrule(lr){2-3}",
        r"{a\_b \& 50\%} & \underline{30.00} & \textbf{0.9000} \\",
        "{rainy input} & 10.00 & 0.5000 \\\\\n\\midrule\n{a",
        "Protocol rain13k",
        r"\label{tab:my-results-1}",
    ):
        assert part in text
    assert text.count("\\toprule") == text.count("\\bottomrule") == 1
    assert text.count("{") == text.count("}")


def test_published_rows_are_cited() -> None:
    text = latex(wide_table())
    assert r"\begin{table*}" in text and r"{Restormer~\cite{restormer}$^\mathrm{b}$} &" in text
    assert r"NeRD-Rain paper Table 1, trained on the training part of each data set~\cite{nerd" in (
        text
    )
    keys = set(re.findall(r"\\cite\{(\w+)\}", text))
    assert keys and keys <= set(re.findall(r"@\w+\{(\w+),", PUBLISHED_BIB.read_text()))


def test_letters_unknown_to_latex_become_their_code_points() -> None:
    assert escape("Jürgen Łukasz") == escape("Ju\u0308rgen Łukasz") == "Jürgen Łukasz"
    assert escape("深") == r"\anycharacter{6DF1}{深}"
    assert escape("a\tb\n") == "a b "


@pytest.mark.extras
@pytest.mark.parametrize("columns", ["onecolumn", "twocolumn"])
def test_pdflatex_sets_it_within_the_page(columns: str, tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None or shutil.which("bibtex") is None:
        pytest.skip("pdflatex is not installed")
    (tmp_path / "table.tex").write_text(latex(wide_table()), encoding="utf-8")
    shutil.copy(PUBLISHED_BIB, tmp_path)
    (tmp_path / "paper.tex").write_text(
        rf"\documentclass[{columns}]{{article}}\usepackage{{booktabs,adjustbox}}"
        r"\begin{document}Table~\ref{tab:deraining}.\input{table}\newpage"
        r"\bibliographystyle{plain}\bibliography{published}\end{document}"
    )
    for command in ("pdflatex", "bibtex", "pdflatex", "pdflatex"):
        options = ["-interaction=nonstopmode", "-halt-on-error"] if command == "pdflatex" else []
        done = subprocess.run(
            [command, *options, "paper"], cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout.decode("utf-8", "replace")[-2000:]
    log = (tmp_path / "paper.log").read_text(encoding="utf-8", errors="replace")
    assert "Overfull \\hbox" not in log and "undefined" not in log
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000
