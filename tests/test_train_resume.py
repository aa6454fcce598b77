"""A resumed training is the undisturbed one; what it refuses, and what it takes along."""

from __future__ import annotations

import dataclasses
import gzip
import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import torch

import train
from tests.helpers import read_until, smooth_image, start_script, write_pairs
from tests.ranks import At
from tests.runs import assert_same_run, log_of, progress, saved, tiny_settings, train_here
from tests.tiny_network import register
from utils.checkpoints import read_weights, write_checkpoint, write_weights
from utils.errors import UserError

# Four epochs of three steps with all that a checkpoint must hold.
FOUR_EPOCHS = """
    MODEL.NAME tiny_dropout OPTIM.EPOCHS 4 SCHEDULE.NAME exponential LOSS.TERMS.FFT_STACKED 0.1
    VALIDATION.SAMPLES_EVERY 2 VALIDATION.EVERY_STEPS 4
""".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def straight(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undisturbed run that disturbed ones are compared with."""
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        folder = tmp_path_factory.mktemp("straight")
        return train_here(folder, "straight", *tiny_settings(tiny_data), *FOUR_EPOCHS)


@pytest.fixture
def run_four(run_train: Callable[..., Path]) -> Callable[..., Path]:
    """``run_train`` with the settings of ``straight``."""
    return lambda *arguments: run_train(*FOUR_EPOCHS, *arguments)


def constant_rate(lr: str) -> list[str]:
    return ["OPTIM.LR", lr, "SCHEDULE.NAME", "multi_step", "SCHEDULE.GAMMA", "1"]


# The same steps.


def test_four_epochs_equal_two_then_resumed_two(run_four, straight) -> None:
    halves = run_four("OPTIM.EPOCHS", "2")
    assert progress(halves)["step"] == 6
    assert_same_run(straight, run_four("--resume"))


def test_killed_inside_an_epoch_and_resumed_equals_undisturbed(
    run_four, run_forked, straight, tmp_path
) -> None:
    more = ["CHECKPOINT.EVERY_STEPS", "1"]
    killed = run_forked(1, *FOUR_EPOCHS, *more, at=At(signal.SIGKILL, step=6))
    assert killed.statuses == [-9] and progress(tmp_path / "run")["step"] == 5
    assert_same_run(straight, run_four("--resume", *more))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_finishes_the_step_saves_and_says_so(
    run_four, run_forked, straight, tmp_path, number
) -> None:
    stopped = run_forked(1, *FOUR_EPOCHS, at=At(number, step=5))
    assert stopped.statuses == [75] and progress(tmp_path / "run")["step"] == 5
    answer = f"{number.name}: finishing the current step or image, then saving; continue with "
    assert f"{answer}--resume" in stopped.output
    assert_same_run(straight, run_four("--resume"))


def test_a_log_that_a_kill_cut_off_is_mended(run_four, straight) -> None:
    """It holds the line of a step that the kill undid, and the start of another."""
    halves = run_four("--stop-after-epoch")
    with (halves / "log.jsonl").open("a") as file:
        file.write('{"kind": "step", "epoch": 2, "step": 6, "loss": 0}\n{"kind": "st')
    assert_same_run(straight, run_four("--resume"))


@pytest.mark.slow
@pytest.mark.timeout(3600)  # fifty starts of Python and PyTorch
def test_survives_fifty_kills_at_random_moments(tiny_data, tmp_path) -> None:
    settings = [*tiny_settings(tiny_data), "MODEL.NAME", "dmsr_s", "MODEL.OPTIONS.width", "4"]
    settings += ["MODEL.OPTIONS.num_blocks", "1", "LOSS.SCALES", "3", "AUGMENT.PATCH", "64"]
    settings += ["DATA.TRAIN", str(write_pairs(tmp_path / "pairs", 6))]
    settings += ["OPTIM.EPOCHS", "60", "CHECKPOINT.EVERY_STEPS", "1"]
    straight = train_here(tmp_path, "straight", *settings)
    killed = [*settings, "RUN.FOLDER", tmp_path, "RUN.NAME", "killed", "--resume"]
    moments = random.Random(0)
    kills = 0
    while kills < 50:
        process = start_script("train.py", *killed)  # also the first start
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
    assert_same_run(straight, train_here(tmp_path, "killed", *settings, "--resume"))


# Where a run continues.


@pytest.mark.parametrize("flags", [[], ["--resume"]])
def test_a_run_that_died_before_its_first_checkpoint_can_start_again(
    run_four, straight, flags
) -> None:
    with pytest.raises(UserError, match=r"the loss is .* There is no checkpoint yet"):
        run_four("LOSS.TERMS.L1", "1e39", "LOG.EVERY_STEPS", "9")
    assert_same_run(straight, run_four(*flags))


def test_resume_restarts_what_was_killed_before_its_first_checkpoint(
    run_train, run_forked, tmp_path
) -> None:
    """One command for a scheduler: a log of a few steps and nothing else is not a run."""
    run_forked(1, at=At(signal.SIGKILL, step=3))
    assert len(log_of(tmp_path / "run")) == 2
    assert progress(run_train("--resume", "OPTIM.EPOCHS", "1"))["step"] == 3


@pytest.mark.parametrize("name", ["latest.pth", "previous.pth", "best.safetensors", "log.jsonl"])
def test_a_folder_with_any_result_is_a_run(run_train, tmp_path, name) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("precious")
    message = rf"The run .* exists \(it holds {name}\); continue it with --resume, or choose anoth"
    with pytest.raises(UserError, match=message):
        run_train()
    assert (tmp_path / "run" / name).read_text() == "precious"


def test_resume_takes_the_previous_checkpoint_if_the_latest_is_gone(
    run_train, two_epochs, capsys
) -> None:
    (two_epochs / "latest.pth").unlink()
    run_train("--resume")
    assert f"resuming {two_epochs}/previous.pth" in capsys.readouterr().out
    assert progress(two_epochs)["step"] == 6


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        (["latest.pth", "previous.pth"], r"best\.safetensors but no checkpoint"),
        (["latest.pth", "previous.pth", "best.safetensors"], r"log\.jsonl has finished epochs, "),
    ],
)
def test_results_without_a_checkpoint_are_not_written_over(
    run_train, two_epochs, gone, message
) -> None:
    for name in gone:
        (two_epochs / name).unlink()
    before = {path: path.read_bytes() for path in two_epochs.iterdir() if path.is_file()}
    with pytest.raises(UserError, match=message):
        run_train("--resume")
    assert {path: path.read_bytes() for path in before} == before


def test_resume_from_needs_a_checkpoint_and_a_folder_without_results(
    run_train, one_epoch, tmp_path
) -> None:
    with pytest.raises(UserError, match=r"There is no checkpoint .*nowhere\.pth"):
        run_train("--resume-from", str(tmp_path / "nowhere.pth"), name="two")
    assert not (tmp_path / "two").exists()
    two = run_train("--resume-from", str(one_epoch / "latest.pth"), name="two")
    assert progress(two)["step"] == 6 and progress(one_epoch)["step"] == 3
    with pytest.raises(UserError, match=r"two holds .*latest\.pth.* would overwrite"):
        run_train("--resume-from", str(one_epoch / "latest.pth"), name="two")


# The best weights.


def test_resume_from_takes_the_best_weights_along(run_train, capsys) -> None:
    one = run_train("CHECKPOINT.KEEP_BEST", "2", name="one")
    kept = {path.name: path.read_bytes() for path in (one / "best").iterdir()}
    worse = [*constant_rate("0.3"), "OPTIM.EPOCHS", "3", "CHECKPOINT.KEEP_BEST", "2"]
    worse += ["--resume-from", str(one / "latest.pth")]
    two = run_train(*worse, name="two")
    assert (two / "best.safetensors").read_bytes() == (one / "best.safetensors").read_bytes()
    assert {path.name: path.read_bytes() for path in (two / "best").iterdir()} == kept
    # Weights of another moment than the checkpoint's best are not what it speaks of.
    weights = read_weights(one / "best.safetensors")
    other = dataclasses.replace(weights, info=weights.info | {"psnr": 99.0})
    write_weights(one / "best.safetensors", other)
    capsys.readouterr()
    three = run_train(*worse, name="three")
    assert not (three / "best.safetensors").exists()
    printed = capsys.readouterr().out
    assert "note: the weights of the best epoch" in printed and str(one) in printed
    assert f"--weights {three}/latest.pth" in printed


def test_the_best_psnr_is_remembered(run_train, two_epochs) -> None:
    before, best = (two_epochs / "best.safetensors").read_bytes(), progress(two_epochs)["best_psnr"]
    run_train(*constant_rate("0.3"), "OPTIM.EPOCHS", "3", "--resume")
    assert progress(two_epochs)["history"][-1]["psnr"] < best
    assert (two_epochs / "best.safetensors").read_bytes() == before


def test_more_best_weights_at_a_resume_are_files(run_train, one_epoch) -> None:
    assert not (one_epoch / "best").exists()
    run_train("--resume", "CHECKPOINT.KEEP_BEST", "3")
    found = progress(one_epoch)
    scores = sorted((record["psnr"] for record in found["history"]), reverse=True)
    assert [psnr for psnr, _ in found["kept"]] == scores
    for psnr, name in found["kept"]:
        assert read_weights(one_epoch / "best" / name).info["psnr"] == psnr


# Damaged and foreign checkpoints.


def test_a_truncated_checkpoint_is_refused_and_the_previous_one_taken_when_asked(
    run_four, straight
) -> None:
    folder = run_four("OPTIM.EPOCHS", "2")
    latest = folder / "latest.pth"
    latest.write_bytes(latest.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"latest\.pth .*--resume-from .*previous\.pth"):
        run_four("--resume")
    assert_same_run(straight, run_four(f"--resume-from={folder / 'previous.pth'}"))


@pytest.mark.parametrize("position", [0.01, 0.3, 0.6, 0.9, 0.9999])
def test_a_flipped_byte_in_a_checkpoint_is_noticed(run_train, one_epoch, position) -> None:
    content = bytearray((one_epoch / "latest.pth").read_bytes())
    content[int(position * len(content))] ^= 1
    (one_epoch / "latest.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"latest\.pth is .*--resume-from .*previous\.pth"):
        run_train("--resume")


def test_a_damaged_checkpoint_never_takes_the_place_of_a_sound_one(run_forked, one_epoch) -> None:
    (one_epoch / "latest.pth").write_bytes((one_epoch / "latest.pth").read_bytes()[:-2000])
    previous = one_epoch / "previous.pth"
    before = previous.read_bytes()
    more = ["CHECKPOINT.EVERY_STEPS", "1", "--resume-from", previous]
    run_forked(1, *more, at=At(signal.SIGKILL, image=1))
    assert previous.read_bytes() == before and progress(one_epoch)["step"] == 3


def test_unfinished_files_are_removed_at_the_next_start(run_train, one_epoch) -> None:
    (one_epoch / "samples").mkdir()
    for name in (".partial-latest-abcdefgh.pth", "samples/.partial-1-12345678.png"):
        (one_epoch / name).touch()
    run_train("--resume")
    assert not list(one_epoch.rglob(".partial*"))


@pytest.mark.parametrize("part", ["epoch_plan", "data", "progress", "optimizer"])
def test_a_sealed_checkpoint_that_lacks_a_part_is_refused(run_train, one_epoch, part) -> None:
    checkpoint = saved(one_epoch)
    del checkpoint[part]
    write_checkpoint(one_epoch / "latest.pth", checkpoint)
    with pytest.raises(UserError, match=rf"latest\.pth lacks {part}, .*MODEL\.INIT"):
        run_train("--resume")


@pytest.mark.parametrize("where", ["network", "ema", "random", "progress"])
def test_a_sealed_checkpoint_with_other_contents_is_refused(run_train, one_epoch, where) -> None:
    checkpoint = saved(one_epoch)
    checkpoint[where]["unknown"] = torch.zeros(2)
    del checkpoint[where][next(iter(checkpoint[where]))]
    write_checkpoint(one_epoch / "latest.pth", checkpoint)
    with pytest.raises(UserError, match=r"latest\.pth does not fit this version"):
        run_train("--resume")


@pytest.mark.usefixtures("one_epoch")
def test_resuming_with_another_network_is_refused(run_train) -> None:
    with pytest.raises(UserError, match=r"holds tiny \{\}, not tiny \{'width': 8\}"):
        run_train("--resume", "MODEL.OPTIONS.width", "8")


def test_options_given_as_a_tuple_are_those_of_the_saved_settings(run_train, tiny_data) -> None:
    """YAML has no tuples: config.yml holds [1, 1, 1]."""
    more = ["MODEL.NAME", "nerd_rain_t", "LOSS.SCALES", "3", "DATA.VAL", ""]
    more += ["DATA.TRAIN", str(tiny_data / "val"), "MODEL.OPTIONS.num_blocks", "(1, 1, 1)"]
    folder = run_train(*more, "--stop-after-epoch")
    assert saved(folder)["options"]["num_blocks"] == (1, 1, 1)
    train_here(folder.parent, "run", "--config", str(folder / "config.yml"), "--resume")
    assert progress(folder)["step"] == 2


# Changed data.


@pytest.mark.parametrize("content", [b"", b"no gzip", b"cut", b"flipped"])
def test_a_damaged_list_of_files_leaves_their_number(
    run_train, own_data, one_epoch, content
) -> None:
    valid = gzip.compress(b"TRAIN\t1\t1\tinput/1.png\n", mtime=0)
    damaged = {b"cut": valid[:20], b"flipped": valid[:12] + b"x" + valid[13:]}
    (one_epoch / "data_files.tsv.gz").write_bytes(damaged.get(content, content))
    (own_data / "train" / "input" / "1.png").touch()
    with pytest.raises(UserError, match=r"TRAIN: 12 files before, 12 now\. .*--accept-changed"):
        run_train("--resume")


def test_changed_data_are_named_and_accepted_when_asked(run_train, own_data, one_epoch) -> None:
    for name in ("input", "target"):
        cv2.imwrite(str(own_data / "train" / name / "7.png"), smooth_image(1, 40, 48))
        cv2.imwrite(str(own_data / "val" / name / "2.png"), smooth_image(9, 41, 48))
    message = r"TRAIN: 2 added \(input/7\.png, \.\.\.\).*: 2 of another size \(input/2\.png"
    with pytest.raises(UserError, match=message):
        run_train("--resume")
    run_train("--resume", "--accept-changed-data")
    assert progress(one_epoch)["step"] == 6
    run_train("--resume", "OPTIM.EPOCHS", "3")  # the new data are known


@pytest.mark.parametrize(("removed", "stop", "steps"), [((3,), 1, 4), ((2, 3, 4, 6), 2, 3)])
def test_a_run_continues_without_files_that_have_gone_in_mid_epoch(
    run_train, run_forked, own_data, capsys, removed, stop, steps
) -> None:
    """Batches of two: 6 pairs are three steps per epoch, 5 are two, 2 are one."""
    run_forked(1, at=At(signal.SIGTERM, step=stop))
    for number in removed:
        for name in ("input", "target"):
            (own_data / "train" / name / f"{number}.png").unlink()
    with pytest.raises(UserError, match=r"TRAIN: .* gone .*--accept-changed-data"):
        run_train("--resume")
    with pytest.raises(UserError, match=r"where the batch size from 2 to 1 cannot change"):
        run_train("OPTIM.BATCH_SIZE", "1", "--resume", "--accept-changed-data")
    found = progress(run_train("--resume", "--accept-changed-data"))
    assert "note: " in capsys.readouterr().out
    assert [line["epoch"] for line in found["history"]] == [1, 2] and found["step"] == steps


def test_the_pairs_that_rain_is_taken_from_are_data_too(run_train, tiny_data, tmp_path) -> None:
    layers = write_pairs(tmp_path / "layers", 3, 40, 48)
    more = ["DATA.SYNTHESIS.CLEAN", str(tiny_data / "train" / "target"), "DATA.VAL", ""]
    more += ["DATA.SYNTHESIS.LAYERS", str(layers), "DATA.SYNTHESIS.SHARE_LAYERS", "0.5"]
    more += ["DATA.SYNTHESIS.SKIP_LAYERS", "['3']"]
    folder = run_train(*more, "--stop-after-epoch")
    os.utime(layers / "input" / "3.png", ns=(1, 1))  # plays no part
    assert progress(run_train(*more, "--resume"))["step"] == 6
    os.utime(layers / "input" / "2.png", ns=(1, 1))
    with pytest.raises(UserError, match=r"LAYERS: 1 of another time \(input/2\.png\)"):
        run_train(*more, "--resume")
    assert progress(folder)["step"] == 6


def test_moved_data_keep_their_order(run_train, run_forked, own_data) -> None:
    run_forked(1, at=At(signal.SIGTERM, step=2))
    (own_data / "train").rename(own_data / "moved")
    assert progress(run_train("DATA.TRAIN", f"{own_data}/moved", "--resume"))["step"] == 6


# Changed settings.


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("DATA.TRAIN [{a},{b}]", "DATA.TRAIN [{b},{a}]", "the order or the weights of DATA.TRAIN"),
        ("DATA.TRAIN [[{a},2],{b}]", "DATA.TRAIN [[{a},1],[{b},2]]", "the order or the weights of"),
        ("RUN.SEED 0", "RUN.SEED 5", "RUN.SEED from 0 to 5"),
        ("DATA.REPEAT 1", "DATA.REPEAT 2", "the number of samples per epoch from 6 to 12 and"),
        ("OPTIM.BATCH_SIZE 2", "OPTIM.BATCH_SIZE 3", "the batch size from 2 to 3"),
    ],
)
def test_other_images_wait_for_the_end_of_the_epoch(
    run_train, run_forked, tmp_path, before, after, message
) -> None:
    """Some images would be shown twice in the epoch and others never."""
    folders = {name: write_pairs(tmp_path / name, 3, 40, 48) for name in ("a", "b")}
    old, new = (text.format(**folders).split() for text in (before, after))
    assert run_forked(1, *old, at=At(signal.SIGTERM, step=2)).statuses == [75]
    refused = rf"after step 2, where {message}.* cannot change\. .*--resume --stop-after-epoch"
    with pytest.raises(UserError, match=refused):
        run_train(*new, "--resume")
    found = progress(run_train(*old, "--resume", "--stop-after-epoch"))
    assert (found["epoch"], found["step_in_epoch"]) == (2, 0)
    assert progress(run_train(*new, "--resume"))["epoch"] == 3


def test_a_finished_run_refuses_settings_that_nothing_would_use(run_train) -> None:
    folder = run_train()
    before = {path: path.read_bytes() for path in (folder / "config.yml", folder / "log.jsonl")}
    with pytest.raises(UserError, match=r"finished run, after epoch 2; .*OPTIM\.LR: 0\.01 -> 0\.5"):
        run_train("OPTIM.LR", "0.5", "--resume")
    assert {path: path.read_bytes() for path in before} == before
    run_train("--resume")  # as a scheduler does: nothing is left
    assert {path: path.read_bytes() for path in before} == before


def test_a_resume_takes_the_settings_of_the_optimiser(run_train, monkeypatch) -> None:
    seen = []
    decay = ["OPTIM.NAME", "adamw", "OPTIM.WEIGHT_DECAY"]
    run_train(*decay, "0.1", "--stop-after-epoch")
    real = train.train_one_step

    def one_step(run: train.Run, micro_batches: object) -> object:
        seen.extend(run.state.optimizer.param_groups)
        return real(run, micro_batches)

    monkeypatch.setattr(train, "train_one_step", one_step)
    more = ["OPTIM.BETAS", "[0.8, 0.95]", "OPTIM.EPS", "1e-5"]
    run_train(*decay, "0.3", *more, "--resume")
    assert {(group["betas"], group["eps"]) for group in seen} == {((0.8, 0.95), 1e-5)}
    assert [group["weight_decay"] for group in seen[:2]] == [0.3, 0.0]


def test_a_resume_may_change_the_layout_of_the_weights(run_train) -> None:
    """At a rate that shows whether moments act on their own weights."""
    more = ["MODEL.NAME", "tiny_plain", *constant_rate("0.03")]
    states = []
    for name in ("False", "True"):
        run_train(*more, "--stop-after-epoch", name=name)
        folder = run_train(*more, "OPTIM.CHANNELS_LAST", name, "--resume", name=name)
        states.append(saved(folder)["network"])
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-5)
