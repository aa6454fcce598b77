"""What train.py prints: lines that fit 80 columns, and a command that works."""

from __future__ import annotations

import shlex
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

import test as restoring
from configs import load_config
from data.pairs import Pair, find_pairs
from models import build_model
from tests.helpers import ROOT, smooth_image, streaked, write_pairs
from utils.checkpoints import Weights, write_weights
from utils.training.console import StepsBar, console_line, summary, time_left
from utils.training.run_folder import RunFolder
from utils.training.state import Progress

CFG = load_config(ROOT / "training.yml", ["OPTIM.EPOCHS", "3000"])


def test_console_lines_have_rate_and_time_left_and_fit_80_columns() -> None:
    step = {"kind": "step", "epoch": 2999, "step": 1234567, "loss": 0.01234, "lr": 1.24e-4,
            "images_per_second": 123.4, "hours_left": 0.8}  # fmt: skip
    line = console_line(step, 3000)
    assert line == ("epoch 2999/3000 step 1234567 loss 0.0123 lr 1.2e-4 123 images/s 48 min left")
    assert console_line(step | {"hours_left": 123.45}, 3000).endswith(" 123.5 h left")
    epoch = {"kind": "epoch", "epoch": 2999, "step": 1234567, "loss": 0.01234, "lr": 1e-6,
             "psnr": 31.234, "ssim": 0.91234, "is_best": True, "seconds": 12345.6}  # fmt: skip
    best = console_line(epoch, 3000)
    assert best == "epoch 2999/3000 loss 0.0123 lr 1.0e-6 PSNR 31.23 SSIM 0.9123 (best) 12346 s"
    assert max(len(f"12:34 {text}") for text in (line, best)) <= 81


@pytest.mark.parametrize(
    ("hours", "text"),
    [(0, "0 min left"), (0.5, "30 min left"), (0.99, "59 min left"), (0.995, "1.0 h left"),
     (1, "1.0 h left"), (49.96, "50.0 h left")],
)  # fmt: skip
def test_less_than_an_hour_is_minutes(hours: float, text: str) -> None:
    assert time_left(hours) == text


@pytest.mark.parametrize("is_shown", [True, False])
def test_only_the_main_process_shows_a_bar(capsys, monkeypatch, is_shown: bool) -> None:
    """On a terminal, which is patched."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with StepsBar(Progress(epoch=299, step_in_epoch=123), 300, 1142, is_shown=is_shown) as bar:
        bar.advance({}, 123.45)
        bar.advance({"loss": 0.01234}, 123.45)
        bar.refresh()
    shown = capsys.readouterr().err.split("\r")[:-2]  # the last ones erase it
    assert bool(shown) == is_shown
    assert not shown or shown[-1].startswith("epoch 299/300 125/1142 |")
    assert not shown or shown[-1].endswith("step/s, loss 0.0123, 123.5 h left")
    assert max(map(len, shown), default=0) <= 80


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run's folder with weights, under a name that a shell must have quoted."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "it's mine")
    network = build_model("dmsr_s")
    write_weights(folder.best, Weights("dmsr_s", {}, network.state_dict(), {}))
    return folder


@pytest.mark.parametrize("layout", ["folders", "one_folder", "side_by_side"])
def test_the_command_of_the_summary_restores_the_rainy_images(
    trained, tmp_path, monkeypatch, layout: str
) -> None:
    data = tmp_path / "my data"
    if layout == "folders":
        write_pairs(data, 2, 32, 32)
    else:
        data.mkdir()
        for i in (1, 2):
            clean = smooth_image(i, 64, 64)
            rainy = streaked(clean, i)
            if layout == "one_folder":
                cv2.imwrite(str(data / f"norain-{i}.png"), clean)
                cv2.imwrite(str(data / f"rain-{i}.png"), rainy)
            else:
                cv2.imwrite(str(data / f"{i}.png"), np.hstack([clean, rainy]))
    pairs = find_pairs(data).pairs
    text = summary(Progress(epoch=2, step=3), CFG, trained, pairs[0])
    command = shlex.split(text.splitlines()[-1].removeprefix("test it: "))
    assert command[:2] == ["python", "test.py"]
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert not restoring.main(command[2:])
    results = sorted(path.name for path in (tmp_path / "results").rglob("*.png"))
    expected = {"folders": ["1.png", "2.png"], "one_folder": ["rain-1.png"],
                "side_by_side": ["1.png", "2.png"]}  # fmt: skip
    assert results == expected[layout]
    width = cv2.imread(str(next((tmp_path / "results").rglob("*.png")))).shape[1]
    assert width == pairs[0].read()[0].shape[1]


def test_a_photograph_for_synthesis_is_restored_whole(trained) -> None:
    photo = Path("photos") / "a.png"
    text = summary(Progress(epoch=2), CFG, trained, Pair(photo, photo))
    assert "--input photos --output results" in text and "1 epoch, 0 steps" in text
