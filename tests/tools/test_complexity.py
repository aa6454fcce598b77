"""tools/complexity.py: its counts against sums done by hand."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from models import NETWORKS, build_model
from models.network import DerainingNetwork
from tests.helpers import run_script
from tools.complexity import Complexity, count_macs, table


class TwoLayers(DerainingNetwork):
    """A strided and a depthwise convolution, then a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.strided = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 5, padding=2, groups=8)
        self.linear = nn.Linear(8, 4)

    def forward(self, rainy: Tensor) -> tuple[Tensor, ...]:
        x = self.depthwise(self.strided(rainy))
        return (self.linear(x.movedim(1, -1)),)


def test_macs_are_those_of_the_formula():
    pixels = 16 * 20  # of the halved image
    expected = pixels * (3 * 8 * 9 + 8 * 25 + 8 * 4)
    assert count_macs(TwoLayers().eval(), torch.rand(1, 3, 32, 40)) == expected


def test_the_published_dmsr_has_its_known_size():
    with torch.device("meta"):
        dmsr = build_model("dmsr")
    parameters = sum(p.numel() for p in dmsr.parameters())
    assert parameters == pytest.approx(35.424e6, rel=1e-3)


def test_table_of_a_network():
    done = run_script(
        "tools/complexity.py", "--networks", "dmsr_s", "--size", 40, 64, "--seconds", 0.01,
        "--threads", 1, "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("| dmsr_s"))
    # 40 rows are fewer than the network takes
    parameters, memory = re.fullmatch(
        r"\| dmsr_s at 64x64 \| +([\d.]+) M \| +[\d.]+ G \| +[\d.]+ ms \| +(\d+) MiB \|", line
    ).groups()
    with torch.device("meta"):
        network = build_model("dmsr_s")
    assert float(parameters) == pytest.approx(
        sum(p.numel() for p in network.parameters()) / 1e6, abs=6e-4
    )
    assert int(memory) > 4 * float(parameters)  # its weights at least
    assert "1 thread" in done.stdout and max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_one_sentence():
    done = run_script("tools/complexity.py", "--networks", "dmsr_s", "--device", "cuda")
    assert done.returncode == 2 and "finds no device cuda" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_network_has_a_line_with_what_is_unknown_left_open():
    lines = [Complexity(name, (64, 64), 10, 20, 0.5, None) for name in NETWORKS]
    text = table(lines, (64, 64), torch.device("cpu"), 2).splitlines()
    assert [line.split()[1] for line in text[2 : 2 + len(NETWORKS)]] == list(NETWORKS)
    assert len({len(line) for line in text[: 2 + len(NETWORKS)]}) == 1
    assert text[2].endswith("- |") and "2 threads" in text[-1]
