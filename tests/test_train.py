"""Training as a user runs it: resume, kills, several processes, mistakes."""

from __future__ import annotations

import functools
import json
import math
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import torch

import train
from models import build_model, load_weights
from tests.helpers import ROOT, read_until, run_script, start_script, write_pairs
from tests.ranks import At, run_ranks
from utils.checkpoints import read_checkpoint, read_weights
from utils.errors import UserError


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), 6)


@pytest.fixture(scope="module")
def settings(pairs: Path) -> list[str]:
    """A run of DMSR at its smallest: four epochs of three steps."""
    return f"""
        MODEL.NAME dmsr_s MODEL.OPTIONS.width 4 MODEL.OPTIONS.num_blocks 1
        DATA.TRAIN {pairs} DATA.VAL {pairs} DATA.WORKERS 0 OPTIM.BATCH_SIZE 2 OPTIM.EPOCHS 4
        LOSS.TERMS.L1 1 LOSS.TERMS.FFT_STACKED 0.1 LOSS.SCALES 3 OPTIM.LR 1e-3 OPTIM.EMA 0.9
        SCHEDULE.NAME exponential VALIDATION.SAMPLES_EVERY 2 LOG.EVERY_STEPS 1
    """.split()


def train_in_process(folder: Path, settings: list[str], name: str, *arguments: str) -> Path:
    """Train as ``train.py --flags KEY VALUE`` would and return the run's folder."""
    flags = [argument for argument in arguments if argument.startswith("--")]
    more = [argument for argument in arguments if not argument.startswith("--")]
    where = ["RUN.FOLDER", str(folder), "RUN.NAME", name]
    argv, sys.argv = sys.argv, ["train.py", *flags, *settings, *where, *more]
    try:
        assert train.main() == 0
    finally:
        sys.argv = argv
    return folder / name


@pytest.fixture
def run_train(tmp_path: Path, settings: list[str]) -> Callable[..., Path]:
    """``run_train(name, *more arguments)`` trains in this process."""
    return functools.partial(train_in_process, tmp_path / "runs", settings)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, settings: list[str]) -> Path:
    """The undisturbed run that disturbed ones are compared with."""
    return train_in_process(tmp_path_factory.mktemp("straight"), settings, "straight")


MEASURED = ("seconds", "images_per_second", "hours_left", "memory_gib")


def assert_same_run(one: Path, other: Path) -> None:
    """Bit-identical weights, averages and optimiser; the same log but for what clocks measure."""
    a, b = (read_checkpoint(folder / "latest.pth") for folder in (one, other))
    for key in ("network", "ema"):
        assert a[key].keys() == b[key].keys()
        for name in a[key]:
            assert torch.equal(a[key][name], b[key][name]), f"{key} {name}"
    for index, state in a["optimizer"]["state"].items():
        for name in state:
            assert torch.equal(state[name], b["optimizer"]["state"][index][name])
    best_a, best_b = (read_weights(folder / "best.safetensors") for folder in (one, other))
    assert all(torch.equal(best_a.state[name], best_b.state[name]) for name in best_a.state)
    logs = []
    for folder in (one, other):
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        logs.append([{k: v for k, v in line.items() if k not in MEASURED} for line in lines])
    assert logs[0] == logs[1]


def test_four_epochs_equal_two_then_resumed_two(run_train, straight) -> None:
    halves = run_train("halves", "OPTIM.EPOCHS", "2")
    assert read_checkpoint(halves / "latest.pth")["progress"]["step"] == 6
    run_train("halves", "--resume")
    assert_same_run(straight, halves)


def test_killed_inside_an_epoch_and_resumed_equals_undisturbed(
    run_train, settings, straight, tmp_path
) -> None:
    folder = tmp_path / "runs"
    arguments = [*settings, "RUN.FOLDER", folder, "RUN.NAME", "killed", "CHECKPOINT.EVERY_STEPS", 1]
    killed = run_ranks(tmp_path / "out", 1, *arguments, at=At(signal.SIGKILL, step=6))
    assert killed.statuses == [-9]
    assert read_checkpoint(folder / "killed" / "latest.pth")["progress"]["step"] == 5
    run_train("killed", "--resume", "CHECKPOINT.EVERY_STEPS", "1")
    assert_same_run(straight, folder / "killed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_signal_finishes_the_step_saves_and_says_so(
    run_train, settings, straight, tmp_path, number
) -> None:
    arguments = [*settings, "RUN.FOLDER", tmp_path / "runs", "RUN.NAME", "stopped"]
    stopped = run_ranks(tmp_path / "out", 1, *arguments, at=At(number, step=5))
    assert stopped.statuses == [75]
    assert (
        f"{number.name}: finishing the current step" in stopped.output
        and "--resume" in stopped.output
    )
    assert read_checkpoint(tmp_path / "runs/stopped/latest.pth")["progress"]["step"] == 5
    run_train("stopped", "--resume")
    assert_same_run(straight, tmp_path / "runs" / "stopped")


@pytest.mark.slow
@pytest.mark.timeout(3600)  # fifty starts of Python and PyTorch
def test_survives_fifty_kills_at_random_moments(run_train, settings) -> None:
    straight = run_train("straight", "OPTIM.EPOCHS", "60", "CHECKPOINT.EVERY_STEPS", "1")
    folder = straight.parent
    arguments = [*settings, "RUN.FOLDER", folder, "RUN.NAME", "killed"]
    arguments += ["OPTIM.EPOCHS", 60, "CHECKPOINT.EVERY_STEPS", 1]
    moments = random.Random(0)
    kills = 0
    while kills < 50:
        process = start_script("train.py", "--resume", *arguments)  # also the first start
        read_until(process, "dmsr_s:")  # the start-up is over
        try:
            process.wait(timeout=moments.uniform(0.05, 0.8))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        else:
            assert process.returncode == 0
            break
    assert kills == 50, "the run ended before it was killed often enough; give it more epochs"
    run_train("killed", "--resume", "OPTIM.EPOCHS", "60", "CHECKPOINT.EVERY_STEPS", "1")
    assert_same_run(straight, folder / "killed")


def test_several_processes_and_accumulation_take_the_same_steps(tmp_path, pairs) -> None:
    """A network without batch norm: averages over a share of the batch would differ with it."""
    common = f"""
        MODEL.NAME nerd_rain_t DATA.TRAIN {pairs} DATA.VAL {pairs} DATA.WORKERS 0
        LOSS.TERMS.CHARBONNIER 1 OPTIM.BATCH_SIZE 4 DATA.REPEAT 2 OPTIM.EPOCHS 1
        SCHEDULE.NAME multi_step RUN.FOLDER {tmp_path} AUGMENT.PATCH 32
    """.split()
    runs = {
        "one": run_ranks(tmp_path / "out", 1, *common, "RUN.NAME", "one"),
        "two": run_ranks(tmp_path / "out", 2, *common, "RUN.NAME", "two"),
        "passes": run_ranks(
            tmp_path / "out", 1, *common, "RUN.NAME", "passes", "OPTIM.ACCUMULATE", 2
        ),
    }
    for name, done in runs.items():
        assert set(done.statuses) == {0}, f"{name}: {done.output}"
    one, two, passes = (read_checkpoint(tmp_path / name / "latest.pth") for name in runs)
    for other in (two, passes):
        for name, value in one["network"].items():
            torch.testing.assert_close(other["network"][name], value, rtol=1e-4, atol=1e-5)
        for key in ("loss", "psnr", "ssim"):
            expected = one["progress"]["history"][0][key]
            assert other["progress"]["history"][0][key] == pytest.approx(expected, rel=1e-5)
    assert runs["two"].output.count("epoch 1/1") == 1  # only one process speaks


def test_one_process_that_fails_ends_all_with_its_error_shown(tmp_path) -> None:
    folder = write_pairs(tmp_path / "pairs", 3)
    broken = folder / "input" / "2.png"  # in the second process's share
    broken.write_bytes(broken.read_bytes()[:200])
    done = run_ranks(
        *(tmp_path / "out", 2, "DATA.TRAIN", folder, "DATA.VAL", "", "OPTIM.BATCH_SIZE", 2),
        *("RUN.FOLDER", tmp_path / "runs"),
    )
    assert done.statuses == [1, 1]
    assert f"error: {broken} is not a readable image" in done.outputs[1]
    # Nothing but the list of images that were found sound.
    assert not [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("recipe", "tiny"),
    [
        ("dmsr_rain13k", "dmsr_s"),
        ("nerd_rain_s_ddn", "nerd_rain_t"),
        ("dcsfn_rain1200", "dcsfn_t"),
        ("mspfn_n1_rain13k", "mspfn_t"),
    ],
)
def test_the_published_recipes_train(recipe, tiny, pairs, tmp_path) -> None:
    """Two steps of each network's own recipe, at the network's smallest size."""
    settings = f"""
        MODEL.NAME {tiny} DATA.TRAIN {pairs} DATA.VAL {pairs} DATA.WORKERS 0 AUGMENT.PATCH 64
        OPTIM.BATCH_SIZE 2 OPTIM.EPOCHS 4 VALIDATION.EVERY 9 VALIDATION.PATIENCE 0 DATA.REPEAT 1
    """.split()
    flags = [f"--config={ROOT / 'configs' / recipe}.yml", "--dry-run"]
    train_in_process(tmp_path, settings, recipe, *flags)
    flags = [f"--config={ROOT / 'configs' / recipe}.yml"]
    folder = train_in_process(tmp_path, [*settings, "DATA.VAL", ""], recipe, *flags)
    history = read_checkpoint(folder / "latest.pth")["progress"]["history"]
    assert [line["step"] for line in history] == [3, 6, 9, 12]
    assert all(math.isfinite(line["loss"]) for line in history)


def test_training_restores_better_than_it_began(run_train) -> None:
    folder = run_train("longer", "OPTIM.EPOCHS", "4", "DATA.REPEAT", "4", "OPTIM.EMA", "0")
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    history = [line for line in lines if line["kind"] == "epoch"]
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    best = max(history, key=lambda line: line["psnr"])
    weights = read_weights(folder / "best.safetensors")
    assert weights.info["epoch"] == best["epoch"] and weights.info["psnr"] == best["psnr"]
    assert load_weights(folder / "best.safetensors").stem[0].weight.shape[0] == 4  # MODEL.OPTIONS
    assert (folder / "config.yml").exists() and (folder / "curves.png").stat().st_size > 1000
    sample = cv2.imread(str(folder / "samples" / "epoch0002_1.png"))
    assert sample.shape == (72, 3 * 88, 3)  # rainy, restored, clean


def test_early_stopping_counts_epochs_without_a_better_psnr(run_train) -> None:
    # With a rate of nearly nothing the first epoch stays the best.
    folder = run_train(
        "early",
        "VALIDATION.PATIENCE",
        "2",
        "OPTIM.EPOCHS",
        "9",
        "OPTIM.LR",
        "1e-12",
        "OPTIM.EMA",
        "0",
    )
    history = read_checkpoint(folder / "latest.pth")["progress"]["history"]
    assert len(history) - max(history, key=lambda line: line["psnr"])["epoch"] == 2


@pytest.mark.parametrize("more", [["DATA.VAL", ""], ["VALIDATION.EVERY", "4"]])
def test_patience_counts_nothing_where_nothing_was_validated(run_train, more) -> None:
    folder = run_train("patient", "VALIDATION.PATIENCE", "1", *more)
    assert len(read_checkpoint(folder / "latest.pth")["progress"]["history"]) == 4


def test_a_run_that_died_before_its_first_checkpoint_can_start_again(run_train, straight) -> None:
    for flags in ([], ["--resume"]):
        with pytest.raises(UserError, match=r"the loss is .* There is no checkpoint yet"):
            run_train("again", "OPTIM.LR", "1e30", "OPTIM.EMA", "0", "LOG.EVERY_STEPS", "9")
        folder = run_train("again", *flags)
        assert_same_run(straight, folder)
        shutil.rmtree(folder)


def test_clipping_bounds_the_step(run_train) -> None:
    """With a gradient far below Adam's epsilon the weights stay where they began."""
    clipped = run_train("clipped", "OPTIM.CLIP_NORM", "1e-13", "OPTIM.EPOCHS", "1")
    torch.manual_seed(0)
    before = build_model("dmsr_s", {"width": 4, "num_blocks": 1})
    after = read_checkpoint(clipped / "latest.pth")["network"]
    for name, parameter in before.named_parameters():
        torch.testing.assert_close(after[name], parameter.detach(), rtol=0, atol=1e-6)


def test_patches_that_the_network_cannot_take_are_refused_at_once(run_train, tmp_path) -> None:
    for setting in (["AUGMENT.PATCH", "70"], ["AUGMENT.PROGRESSIVE", "[[3, 32, 2]]"]):
        with pytest.raises(UserError, match="multiples of 16 from 64 on"):
            run_train("patches", *setting)
    assert not (tmp_path / "runs").exists()


def test_an_existing_run_is_never_overwritten(run_train) -> None:
    folder = run_train("once", "OPTIM.EPOCHS", "1")
    before = (folder / "latest.pth").read_bytes()
    with pytest.raises(UserError, match=r"exists .*; continue it with --resume, or choose another"):
        run_train("once", "OPTIM.EPOCHS", "1")
    assert (folder / "latest.pth").read_bytes() == before


def test_a_truncated_checkpoint_is_refused_and_the_previous_one_taken_when_told(
    run_train, straight
) -> None:
    folder = run_train("torn", "OPTIM.EPOCHS", "2")
    latest = folder / "latest.pth"
    latest.write_bytes(latest.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"latest\.pth .*--resume-from .*previous\.pth"):
        run_train("torn", "--resume")
    run_train("torn", f"--resume-from={folder / 'previous.pth'}")
    assert_same_run(straight, folder)


def test_resuming_with_another_network_is_refused(run_train) -> None:
    run_train("kept", "OPTIM.EPOCHS", "1")
    with pytest.raises(UserError, match="holds dmsr_s"):
        run_train("kept", "--resume", "MODEL.OPTIONS.width", "8")


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(
    run_train, tmp_path
) -> None:
    with pytest.raises(UserError, match=r"step \d+ .*gradient.*\.png.*OPTIM\.LR"):
        run_train("exploding", "OPTIM.LR", "1e30", "OPTIM.EMA", "0")
    assert not (tmp_path / "runs" / "exploding" / "best.safetensors").exists()


def test_dry_run_prints_the_plan_and_writes_nothing(run_train, tmp_path, capsys) -> None:
    run_train("planned", "--dry-run")
    printed = capsys.readouterr().out
    assert "4 epochs, 12 steps" in printed and "6 pairs" in printed
    assert not (tmp_path / "runs").exists()


def test_progressive_patches_change_patch_and_batch(run_train) -> None:
    folder = run_train("progressive", "AUGMENT.PROGRESSIVE", "[[3, 80, 3]]")
    steps = [line["step"] for line in read_checkpoint(folder / "latest.pth")["progress"]["history"]]
    assert steps == [3, 6, 8, 10]  # batches of 2, then of 3


def test_without_data_one_sentence_says_where_to_put_them(tmp_path) -> None:
    done = run_script("train.py", "DATA.TRAIN", tmp_path / "nowhere", "RUN.FOLDER", tmp_path)
    assert done.returncode == 1
    assert "input" in done.stderr and "make demo" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr
