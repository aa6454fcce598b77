"""Runs side by side: time, speed and PSNR from logs written by hand, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from tools.compare_runs import main, read_run
from utils.errors import UserError

CONFIG = """
MODEL: {NAME: dcsfn, OPTIONS: {width: 4, num_units: 1}}
AUGMENT: {PATCH: 32, PROGRESSIVE: [[2, 64, 1]]}
OPTIM: {BATCH_SIZE: 2, EPOCHS: 2}
SCHEDULE: {WARMUP_EPOCHS: 0}
"""

# Epoch 1: 5 steps of 2 patches of 32 at 4, 4 and (unlogged) 4 patches/s: 2.5 s. Epoch 2: 4 steps of
# one patch of 64 at 0.5 patches/s: 8 s. What validation took is not in it.
LOG = [
    {"kind": "step", "epoch": 1, "step": 2, "images_per_second": 4.0},
    {"kind": "step", "epoch": 1, "step": 4, "images_per_second": 4.0},
    {"kind": "epoch", "epoch": 1, "step": 5, "at": 1, "psnr": 20.5, "seconds": 100.0},
    {"kind": "step", "epoch": 2, "step": 7, "images_per_second": 0.5},
    {"kind": "validation", "epoch": 2, "step": 7, "at": 1.5, "psnr": 21.0, "seconds": 50.0},
    {"kind": "step", "epoch": 2, "step": 9, "images_per_second": 0.5},
    {"kind": "epoch", "epoch": 2, "step": 9, "at": 2, "psnr": 22.25, "seconds": 100.0},
]


UNTIMED = {key: value for key, value in LOG[4].items() if key != "seconds"}


def write_run(folder: Path, log: list[dict[str, object]]) -> Path:
    folder.mkdir()
    (folder / "config.yml").write_text(CONFIG)
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    return folder


def test_time_speed_and_scores_are_those_of_the_log(tmp_path: Path) -> None:
    curve = read_run(write_run(tmp_path / "small", LOG))
    times, scores = zip(*curve.points, strict=True)
    assert times == pytest.approx([2.5 / 3600, 6.5 / 3600, 10.5 / 3600])
    assert scores == (20.5, 21.0, 22.25)
    assert curve.hours == pytest.approx(10.5 / 3600)
    assert curve.patches == 14
    assert curve.patches_per_second == pytest.approx(14 / 10.5)
    pixels = 10 * 32**2 + 4 * 64**2
    assert curve.gmacs_per_second == pytest.approx(
        3 * curve.macs_per_pixel * pixels / 10.5 / 1e9, rel=1e-6
    )


def test_epochs_shorter_than_the_interval_of_the_log_have_a_speed(tmp_path: Path) -> None:
    """As DCSFN on Rain100L: 8 steps per epoch, and a log line every 50 steps."""
    lines = [
        {"kind": "epoch", "epoch": 1, "step": 8, "at": 1, "psnr": 20.0, "seconds": 40.0},
        {"kind": "epoch", "epoch": 2, "step": 12, "at": 2, "psnr": 21.0, "seconds": 40.0},
    ]
    old = read_run(write_run(tmp_path / "old", lines))  # 16 patches in 40 s, then 4 at that speed
    assert [hours for hours, _ in old.points] == pytest.approx([40 / 3600, 50 / 3600])
    new = read_run(
        write_run(tmp_path / "new", [line | {"images_per_second": 8.0} for line in lines])
    )
    assert [hours for hours, _ in new.points] == pytest.approx([2 / 3600, 2.5 / 3600])


def test_the_picture_and_the_table_are_made(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    runs = [write_run(tmp_path / name, LOG) for name in ("first", "second")]
    output = tmp_path / "runs.png"
    main(["--runs", *map(str, runs), "--output", str(output)])
    picture = cv2.imread(str(output))
    assert picture.shape[1] > picture.shape[0] > 300
    rows = capsys.readouterr().out.splitlines()
    assert rows[4:] == ["", *(f"{name}: dcsfn width=4 num_units=1" for name in ("first", "second"))]
    assert max(map(len, rows)) <= 80
    assert rows[2].split("|")[1].strip() == "first"
    assert rows[3].split("|")[-2].strip() == "22.25"


def test_mistakes_get_one_sentence(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", LOG)
    output = tmp_path / "runs.png"
    with pytest.raises(UserError, match=r"it has no log\.jsonl"):
        main(["--runs", str(tmp_path), "--output", str(output)])
    with pytest.raises(UserError, match="no validation yet"):
        main(["--runs", str(write_run(tmp_path / "new", LOG[:2])), "--output", str(output)])
    with pytest.raises(UserError, match="does not contain the speed"):
        main(["--runs", str(write_run(tmp_path / "slow", [UNTIMED])), "--output", str(output)])
    with pytest.raises(UserError, match=r"must end in \.png"):
        main(["--runs", str(run), "--output", str(tmp_path / "runs.gif")])
    output.write_bytes(b"mine")
    with pytest.raises(UserError, match="already exists"):
        main(["--runs", str(run), "--output", str(output)])
    assert output.read_bytes() == b"mine"
