"""Further columns of a table: what a method costs and what it was trained on, from a CSV file.

``tools/benchmark.py networks --facts FILE.csv`` writes such a file.
"""

from __future__ import annotations

from pathlib import Path

from utils.errors import UserError
from utils.evaluation.published import read_csv

COLUMNS = ("parameters", "macs", "seconds", "training_data")
WEIGHTS = ("weights", "sha256")  # the file that was measured; recorded in table.json
_UNITS = {"parameters": 1e6, "macs": 1e9}
_DECIMALS = {"parameters": 2, "macs": 1, "seconds": 2}


def read_facts(path: Path) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """The further columns of a table, and the weights that were measured, both by method.

    The file has a column ``method`` and any of ``COLUMNS`` and ``WEIGHTS``. Parameters and
    multiply-accumulates are plain counts in the file, millions and billions in the table. Raises
    UserError for any other file.
    """
    lines, columns = read_csv(path)
    if "method" not in columns or not set(columns) <= {"method", *COLUMNS, *WEIGHTS}:
        raise UserError(
            f"{path} has the columns {', '.join(columns) or '(none)'}; a file of facts has "
            f"method and any of {', '.join((*COLUMNS, *WEIGHTS))}."
        )
    shown = [name for name in COLUMNS if name in columns]
    facts = {
        line["method"]: {name: _text(name, line[name] or "", path) for name in shown}
        for line in lines
    }
    weights = {
        line["method"]: {name: line[name] for name in WEIGHTS if line.get(name)} for line in lines
    }
    return facts, {method: given for method, given in weights.items() if given}


def _text(name: str, value: str, path: Path) -> str:
    """A fact as the table shows it."""
    if name == "training_data" or not value:
        return value
    try:
        number = float(value)
    except ValueError as error:
        raise UserError(f"{path}: {name} is {value!r}, not a number.") from error
    return f"{number / _UNITS.get(name, 1):.{_DECIMALS[name]}f}"
