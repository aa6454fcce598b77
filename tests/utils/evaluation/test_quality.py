"""Metrics of pyiqa, an optional package: correct scores, and one sentence if something is missing.

``DERAIN_NIQE_PARAMETERS`` and ``DERAIN_REAL_RAIN`` may name BasicSR's niqe_pris_params.npz and a
folder with the six real photographs whose NIQE is known.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers import ROOT, run_script, write_pairs
from utils.errors import UserError
from utils.evaluation.niqe import Niqe
from utils.evaluation.quality import PyiqaScorer, SquaredErrorScorer, metric_of
from utils.evaluation.scoring import read_8bit

INSTALLED = importlib.util.find_spec("pyiqa") is not None
# BasicSR's implementation, on Y
NIQE_OF_REAL_RAIN = (2.2798, 3.5926, 2.8108, 3.3462, 2.8856, 3.8938)

# One process for all tests: puts random weights where pyiqa and torchvision look for theirs, runs
# evaluate.py twice, and prints the figures that pyiqa itself computes from the files. FID's network
# is loaded, but replaced by a simple function of two folders, because the square root of its matrix
# of 2048 x 2048 takes long.
WITH_RANDOM_WEIGHTS = """
import json, sys
from pathlib import Path
import cv2, torch, torchvision
import pyiqa.archs.inception as inception
from utils.evaluation.quality import weight_files

pairs, *commands = json.loads(sys.argv[1])
torch.manual_seed(0)
(_, backbone), (_, linear) = weight_files("lpips")
((_, features),) = weight_files("fid")
for path in (backbone, linear, features):
    path.parent.mkdir(parents=True, exist_ok=True)
torch.save(torchvision.models.alexnet().state_dict(), backbone)
channels = (64, 192, 384, 256, 256)
weights = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate(channels)}
torch.save(weights, linear)
load, inception.load_pretrained_network = inception.load_pretrained_network, lambda *_: None
torch.save(inception.fid_inception_v3().state_dict(), features)
inception.load_pretrained_network = load

import evaluate, pyiqa
from pyiqa.utils.img_util import imread2tensor
from utils.evaluation.quality import FolderScorer
from utils.evaluation.score_cache import ScoreCache
from utils.evaluation.scoring import ImageResult, JobResult

for command in commands:
    assert evaluate.main(command) == 0
input, target = (sorted(Path(pairs, side).iterdir()) for side in ("input", "target"))
a, b = (imread2tensor(str(files[0])).unsqueeze(0) for files in (input, target))
lpips, piqe, psnr = (pyiqa.create_metric(name, device="cpu") for name in ("lpips", "piqe", "psnr"))
images = [ImageResult(r.stem, r, c, (0.0,)) for r, c in zip(input, target)]
cache = ScoreCache(Path(pairs, "scores.jsonl"))
fid = FolderScorer("fid", cache)

def distance(*folders, **_):
    first, second = ([cv2.imread(str(p)) for p in sorted(Path(f).iterdir())] for f in folders)
    sums = [cv2.absdiff(a, b).sum() for a, b in zip(first, second)]
    return float(sum((n + 1) * value for n, value in enumerate(sums)))

fid.model = distance
figures = {
    "lpips": float(lpips(a, b)), "piqe": float(piqe(a)), "psnr": float(psnr(a, b)),
    "fid": fid.score(JobResult(None, images)), "fid_name": fid.name,
}
fid.model = None  # the same folders are not compared again, others are
figures["fid_again"] = fid.score(JobResult(None, images))
fid.model = distance
figures["fid_of_two"] = fid.score(JobResult(None, images[:2]))
print(json.dumps(figures))
"""


def offline(home: Path) -> dict[str, str]:
    """Environment variables for a process without network access and with an empty weight cache."""
    nowhere = "http://127.0.0.1:9"
    return {
        **os.environ, "TORCH_HOME": str(home), "HF_HOME": str(home), "HTTPS_PROXY": nowhere,
        "https_proxy": nowhere, "HTTP_PROXY": nowhere, "http_proxy": nowhere, "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip


@pytest.mark.skipif(INSTALLED, reason="pyiqa is installed")
def test_a_missing_package_is_reported_in_one_sentence(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "set", 1, 16, 16)
    for options in (("--no-reference",), ("--target", pairs / "target", "--metrics", "lpips")):
        done = run_script(
            "evaluate.py", "--results", pairs / "input", *options, "--output", tmp_path / "out"
        )
        assert done.returncode == 1 and "pip install pyiqa" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_metrics_that_need_clean_images_are_refused_without_them(tmp_path: Path) -> None:
    done = run_script("evaluate.py", "--results", tmp_path, "--no-reference", "--metrics", "dists")
    assert done.returncode == 2 and "dists compares with clean images" in done.stderr


@pytest.mark.extras
def test_metrics_of_pyiqa_have_their_own_names_and_directions(tmp_path: Path) -> None:
    pytest.importorskip("pyiqa", reason="pyiqa is not installed")
    assert metric_of("psnr") == ("pyiqa_psnr", "psnr (pyiqa)", 2, True)  # not the protocol's
    assert metric_of("ssim") == ("pyiqa_ssim", "ssim (pyiqa)", 4, True)
    assert metric_of("topiq_fr") == ("topiq_fr", "topiq_fr", 4, True)
    assert metric_of("pieapp").higher_is_better is False
    assert metric_of("clipiqa+").decimals == 4 and metric_of("musiq-ava").decimals == 2
    assert PyiqaScorer("psnry").needs_clean and not PyiqaScorer("entropy").needs_clean
    with pytest.raises(UserError, match=r"no metric lpip\. Did you mean lpips\?"):
        metric_of("lpip")
    with pytest.raises(UserError, match="clipscore does not give one figure for an image"):
        metric_of("clipscore")
    pairs = write_pairs(tmp_path / "set", 1, 16, 16)
    done = run_script(
        "evaluate.py", "--results", pairs / "input", "--no-reference", "--metrics", "psnry",
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 1 and "psnry compares with clean images" in done.stderr


def test_the_mean_squared_error_is_computed_on_rgb(tmp_path: Path) -> None:
    restored, clean = np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3, 3), np.uint8)
    restored[0, 1], clean[1, 2, 0] = (3, 4, 12), 255
    assert SquaredErrorScorer().score(restored, clean) == (9 + 16 + 144 + 255**2) / 18
    gray = np.full((2, 3), 7, np.uint8)
    assert SquaredErrorScorer().score(gray, np.dstack([gray + 2, gray, gray])) == 4 / 3
    pairs = write_pairs(tmp_path / "set", 2, 24, 24)
    done = run_script(
        "evaluate.py", "--results", pairs / "input", "--target", pairs / "target", "--metrics",
        "mse", "--output", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "MSE, lower is better" in " ".join(done.stdout.split())
    with open(tmp_path / "out" / "images.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            rainy, clean = (
                cv2.imread(str(pairs / side / f"{row['image']}.png")).astype(float)
                for side in ("input", "target")
            )
            assert float(row["mse"]) == pytest.approx(np.mean((rainy - clean) ** 2), rel=1e-12)


@pytest.mark.extras
def test_missing_weights_are_reported_with_their_file(tmp_path: Path) -> None:
    pytest.importorskip("pyiqa", reason="pyiqa is not installed")
    code = (
        "import sys; from utils.errors import UserError\n"
        "from utils.evaluation.quality import PyiqaScorer\n"
        "for key in sys.argv[1:]:\n"
        "    try: PyiqaScorer(key)\n"
        "    except UserError as error: print(error)\n"
    )
    files = {
        "lpips": "alexnet", "lpips-vgg": "vgg16", "dists": "vgg16",
        "niqe": "niqe_modelparameters.mat", "brisque": "brisque_svm", "musiq": "musiq_koniq",
        "maniqa": "vit_base", "fid": "inception",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, *files],
        cwd=ROOT, env=offline(tmp_path), capture_output=True, text=True, check=True,
    )  # fmt: skip
    for line, (key, file) in zip(done.stdout.splitlines(), files.items(), strict=True):
        name = {"lpips-vgg": "LPIPS (VGG)"}.get(key, key.upper())
        assert line.startswith(f"{name} needs ") and file in line
        assert "https://" in line and f"put it into {tmp_path}" in line


@pytest.mark.extras
def test_metrics_of_pyiqa_share_the_table_with_psnr(tmp_path: Path) -> None:
    pytest.importorskip("pyiqa", reason="pyiqa is not installed")
    pairs = write_pairs(tmp_path / "set", 3, 96, 128)
    clean = cv2.imread(str(pairs / "target" / "2.png"))
    cv2.imwrite(str(pairs / "input" / "2.png"), clean)
    command = [
        "--results", pairs / "input", "--target", pairs / "target", "--metrics", "lpips", "piqe",
        "psnr", "--output", tmp_path / "out",
    ]  # fmt: skip
    command = [str(argument) for argument in command]
    done = subprocess.run(
        [sys.executable, "-c", WITH_RANDOM_WEIGHTS, json.dumps([str(pairs), command, command])],
        cwd=ROOT, env=offline(tmp_path / "home"), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    output = " ".join(done.stdout.split())
    assert "psnr (pyiqa), higher is better; LPIPS and PIQE, lower is better" in output
    assert "LPIPS of pyiqa" in output
    assert "3 images (0 kept" in output and "3 images (3 kept" in output
    expected = json.loads(done.stdout.splitlines()[-1])
    with open(tmp_path / "out" / "images.csv", encoding="utf-8", newline="") as file:
        rainy, same, _ = csv.DictReader(file)
    assert float(same["lpips"]) == 0 and float(rainy["lpips"]) > 1e-4
    for key, column in (("lpips", "lpips"), ("piqe", "piqe"), ("psnr", "pyiqa_psnr")):
        assert float(rainy[column]) == pytest.approx(expected[key], rel=1e-5), key
    differences = [
        cv2.absdiff(*(cv2.imread(str(pairs / side / f"{n}.png")) for side in ("input", "target")))
        for n in (1, 2, 3)
    ]
    sums = [n * float(difference.sum()) for n, difference in enumerate(differences, 1)]
    assert expected["fid"] == expected["fid_again"] == [sum(sums)]
    assert expected["fid_of_two"] == [sum(sums[:2])]
    assert re.fullmatch(r"FID of pyiqa [\d.]+, weights \w{8}, over all.*", expected["fid_name"])


@pytest.mark.extras
def test_niqe_of_real_rain_is_that_of_basicsr() -> None:
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
