"""A table as LaTeX for a paper: booktabs, at most as wide as the page."""

from __future__ import annotations

import re
import unicodedata

from utils.evaluation.formats import FACT_HEADINGS, INCOMPLETE, cell_text
from utils.evaluation.published import CITATIONS
from utils.evaluation.table import Table, TableRow, notes, sources

MARKS = {1: r"\textbf{{{}}}", 2: r"\underline{{{}}}"}
# A table with at least this many columns of figures spans both columns of a two-column page.
WIDE = 6

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "\\textquotedblright{}",
    INCOMPLETE: r"$^\dagger$",
    **{character: "\\" + character for character in "&%$#_{}"},
}
# What LaTeX has set without a package since 2018: letters with these accents, and _PLAIN.
_ACCENTS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327"
_PLAIN = "ßæÆœŒøØåÅłŁ¡¿§¶£\u2013\u2014\u2018\u2019\u201c\u201d\u2026"  # dashes, quotes, ellipsis


def latex(table: Table, label: str = "deraining") -> str:
    r"""A table with ``\\label{tab:...}`` and ``\\cite`` for published rows.

    It needs the packages booktabs and adjustbox; the references are in ``published.bib``.
    """
    columns = range(len(table.headings))
    span = len(table.metrics)
    environment = "table*" if len(columns) * span + len(table.fact_names) >= WIDE else "table"
    heads = [
        *[""] * (1 + len(table.fact_names)),
        *(rf"\multicolumn{{{span}}}{{c}}{{{escape(heading)}}}" for heading in table.headings),
    ]
    first = 2 + len(table.fact_names)  # column of the first score
    rules = (rf"\cmidrule(lr){{{first + i * span}-{first + (i + 1) * span - 1}}}" for i in columns)
    names = [
        "Method",
        *(
            escape(FACT_HEADINGS[name][0].upper() + FACT_HEADINGS[name][1:])
            for name in table.fact_names
        ),
        *(escape(metric.name) for _ in columns for metric in table.metrics),
    ]
    align = "l" + "".join("l" if name == "training_data" else "r" for name in table.fact_names)
    marks = r" Best in \textbf{bold}, second best underlined." if table.ranked else ""
    lines = [
        r"% needs \usepackage{booktabs,adjustbox}; the references are in published.bib",
        *_unicode_macro(table),
        rf"\begin{{{environment}}}[t]",
        r"\centering",
        rf"\caption{{{escape(' '.join(notes(table)))}{marks}}}",
        rf"\label{{tab:{_label(label)}}}",
        r"\smallskip",
        r"\footnotesize\setlength{\tabcolsep}{3pt}",
        r"\begin{adjustbox}{max width=\linewidth}",
        rf"\begin{{tabular}}{{{align}{'c' * span * len(columns)}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        "".join(rules),
        " & ".join(names) + r" \\",
        r"\midrule",
    ]
    previous = table.rows[0].kind
    for row in table.rows:
        if row.kind != previous:
            lines.append(r"\midrule")
        previous = row.kind
        lines.append(" & ".join(_cells(row, table)) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{adjustbox}"]
    for number, source in enumerate(sources(table), start=1):
        key = CITATIONS.get(source.partition(",")[0])
        cite = rf"~\cite{{{key}}}" if key else ""
        lines.append(rf"\par\smallskip {_source_mark(number)}{escape(source)}{cite}")
    return "\n".join([*lines, rf"\end{{{environment}}}"]) + "\n"


def escape(text: str) -> str:
    """Any text for LaTeX; pdfLaTeX shows what it cannot set as a code point such as U+6DF1."""
    return "".join(map(_escape_character, unicodedata.normalize("NFC", text)))


def _escape_character(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character.isascii():
        return character if character.isprintable() else " "
    if "\ud800" <= character <= "\udfff":  # from a file name that is not UTF-8
        return rf"\texttt{{U+{ord(character):04X}}}"
    base, *accents = tuple(unicodedata.normalize("NFD", character))
    is_letter = base.isascii() and len(accents) == 1 and accents[0] in _ACCENTS
    if is_letter or character in _PLAIN:
        return character
    return rf"\anycharacter{{{ord(character):04X}}}{{{character}}}"


def _unicode_macro(table: Table) -> list[str]:
    """A macro: the character under XeLaTeX and LuaLaTeX, its code point under pdfLaTeX."""
    texts = [*table.headings, *(row.method + row.source for row in table.rows)]
    texts += [text for row in table.rows for text in row.facts.values()]
    if not any("anycharacter" in escape(text) for text in texts):
        return []
    return [
        r"\providecommand\anycharacter[2]{\ifdefined\Umathcode #2\else\texttt{U+#1}\fi}",
    ]


def _cells(row: TableRow, table: Table) -> list[str]:
    """The cells of a line, the method first."""
    name = escape(row.method)
    if row.cite:
        name += rf"~\cite{{{row.cite}}}"
    if row.kind == "published":
        name += _source_mark(sources(table).index(row.source) + 1)
    scores = [
        cell_text(row, column, metric, MARKS, table).replace(INCOMPLETE, _SPECIAL[INCOMPLETE])
        for column in range(len(table.headings))
        for metric in table.metrics
    ]
    facts = [escape(row.facts[fact]) or "-" for fact in table.fact_names]
    # In braces: LaTeX would read a leading bracket as an option of the previous line's end.
    return [f"{{{name}}}", *facts, *scores]


def _source_mark(number: int) -> str:
    """A raised letter; a number in brackets would look like a citation."""
    mark = chr(ord("a") + number - 1) if number <= 26 else number
    return rf"$^\mathrm{{{mark}}}$"


def _label(text: str) -> str:
    """A label of letters, digits and hyphens."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-") or "deraining"
