"""tools/benchmark.py: its arithmetic, and one row measured."""

from __future__ import annotations

import math
import re
import select
import time
from pathlib import Path

import pytest
import torch

from models import NETWORKS, build_model
from tests.helpers import run_script
from tools.benchmark import (
    MODES,
    BenchmarkJob,
    Measurement,
    measure,
    release_ratio,
    runner,
    table,
)
from tools.measuring import Timing, least_seconds
from tools.references import REFERENCES, fitting_reference, machine_kind
from utils.checkpoints import Weights, write_weights

FIRST, SECOND = REFERENCES


def row(
    network: str = "dmsr", mode: str = "float32", seconds: float = 3.0, **changes: object
) -> Measurement:
    facts = {"size": (256, 256), "device": "cpu", "threads": 1, "seconds": 1, "weights": None}
    job = BenchmarkJob(network, mode, **{**facts, **changes})
    psnr = math.inf if mode == "float32" else 50.04
    timing, unit = Timing(seconds, False), Timing(0.03, False)
    return Measurement(job, timing, unit, 150 * 10**9, 100e9, 300 * 2**20, psnr)


def test_ratios_compare_units_with_the_release_on_such_a_machine() -> None:
    # 3 s are 100 units of 30 ms; the release takes 136 with one thread and 133 with two.
    assert release_ratio(row(), [], FIRST) == pytest.approx(1.36)
    assert release_ratio(row(threads=2), [], FIRST) == pytest.approx(1.33)
    assert release_ratio(row(), [], SECOND) == pytest.approx(1.80)
    assert release_ratio(row(threads=2), [], SECOND) is None
    assert release_ratio(row(threads=4), [], FIRST) is None
    assert release_ratio(row(size=(512, 512)), [], FIRST) is None
    assert release_ratio(row("dmsr_s"), [], FIRST) is None
    assert release_ratio(row(), [], None) is None


def test_a_reference_fits_its_own_kind_of_machine_at_its_own_speed() -> None:
    kind = "AMD EPYC, AVX-512 with bf16"
    assert fitting_reference(kind, 0.0316) is FIRST
    assert fitting_reference(kind, 0.047) is SECOND
    assert fitting_reference(kind, 0.068) is None  # a busy neighbour
    assert fitting_reference("Intel Xeon, AVX-512 with bf16 and AMX", 0.047) is None


def test_the_kind_of_a_machine(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(
        "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Platinum\n"
        "flags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16 amx_tile\n\nprocessor\t: 1\n"
    )
    assert machine_kind(path) == "Intel Xeon, AVX-512 with bf16 and AMX"
    path.write_text("vendor_id: AuthenticAMD\nmodel name: AMD Ryzen 7\nflags: sse avx2\n")
    assert machine_kind(path) == "AMD Ryzen, AVX2"
    assert machine_kind(tmp_path / "none").endswith(" CPU")


def test_the_least_time_counts_and_waiting_does_not() -> None:
    def wait() -> None:  # stands for a process that waits for its core
        end = time.process_time() + 0.01
        while time.process_time() < end:
            pass
        select.select([], [], [], 0.05)

    timing = least_seconds(wait, torch.device("cpu"), 1)
    assert 0.01 <= timing.seconds < 0.04 and timing.is_disturbed
    assert least_seconds(wait, torch.device("cpu"), 2).seconds > 0.05


def test_ratios_on_cuda_compare_with_the_plain_row_of_the_same_network() -> None:
    rows = [row("dmsr", seconds=6.0, device="cuda"), row("dcsfn", seconds=9.0, device="cuda")]
    fast = row("dmsr", "bf16", seconds=2.0, device="cuda")
    assert release_ratio(fast, [*rows, fast], None) == 3.0
    assert release_ratio(fast, [rows[1], fast], None) is None


def test_every_release_is_a_known_network() -> None:
    for reference in REFERENCES:
        for units in reference.units.values():
            assert set(units) <= set(NETWORKS)


def test_a_line_of_the_table() -> None:
    lines = table([row(), row(mode="bf16", seconds=0.6)], FIRST).splitlines()
    assert re.split(r"\s*\|\s*", lines[2])[1:-1] == [
        "dmsr", "float32", "3.00 s", "100.0", "1.36", "50%", "300 MiB", "equal",
    ]  # fmt: skip
    assert re.split(r"\s*\|\s*", lines[3])[1:-1] == [
        "dmsr", "bf16", "600.0 ms", "20.0", "6.80", "250%", "300 MiB", "50.0 dB",
    ]  # fmt: skip
    assert max(map(len, lines)) <= 80
    assert "Ratio: to the releases on an AMD EPYC" in " ".join(lines)
    elsewhere = table([row()], None)
    assert elsewhere.splitlines()[2].split("|")[5].strip() == "-"
    assert "No ratio" in " ".join(elsewhere.split())
    assert "at this size" in " ".join(table([row(size=(64, 64))], FIRST).split())


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
