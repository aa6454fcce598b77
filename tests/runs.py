"""Small trainings in this process: their settings, and what they leave."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

import train
from utils.checkpoints import read_checkpoint, read_weights

# What clocks and the machine measure: other values in each run.
MEASURED = ("seconds", "images_per_second", "hours_left", "memory_gib")


def tiny_settings(data: Path) -> list[str]:
    """Two epochs of three steps of a network of two convolutions (tests/tiny_network.py)."""
    return f"""
        MODEL.NAME tiny DATA.TRAIN {data}/train DATA.VAL [[{data}/val,val]] DATA.LEAKS ignore
        DATA.WORKERS 0 AUGMENT.PATCH 32 OPTIM.BATCH_SIZE 2 OPTIM.EPOCHS 2 OPTIM.LR 1e-2
        OPTIM.EMA 0.9 LOSS.TERMS.L1 1 LOSS.TERMS.FFT_STACKED 0 LOSS.SCALES 1
        SCHEDULE.WARMUP_EPOCHS 0 VALIDATION.SAMPLES_EVERY 0 LOG.EVERY_STEPS 1
    """.split()


def train_here(folder: Path, name: str, *arguments: str, status: int = 0) -> Path:
    """``train.py ARGUMENTS`` in this process; returns the run's folder, ``folder``/``name``."""
    argv = sys.argv
    sys.argv = ["train.py", *arguments, "RUN.FOLDER", str(folder), "RUN.NAME", name]
    try:
        assert train.main() == status
    finally:
        sys.argv = argv
    return folder / name


def saved(folder: Path) -> dict:
    """The last checkpoint of a run."""
    return read_checkpoint(folder / "latest.pth")


def progress(folder: Path) -> dict:
    return saved(folder)["progress"]


def log_of(folder: Path, kind: str = "") -> list[dict]:
    """The lines of a run's log, of one kind or all of them."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if kind in ("", line["kind"])]


def assert_same_run(one: Path, other: Path) -> None:
    """Bit-identical weights, averages and optimiser; equal logs except for measured values."""
    a, b = saved(one), saved(other)
    for key in ("network", "ema"):
        assert a[key].keys() == b[key].keys()
        for name in a[key]:
            assert torch.equal(a[key][name], b[key][name]), f"{key} {name}"
    for index, state in a["optimizer"]["state"].items():
        for name in state:
            assert torch.equal(state[name], b["optimizer"]["state"][index][name])
    best_a, best_b = (read_weights(folder / "best.safetensors") for folder in (one, other))
    assert all(torch.equal(best_a.state[name], best_b.state[name]) for name in best_a.state)
    assert best_a.info["psnr"] == best_b.info["psnr"]
    logs = [
        [{k: v for k, v in line.items() if k not in MEASURED} for line in log_of(folder)]
        for folder in (one, other)
    ]
    assert logs[0] == logs[1]
