"""tools/benchmark_scores.py: it measures every protocol on pairs that can be told apart."""

from __future__ import annotations

import re
from pathlib import Path

from tests.helpers import run_script
from tools.benchmark_scores import HEIGHT, WIDTH, make_pairs
from utils.evaluation.scoring import read_8bit
from utils.metrics import PROTOCOLS, score


def test_pairs_are_noisy_photographs_of_the_size_of_rain100h(tmp_path: Path):
    make_pairs(tmp_path, 4)
    for number in range(4):
        clean, noisy = (read_8bit(tmp_path / side / f"{number}.png") for side in "tr")
        assert clean.shape == noisy.shape == (HEIGHT, WIDTH, 3) == (321, 481, 3)
        assert 29 < score(noisy, clean).psnr < 40  # noise of 8 levels, less of it in Y


def test_each_protocol_has_a_line():
    done = run_script("tools/benchmark_scores.py", "--pairs", 2, "--rounds", 1)
    assert done.returncode == 0, done.stderr
    for name in ("scikit-image", "decoding", *PROTOCOLS):
        milliseconds, per_second, _ = re.search(
            rf"^{name}.*? ([\d.]+) +([\d.]+) +([\d.]+)$", done.stdout, re.MULTILINE
        ).groups()
        assert abs(float(milliseconds) * float(per_second) / 1000 - 1) < 0.2
