"""What goes wrong around a training: stops, lost and doubled processes, changed data, mistakes."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch

import train
from tests.helpers import ROOT, smooth_image, write_pairs
from tests.ranks import FORK, At, run_ranks, train_here
from tests.tiny_network import TinyNetwork, register
from utils.checkpoints import read_checkpoint, read_weights, write_weights
from utils.errors import UserError, run_main
from utils.training.run_folder import RunFolder
from utils.training.stopping import StopSignal

GZIP = gzip.compress(b"TRAIN\t1\t1\tinput/1.png\n", mtime=0)


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
        VALIDATION.SAMPLES_EVERY 0 LOG.EVERY_STEPS 1
    """.split()


def run_alone(tmp_path: Path, name: str, *arguments: str, at: At | None = None):
    """One forked process, for what may not happen in the tests' own."""
    return run_ranks(
        tmp_path / "out", 1, *arguments, "RUN.FOLDER", tmp_path, "RUN.NAME", name, at=at
    )


def progress(folder: Path) -> dict:
    return read_checkpoint(folder / "latest.pth")["progress"]


# Stops.


def test_dropout_goes_on_with_the_random_numbers_it_would_have_drawn(settings, tmp_path) -> None:
    settings += ["MODEL.NAME", "tiny_dropout"]
    straight = train_here(tmp_path, "straight", *settings)
    stopped = run_alone(tmp_path, "stopped", *settings, at=At(signal.SIGTERM, step=2))
    assert stopped.statuses == [75] and progress(tmp_path / "stopped")["step"] == 2
    resumed = train_here(tmp_path, "stopped", *settings, "--resume")
    one, other = (
        read_checkpoint(folder / "latest.pth")["network"] for folder in (straight, resumed)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_signal_to_the_whole_group_reaches_no_loader(settings, tmp_path) -> None:
    """As job schedulers and torchrun send it: the loaders get it too."""
    settings += ["DATA.WORKERS", "1"]
    straight = train_here(tmp_path, "straight", *settings)
    at = At(signal.SIGTERM, step=5, to_group=True)
    stopped = run_alone(tmp_path, "group", *settings, at=at)
    assert stopped.statuses == [75], stopped.output
    assert stopped.output.count("SIGTERM: finishing the current step") == 1
    resumed = train_here(tmp_path, "group", *settings, "--resume")
    one, other = (
        read_checkpoint(folder / "latest.pth")["network"] for folder in (straight, resumed)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_checkpoint_lies_on_the_disk_before_validation(settings, tmp_path) -> None:
    killed = run_alone(tmp_path, "run", *settings, at=At(signal.SIGKILL, image=1))
    assert killed.statuses == [-9]
    assert progress(tmp_path / "run")["step_in_epoch"] == 3
    folder = train_here(tmp_path, "run", *settings, "--resume")
    assert [line["step"] for line in progress(folder)["history"]] == [3, 6]


def test_a_signal_during_validation_is_heard_after_the_image(settings, tmp_path) -> None:
    done = run_alone(tmp_path, "run", *settings, at=At(signal.SIGUSR1, image=1))
    assert done.statuses == [75]
    assert done.output.count("SIGUSR1: finishing the current step or image") == 1
    assert progress(tmp_path / "run")["history"] == []


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (signal.SIGTERM, (signal.SIGTERM, signal.SIGTERM)),
        (signal.SIGUSR1, (signal.SIGTERM, signal.SIGINT)),
    ],
)
def test_repeated_signals_end_no_run_that_saves_or_has_saved(
    settings, tmp_path, first, then
) -> None:
    """As schedulers send them, also while the interpreter ends."""
    done = run_alone(tmp_path, "run", *settings, at=At(first, step=2, then=then))
    assert done.statuses == [75], done.output
    assert done.output.count("finishing the current step") == 1
    assert progress(tmp_path / "run")["step"] == 2


def test_a_second_ctrl_c_ends_a_run_at_once(settings, tmp_path) -> None:
    at = At(signal.SIGINT, step=2, then=(signal.SIGINT,))
    done = run_alone(tmp_path, "run", *settings, at=at)
    assert done.statuses == [130], done.output
    assert not (tmp_path / "run" / "latest.pth").exists()


def test_the_answer_to_a_signal_holds_nothing_up() -> None:
    """Standard error is a full pipe that nobody reads."""

    def stop() -> None:
        _, writer = os.pipe()
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, bytes(4096))
        os.set_blocking(writer, True)
        os.dup2(writer, 2)
        with StopSignal(is_main=True) as heard:
            heard.begin("saving")
            os.kill(os.getpid(), signal.SIGTERM)
        sys.exit(75 if heard.received == "SIGTERM" else 1)

    process = FORK.Process(target=stop)
    process.start()
    process.join(20)
    status = process.exitcode
    process.kill()
    process.join()
    assert status == 75


@pytest.mark.parametrize(
    ("at", "status"),
    [
        (None, 0),
        (At(signal.SIGTERM, step=6, then=(signal.SIGTERM,)), 75),
        (At(signal.SIGTERM, image=4, then=(signal.SIGTERM,)), 75),
    ],
)
def test_a_run_with_loader_processes_ends(settings, tmp_path, at, status) -> None:
    """Also by a signal in its last step, or in the last image of its last validation."""
    done = run_alone(tmp_path, "run", *settings, "DATA.WORKERS", "1", at=at)
    assert done.statuses == [status], done.output
    assert progress(tmp_path / "run")["step"] == 6


def test_checkpoints_are_written_between_epochs_ends(settings, tmp_path) -> None:
    settings += ["CHECKPOINT.EVERY_STEPS", "2"]
    run_alone(tmp_path, "run", *settings, at=At(signal.SIGKILL, step=3))
    assert progress(tmp_path / "run")["step"] == 2


def test_resume_starts_a_run_that_never_began(settings, tmp_path) -> None:
    folder = train_here(tmp_path, "new", *settings, "--resume", "OPTIM.EPOCHS", "1")
    assert progress(folder)["step"] == 3


# Results are never lost.


def test_one_process_at_a_time_writes_into_a_run(settings, tmp_path) -> None:
    folder = train_here(tmp_path, "run", *settings, "OPTIM.EPOCHS", "1")
    ready, hold = FORK.Event(), FORK.Event()

    def train_elsewhere() -> None:
        taken = RunFolder(folder)
        taken.lock()
        ready.set()
        hold.wait()
        taken.unlock()

    holder = FORK.Process(target=train_elsewhere)
    holder.start()
    ready.wait()
    before = (folder / "latest.pth").read_bytes()
    with pytest.raises(UserError, match=f"is being trained by process {holder.pid} on .*, since"):
        train_here(tmp_path, "run", *settings, "--resume")
    assert (folder / "latest.pth").read_bytes() == before
    holder.kill()  # and the lock goes with it
    holder.join()
    assert progress(train_here(tmp_path, "run", *settings, "--resume"))["step"] == 6


def test_loader_processes_end_with_a_killed_trainer(settings, tmp_path) -> None:
    """Also where one waits to hand over more than its pipe takes. They inherit this test's pipe."""
    settings += ["AUGMENT.PATCH", "40", "OPTIM.BATCH_SIZE", "6", "DATA.REPEAT", "20"]
    reader, writer = os.pipe()
    at = At(signal.SIGKILL, step=2)
    assert run_alone(tmp_path, "run", *settings, "DATA.WORKERS", "2", at=at).statuses == [-9]
    os.close(writer)
    assert select.select([reader], [], [], 20)[0], "the loaders keep running"
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_a_run_is_saved_when_its_launcher_is_killed(settings, tmp_path) -> None:
    """The orphans inherit the pipe, whose end is theirs."""
    arguments = [*settings, "DATA.REPEAT", 10**4, "RUN.FOLDER", tmp_path, "RUN.NAME", "run"]
    reader, writer = os.pipe()
    at = At(signal.SIGKILL, step=2, rank=0, to_launcher=True)
    launcher = FORK.Process(
        target=run_ranks, args=(tmp_path / "out", 2, *arguments), kwargs={"at": at}
    )
    launcher.start()
    os.close(writer)
    assert select.select([reader], [], [], 40)[0], "the orphans keep running"
    assert os.read(reader, 1) == b""
    os.close(reader)
    launcher.join()
    outputs = [path.read_text() for path in (tmp_path / "out").iterdir()]
    assert any("The process that started this one has ended" in output for output in outputs)
    steps = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert progress(tmp_path / "run")["step"] == steps[-1]["step"] >= 2


ORPHAN = """
import os, sys, time
from utils.training import launcher
os.write(1, b"loading")  # what follows takes PyTorch's seconds
while os.getppid() == int(sys.argv[1]):
    time.sleep(0.01)
launcher.end_with_launcher()
time.sleep(60)
"""


def test_a_process_whose_launcher_dies_while_pytorch_loads_ends() -> None:
    reader, writer = os.pipe()

    def launch() -> None:
        command = [sys.executable, "-c", ORPHAN, str(os.getpid())]
        subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.DEVNULL)

    launcher = FORK.Process(target=launch)
    launcher.start()
    os.close(writer)
    assert os.read(reader, 7) == b"loading"
    launcher.kill()
    assert select.select([reader], [], [], 20)[0], "the orphan keeps running"
    assert os.read(reader, 1) == b""
    os.close(reader)
    launcher.join()


def test_the_launcher_is_known_before_pytorch_is_loaded() -> None:
    code = "import sys; sys.modules['torch'] = None\ntry: import train\nexcept ImportError: pass\n"
    code += "print('utils.training.launcher' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


def test_resume_from_needs_a_checkpoint_and_a_folder_without_results(settings, tmp_path) -> None:
    with pytest.raises(UserError, match=r"There is no checkpoint .*nowhere\.pth"):
        train_here(tmp_path, "run", *settings, "--resume-from", str(tmp_path / "nowhere.pth"))
    assert not (tmp_path / "run").exists()
    one = train_here(tmp_path, "one", *settings, "OPTIM.EPOCHS", "1")
    two = train_here(tmp_path, "two", *settings, "--resume-from", str(one / "latest.pth"))
    assert progress(two)["step"] == 6 and progress(one)["step"] == 3
    with pytest.raises(UserError, match=r"two holds .*latest\.pth.* would overwrite"):
        train_here(tmp_path, "two", *settings, "--resume-from", str(one / "latest.pth"))


def test_resume_from_takes_the_best_weights_along(settings, tmp_path, capsys) -> None:
    one = train_here(tmp_path, "one", *settings, "CHECKPOINT.KEEP_BEST", "2")
    kept = {path.name: path.read_bytes() for path in (one / "best").iterdir()}
    worse = ["OPTIM.EPOCHS", "3", "OPTIM.LR", "0.3", "SCHEDULE.NAME", "multi_step"]
    worse += ["CHECKPOINT.KEEP_BEST", "2", "--resume-from", str(one / "latest.pth")]
    two = train_here(tmp_path, "two", *settings, *worse)
    assert (two / "best.safetensors").read_bytes() == (one / "best.safetensors").read_bytes()
    assert {path.name: path.read_bytes() for path in (two / "best").iterdir()} == kept
    # Weights of another moment than the checkpoint's best are not what it speaks of.
    weights = read_weights(one / "best.safetensors")
    other = dataclasses.replace(weights, info=weights.info | {"psnr": 99.0})
    write_weights(one / "best.safetensors", other)
    capsys.readouterr()
    three = train_here(tmp_path, "three", *settings, *worse)
    assert not (three / "best.safetensors").exists()
    printed = capsys.readouterr().out
    assert "note: the weights of the best epoch" in printed and str(one) in printed
    assert f"--weights {three}/latest.pth" in printed


@pytest.mark.parametrize("name", ["latest.pth", "previous.pth", "best.safetensors", "log.jsonl"])
def test_a_folder_with_any_result_is_a_run(settings, tmp_path, name) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("precious")
    with pytest.raises(UserError, match=f"The run .* exists \\(it holds {name}\\)"):
        train_here(tmp_path, "run", *settings)
    assert (tmp_path / "run" / name).read_text() == "precious"


def test_resume_takes_the_previous_checkpoint_where_the_latest_is_gone(
    settings, tmp_path, capsys
) -> None:
    folder = train_here(tmp_path, "run", *settings)
    (folder / "latest.pth").unlink()
    train_here(tmp_path, "run", *settings, "--resume")
    assert f"resuming {folder}/previous.pth" in capsys.readouterr().out
    assert progress(folder)["step"] == 6


def test_best_weights_alone_are_not_written_over(settings, tmp_path) -> None:
    folder = train_here(tmp_path, "run", *settings)
    for name in ("latest.pth", "previous.pth"):
        (folder / name).unlink()
    with pytest.raises(UserError, match=r"best\.safetensors but no checkpoint"):
        train_here(tmp_path, "run", *settings, "--resume")


def test_a_log_of_finished_epochs_alone_is_not_written_over(settings, tmp_path) -> None:
    folder = train_here(tmp_path, "run", *settings)
    for name in ("latest.pth", "previous.pth", "best.safetensors"):
        (folder / name).unlink()
    before = (folder / "log.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"log\.jsonl has finished epochs, but there is no"):
        train_here(tmp_path, "run", *settings, "--resume")
    assert (folder / "log.jsonl").read_bytes() == before


def test_resume_starts_anew_what_was_killed_before_its_first_checkpoint(settings, tmp_path) -> None:
    """One command for a scheduler: a log of a few steps and nothing else is not a run."""
    run_alone(tmp_path, "run", *settings, at=At(signal.SIGKILL, step=3))
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 2
    folder = train_here(tmp_path, "run", *settings, "--resume", "OPTIM.EPOCHS", "1")
    assert progress(folder)["step"] == 3


def test_an_epoch_is_told_when_its_checkpoint_lies_on_the_disk(
    settings, tmp_path, monkeypatch
) -> None:
    """Else a kill in between would leave a log of an epoch that no checkpoint holds."""
    log, real_save = tmp_path / "run" / "log.jsonl", train.save

    def save(run: train.Run) -> None:
        assert log.read_text().count('"kind": "epoch"') < run.state.progress.epoch - 1
        real_save(run)

    monkeypatch.setattr(train, "save", save)
    folder = train_here(tmp_path, "run", *settings, "DATA.VAL", "")
    assert (folder / "log.jsonl").read_text().count('"kind": "epoch"') == 2


def test_the_best_psnr_is_remembered(settings, tmp_path) -> None:
    folder = train_here(tmp_path, "run", *settings)
    before, best = (folder / "best.safetensors").read_bytes(), progress(folder)["best_psnr"]
    constant = ["SCHEDULE.NAME", "multi_step", "SCHEDULE.GAMMA", "1"]
    worse = ["OPTIM.EPOCHS", "3", "OPTIM.LR", "0.3", *constant]
    train_here(tmp_path, "run", *settings, *worse, "--resume")
    assert progress(folder)["history"][-1]["psnr"] < best
    assert (folder / "best.safetensors").read_bytes() == before


def test_unfinished_files_are_removed_at_the_next_start(settings, tmp_path) -> None:
    folder = train_here(tmp_path, "run", *settings, "OPTIM.EPOCHS", "1")
    killed = [
        folder / ".partial-latest-abcdefgh.pth",
        folder / "samples" / ".partial-1-12345678.png",
    ]
    (folder / "samples").mkdir()
    for path in killed:
        path.touch()
    train_here(tmp_path, "run", *settings, "--resume")
    assert not list(folder.rglob(".partial*"))


@pytest.mark.parametrize("position", [0.01, 0.3, 0.6, 0.9, 0.9999])
def test_a_flipped_byte_in_a_checkpoint_is_noticed(settings, tmp_path, position) -> None:
    folder = train_here(tmp_path, "run", *settings, "OPTIM.EPOCHS", "1")
    content = bytearray((folder / "latest.pth").read_bytes())
    content[int(position * len(content))] ^= 1
    (folder / "latest.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"latest\.pth is .*--resume-from .*previous\.pth"):
        train_here(tmp_path, "run", *settings, "--resume")


def test_a_damaged_checkpoint_never_takes_the_place_of_a_sound_one(settings, tmp_path) -> None:
    settings += ["CHECKPOINT.EVERY_STEPS", "1", "DATA.VAL", ""]
    folder = train_here(tmp_path, "run", *settings, "OPTIM.EPOCHS", "1")
    (folder / "latest.pth").write_bytes((folder / "latest.pth").read_bytes()[:-2000])
    before = (folder / "previous.pth").read_bytes()
    take = ["--resume-from", str(folder / "previous.pth")]
    run_alone(tmp_path, "run", *settings, *take, at=At(signal.SIGKILL, step=1))
    assert (folder / "previous.pth").read_bytes() == before
    assert progress(folder)["epoch"] == 2


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", GZIP[:20], GZIP[:12] + b"x" + GZIP[13:]],
    ids=["empty", "foreign", "cut", "flipped"],
)
def test_a_damaged_list_of_files_leaves_their_number(settings, tmp_path, content) -> None:
    folder = train_here(tmp_path, "run", *settings, "OPTIM.EPOCHS", "1")
    (folder / "data_files.tsv.gz").write_bytes(content)
    (tmp_path / "train" / "input" / "1.png").touch()
    with pytest.raises(UserError, match=r"TRAIN: 12 files before, 12 now\. .*--accept-changed"):
        train_here(tmp_path, "run", *settings, "--resume")


# Changed data and settings.


def test_changed_data_are_told_and_accepted_when_asked(settings, tmp_path) -> None:
    folder = train_here(tmp_path, "run", *settings, "OPTIM.EPOCHS", "1")
    for name in ("input", "target"):
        cv2.imwrite(str(tmp_path / "train" / name / "7.png"), smooth_image(1, 40, 48))
        cv2.imwrite(str(tmp_path / "val" / name / "2.png"), smooth_image(9, 41, 48))
    message = r"TRAIN: 2 added \(input/7\.png, \.\.\.\).*: 2 of another size \(input/2\.png"
    with pytest.raises(UserError, match=message):
        train_here(tmp_path, "run", *settings, "--resume")
    train_here(tmp_path, "run", *settings, "--resume", "--accept-changed-data")
    assert progress(folder)["step"] == 6
    train_here(
        tmp_path, "run", *settings, "--resume", "OPTIM.EPOCHS", "3"
    )  # the new data are known


@pytest.mark.parametrize(("removed", "stop", "steps"), [((3,), 1, 4), ((2, 3, 4, 6), 2, 3)])
def test_a_run_goes_on_without_files_that_have_gone_in_mid_epoch(
    settings, tmp_path, capsys, removed, stop, steps
) -> None:
    """Batches of two: 6 pairs are three steps per epoch, 5 are two, 2 are one."""
    run_alone(tmp_path, "run", *settings, at=At(signal.SIGTERM, step=stop))
    for number in removed:
        for name in ("input", "target"):
            (tmp_path / "train" / name / f"{number}.png").unlink()
    with pytest.raises(UserError, match=r"TRAIN: .* gone .*--accept-changed-data"):
        train_here(tmp_path, "run", *settings, "--resume")
    other = ["OPTIM.BATCH_SIZE", "1"]
    with pytest.raises(UserError, match=r"where the batch size from 2 to 1 cannot change"):
        train_here(tmp_path, "run", *settings, *other, "--resume", "--accept-changed-data")
    folder = train_here(tmp_path, "run", *settings, "--resume", "--accept-changed-data")
    assert "note: " in capsys.readouterr().out
    assert [line["epoch"] for line in progress(folder)["history"]] == [1, 2]
    assert progress(folder)["step"] == steps


def test_another_number_of_samples_waits_for_the_end_of_the_epoch(settings, tmp_path) -> None:
    """Where the files are the same, a setting is another one."""
    run_alone(tmp_path, "run", *settings, at=At(signal.SIGTERM, step=2))
    more = ["DATA.REPEAT", "2", "--resume", "--accept-changed-data"]
    with pytest.raises(UserError, match=r"the number of samples per epoch from 6 to 12 and"):
        train_here(tmp_path, "run", *settings, *more)


def test_the_pairs_that_rain_is_taken_from_are_data_too(settings, tmp_path) -> None:
    layers = write_pairs(tmp_path / "layers", 3, 40, 48)
    settings += ["DATA.SYNTHESIS.CLEAN", str(tmp_path / "train" / "target"), "DATA.VAL", ""]
    settings += ["DATA.SYNTHESIS.LAYERS", str(layers), "DATA.SYNTHESIS.SHARE_LAYERS", "0.5"]
    skipped = ["DATA.SYNTHESIS.SKIP_LAYERS", "['3']"]
    folder = train_here(tmp_path, "run", *settings, *skipped, "OPTIM.EPOCHS", "1")
    os.utime(layers / "input" / "3.png", ns=(1, 1))  # plays no part
    folder = train_here(tmp_path, "run", *settings, *skipped, "--resume")
    assert progress(folder)["step"] == 6
    os.utime(layers / "input" / "2.png", ns=(1, 1))
    message = r"LAYERS: 1 of another time \(input/2\.png\)"
    with pytest.raises(UserError, match=message):
        train_here(tmp_path, "run", *settings, *skipped, "--resume")


def test_another_batch_size_waits_for_the_end_of_the_epoch(settings, tmp_path) -> None:
    run_alone(tmp_path, "run", *settings, at=At(signal.SIGTERM, step=1))
    other = [*settings, "OPTIM.BATCH_SIZE", "3"]
    message = r"after step 1, where the batch size from 2 to 3 cannot change.*--stop-after-epoch"
    with pytest.raises(UserError, match=message):
        train_here(tmp_path, "run", *other, "--resume")
    folder = train_here(tmp_path, "run", *settings, "--resume", "--stop-after-epoch")
    assert (progress(folder)["epoch"], progress(folder)["step"]) == (2, 3)
    train_here(tmp_path, "run", *other, "--resume")
    assert progress(folder)["step"] == 5


# True words.


def test_a_killed_loader_is_called_one(settings, tmp_path) -> None:
    at = At(signal.SIGKILL, step=2, to_loaders=True)
    done = run_alone(tmp_path, "run", *settings, "DATA.WORKERS", "1", "DATA.REPEAT", "20", at=at)
    assert done.statuses == [1]
    last = done.output.strip().splitlines()[-1]
    # PyTorch reports the signal, or only that the process has gone.
    assert last.startswith("error: A loader process ")
    assert "out-of-memory killer" in last and "There is no checkpoint yet" in last
    assert "Traceback" not in done.output and "disk" not in done.output


def test_a_loss_that_is_not_finite_names_what_is_known(settings, tmp_path) -> None:
    with pytest.raises(UserError) as caught:
        train_here(tmp_path, "run", *settings, "LOSS.TERMS.L1", "1e39")
    message = str(caught.value)
    assert (
        "In step 1 (epoch 1) the loss is inf" in message and "There is no checkpoint yet" in message
    )
    assert message.count(".png") == 2
    assert "OPTIM.CLIP_NORM 1" in message and "PRECISION" not in message


def test_clipping_leaves_the_gradients_to_the_report(settings, tmp_path, monkeypatch) -> None:
    """Only the bias of the last convolution is spoilt, on its way to the loss's gradient."""
    real = TinyNetwork.forward

    def forward(self: TinyNetwork, rainy: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if torch.is_grad_enabled() and not self.body[4].bias._backward_hooks:
            self.body[4].bias.register_hook(lambda gradient: gradient * float("nan"))
        return real(self, rainy)

    monkeypatch.setattr(TinyNetwork, "forward", forward)
    for norm in ("0", "1"):
        with pytest.raises(UserError, match=r"1 of 6 gradient norms are not fin.* body\.4\.bias"):
            train_here(tmp_path, f"run{norm}", *settings, "OPTIM.CLIP_NORM", norm)


def test_all_processes_name_their_images(settings, tmp_path) -> None:
    arguments = [*settings, "LOSS.TERMS.L1", "1e39", "RUN.FOLDER", tmp_path, "RUN.NAME", "two"]
    done = run_ranks(tmp_path / "out", 2, *arguments)
    assert done.statuses == [1, 1]
    (error,) = (line for line in done.output.splitlines() if line.startswith("error:"))
    assert error.count(".png") == 2
    assert "Traceback" not in done.output


def test_a_stage_of_larger_patches_is_in_the_dry_run(settings, tmp_path, capsys) -> None:
    stages = ["AUGMENT.PROGRESSIVE", "[[2, 40, 1]]", "--dry-run"]
    train_here(tmp_path, "run", *settings, *stages)
    printed = capsys.readouterr().out
    assert "2 patches of 32 x 32" in printed and "1 patches of 40 x 40" in printed
    assert "2 epochs, 9 steps" in printed
    assert not (tmp_path / "run").exists()


def test_without_a_terminal_lines_take_the_place_of_the_bar(settings, tmp_path) -> None:
    done = run_alone(tmp_path, "run", *settings, "LOG.EVERY_STEPS", "2")
    steps = [line for line in done.output.splitlines() if " step " in line]
    assert [line.split(" loss")[0].split(" ", 1)[1] for line in steps] == [
        "epoch 1/2 step 2", "epoch 2/2 step 4", "epoch 2/2 step 6"
    ]  # fmt: skip
    assert "\r" not in done.output and "it/s" not in done.output


@pytest.mark.parametrize("where", ["closed pipe", "full disk"])
def test_a_run_goes_on_where_nothing_can_be_printed(settings, tmp_path, where) -> None:
    """As behind a `| tee` that was killed, and where a quota leaves no room for slurm-*.out.

    Lines, warnings and progress bars alike.
    """

    def unread() -> None:
        reader, writer = os.pipe()
        if where == "full disk":
            writer = os.open("/dev/full", os.O_WRONLY)
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        os.close(writer)
        os.close(reader)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
        sys.stderr.isatty = lambda: True  # a bar
        run_main(lambda: train_here(tmp_path, "run", *settings) and None)

    process = FORK.Process(target=unread)
    process.start()
    process.join(30)
    status = process.exitcode
    process.kill()
    process.join()
    assert status == 0
    assert progress(tmp_path / "run")["step"] == 6


def test_help_says_where_the_settings_are_and_what_a_stop_returns() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", "--help"], capture_output=True, text=True
    )
    text = " ".join(done.stdout.split())
    assert "configs/__init__.py" in text and "end it with status 75" in text
