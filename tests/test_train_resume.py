"""What a resumed training refuses, and what it takes along."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch

import train
from tests.helpers import write_pairs
from tests.ranks import At, run_ranks, train_here
from tests.tiny_network import TinyNetwork, register
from utils.checkpoints import read_checkpoint, read_weights, write_checkpoint
from utils.errors import UserError
from utils.training.checks import MAX_SKIPPED


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two epochs of three steps of a network of two convolutions."""
    register(monkeypatch)
    write_pairs(tmp_path / "train", 6, 40, 48)
    write_pairs(tmp_path / "val", 2, 40, 48)
    return f"""
        MODEL.NAME tiny DATA.TRAIN {tmp_path}/train DATA.VAL {tmp_path}/val DATA.WORKERS 0
        AUGMENT.PATCH 32 OPTIM.BATCH_SIZE 2 OPTIM.EPOCHS 2 OPTIM.LR 1e-2
        LOSS.TERMS.L1 1 LOSS.TERMS.FFT_STACKED 0 LOSS.SCALES 1 SCHEDULE.WARMUP_EPOCHS 0
        VALIDATION.SAMPLES_EVERY 0
    """.split()


def stop_in_mid_epoch(tmp_path: Path, *arguments: object) -> None:
    where = ["RUN.FOLDER", tmp_path, "RUN.NAME", "run"]
    done = run_ranks(tmp_path / "out", 1, *arguments, *where, at=At(signal.SIGTERM, step=2))
    assert done.statuses == [75], done.output


# fp16 whose gradients never become finite.


def test_fp16_that_never_trains_is_refused(settings, tmp_path, monkeypatch) -> None:
    """Gradients that are not finite at any scale; one more step before would have been in time."""
    real = TinyNetwork.forward

    def forward(self: TinyNetwork, rainy: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if torch.is_grad_enabled() and not self.body[4].bias._backward_hooks:
            self.body[4].bias.register_hook(lambda gradient: gradient * float("inf"))
        return real(self, rainy)

    more = ["OPTIM.PRECISION", "fp16", "DATA.VAL", "", "OPTIM.BATCH_SIZE", "1", "DATA.REPEAT", "10"]
    monkeypatch.setattr(TinyNetwork, "forward", forward)
    message = rf"skipped {MAX_SKIPPED} steps in a row, up to step {MAX_SKIPPED} \(epoch 1\).* bf16"
    with pytest.raises(UserError, match=message):
        train_here(tmp_path, "run", *settings, *more)
    assert not (tmp_path / "run" / "latest.pth").exists()


def test_skipped_steps_are_counted_in_the_log(settings, tmp_path) -> None:
    """A loss of 1e34 at a first scale of 2**16 overflows in the first steps only."""
    more = ["OPTIM.PRECISION", "fp16", "LOSS.TERMS.L1", "1e36", "LOG.EVERY_STEPS", "1"]
    folder = train_here(tmp_path, "run", *settings, *more, "--stop-after-epoch")
    train_here(tmp_path, "run", *settings, *more, "--resume")
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    skipped = [line["grad_norm"] is None for line in steps]
    assert skipped[0]
    assert [line["skipped_steps"] for line in steps] == [
        sum(skipped[: number + 1]) for number in range(len(steps))
    ]
    assert lines[-1]["kind"] == "epoch" and lines[-1]["skipped_steps"] == sum(skipped)


# The plan of the current epoch.


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[{a}, {b}]", "[{b}, {a}]", "the order or the weights of DATA.TRAIN cannot change"),
        ("[[{a}, 2], {b}]", "[[{a}, 1], [{b}, 2]]", "the order or the weights of DATA.TRAIN"),
        ("{a}", "{a}", "RUN.SEED from 0 to 5 cannot change"),
    ],
)
def test_another_order_of_samples_waits_for_the_end_of_the_epoch(
    settings, tmp_path, before, after, message
) -> None:
    """Some images would be shown twice in the epoch and others never."""
    folders = {name: write_pairs(tmp_path / name, 4, 40, 48) for name in ("a", "b")}
    old = ["DATA.TRAIN", before.format(**folders)]
    new = ["DATA.TRAIN", after.format(**folders)]
    new += ["RUN.SEED", "5"] if before == after else []
    stop_in_mid_epoch(tmp_path, *settings, *old)
    with pytest.raises(UserError, match=rf"{message}.*--resume --stop-after-epoch"):
        train_here(tmp_path, "run", *settings, *new, "--resume")
    train_here(tmp_path, "run", *settings, *old, "--resume", "--stop-after-epoch")
    train_here(tmp_path, "run", *settings, *new, "--resume")


def test_moved_data_keep_their_order(settings, tmp_path) -> None:
    stop_in_mid_epoch(tmp_path, *settings)
    (tmp_path / "train").rename(tmp_path / "moved")
    moved = ["DATA.TRAIN", str(tmp_path / "moved")]
    folder = train_here(tmp_path, "run", *settings, *moved, "--resume")
    assert read_checkpoint(folder / "latest.pth")["progress"]["step"] == 6


# What a run keeps.


def test_more_best_weights_at_a_resume_are_files(settings, tmp_path) -> None:
    folder = train_here(tmp_path, "run", *settings, "--stop-after-epoch")
    assert not (folder / "best").exists()
    train_here(tmp_path, "run", *settings, "--resume", "CHECKPOINT.KEEP_BEST", "3")
    progress = read_checkpoint(folder / "latest.pth")["progress"]
    assert [psnr for psnr, _ in progress["kept"]] == sorted(
        (record["psnr"] for record in progress["history"]), reverse=True
    )
    for psnr, name in progress["kept"]:
        assert read_weights(folder / "best" / name).info["psnr"] == psnr


def test_a_finished_run_refuses_settings_that_nothing_would_use(settings, tmp_path) -> None:
    folder = train_here(tmp_path, "run", *settings)
    before = {path: path.read_bytes() for path in (folder / "config.yml", folder / "log.jsonl")}
    with pytest.raises(UserError, match=r"finished run, after epoch 2; .*OPTIM\.LR: 0\.01 -> 0\.5"):
        train_here(tmp_path, "run", *settings, "OPTIM.LR", "0.5", "--resume")
    assert {path: path.read_bytes() for path in before} == before
    train_here(tmp_path, "run", *settings, "--resume")  # as a scheduler does: nothing is left
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("is_replaced", [True, False])
def test_a_renamed_folder_is_not_written_into(settings, tmp_path, monkeypatch, is_replaced) -> None:
    """``mv runs/a runs/old`` under a living run; a new run may have taken its name."""
    folder, real = tmp_path / "run", train.train_one_step

    def one_step(run: train.Run, micro_batches: object) -> object:
        if run.state.progress.step == 3:  # the first epoch is saved
            folder.rename(tmp_path / "old")
            if is_replaced:
                shutil.copytree(tmp_path / "old", folder)
        return real(run, micro_batches)

    monkeypatch.setattr(train, "train_one_step", one_step)
    with pytest.raises(UserError, match=r"run was renamed, removed or replaced .*--resume"):
        train_here(tmp_path, "run", *settings, "LOG.EVERY_STEPS", "99", "DATA.VAL", "")
    assert folder.exists() == is_replaced
    for left in [tmp_path / "old", *([folder] if is_replaced else [])]:
        assert read_checkpoint(left / "latest.pth")["progress"]["step"] == 3


def test_options_given_as_a_tuple_are_those_of_the_saved_settings(settings, tmp_path) -> None:
    """YAML has no tuples: config.yml holds [1, 1, 1, 1]."""
    settings += ["MODEL.NAME", "nerd_rain_t", "LOSS.SCALES", "3", "DATA.VAL", ""]
    settings += ["DATA.TRAIN", str(tmp_path / "val")]  # one step per epoch
    options = ["MODEL.OPTIONS.num_blocks", "(1, 1, 1)"]
    folder = train_here(tmp_path, "run", *settings, *options, "--stop-after-epoch")
    assert read_checkpoint(folder / "latest.pth")["options"]["num_blocks"] == (1, 1, 1)
    config = ["--config", str(folder / "config.yml")]
    train_here(tmp_path, "run", *config, "--resume")
    assert read_checkpoint(folder / "latest.pth")["progress"]["step"] == 2


def test_a_resume_takes_the_settings_of_the_optimiser(settings, tmp_path, monkeypatch) -> None:
    seen = []
    settings += ["OPTIM.NAME", "adamw", "OPTIM.WEIGHT_DECAY", "0.1"]
    train_here(tmp_path, "run", *settings, "--stop-after-epoch")
    real = train.train_one_step

    def one_step(run: train.Run, micro_batches: object) -> object:
        seen.extend(run.state.optimizer.param_groups)
        return real(run, micro_batches)

    monkeypatch.setattr(train, "train_one_step", one_step)
    more = ["OPTIM.BETAS", "[0.8, 0.95]", "OPTIM.EPS", "1e-5", "OPTIM.WEIGHT_DECAY", "0.3"]
    train_here(tmp_path, "run", *settings, *more, "--resume")
    assert {(group["betas"], group["eps"]) for group in seen} == {((0.8, 0.95), 1e-5)}
    assert [group["weight_decay"] for group in seen[:2]] == [0.3, 0.0]


# Checkpoints that are whole and do not fit.


@pytest.mark.parametrize("part", ["epoch_plan", "data", "progress", "optimizer"])
def test_a_sealed_checkpoint_that_lacks_a_part_is_refused(settings, tmp_path, part) -> None:
    folder = train_here(tmp_path, "run", *settings, "--stop-after-epoch")
    checkpoint = read_checkpoint(folder / "latest.pth")
    del checkpoint[part]
    write_checkpoint(folder / "latest.pth", checkpoint)
    with pytest.raises(UserError, match=rf"latest\.pth lacks {part}, .*MODEL\.INIT"):
        train_here(tmp_path, "run", *settings, "--resume")


@pytest.mark.parametrize("where", ["network", "ema", "random", "progress"])
def test_a_sealed_checkpoint_with_other_contents_is_refused(settings, tmp_path, where) -> None:
    settings += ["OPTIM.EMA", "0.9"]
    folder = train_here(tmp_path, "run", *settings, "--stop-after-epoch")
    checkpoint = read_checkpoint(folder / "latest.pth")
    checkpoint[where]["unknown"] = torch.zeros(2)
    del checkpoint[where][next(iter(checkpoint[where]))]
    write_checkpoint(folder / "latest.pth", checkpoint)
    with pytest.raises(UserError, match=r"latest\.pth does not fit this version"):
        train_here(tmp_path, "run", *settings, "--resume")
