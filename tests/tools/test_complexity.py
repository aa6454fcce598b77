"""tools/complexity.py: its counts against sums done by hand and against the papers' figures."""

from __future__ import annotations

import csv
import hashlib
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models import SHIPPED_WEIGHTS, build_model
from models.network import DerainingNetwork
from models.registry import parse_options
from tests.helpers import run_script
from tools.complexity import (
    Complexity,
    Subject,
    count_macs,
    find_subject,
    measure,
    table,
)
from tools.measuring import Timing
from tools.released_macs import released_macs, released_parameters
from utils.checkpoints import Weights, write_weights
from utils.errors import UserError

# The papers' figures: parameters, and multiply-accumulates of one 256x256 image
PAPERS = {
    "dmsr": (35_472_543, "307.6"),
    "nerd_rain": (22_893_146, "156.3"),
    "nerd_rain_s": (10_530_314, "79.3"),
    "nerd_rain_cnn": (22_983_411, None),  # the paper names no multiply-accumulates
    "dcsfn": (6_453_147, "73.2"),
    "mspfn": (20_995_776, "353.0"),
    "mspfn_n1": (15_823_424, "301.7"),
}


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


def on_meta(name: str, options: dict[str, object] | None = None) -> DerainingNetwork:
    with torch.device("meta"):
        return build_model(name, options).eval()


def test_macs_are_those_of_the_formula() -> None:
    pixels = 16 * 20  # of the halved image
    expected = pixels * (3 * 8 * 9 + 8 * 25 + 8 * 4)
    assert count_macs(TwoLayers().to("meta").eval(), (32, 40)) == expected


@pytest.mark.parametrize("name", PAPERS)
def test_the_figures_of_the_papers(name: str) -> None:
    parameters, giga = PAPERS[name]
    network = on_meta(name)
    assert released_parameters(network) == parameters
    macs = released_macs(network, 256, 256)
    assert macs is not None and (giga is None or f"{macs / 1e9:.1f}" == giga)
    # what has no effect is left out here; in DCSFN no convolution is
    assert sum(p.numel() for p in network.parameters()) < parameters
    assert count_macs(network, (256, 256)) <= macs


def test_released_macs_follow_size_and_options() -> None:
    # all parts but DMSR's half spectra grow as the pixels, so twice the area is twice the work
    small, wide = (released_macs(on_meta("dcsfn"), 256, side) for side in (256, 512))
    assert small is not None and wide == 2 * small
    spectrum = [released_macs(on_meta("dmsr"), 256, side) for side in (256, 512)]
    assert spectrum[0] is not None and spectrum[1] is not None
    assert 0.998 < spectrum[1] / (2 * spectrum[0]) < 1
    narrow = released_macs(on_meta("nerd_rain", {"width": 16}), 256, 256)
    nerd_rain_s = released_macs(on_meta("nerd_rain_s"), 256, 256)
    assert narrow is not None and nerd_rain_s is not None and narrow < nerd_rain_s / 2
    assert released_macs(TwoLayers().to("meta"), 256, 256) is None


def test_a_further_cnn_block_costs_two_cabs_for_each_encoder_and_decoder() -> None:
    """By hand for a level of C channels: two 3x3 convolutions and, once per image, two gates."""
    one, two = (
        released_macs(on_meta("nerd_rain_cnn_t", {"num_blocks": (1, n, 1)}), 64, 96) for n in (1, 2)
    )
    c = 2 * 8  # of the middle level, which has half of the side of its scale
    u_nets = {1: 3, 2: 2, 4: 1}  # by what the image's side is divided by
    cabs = 4  # two in the encoder, two in the decoder
    expected = sum(
        number * cabs * (2 * 9 * c * c * (64 // (2 * side)) * (96 // (2 * side)) + 2 * c * c // 4)
        for side, number in u_nets.items()
    )
    assert one is not None and two == one + expected


def test_networks_by_name_file_and_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine" / "best.safetensors"
    options = {"width": 4, "num_blocks": 1}
    state = build_model("dmsr_s", options).state_dict()
    write_weights(path, Weights("dmsr_s", options, state, {}))
    recipe = tmp_path / "narrow.yml"
    recipe.write_text("MODEL: {NAME: nerd_rain, OPTIONS: {width: 16}}\n")
    assert find_subject(str(path), {}) == Subject("mine", "dmsr_s", options, path)
    assert find_subject(str(recipe), {}) == Subject("narrow", "nerd_rain", {"width": 16})
    given = parse_options(["width=32", "num_attention=[1, 2, 1]"])
    assert find_subject("mspfn_t", given).options == {"width": 32, "num_attention": [1, 2, 1]}
    with pytest.raises(UserError, match="resnet is no network; there are dmsr"):
        find_subject("resnet", {})
    with pytest.raises(UserError, match="KEY=VALUE"):
        parse_options(["width"])
    assert find_subject(str(SHIPPED_WEIGHTS), {}).name == "nerd_rain"


def test_one_network_in_all_formats(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    options = {"width": 4, "num_blocks": 1}
    state = build_model("dmsr_s", options).state_dict()
    write_weights(path, Weights("dmsr_s", options, state, {}))
    output = tmp_path / "facts.csv"
    done = run_script(
        "tools/complexity.py", "--networks", path, "--size", 40, 64, "--seconds", 0.01,
        "--threads", 1, "--device", "cpu", "--output", output,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("| small"))
    # 40 rows are fewer than the network takes
    found = re.fullmatch(
        r"\| small at 64x64 \| +([\d,]+) \| +([\d.]+) G \| +([\d,]+) \| +([\d.]+) G \|"
        r" +[\d.]+ m?s \| +(\d+) MiB \|",
        line,
    )
    assert found is not None, line
    network = on_meta("dmsr_s", options)
    assert int(found[1].replace(",", "")) == released_parameters(network)
    assert int(found[3].replace(",", "")) == sum(p.numel() for p in network.parameters())
    assert "1 thread" in done.stdout and max(map(len, done.stdout.splitlines()[:3])) <= 100
    (row,) = csv.DictReader(output.read_text().splitlines())
    assert row["method"] == "small" and row["weights"] == "small.safetensors"
    assert int(row["macs"]) == released_macs(network, 64, 64)
    assert row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_options_reach_the_network() -> None:
    subject = Subject("narrow", "dmsr_s", {"width": 4, "num_blocks": 1})
    measured = measure(subject, (64, 64), torch.device("cpu"), 1, 0)
    assert measured.parameters == sum(
        p.numel() for p in build_model("dmsr_s", subject.options).parameters()
    )
    assert measured.timing.seconds > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_one_sentence() -> None:
    done = run_script("tools/complexity.py", "--networks", "dmsr_s", "--device", "cuda")
    assert done.returncode == 2 and "finds no device cuda" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_unknown_is_left_open_and_a_busy_machine_is_told() -> None:
    unknown = Complexity(
        Subject("mine", "fifth", {}), (64, 64), None, None, 1234, 20, Timing(0.5, False), None
    )
    text = table([unknown], (64, 64), torch.device("cpu"), 2).splitlines()
    assert [cell.strip() for cell in text[2].split("|")[1:-1]] == [
        "mine", "-", "-", "1,234", "0.0 G", "500.0 ms", "-",
    ]  # fmt: skip
    assert "2 threads" in text[-1] and "Other work" not in text[-1]
    busy = table(
        [unknown, Complexity(*list(vars(unknown).values())[:-2], Timing(0.5, True), None)],
        (64, 64), torch.device("cpu"), 2,
    )  # fmt: skip
    assert "Other work ran at the same time" in busy
