"""Hours, speed and memory of a run, with a clock that the test sets: exact figures."""

from __future__ import annotations

import resource
import sys

import pytest
import torch

from configs import load_config
from tests.helpers import ROOT
from utils.devices import peak_memory
from utils.training.plan import Pace, RunPlan, Stage, is_every

# Epochs 1 and 2: 5 steps of 4 patches of 32; epoch 3: 10 steps of 2 patches of 64.
SETTINGS = ["OPTIM.EPOCHS", "3", "OPTIM.BATCH_SIZE", "4", "AUGMENT.PATCH", "32"]
SETTINGS += ["AUGMENT.PROGRESSIVE", "[[3, 64, 2]]", "SCHEDULE.WARMUP_EPOCHS", "0"]
SMALL, LARGE = 4 * 32**2, 2 * 64**2  # pixels of a step


@pytest.fixture
def plan() -> RunPlan:
    return RunPlan(load_config(ROOT / "training.yml", SETTINGS), num_samples=21)


def test_steps_and_pixels_that_are_left(plan: RunPlan) -> None:
    assert [plan.steps(epoch) for epoch in (1, 2, 3)] == [5, 5, 10] and plan.total_steps == 20
    assert plan.pixels_left(1, 0) == 10 * SMALL + 10 * LARGE
    assert plan.pixels_left(2, 3) == 2 * SMALL + 10 * LARGE
    assert plan.pixels_left(3, 4) == 6 * LARGE
    assert plan.pixels_left(4, 0) == 0
    assert plan.stages == [Stage(1, 32, 4), Stage(3, 64, 2)]


def test_speed_and_hours_count_the_steps_alone(plan: RunPlan, monkeypatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    pace = Pace(plan)
    assert pace.hours_left(1, 0) == 0 and pace.recent() == {}
    now += 500  # before the first step: not counted
    pace.start()
    for seconds in (60, 30, 90):
        now += seconds
        pace.count(plan.stage(1))
    assert pace.images_per_second() == pytest.approx(12 / 180)
    now += 30
    pace.count(plan.stage(1))
    assert pace.recent() == {"images_per_second": pytest.approx(4 / 30)}  # since the last call
    assert pace.recent() == {}
    seconds_per_pixel = 210 / (4 * SMALL)
    left = 6 * SMALL + 10 * LARGE
    assert pace.hours_left(1, 4) == pytest.approx(left * seconds_per_pixel / 3600)
    now += 10_000  # a validation
    pace.start()
    now += 20
    pace.count(plan.stage(3))
    assert pace.images_per_second() == pytest.approx(2 / 20)
    assert pace.hours_left(3, 9) == pytest.approx(LARGE * 230 / (4 * SMALL + LARGE) / 3600)


def test_a_dry_run_adds_up_the_stages(plan: RunPlan) -> None:
    lines = plan.report({Stage(1, 32, 4): 720.0, Stage(3, 64, 2): 90.0}, 1.25).splitlines()
    assert lines[0].endswith("4 patches of 32 x 32: 720.00 s (from epoch 1)")
    assert "3 epochs, 20 steps, 2.2 h" in lines[2]  # (10 * 720 + 10 * 90) / 3600 = 2.25
    assert "1.2 GiB" in lines[3]


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_memory_is_in_bytes(monkeypatch, platform: str, unit: int) -> None:
    """The platform is patched: Linux counts kilobytes, macOS bytes."""
    monkeypatch.setattr(sys, "platform", platform)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peak_memory(torch.device("cpu")) == pytest.approx(before * unit, rel=0.05)


def test_every_interval_once() -> None:
    assert [n for n in range(10) if is_every(3, n)] == [3, 6, 9]
    assert not any(is_every(0, n) for n in range(10))
    assert not is_every(3, 6, last=6) and is_every(3, 6, last=5)
