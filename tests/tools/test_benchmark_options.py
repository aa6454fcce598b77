"""tools/benchmark_options.py on two small images."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from models import build_model, load_weights
from tests.helpers import run_script, write_pairs
from tools.benchmark_options import OPTIONS
from utils.checkpoints import Weights, write_weights
from utils.images import images_by_stem, read_rgb
from utils.inference.restorer import Restorer
from utils.metrics import score


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    options = {"width": 4, "num_blocks": 1}
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    state = build_model("dmsr_s", options).state_dict()
    write_weights(path, Weights("dmsr_s", options, state, {}))
    return path


def test_every_option_is_scored_as_evaluation_does(weights: Path, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", 2, height=140, width=150)
    done = run_script(
        "tools/benchmark_options.py", "--weights", weights, "--device", "cpu",
        "--input", pairs / "input", "--target", pairs / "target",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = dict(re.findall(r"^\| (\S.*?) +\| +([\d.]+) \|", done.stdout, re.MULTILINE))
    assert list(lines) == list(OPTIONS)
    restorer = Restorer(load_weights(weights), tile=128, overlap=0)
    psnr = [
        score(restorer(read_rgb(path)), read_rgb(pairs / "target" / path.name)).psnr
        for path in images_by_stem(pairs / "input").values()
    ]
    assert float(lines["tiles of 128, overlap 0"]) == pytest.approx(np.mean(psnr), abs=6e-4)


def test_a_missing_partner_is_a_sentence(weights: Path, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", 2)
    (pairs / "target" / "2.png").unlink()
    done = run_script(
        "tools/benchmark_options.py", "--weights", weights, "--device", "cpu",
        "--input", pairs / "input", "--target", pairs / "target",
    )  # fmt: skip
    assert done.returncode == 1
    assert "2.png has no partner" in done.stderr
