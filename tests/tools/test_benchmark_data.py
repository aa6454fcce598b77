"""tools/benchmark_data.py as a user runs it."""

from __future__ import annotations

import re

import pytest

from tests.helpers import run_script, write_pairs


def test_a_second_start_decodes_nothing() -> None:
    done = run_script("tools/benchmark_data.py", "--start", 130)
    assert done.returncode == 0, done.stderr
    decoded = re.findall(r"^\| (first|second) \|.* (\d+) pairs \|$", done.stdout, re.M)
    assert decoded == [("first", "130"), ("second", "0")]


@pytest.mark.slow
def test_every_way_of_reading_with_every_number_of_workers(tmp_path) -> None:
    data = write_pairs(tmp_path / "pairs", 3, 80, 90)
    done = run_script("tools/benchmark_data.py", "--data", data, "--seconds", 0)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (.*?) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", done.stdout, re.M)
    assert [row[0] for row in rows] == ["decode given", "cache", "none"] * 2
    assert all(int(rate.replace(",", "")) > 0 for row in rows for rate in row[1:])
