"""The recipe for several public data sets, on tiny copies of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from configs import load_config
from data.settings import training_folders
from models import build_model
from tests.helpers import ROOT, write_pairs
from tests.runs import train_here
from utils.set_names import named_folders

RECIPE = ROOT / "configs" / "petrichor_mixed.yml"
SMALL = ["AUGMENT.PATCH", "32", "OPTIM.BATCH_SIZE", "2", "DATA.WORKERS", "0"]
SMALL += ["OPTIM.PRECISION", "float32"]


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pairs in each folder that the recipe names, 100 in that of SPA-Data's weight 0.02."""
    cfg = load_config(RECIPE)
    monkeypatch.chdir(tmp_path)
    for folder in [*(f for f, _ in training_folders(cfg.DATA.TRAIN)), *val_folders(cfg)]:
        write_pairs(Path(folder), 100 if folder == "datasets/SPA-Data/train" else 2, 40, 48)


def val_folders(cfg) -> list[str]:
    return list(named_folders(cfg.DATA.VAL, "DATA.VAL").values())


def test_a_dry_run_shows_every_set_with_its_weight(
    sets: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_here(tmp_path / "runs", "mixed", "--config", str(RECIPE), "--dry-run", *SMALL)
    printed = capsys.readouterr().out
    # 2 of Rain13K, 2 of DDN-Data, 0.02 * 100 of SPA-Data, 8 * 2 of either part of RealRain-1k
    steps = 60 * ((2 + 2 + 2 + 16 + 16) // 2)
    assert f"60 epochs, {steps:,} steps" in printed
    for name in ("Rain13K/train", "DDN-Data/train", "RealRain-1k-L/train", "SPA-Data/test"):
        assert f"2 pairs in datasets/{name} " in printed
    assert "100 pairs in datasets/SPA-Data/train" in printed
    assert not (tmp_path / "runs").exists()


def test_the_other_network_gets_its_own_size_and_the_same_loss() -> None:
    cfg = load_config(RECIPE, ["MODEL.NAME", "nerd_rain_s"])
    assert dict(cfg.MODEL.OPTIONS) == {} and (cfg.LOSS.SCALES, cfg.LOSS.TERMS.L1) == (3, 1.0)
    with torch.device("meta"):
        outputs = build_model(cfg.MODEL.NAME, cfg.MODEL.OPTIONS)(torch.empty(1, 3, 128, 128))
    assert [output.shape[-1] for output in outputs[:3]] == [128, 64, 32]


def test_four_sets_decide_by_their_mean_and_get_about_as_many_patches() -> None:
    cfg = load_config(RECIPE)
    names = list(named_folders(cfg.DATA.VAL, "DATA.VAL"))
    assert names == ["Rain100H", "DDN-Data", "SPA-Data", "RealRain-1k-H"]
    assert cfg.VALIDATION.BEST == "mean"
    pairs = {"Rain13K": 13_711, "DDN-Data": 12_600, "SPA-Data": 638_492}
    pairs |= {"RealRain-1k-H": 784, "RealRain-1k-L": 784}
    patches = {
        folder.split("/")[1]: round(weight * pairs[folder.split("/")[1]])
        for folder, weight in training_folders(cfg.DATA.TRAIN)
    }
    real = patches.pop("RealRain-1k-H") + patches.pop("RealRain-1k-L")
    assert [*patches.values(), real] == [13_711, 12_600, 12_770, 12_544]
