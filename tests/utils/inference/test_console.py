"""Sentences, bars, and lines of libraries that would break them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers import ROOT
from utils.inference.console import Problems

NOISY = """
import os, sys
from tqdm import tqdm
from utils.inference.console import library_lines_apart, say

with library_lines_apart():
    for i in tqdm(range(3)):
        os.write(2, b"libpng warning: iCCP\\n")  # as a library in C does
        say(f"sentence {i} of \\udcff")  # a name that is no UTF-8
os.write(2, b"the console again\\n")
say("and Python's")
"""


def test_lines_of_libraries_come_once_and_behind_the_bar() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NOISY], cwd=ROOT, capture_output=True, text=True, check=True
    )
    told = done.stderr
    assert told.count("libpng warning") == 1
    order = ["sentence 0 of \\udcff", "sentence 2", "100%", "Lines of the libraries"]
    order += ["libpng warning", "the console again", "and Python's"]
    places = [told.rindex(words) for words in order]
    assert places == sorted(places), told


def test_problems_are_told_at_once_and_again(capsys: pytest.CaptureFixture[str]) -> None:
    problems = Problems(["a folder"])
    problems.add("a.png is broken")
    assert capsys.readouterr().err == "a folder\na.png is broken\n"
    problems.tell_again(5)
    told = capsys.readouterr().err
    assert told == "2 of 5 could not be restored:\na folder\na.png is broken\n"
    Problems().tell_again(5)
    assert capsys.readouterr().err == ""
