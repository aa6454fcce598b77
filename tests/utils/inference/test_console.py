"""Messages, progress bars, and output of libraries that would break the bars."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers import ROOT
from utils.inference.console import Problems, TileBar
from utils.wording import duration

NOISY = """
import os, sys
from tqdm import tqdm
from utils.inference.console import library_lines_apart, say

with library_lines_apart():
    for i in tqdm(range(3)):
        os.write(2, b"libpng warning: iCCP\\n")  # as a library in C does
        say(f"sentence {i} of \\udcff")  # a name that is not UTF-8
os.write(2, b"the console again\\n")
say("and Python's")
"""


def test_lines_of_libraries_are_printed_once_and_after_the_bar() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NOISY], cwd=ROOT, capture_output=True, text=True, check=True
    )
    printed = done.stderr
    assert printed.count("libpng warning") == 1
    order = ["sentence 0 of \\udcff", "sentence 2", "100%", "Lines of the libraries"]
    order += ["libpng warning", "the console again", "and Python's"]
    places = [printed.rindex(words) for words in order]
    assert places == sorted(places), printed


def test_problems_are_reported_at_once_and_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    problems = Problems(["a folder"])
    problems.add("a.png is broken")
    assert capsys.readouterr().err == "a folder\na.png is broken\n"
    problems.repeat(5)
    printed = capsys.readouterr().err
    assert printed == "2 of 5 could not be restored:\na folder\na.png is broken\n"
    Problems().repeat(5)
    assert capsys.readouterr().err == ""


def test_the_bar_shows_the_remaining_time_from_the_first_tile_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = iter([100.0, 137.5, 175.0, 0.0, 1.0, 2.0])  # seconds; two images of three and two tiles
    bar = TileBar("note: a GPU is faster.", lambda: next(now))
    bar(0, 3)
    assert "left" not in capsys.readouterr().err
    bar(1, 3)
    printed = capsys.readouterr().err
    assert "1/3 tiles, 1 min left" in printed  # 75 s, as one tile took 37.5
    assert printed.count("note: a GPU is faster.") == 1
    bar(2, 3)
    assert "2/3 tiles, 38 s left" in capsys.readouterr().err
    bar.close()
    bar(0, 2)
    bar(1, 2)
    assert "note" not in capsys.readouterr().err  # it is not repeated
    bar(0, 1)
    bar(1, 1)
    assert capsys.readouterr().err.strip() in ("", "\r")


def test_hours_and_minutes() -> None:
    seconds = (0.4, 59.4, 59.6, 89, 91, 3570, 3600, 7510, 360_000)
    printed = ["0 s", "59 s", "1 min", "1 min", "2 min", "1 h 0 min", "1 h 0 min"]
    assert [duration(number) for number in seconds] == [*printed, "2 h 5 min", "100 h 0 min"]
