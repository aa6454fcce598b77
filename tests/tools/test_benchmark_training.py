"""tools/benchmark_training.py: its table, and the whole command on the smallest patches."""

from __future__ import annotations

import shutil

import pytest

from tests.helpers import ROOT, run_script
from tools.benchmark_training import Step, row


def test_a_row_tells_the_sum_the_rate_and_the_gain() -> None:
    step, before = Step(0.5, 1.25, 0.25, 3 * 2**20), Step(1.0, 2.0, 0.2, 0)
    assert row("dmsr", "bf16", 3, step, before) == [
        "dmsr", "bf16", "3", "500.0 ms", "1.25 s", "250.0 ms", "2.00 s", "1.50", "3 MiB", "1.60",
    ]  # fmt: skip


@pytest.mark.skipif(
    not (ROOT / ".git").exists() or not shutil.which("git"), reason="needs a git checkout"
)
def test_another_commit_is_measured_beside_this_one() -> None:
    """In a folder of its own; a commit that does not exist is one sentence."""
    options = ("--networks", "nerd_rain_s", "--patch", "16", "--seconds", "0")
    done = run_script("tools/benchmark_training.py", *options, "--against", "HEAD")
    assert done.returncode == 0, done.stderr
    heads, _, cells = (
        [c.strip() for c in line.split("|")[1:-1]] for line in done.stdout.splitlines()[:3]
    )
    assert heads[-1] == "times as fast as HEAD" and cells[:3] == ["nerd_rain_s", "float32", "1"]
    assert float(cells[-1]) > 0

    wrong = run_script("tools/benchmark_training.py", *options, "--against", "nowhere")
    assert wrong.returncode == 1 and "no commit nowhere" in wrong.stderr
    assert "Traceback" not in wrong.stderr
