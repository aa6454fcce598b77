"""tools/benchmark.py: its arithmetic, and one row measured."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from models import NETWORKS, build_model
from tests.helpers import run_script
from tools.benchmark import (
    MODES,
    RELEASE_UNITS,
    BenchmarkJob,
    Measurement,
    measure,
    release_ratio,
    runner,
    table,
)
from utils.checkpoints import Weights, write_weights


def row(
    network: str = "dmsr", mode: str = "float32", seconds: float = 3.0, **changes: object
) -> Measurement:
    facts = {"size": (256, 256), "device": "cpu", "threads": 1, "seconds": 1, "weights": None}
    job = BenchmarkJob(network, mode, **{**facts, **changes})
    psnr = math.inf if mode == "float32" else 50.04
    return Measurement(job, seconds, 0.03, 150 * 10**9, 100e9, 300 * 2**20, psnr)


def test_ratios_compare_units_with_the_release_of_the_same_threads() -> None:
    # 3 s are 100 units of 30 ms; the release takes 136 with one thread and 133 with two.
    assert release_ratio(row(), []) == pytest.approx(1.36)
    assert release_ratio(row(threads=2), []) == pytest.approx(1.33)
    assert release_ratio(row(threads=4), []) is None
    assert release_ratio(row(size=(512, 512)), []) is None
    assert release_ratio(row("dmsr_s"), []) is None


def test_ratios_on_cuda_compare_with_the_plain_row_of_the_same_network() -> None:
    rows = [row("dmsr", seconds=6.0, device="cuda"), row("dcsfn", seconds=9.0, device="cuda")]
    fast = row("dmsr", "bf16", seconds=2.0, device="cuda")
    assert release_ratio(fast, [*rows, fast]) == 3.0
    assert release_ratio(fast, [rows[1], fast]) is None


def test_every_release_is_a_known_network() -> None:
    assert set(RELEASE_UNITS) <= set(NETWORKS)


def test_a_line_of_the_table() -> None:
    lines = table([row(), row(mode="bf16", seconds=0.6)]).splitlines()
    assert re.split(r"\s*\|\s*", lines[2])[1:-1] == [
        "dmsr", "float32", "3.00 s", "100.0", "1.36", "50%", "300 MiB", "equal",
    ]  # fmt: skip
    assert re.split(r"\s*\|\s*", lines[3])[1:-1] == [
        "dmsr", "bf16", "600.0 ms", "20.0", "6.80", "250%", "300 MiB", "50.0 dB",
    ]  # fmt: skip
    assert max(map(len, lines)) <= 80


def test_a_row_is_measured_in_its_mode(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_model("dmsr_s").eval()
    path = tmp_path / "weights.safetensors"
    write_weights(path, Weights("dmsr_s", {}, network.state_dict(), {}))
    threads = torch.get_num_threads()
    measured = measure(BenchmarkJob("dmsr_s", "bf16", (60, 64), "cpu", threads, 0, path))
    # bf16 differs, and 60 rows are padded to the 64 that the network takes
    assert 20 < measured.psnr < 90
    assert 0 < measured.share_of_peak < 2
    assert 0.3e9 < measured.macs < 1e9
    rainy = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(runner(network, "float32", rainy)(), network.restore(rainy))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_weights(path, Weights("dmsr_s", {}, build_model("dmsr_s").state_dict(), {}))
    done = run_script("tools/benchmark.py", "--networks", "dcsfn", "--weights", path)
    assert done.returncode == 1 and "holds weights of dmsr_s, not of dcsfn" in done.stderr


@pytest.mark.slow
def test_the_command_itself() -> None:
    done = run_script(
        "tools/benchmark.py", "--networks", "dmsr_s", "--modes", *MODES[:2], "--size", 64, 64,
        "--seconds", 0.01, "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if line.startswith("| dmsr_s")]) == 2
