"""What a researcher sets and looks at: several sets, best weights, logs, starting points."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from configs import load_config
from data.pairs import find_pairs
from models import build_model, load_weights
from tests.helpers import ROOT, write_pairs
from tests.ranks import train_here
from tests.tiny_network import TinyNetwork, register
from utils.checkpoints import Weights, read_checkpoint, read_weights, write_weights
from utils.errors import UserError
from utils.inference.restorer import Restorer
from utils.metrics import score
from utils.training.optim import build_optimizer, set_backends
from utils.training.run_folder import RunFolder


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two epochs of four steps of a network of two convolutions."""
    register(monkeypatch)
    write_pairs(tmp_path / "train", 8, 40, 48)
    write_pairs(tmp_path / "easy", 1, 40, 48)
    write_pairs(tmp_path / "hard", 2, 48, 40)
    return f"""
        MODEL.NAME tiny DATA.TRAIN {tmp_path}/train DATA.VAL {tmp_path}/easy DATA.WORKERS 0
        AUGMENT.PATCH 32 OPTIM.BATCH_SIZE 2 OPTIM.EPOCHS 2 OPTIM.LR 1e-2
        LOSS.TERMS.L1 1 LOSS.TERMS.FFT_STACKED 0 LOSS.SCALES 1 SCHEDULE.WARMUP_EPOCHS 0
        VALIDATION.SAMPLES_EVERY 0
    """.split()


def log_of(folder: Path, kind: str) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_validation_within_epochs_several_sets_and_the_best_weights(settings, tmp_path) -> None:
    sets = f"[[{tmp_path}/easy, easy], [{tmp_path}/hard, hard]]"
    more = ["VALIDATION.EVERY_STEPS", "3"]
    more += ["CHECKPOINT.KEEP_BEST", "2", "CHECKPOINT.SNAPSHOT_EVERY", "2"]
    folder = train_here(tmp_path, "run", *settings, *more, "DATA.VAL", sets)
    within, ends = log_of(folder, "validation"), log_of(folder, "epoch")
    assert [line["step"] for line in within] == [3, 6]
    assert [line["step"] for line in ends] == [4, 8]
    scored = [*within, *ends]
    for line in scored:
        assert line["psnr"] == pytest.approx((line["psnr_easy"] + line["psnr_hard"]) / 2)
        assert line["ssim"] == pytest.approx((line["ssim_easy"] + line["ssim_hard"]) / 2)
    # Every step was taken in training mode: batch norm counted it.
    assert read_checkpoint(folder / "latest.pth")["network"]["body.1.num_batches_tracked"] == 8
    kept = [read_weights(path) for path in (folder / "best").iterdir()]
    best_two = sorted((line["psnr"] for line in scored), reverse=True)[:2]
    assert sorted((weights.info["psnr"] for weights in kept), reverse=True) == best_two
    assert read_weights(folder / "best.safetensors").info["psnr"] == best_two[0]
    assert [path.name for path in (folder / "snapshots").iterdir()] == ["epoch0002.safetensors"]
    hard = train_here(tmp_path, "hard_run", *settings, "DATA.VAL", sets, "VALIDATION.BEST", "hard")
    for line in log_of(hard, "epoch"):
        assert line["psnr"] == line["psnr_hard"] != line["psnr_easy"]
    with pytest.raises(UserError, match=r"VALIDATION\.BEST is 'rain'; .* \(easy, hard\)"):
        train_here(tmp_path, "none", *settings, "DATA.VAL", sets, "VALIDATION.BEST", "rain")


def test_the_last_epoch_is_validated(settings, tmp_path) -> None:
    more = ["VALIDATION.EVERY", "3", "OPTIM.EPOCHS", "4"]
    folder = train_here(tmp_path, "run", *settings, *more)
    assert [line["epoch"] for line in log_of(folder, "epoch") if "psnr" in line] == [3, 4]


def test_latest_gives_the_averaged_weights(settings, tmp_path) -> None:
    """They were validated."""
    folder = train_here(tmp_path, "run", *settings, "OPTIM.EMA", "0.9", "OPTIM.EPOCHS", "1")
    checkpoint, given = read_checkpoint(folder / "latest.pth"), read_weights(folder / "latest.pth")
    for name, value in checkpoint["ema"].items():
        assert torch.equal(given.state[name], value), name
    weight = "body.0.weight"
    assert not torch.equal(checkpoint["ema"][weight], checkpoint["network"][weight])


def test_validation_restores_as_the_test_script_does(settings, tmp_path, monkeypatch) -> None:
    """In tiles where the network names them. Its mean over the image shows where they end."""

    def forward(self: TinyNetwork, rainy: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (rainy - self.body(rainy) + rainy.mean((2, 3), keepdim=True) / 4,)

    monkeypatch.setattr(TinyNetwork, "forward", forward)
    monkeypatch.setattr(TinyNetwork, "best_tile", 64)
    large = write_pairs(tmp_path / "large", 1, 96, 112)
    more = ["OPTIM.EPOCHS", "1", "DATA.VAL", str(large)]
    folder = train_here(tmp_path, "run", *settings, *more)
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


def test_a_run_stopped_between_validations_resumes_with_the_same_log(settings, tmp_path) -> None:
    settings += ["VALIDATION.EVERY_STEPS", "3", "LOG.EVERY_STEPS", "2"]
    straight = train_here(tmp_path, "straight", *settings)
    halves = train_here(tmp_path, "halves", *settings, "--stop-after-epoch")
    # A line that a kill cut off, and one of a step that it undid.
    with (halves / "log.jsonl").open("a") as file:
        file.write('{"kind": "step", "epoch": 2, "step": 6, "loss": 0}\n{"kind": "st')
    train_here(tmp_path, "halves", *settings, "--resume")
    measured = ("seconds", "images_per_second", "hours_left", "memory_gib")
    logs = [
        [
            {key: value for key, value in json.loads(line).items() if key not in measured}
            for line in (folder / "log.jsonl").read_text().splitlines()
        ]
        for folder in (straight, halves)
    ]
    assert logs[0] == logs[1]


def test_steps_tell_what_a_researcher_looks_at(settings, tmp_path) -> None:
    folder = train_here(tmp_path, "run", *settings, "LOG.EVERY_STEPS", "2")
    steps = log_of(folder, "step")
    assert [line["step"] for line in steps] == [2, 4, 6, 8]
    for line in steps:
        assert {"loss", "L1", "grad_norm", "lr", "hours_left", "memory_gib"} <= line.keys()
        assert line["images_per_second"] > 0 and line["memory_gib"] > 0
    assert steps[0]["hours_left"] > steps[-1]["hours_left"] == 0
    assert list((folder / "tensorboard").iterdir())


def test_what_is_not_finite_is_null_in_the_log(settings, tmp_path) -> None:
    """In fp16 the scaled gradients overflow now and then; JSON has no word for infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    more = ["OPTIM.PRECISION", "fp16", "LOSS.TERMS.L1", "1e36", "LOG.EVERY_STEPS", "2"]
    folder = train_here(tmp_path, "run", *settings, *more, "--stop-after-epoch")
    train_here(tmp_path, "run", *settings, *more, "--resume")  # which writes the log anew
    text = (folder / "log.jsonl").read_text()
    lines = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    assert lines[0]["grad_norm"] is None and lines[0]["loss"] > 1e34


def test_curves_are_a_picture_of_some_size(settings, tmp_path) -> None:
    folder = train_here(tmp_path, "run", *settings)
    assert (folder / "curves.png").stat().st_size > 10_000


def test_weights_to_start_from(settings, tmp_path, capsys) -> None:
    """This project's, the authors' own, and some that fit in part."""
    torch.manual_seed(1)
    start = build_model("tiny")
    write_weights(tmp_path / "ours.safetensors", Weights("tiny", {}, start.state_dict(), {}))
    torch.save(start.state_dict(), tmp_path / "theirs.pth")
    still = ["OPTIM.LR", "1e-12", "SCHEDULE.LR_MIN", "0", "OPTIM.EPOCHS", "1", "RUN.SEED", "5"]
    for name in ("ours.safetensors", "theirs.pth"):
        folder = train_here(
            tmp_path / "runs", name, *settings, *still, "MODEL.INIT", str(tmp_path / name)
        )
        after = read_checkpoint(folder / "latest.pth")["network"]
        for key, value in start.named_parameters():
            torch.testing.assert_close(after[key], value.detach(), rtol=0, atol=1e-9)
    wide = ["MODEL.OPTIONS.width", "6", "MODEL.INIT", str(tmp_path / "ours.safetensors")]
    with pytest.raises(UserError, match=r"MODEL\.INIT .* does not fit") as caught:
        train_here(tmp_path, "wide", *settings, *wide)
    assert "--model" not in str(caught.value)
    folder = train_here(tmp_path, "wide", *settings, *still, *wide, "MODEL.INIT_PARTIAL", "True")
    assert "MODEL.INIT gave 2 of 9 entries" in capsys.readouterr().out
    after = read_checkpoint(folder / "latest.pth")["network"]
    torch.testing.assert_close(after["body.4.bias"], start.body[4].bias.detach(), rtol=0, atol=1e-9)


def test_the_authors_weights_of_another_shape_follow_the_options(settings, tmp_path, capsys):
    torch.manual_seed(1)
    wide = build_model("tiny", {"width": 6})
    torch.save(wide.state_dict(), tmp_path / "wide.pth")
    torch.save(build_model("tiny").state_dict(), tmp_path / "released.pth")
    settings += ["OPTIM.LR", "1e-12", "SCHEDULE.LR_MIN", "0", "OPTIM.EPOCHS", "1", "RUN.SEED", "5"]
    settings += ["MODEL.OPTIONS.width", "6"]
    init = ["MODEL.INIT", str(tmp_path / "wide.pth")]
    for partial in ("False", "True"):
        folder = train_here(tmp_path, partial, *settings, *init, "MODEL.INIT_PARTIAL", partial)
        after = read_checkpoint(folder / "latest.pth")["network"]
        for key, value in wide.named_parameters():
            torch.testing.assert_close(after[key], value.detach(), rtol=0, atol=1e-9)
    assert "MODEL.INIT gave" not in capsys.readouterr().out  # all of them
    init = ["MODEL.INIT", str(tmp_path / "released.pth")]
    with pytest.raises(UserError, match=r"released\.pth, read as the authors' tiny, does not fit"):
        train_here(tmp_path, "released", *settings, *init)
    train_here(tmp_path, "released", *settings, *init, "MODEL.INIT_PARTIAL", "True")
    assert "MODEL.INIT gave 2 of 9 entries" in capsys.readouterr().out


def test_gradient_checkpointing_takes_the_same_steps(settings, tmp_path, monkeypatch) -> None:
    """Batch norm's statistics too, although every batch passes twice."""
    monkeypatch.setattr(TinyNetwork, "checkpointed_blocks", (nn.Sequential,))
    folders = [
        train_here(
            tmp_path, name, *settings, "OPTIM.GRADIENT_CHECKPOINTING", name, "OPTIM.EMA", "0.9"
        )
        for name in ("False", "True")
    ]
    plain, twice = (read_checkpoint(folder / "latest.pth") for folder in folders)
    for part in ("network", "ema"):
        for name, value in plain[part].items():
            torch.testing.assert_close(twice[part][name], value, rtol=1e-5, atol=1e-7)
    monkeypatch.setattr(TinyNetwork, "checkpointed_blocks", ())
    with pytest.raises(UserError, match="names no blocks to recompute"):
        train_here(tmp_path, "none", *settings, "OPTIM.GRADIENT_CHECKPOINTING", "True")


def test_weight_decay_shrinks_weights_but_no_biases_and_norms() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    overrides = ["OPTIM.NAME", "adamw", "OPTIM.WEIGHT_DECAY", "0.5", "OPTIM.LR", "0.1"]
    cfg = load_config(ROOT / "training.yml", overrides)
    optimizer = build_optimizer(cfg, network)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # without gradients AdamW only decays: w -= lr * decay * w
    for name, value in network.named_parameters():
        factor = 1 - 0.1 * 0.5 if name == "0.weight" else 1.0
        torch.testing.assert_close(value.detach(), factor * before[name])


def test_backends_follow_the_settings(monkeypatch) -> None:
    for value in (True, False):
        overrides = ["OPTIM.TF32", str(value), "RUN.DETERMINISTIC", str(value)]
        set_backends(load_config(ROOT / "training.yml", overrides))
        assert torch.backends.cuda.matmul.allow_tf32 is value
        assert torch.backends.cudnn.allow_tf32 is value
        assert torch.are_deterministic_algorithms_enabled() is value
        assert torch.backends.cudnn.benchmark is not value


def test_another_networks_recipe_is_pointed_out(settings, tmp_path, capsys) -> None:
    train_here(tmp_path, "run", *settings, "--dry-run")
    assert "note: MODEL.NAME" not in capsys.readouterr().out  # the loss is this command's own
    without_loss = ["MODEL.NAME", "nerd_rain_t", "DATA.TRAIN", f"{tmp_path}/train", "--dry-run"]
    without_loss += ["DATA.VAL", "", "OPTIM.BATCH_SIZE", "2", "DATA.WORKERS", "0"]
    train_here(tmp_path, "run", *without_loss)
    printed = capsys.readouterr().out
    assert "MODEL.NAME is nerd_rain_t, but loss, learning rate and patch come from" in printed
    assert "dmsr_rain13k.yml, a recipe for dmsr; its own recipes include configs/nerd_" in printed


@pytest.mark.extras
def test_weights_and_biases_offline(settings, tmp_path, monkeypatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = train_here(tmp_path, "run", *settings, "LOG.WANDB", "True", "OPTIM.EPOCHS", "1")
    first = (folder / "wandb-id.txt").read_text()
    train_here(tmp_path, "run", *settings, "LOG.WANDB", "True", "--resume")
    assert (folder / "wandb-id.txt").read_text() == first  # the same run there too
    runs = list((folder / "wandb").glob("offline-run-*/*.wandb"))
    assert runs and all(path.stat().st_size > 1000 for path in runs)


def test_without_its_package_weights_and_biases_is_refused(settings, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        train_here(tmp_path, "run", *settings, "LOG.WANDB", "True")
