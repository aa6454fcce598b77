"""Metrics through pyiqa, an optional package: what is missing is a sentence, the rest is right.

``DERAIN_NIQE_PARAMETERS`` and ``DERAIN_REAL_RAIN`` may name BasicSR's niqe_pris_params.npz and a
folder with the six real photographs whose NIQE is known.
"""

from __future__ import annotations

import csv
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers import ROOT, run_script, write_pairs
from utils.evaluation.niqe import Niqe
from utils.evaluation.scoring import read_8bit

INSTALLED = importlib.util.find_spec("pyiqa") is not None
# BasicSR's implementation, on Y
NIQE_OF_REAL_RAIN = (2.2798, 3.5926, 2.8108, 3.3462, 2.8856, 3.8938)

# Makes random weights of LPIPS where pyiqa and torchvision look for theirs; then LPIPS of two
# images and PIQE of the first as pyiqa itself computes them from files.
MAKE_WEIGHTS = """
import torch, torchvision
from pathlib import Path
from utils.evaluation.quality import weight_files
torch.manual_seed(0)
(_, backbone), (_, linear) = weight_files("lpips")
for path in (backbone, linear):
    path.parent.mkdir(parents=True, exist_ok=True)
torch.save(torchvision.models.alexnet().state_dict(), backbone)
channels = (64, 192, 384, 256, 256)
weights = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate(channels)}
torch.save(weights, linear)

import pyiqa, sys
from pyiqa.utils.img_util import imread2tensor
a, b = (imread2tensor(path).unsqueeze(0) for path in sys.argv[1:])
lpips, piqe = (pyiqa.create_metric(name, device="cpu") for name in ("lpips", "piqe"))
print(float(lpips(a, b)), float(piqe(a)))
"""


def offline(home: Path) -> dict[str, str]:
    """An environment without a network and with an empty cache of weights."""
    nowhere = "http://127.0.0.1:9"
    return {
        **os.environ, "TORCH_HOME": str(home), "HF_HOME": str(home), "HTTPS_PROXY": nowhere,
        "https_proxy": nowhere, "HTTP_PROXY": nowhere, "http_proxy": nowhere, "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip


def evaluate(home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "evaluate.py"), *map(str, arguments)],
        capture_output=True, text=True, env=offline(home), check=False,
    )  # fmt: skip


@pytest.mark.skipif(INSTALLED, reason="pyiqa is installed")
def test_without_the_package_it_is_one_sentence(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "set", 1, 16, 16)
    for options in (("--no-reference",), ("--target", pairs / "target", "--metrics", "lpips")):
        done = run_script(
            "evaluate.py", "--results", pairs / "input", *options, "--output", tmp_path / "out"
        )
        assert done.returncode == 1 and "pip install pyiqa" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_metrics_that_need_clean_images_are_refused_without(tmp_path: Path) -> None:
    done = run_script("evaluate.py", "--results", tmp_path, "--no-reference", "--metrics", "dists")
    assert done.returncode == 2 and "compare with clean images" in done.stderr


@pytest.mark.extras
def test_missing_weights_are_named_with_place_and_origin(tmp_path: Path) -> None:
    pytest.importorskip("pyiqa", reason="pyiqa is not installed")
    code = (
        "import sys; from utils.errors import UserError\n"
        "from utils.evaluation.quality import PyiqaScorer\n"
        "for key in sys.argv[1:]:\n"
        "    try: PyiqaScorer(key)\n"
        "    except UserError as error: print(error)\n"
    )
    files = {
        "lpips": "alexnet", "dists": "vgg16", "niqe": "niqe_modelparameters.mat",
        "brisque": "brisque_svm", "musiq": "musiq_koniq", "maniqa": "vit_base",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, *files],
        cwd=ROOT, env=offline(tmp_path), capture_output=True, text=True, check=True,
    )  # fmt: skip
    for line, (key, file) in zip(done.stdout.splitlines(), files.items(), strict=True):
        assert line.startswith(f"{key.upper()} needs ") and file in line
        assert "https://" in line and f"put it into {tmp_path}" in line


@pytest.mark.extras
def test_lpips_and_piqe_stand_beside_psnr(tmp_path: Path) -> None:
    pytest.importorskip("pyiqa", reason="pyiqa is not installed")
    pairs = write_pairs(tmp_path / "set", 2, 96, 128)
    clean = cv2.imread(str(pairs / "target" / "2.png"))
    cv2.imwrite(str(pairs / "input" / "2.png"), clean)
    home = tmp_path / "home"
    paths = [str(pairs / side / "1.png") for side in ("input", "target")]
    expected = subprocess.run(
        [sys.executable, "-c", MAKE_WEIGHTS, *paths],
        cwd=ROOT, env=offline(home), capture_output=True, text=True, check=True,
    ).stdout.splitlines()[-1].split()  # fmt: skip
    arguments = (
        "--results", pairs / "input", "--target", pairs / "target", "--metrics", "lpips", "piqe",
        "--output", tmp_path / "out",
    )  # fmt: skip
    done = evaluate(home, *arguments)
    assert done.returncode == 0, done.stderr
    assert "LPIPS and PIQE, lower is better" in " ".join(done.stdout.split())
    assert "LPIPS of pyiqa" in done.stdout
    with open(tmp_path / "out" / "images.csv", encoding="utf-8", newline="") as file:
        rainy, same = csv.DictReader(file)
    assert float(same["lpips"]) == 0 and float(rainy["lpips"]) > 1e-4
    assert [float(rainy["lpips"]), float(rainy["piqe"])] == pytest.approx(
        [float(value) for value in expected], rel=1e-5
    )
    assert "2 images (2 kept" in evaluate(home, *arguments).stdout


@pytest.mark.extras
def test_niqe_of_real_rain_is_that_of_the_papers_implementation() -> None:
    pytest.importorskip("pyiqa", reason="pyiqa is not installed")
    parameters, folder = (
        os.environ.get(name) for name in ("DERAIN_NIQE_PARAMETERS", "DERAIN_REAL_RAIN")
    )
    if not parameters or not folder:
        pytest.skip("DERAIN_NIQE_PARAMETERS and DERAIN_REAL_RAIN are not set")
    niqe, authors = Niqe(Path(parameters)), Niqe(Path(parameters), gray="rgb2gray")
    for number, expected in enumerate(NIQE_OF_REAL_RAIN, start=1):
        image = read_8bit(Path(folder) / f"{number}.jpg")
        found = niqe.score(image)
        assert found == pytest.approx(expected, abs=0.01)
        assert abs(authors.score(image) - found) < 0.08 and isinstance(image, np.ndarray)
