"""What a training does: its course, its best weights, its records, where it starts from."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import cv2
import pytest
import torch
from torch import nn

import train
from configs import load_config
from data.pairs import find_pairs
from models import build_model, load_weights
from tests.helpers import ROOT, write_pairs
from tests.runs import log_of, progress, saved, train_here
from tests.tiny_network import TinyNetwork
from utils.checkpoints import Weights, read_weights, write_weights
from utils.errors import UserError
from utils.inference.restorer import Restorer
from utils.metrics import score
from utils.training.optim import build_optimizer, set_backends
from utils.training.run_folder import RunFolder

# Weights that stay where they begin.
STILL = ["OPTIM.LR", "1e-12", "SCHEDULE.LR_MIN", "0", "OPTIM.EPOCHS", "1", "RUN.SEED", "5"]


def assert_starts_from(folder: Path, network: nn.Module, names: tuple[str, ...] = ()) -> None:
    """A run that stayed still has these parameters of ``network``; by default all."""
    after = saved(folder)["network"]
    for name, value in network.named_parameters():
        if not names or name in names:
            torch.testing.assert_close(after[name], value.detach(), rtol=0, atol=1e-9)


# The course of a run.


@pytest.mark.parametrize(
    ("recipe", "tiny", "patch"),
    [
        ("dmsr_rain13k", "dmsr_s", 64),
        ("nerd_rain_s_ddn", "nerd_rain_t", 32),
        ("dcsfn_rain1200", "dcsfn_t", 32),
        ("mspfn_n1_rain13k", "mspfn_t", 32),
    ],
)
def test_the_published_recipes_train(recipe, tiny, patch, tiny_data, tmp_path) -> None:
    """Two epochs of each network's own recipe, at the network's smallest size."""
    settings = f"""
        --config {ROOT}/configs/{recipe}.yml MODEL.NAME {tiny} DATA.TRAIN {tiny_data}/val
        DATA.REPEAT 2 DATA.WORKERS 0 AUGMENT.PATCH {patch} OPTIM.BATCH_SIZE 2 OPTIM.EPOCHS 2
        SCHEDULE.WARMUP_EPOCHS 1 VALIDATION.PATIENCE 0
    """.split()
    if tiny == "dmsr_s":  # whose smallest patch is larger than the pairs
        settings += ["DATA.TRAIN", str(write_pairs(tmp_path / "pairs", 2))]
    history = progress(train_here(tmp_path, recipe, *settings, "DATA.VAL", ""))["history"]
    assert [line["step"] for line in history] == [2, 4]
    assert all(math.isfinite(line["loss"]) for line in history)


def test_training_restores_better_than_it_began(run_train, tiny_data) -> None:
    more = ["OPTIM.EPOCHS", "4", "DATA.REPEAT", "4", "VALIDATION.SAMPLES_EVERY", "2"]
    folder = run_train(*more, "MODEL.OPTIONS.width", "6", "DATA.VAL", f"{tiny_data}/train")
    history = log_of(folder, "epoch")
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    best = max(history, key=lambda line: line["psnr"])
    weights = read_weights(folder / "best.safetensors")
    assert weights.info["epoch"] == best["epoch"] and weights.info["psnr"] == best["psnr"]
    assert load_weights(folder / "best.safetensors").body[0].weight.shape[0] == 6  # MODEL.OPTIONS
    assert (folder / "config.yml").exists() and (folder / "curves.png").stat().st_size > 10_000
    sample = cv2.imread(str(folder / "samples" / "epoch0002_1.png"))
    assert sample.shape == (40, 3 * 48, 3)  # rainy, restored, clean


def test_early_stopping_counts_epochs_without_a_better_psnr(run_train) -> None:
    # With a rate of nearly nothing the first epoch stays the best.
    more = [*STILL, "OPTIM.EPOCHS", "9", "OPTIM.EMA", "0", "VALIDATION.PATIENCE", "2"]
    history = progress(run_train(*more))["history"]
    assert len(history) - max(history, key=lambda line: line["psnr"])["epoch"] == 2


@pytest.mark.parametrize("more", [["DATA.VAL", ""], ["VALIDATION.EVERY", "4"]])
def test_patience_counts_nothing_where_nothing_was_validated(run_train, more) -> None:
    folder = run_train("VALIDATION.PATIENCE", "1", "OPTIM.EPOCHS", "4", *more)
    assert len(progress(folder)["history"]) == 4


def test_clipping_bounds_the_step(run_train) -> None:
    """With a gradient far below Adam's epsilon the weights stay where they began."""
    clipped = run_train("OPTIM.CLIP_NORM", "1e-13", "OPTIM.EPOCHS", "1")
    torch.manual_seed(0)
    before = build_model("tiny")
    after = saved(clipped)["network"]
    for name, parameter in before.named_parameters():
        torch.testing.assert_close(after[name], parameter.detach(), rtol=0, atol=1e-6)


def test_progressive_patches_change_patch_and_batch(run_train) -> None:
    folder = run_train("OPTIM.EPOCHS", "4", "AUGMENT.PROGRESSIVE", "[[3, 40, 3]]")
    steps = [line["step"] for line in progress(folder)["history"]]
    assert steps == [3, 6, 8, 10]  # batches of 2, then of 3


def test_gradient_checkpointing_takes_the_same_steps(run_train, monkeypatch) -> None:
    """Batch norm's statistics too, although every batch passes twice."""
    monkeypatch.setattr(TinyNetwork, "checkpointed_blocks", (nn.Sequential,))
    plain, twice = (
        saved(run_train("OPTIM.GRADIENT_CHECKPOINTING", name, name=name))
        for name in ("False", "True")
    )
    for part in ("network", "ema"):
        for name, value in plain[part].items():
            torch.testing.assert_close(twice[part][name], value, rtol=1e-5, atol=1e-7)
    monkeypatch.setattr(TinyNetwork, "checkpointed_blocks", ())
    with pytest.raises(UserError, match="names no blocks to recompute"):
        run_train("OPTIM.GRADIENT_CHECKPOINTING", "True", name="none")


def test_weight_decay_shrinks_weights_but_no_biases_and_norms() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    overrides = ["OPTIM.NAME", "adamw", "OPTIM.WEIGHT_DECAY", "0.5", "OPTIM.LR", "0.1"]
    optimizer = build_optimizer(load_config(ROOT / "training.yml", overrides), network)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # without gradients AdamW only decays: w -= lr * decay * w
    for name, value in network.named_parameters():
        factor = 1 - 0.1 * 0.5 if name == "0.weight" else 1.0
        torch.testing.assert_close(value.detach(), factor * before[name])


def test_backends_follow_the_settings() -> None:
    for value in (True, False):
        overrides = ["OPTIM.TF32", str(value), "RUN.DETERMINISTIC", str(value)]
        set_backends(load_config(ROOT / "training.yml", overrides))
        assert torch.backends.cuda.matmul.allow_tf32 is value
        assert torch.backends.cudnn.allow_tf32 is value
        assert torch.are_deterministic_algorithms_enabled() is value
        assert torch.backends.cudnn.benchmark is not value


# Validation and the best weights.


def test_validation_within_epochs_several_sets_and_the_best_weights(run_train, tmp_path) -> None:
    for name, size in (("easy", (40, 48)), ("hard", (48, 40))):
        write_pairs(tmp_path / name, 1 + (name == "hard"), *size)
    sets = ["DATA.VAL", f"[[{tmp_path}/easy, easy], [{tmp_path}/hard, hard]]"]
    more = ["VALIDATION.EVERY_STEPS", "2", "CHECKPOINT.KEEP_BEST", "2"]
    folder = run_train(*sets, *more, "CHECKPOINT.SNAPSHOT_EVERY", "2")
    within, ends = log_of(folder, "validation"), log_of(folder, "epoch")
    assert [line["step"] for line in within] == [2, 4]
    assert [line["step"] for line in ends] == [3, 6]
    scored = [*within, *ends]
    for line in scored:
        assert line["psnr"] == pytest.approx((line["psnr_easy"] + line["psnr_hard"]) / 2)
        assert line["ssim"] == pytest.approx((line["ssim_easy"] + line["ssim_hard"]) / 2)
    # Every step was taken in training mode: batch norm counted it.
    assert saved(folder)["network"]["body.1.num_batches_tracked"] == 6
    kept = [read_weights(path) for path in (folder / "best").iterdir()]
    best_two = sorted((line["psnr"] for line in scored), reverse=True)[:2]
    assert sorted((weights.info["psnr"] for weights in kept), reverse=True) == best_two
    assert read_weights(folder / "best.safetensors").info["psnr"] == best_two[0]
    assert [path.name for path in (folder / "snapshots").iterdir()] == ["epoch0002.safetensors"]
    for line in log_of(run_train(*sets, "VALIDATION.BEST", "hard", name="hard_run"), "epoch"):
        assert line["psnr"] == line["psnr_hard"] != line["psnr_easy"]
    with pytest.raises(UserError, match=r"VALIDATION\.BEST is 'rain'; .* \(easy, hard\)"):
        run_train(*sets, "VALIDATION.BEST", "rain", name="none")


def test_the_last_epoch_is_validated(run_train) -> None:
    folder = run_train("VALIDATION.EVERY", "3", "OPTIM.EPOCHS", "4")
    assert [line["epoch"] for line in log_of(folder, "epoch") if "psnr" in line] == [3, 4]


def test_latest_gives_the_averaged_weights(two_epochs) -> None:
    """They were validated."""
    checkpoint, given = saved(two_epochs), read_weights(two_epochs / "latest.pth")
    for name, value in checkpoint["ema"].items():
        assert torch.equal(given.state[name], value), name
    weight = "body.0.weight"
    assert not torch.equal(checkpoint["ema"][weight], checkpoint["network"][weight])


def test_validation_restores_as_the_test_script_does(run_train, tmp_path, monkeypatch) -> None:
    """In tiles if the network names them. Its mean over the image shows where they end."""

    def forward(self: TinyNetwork, rainy: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (rainy - self.body(rainy) + rainy.mean((2, 3), keepdim=True) / 4,)

    monkeypatch.setattr(TinyNetwork, "forward", forward)
    monkeypatch.setattr(TinyNetwork, "best_tile", 64)
    large = write_pairs(tmp_path / "large", 1, 96, 112)
    folder = run_train("OPTIM.EPOCHS", "1", "DATA.VAL", str(large))
    network = load_weights(folder / "best.safetensors")
    rainy, clean = find_pairs(large)[1][0].read_uint8()
    tiled, whole = (
        score(Restorer(network, device=torch.device("cpu"), **tile)(rainy), clean, "rain13k").psnr
        for tile in ({}, {"tile": "whole"})
    )
    assert log_of(folder, "epoch")[0]["psnr"] == pytest.approx(tiled, abs=1e-6)
    assert abs(tiled - whole) > 0.01


def test_weights_that_are_no_longer_among_the_best_go(tmp_path) -> None:
    folder, kept = RunFolder(tmp_path), []
    for step, psnr in enumerate((20.0, 22.0, 21.0, 23.0, 19.0), start=1):
        weights = Weights("tiny", {}, {"w": torch.ones(1)}, {"psnr": psnr, "step": step})
        kept = folder.keep_best(weights, kept, 2)
    assert [psnr for psnr, _ in kept] == [23.0, 22.0]
    names = ["step0000002_22.00dB.safetensors", "step0000004_23.00dB.safetensors"]
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == names
    assert read_weights(tmp_path / "best.safetensors").info["step"] == 4


# What it records and prints.


def test_steps_are_recorded_as_often_as_asked(run_train) -> None:
    folder = run_train("LOG.EVERY_STEPS", "2")
    steps = log_of(folder, "step")
    assert [line["step"] for line in steps] == [2, 4, 6]
    for line in steps:
        assert {"loss", "L1", "grad_norm", "lr", "hours_left", "memory_gib"} <= line.keys()
        assert line["images_per_second"] > 0 and line["memory_gib"] > 0
    assert steps[0]["hours_left"] > steps[-1]["hours_left"] == 0
    assert list((folder / "tensorboard").iterdir())


def test_fp16_steps_without_effect_are_counted_and_null_in_the_log(run_train) -> None:
    """A loss of 1e34 at a first scale of 2**16 overflows; JSON has no word for infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    more = ["OPTIM.PRECISION", "fp16", "LOSS.TERMS.L1", "1e36"]
    run_train(*more, "--stop-after-epoch")
    folder = run_train(*more, "--resume")  # which rewrites the log
    text = (folder / "log.jsonl").read_text()
    *_, end = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    steps = log_of(folder, "step")
    skipped = [line["grad_norm"] is None for line in steps]
    assert skipped[0] and steps[0]["loss"] > 1e34
    counts = [sum(skipped[: number + 1]) for number in range(len(steps))]
    assert [line["skipped_steps"] for line in steps] == counts
    assert end["kind"] == "epoch" and end["skipped_steps"] == sum(skipped)


def test_leaks_are_drawn_and_weights_remember_their_scenes(run_train) -> None:
    """The clean images 1 and 2 are both trained and validated on."""
    folder = run_train("DATA.LEAKS", "warn", "--stop-after-epoch")
    assert len((folder / "leaks.csv").read_text().splitlines()) == 1 + 2
    assert (folder / "leaks.png").exists()
    assert read_weights(folder / "best.safetensors").info["training_scenes"]


def test_an_epoch_is_recorded_after_its_checkpoint(run_train, tmp_path, monkeypatch) -> None:
    """Else a kill in between would leave a log of an epoch that no checkpoint holds."""
    log, real_save = tmp_path / "run" / "log.jsonl", train.save

    def save(run: train.Run) -> None:
        assert log.read_text().count('"kind": "epoch"') < run.state.progress.epoch - 1
        real_save(run)

    monkeypatch.setattr(train, "save", save)
    assert len(log_of(run_train("DATA.VAL", ""), "epoch")) == 2


def test_dry_run_prints_the_plan_and_writes_nothing(run_train, tmp_path, capsys) -> None:
    run_train("AUGMENT.PROGRESSIVE", "[[2, 40, 1]]", "--dry-run")
    printed = capsys.readouterr().out
    assert "2 patches of 32 x 32" in printed and "1 patches of 40 x 40" in printed
    assert "2 epochs, 9 steps" in printed and "6 pairs" in printed
    assert not list(tmp_path.iterdir())


def test_without_a_terminal_lines_take_the_place_of_the_bar(run_forked) -> None:
    done = run_forked(1, "LOG.EVERY_STEPS", "2")
    steps = [line for line in done.output.splitlines() if " step " in line]
    expected = ["epoch 1/2 step 2", "epoch 2/2 step 4", "epoch 2/2 step 6"]
    assert [line.split(" loss")[0].split(" ", 1)[1] for line in steps] == expected
    assert "\r" not in done.output and "it/s" not in done.output


def test_help_names_the_settings_and_the_status_of_a_stop(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        train.main()
    text = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0 and "end it with status 75" in text
    assert "configs/__init__.py" in text and "OPTIM.BATCH_SIZE 12 images per step" in text


def test_another_networks_recipe_is_pointed_out(run_train, tiny_data, tmp_path, capsys) -> None:
    run_train("--dry-run")
    assert "note: MODEL.NAME" not in capsys.readouterr().out  # the loss is this command's own
    without_loss = f"""
        MODEL.NAME nerd_rain_t DATA.TRAIN {tiny_data}/val DATA.VAL {tiny_data}/val AUGMENT.PATCH 32
        OPTIM.BATCH_SIZE 2 DATA.WORKERS 0 --dry-run
    """.split()
    train_here(tmp_path, "run", *without_loss)
    printed = capsys.readouterr().out
    assert "MODEL.NAME is nerd_rain_t, but loss, learning rate and patch come from" in printed
    assert "dmsr_rain13k.yml, a recipe for dmsr; its own recipes include configs/nerd_" in printed


@pytest.mark.extras
def test_weights_and_biases_offline(run_train, monkeypatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = run_train("LOG.WANDB", "True", "--stop-after-epoch")
    first = (folder / "wandb-id.txt").read_text()
    run_train("LOG.WANDB", "True", "--resume")
    assert (folder / "wandb-id.txt").read_text() == first  # the same run there too
    runs = list((folder / "wandb").glob("offline-run-*/*.wandb"))
    assert runs and all(path.stat().st_size > 1000 for path in runs)


def test_without_its_package_weights_and_biases_is_refused(run_train, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        run_train("LOG.WANDB", "True")


# Where it starts from.


def test_weights_to_start_from(run_train, tmp_path, capsys) -> None:
    """This project's, the authors' own, and some that fit in part."""
    torch.manual_seed(1)
    start = build_model("tiny")
    write_weights(tmp_path / "ours.safetensors", Weights("tiny", {}, start.state_dict(), {}))
    torch.save(start.state_dict(), tmp_path / "theirs.pth")
    for name in ("ours.safetensors", "theirs.pth"):
        folder = run_train(*STILL, "MODEL.INIT", str(tmp_path / name), name=f"from {name}")
        assert_starts_from(folder, start)
    wide = ["MODEL.OPTIONS.width", "6", "MODEL.INIT", str(tmp_path / "ours.safetensors")]
    with pytest.raises(UserError, match=r"MODEL\.INIT .* does not fit") as caught:
        run_train(*wide)
    assert "--model" not in str(caught.value)
    folder = run_train(*STILL, *wide, "MODEL.INIT_PARTIAL", "True")
    assert "MODEL.INIT gave 2 of 9 entries" in capsys.readouterr().out
    assert_starts_from(folder, start, ("body.4.bias",))


def test_the_authors_weights_of_another_shape_follow_the_options(run_train, tmp_path, capsys):
    torch.manual_seed(1)
    wide = build_model("tiny", {"width": 6})
    torch.save(wide.state_dict(), tmp_path / "wide.pth")
    torch.save(build_model("tiny").state_dict(), tmp_path / "released.pth")
    more = [*STILL, "MODEL.OPTIONS.width", "6", "MODEL.INIT", str(tmp_path / "wide.pth")]
    for partial in ("False", "True"):
        assert_starts_from(run_train(*more, "MODEL.INIT_PARTIAL", partial, name=partial), wide)
    assert "MODEL.INIT gave" not in capsys.readouterr().out  # all of them
    more += ["MODEL.INIT", str(tmp_path / "released.pth")]
    with pytest.raises(UserError, match=r"released\.pth, read as the authors' tiny, does not fit"):
        run_train(*more)
    run_train(*more, "MODEL.INIT_PARTIAL", "True")
    assert "MODEL.INIT gave 2 of 9 entries" in capsys.readouterr().out


def test_patches_that_the_network_cannot_take_are_refused_at_once(run_train, tmp_path) -> None:
    dmsr = ["MODEL.NAME", "dmsr_s", "AUGMENT.PATCH", "64"]
    for setting in (["AUGMENT.PATCH", "70"], ["AUGMENT.PROGRESSIVE", "[[3, 32, 2]]"]):
        with pytest.raises(UserError, match="multiples of 16 from 64 on"):
            run_train(*dmsr, *setting)
    assert not (tmp_path / "run").exists()


def test_without_data_one_sentence_says_where_to_put_them(run_train, tmp_path) -> None:
    nowhere = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"nowhere/input and .*nowhere/target.*make demo"):
        run_train("DATA.TRAIN", nowhere)
