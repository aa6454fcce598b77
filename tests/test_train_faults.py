"""What goes wrong around a training: signals, lost and doubled processes, steps without a value."""

from __future__ import annotations

import contextlib
import math
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import torch

import train
from tests.helpers import ROOT
from tests.ranks import FORK, At, run_ranks
from tests.runs import log_of, progress, saved
from tests.tiny_network import TinyNetwork
from utils.errors import UserError, run_main
from utils.training.checks import MAX_SKIPPED
from utils.training.run_folder import RunFolder
from utils.training.stopping import StopSignal


def status_of(function: Callable[[], object], timeout: float = 30) -> int | None:
    """The exit status of a forked process that calls ``function``; None if it hangs."""
    process = FORK.Process(target=function)
    process.start()
    process.join(timeout)
    status = process.exitcode
    process.kill()
    process.join()
    return status


@contextlib.contextmanager
def nothing_left_running(what: str, timeout: float = 40) -> Iterator[None]:
    """What the block starts inherits a pipe, and all of it must end for the pipe to end."""
    reader, writer = os.pipe()
    yield
    with contextlib.suppress(OSError):  # the block may have closed it
        os.close(writer)
    assert select.select([reader], [], [], timeout)[0], f"{what} keep running"
    assert os.read(reader, 1) == b""
    os.close(reader)


# Signals.


def test_a_signal_to_the_whole_group_reaches_no_loader(
    run_train, run_forked, finished_runs
) -> None:
    """As job schedulers and torchrun send it: the loaders get it too."""
    at = At(signal.SIGTERM, step=5, to_group=True)
    stopped = run_forked(1, "DATA.WORKERS", "1", at=at)
    assert stopped.statuses == [75], stopped.output
    assert stopped.output.count("SIGTERM: finishing the current step") == 1
    one, other = (saved(f)["network"] for f in (finished_runs / "two", run_train("--resume")))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_checkpoint_is_on_disk_before_validation(run_train, run_forked, tmp_path) -> None:
    assert run_forked(1, at=At(signal.SIGKILL, image=1)).statuses == [-9]
    assert progress(tmp_path / "run")["step_in_epoch"] == 3
    assert [line["step"] for line in progress(run_train("--resume"))["history"]] == [3, 6]


def test_checkpoints_are_written_within_an_epoch(run_forked, tmp_path) -> None:
    run_forked(1, "CHECKPOINT.EVERY_STEPS", "2", at=At(signal.SIGKILL, step=3))
    assert progress(tmp_path / "run")["step"] == 2


def test_a_signal_during_validation_is_heard_after_the_image(run_forked, tmp_path) -> None:
    done = run_forked(1, at=At(signal.SIGUSR1, image=1))
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
    run_forked, tmp_path, first, then
) -> None:
    """As schedulers send them, also while the interpreter ends."""
    done = run_forked(1, at=At(first, step=2, then=then))
    assert done.statuses == [75], done.output
    assert done.output.count("finishing the current step") == 1
    assert progress(tmp_path / "run")["step"] == 2


def test_a_second_ctrl_c_ends_a_run_at_once(run_forked, tmp_path) -> None:
    done = run_forked(1, at=At(signal.SIGINT, step=2, then=(signal.SIGINT,)))
    assert done.statuses == [130], done.output
    assert not (tmp_path / "run" / "latest.pth").exists()


def test_the_answer_to_a_signal_holds_nothing_up() -> None:
    """Standard error is a full pipe that is never read."""

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

    assert status_of(stop) == 75


@pytest.mark.parametrize(
    ("at", "status"),
    [
        (None, 0),
        (At(signal.SIGTERM, step=6, then=(signal.SIGTERM,)), 75),
        (At(signal.SIGTERM, image=4, then=(signal.SIGTERM,)), 75),
    ],
)
def test_a_run_with_loader_processes_ends(run_forked, tmp_path, at, status) -> None:
    """Also by a signal in its last step, or in the last image of its last validation."""
    done = run_forked(1, "DATA.WORKERS", "1", at=at)
    assert done.statuses == [status], done.output
    assert progress(tmp_path / "run")["step"] == 6


# Lost and doubled processes.


def test_one_process_at_a_time_writes_into_a_run(run_train, one_epoch) -> None:
    ready, hold = FORK.Event(), FORK.Event()

    def train_elsewhere() -> None:
        taken = RunFolder(one_epoch)
        taken.lock()
        ready.set()
        hold.wait()

    holder = FORK.Process(target=train_elsewhere)
    holder.start()
    ready.wait()
    before = (one_epoch / "latest.pth").read_bytes()
    with pytest.raises(UserError, match=f"is being trained by process {holder.pid} on .*, since"):
        run_train("--resume")
    assert (one_epoch / "latest.pth").read_bytes() == before
    holder.kill()  # and the lock goes with it
    holder.join()
    assert progress(run_train("--resume"))["step"] == 6


@pytest.mark.parametrize("is_replaced", [True, False])
def test_a_renamed_folder_is_not_written_into(
    run_train, tmp_path, monkeypatch, is_replaced
) -> None:
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
        run_train("LOG.EVERY_STEPS", "99", "DATA.VAL", "")
    assert folder.exists() == is_replaced
    for left in [tmp_path / "old", *([folder] if is_replaced else [])]:
        assert progress(left)["step"] == 3


def test_loader_processes_end_with_a_killed_trainer(run_forked) -> None:
    """Also if one waits to hand over more than its pipe takes."""
    more = ["AUGMENT.PATCH", "40", "OPTIM.BATCH_SIZE", "6", "DATA.REPEAT", "20"]
    at = At(signal.SIGKILL, step=2)
    with nothing_left_running("the loaders"):
        assert run_forked(1, *more, "DATA.WORKERS", "2", at=at).statuses == [-9]


def test_a_run_is_saved_when_its_launcher_is_killed(settings, tmp_path) -> None:
    arguments = [*settings, "DATA.REPEAT", 10**4, "RUN.FOLDER", tmp_path, "RUN.NAME", "run"]
    at = At(signal.SIGKILL, step=2, rank=0, to_launcher=True)
    with nothing_left_running("the orphans"):
        launcher = FORK.Process(
            target=run_ranks, args=(tmp_path / "out", 2, *arguments), kwargs={"at": at}
        )
        launcher.start()
    launcher.join()
    outputs = [path.read_text() for path in (tmp_path / "out").iterdir()]
    assert any("The process that started this one has ended" in output for output in outputs)
    assert progress(tmp_path / "run")["step"] == log_of(tmp_path / "run")[-1]["step"] >= 2


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


def test_a_killed_loader_is_named(run_forked) -> None:
    at = At(signal.SIGKILL, step=2, to_loaders=True)
    done = run_forked(1, "DATA.WORKERS", "1", "DATA.REPEAT", "20", at=at)
    assert done.statuses == [1]
    last = done.output.strip().splitlines()[-1]
    # PyTorch reports the signal, or only that the process has gone.
    assert last.startswith("error: A loader process ")
    assert "out-of-memory killer" in last and "There is no checkpoint yet" in last
    assert "Traceback" not in done.output and "disk" not in done.output


def test_one_process_that_fails_ends_all_with_its_error_shown(
    run_forked, own_data, tmp_path
) -> None:
    broken = own_data / "train" / "input" / "2.png"  # in the second process's share
    broken.write_bytes(broken.read_bytes()[:200])
    done = run_forked(2)
    assert done.statuses == [1, 1]
    assert f"error: {broken} is not a readable image" in done.outputs[1]
    assert done.output.count("error:") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("where", ["closed pipe", "full disk"])
def test_a_run_continues_when_nothing_can_be_printed(run_train, tmp_path, where) -> None:
    """As behind a `| tee` that was killed, or when a quota leaves no room for slurm-*.out.

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
        run_main(lambda: run_train() and None)

    assert status_of(unread) == 0
    assert progress(tmp_path / "run")["step"] == 6


# Steps that cannot be trained on.


def spoil_gradient(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Multiply the gradient of the last convolution's bias, on its way from the loss."""
    real = TinyNetwork.forward

    def forward(self: TinyNetwork, rainy: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if torch.is_grad_enabled() and not self.body[4].bias._backward_hooks:
            self.body[4].bias.register_hook(lambda gradient: gradient * factor)
        return real(self, rainy)

    monkeypatch.setattr(TinyNetwork, "forward", forward)


def test_a_loss_that_is_not_finite_names_what_is_known(run_train, tmp_path) -> None:
    with pytest.raises(UserError) as caught:
        run_train("LOSS.TERMS.L1", "1e39")
    message = str(caught.value)
    assert message.startswith("In step 1 (epoch 1) the loss is inf and the gradient norm ")
    assert message.count(".png") == 2 and message.endswith("There is no checkpoint yet.")
    assert "OPTIM.LR" in message and "OPTIM.CLIP_NORM 1" in message and "PRECISION" not in message
    assert not (tmp_path / "run" / "best.safetensors").exists()


@pytest.mark.parametrize("clip_norm", ["0", "1"])
def test_clipping_leaves_the_gradients_to_the_report(run_train, monkeypatch, clip_norm) -> None:
    spoil_gradient(monkeypatch, math.nan)
    with pytest.raises(UserError, match=r"1 of 6 gradient norms are not fin.* in body\.4\.bias"):
        run_train("OPTIM.CLIP_NORM", clip_norm)


def test_all_processes_name_their_images_in_one_message(run_forked) -> None:
    done = run_forked(2, "LOSS.TERMS.L1", "1e39")
    assert done.statuses == [1, 1]
    (error,) = (line for line in done.output.splitlines() if line.startswith("error:"))
    assert error.count(".png") == 2
    assert "Traceback" not in done.output


def test_fp16_that_never_trains_is_refused(run_train, tmp_path, monkeypatch) -> None:
    """Gradients that are not finite at any scale; one more step before would have been in time."""
    spoil_gradient(monkeypatch, math.inf)
    message = rf"skipped {MAX_SKIPPED} steps in a row, up to step {MAX_SKIPPED} \(epoch 1\).* bf16"
    more = ["OPTIM.PRECISION", "fp16", "DATA.VAL", "", "OPTIM.BATCH_SIZE", "1"]
    with pytest.raises(UserError, match=message):
        run_train(*more, "DATA.REPEAT", "10")
    assert not (tmp_path / "run" / "latest.pth").exists()
