"""CONTRIBUTING.md's "Add a network": with one file and two lines, everything else works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.helpers import ROOT, write_pairs
from utils.errors import UserError

DNCNN = '''
"""DnCNN: a plain chain of convolutions predicts the rain. https://arxiv.org/abs/1608.03981"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from models.network import DerainingNetwork


@dataclass(frozen=True)
class DnCNNConfig:
    width: int = 64
    num_layers: int = 17


VARIANTS = {"dncnn": DnCNNConfig(), "dncnn_t": DnCNNConfig(width=8, num_layers=3)}


class DnCNN(DerainingNetwork):
    min_size = 2

    def __init__(self, config: DnCNNConfig) -> None:
        super().__init__()
        layers = [nn.Conv2d(3, config.width, 3, padding=1), nn.ReLU()]
        for _ in range(config.num_layers - 2):
            layers += [nn.Conv2d(config.width, config.width, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(config.width), nn.ReLU()]
        self.rain = nn.Sequential(*layers, nn.Conv2d(config.width, 3, 3, padding=1))

    def forward(self, rainy: Tensor) -> tuple[Tensor, ...]:
        return (rainy - self.rain(rainy),)
'''


SETTINGS = """
    MODEL.NAME dncnn_t RUN.NAME dncnn DATA.TRAIN pairs DATA.VAL pairs DATA.WORKERS 0
    LOSS.TERMS.L1 1 LOSS.TERMS.FFT_STACKED 0 LOSS.SCALES 1
    OPTIM.EPOCHS 2 OPTIM.BATCH_SIZE 2 AUGMENT.PATCH 33 SCHEDULE.NAME exponential
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with a fifth network: one file, two lines."""
    project = tmp_path_factory.mktemp("project")
    for folder in ("configs", "data", "losses", "models", "utils", "tests", "tools"):
        shutil.copytree(
            ROOT / folder, project / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    for file in ("train.py", "test.py", "training.yml", "pyproject.toml"):
        shutil.copy(ROOT / file, project)
    (project / "models" / "dncnn.py").write_text(DNCNN)
    registry = project / "models" / "registry.py"
    text = registry.read_text()
    for before, after in (
        ("from models import dcsfn, dmsr,", "from models import dcsfn, dmsr, dncnn,"),
        (
            "register(mspfn.MSPFN, mspfn.VARIANTS)\n",
            "register(mspfn.MSPFN, mspfn.VARIANTS)\nregister(dncnn.DnCNN, dncnn.VARIANTS)\n",
        ),
    ):
        assert text.count(before) == 1
        text = text.replace(before, after)
    registry.write_text(text)
    return project


def run_python(project: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_it_trains_restores_and_converts(project: Path) -> None:
    write_pairs(project / "pairs", 2)
    done = run_python(project, "train.py", *SETTINGS.split())
    assert done.returncode == 0, done.stderr
    best = project / "runs" / "dncnn" / "best.safetensors"
    assert best.is_file()
    done = run_python(
        project, "test.py", "--weights", best, "--input", "pairs/input", "--output", "restored"
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (project / "restored").iterdir()} == {"1.png", "2.png"}
    published = project / "published.pth"
    convert = "tools/convert_weights.py"
    done = run_python(
        project, convert, "--to", "published", "--weights", best, "--output", published
    )
    assert done.returncode == 0, done.stderr
    names = torch.load(published, weights_only=True).keys()
    assert "rain.0.weight" in names  # its own name, since its authors published none here


def test_the_checks_of_all_networks_run_over_it(project: Path) -> None:
    done = run_python(
        project, "-m", "pytest", "-q", "tests/models/test_networks.py", "-k", "dncnn_t"
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_a_loss_for_more_outputs_is_refused_before_data_are_read(run_train: Callable) -> None:
    with pytest.raises(UserError, match="takes 3 outputs; this network has 1"):
        run_train("LOSS.SCALES", "3", "DATA.TRAIN", "no/such/folder")
