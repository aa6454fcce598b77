"""How a training starts: what its processes must have in common, missing ones, early signals."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import torch.distributed as dist

import utils.training.build as build
from configs import load_config
from tests.helpers import ROOT, write_pairs
from tests.ranks import FORK, At, run_ranks
from tests.runs import progress, train_here
from utils.errors import UserError
from utils.training import same_start
from utils.training.distributed import init_distributed
from utils.training.failures import explained_failures
from utils.training.stopping import RunStopped, StopSignal


def assert_refused_together(done, message: str) -> None:
    """All processes end with status 1, and one of them says why."""
    assert done.statuses == [1] * len(done.statuses), done.output
    assert message in done.output
    assert done.output.count("error:") == 1 and "Traceback" not in done.output


# Processes that do not start from the same thing.


def test_a_stale_checkpoint_in_one_process_is_refused(settings, finished_runs, tmp_path) -> None:
    """As on a network file system; the other process finds the one before under the same name."""
    for rank in "01":
        shutil.copytree(finished_runs / "one", tmp_path / rank / "run")
    (tmp_path / "1" / "run" / "previous.pth").rename(tmp_path / "1" / "run" / "latest.pth")
    config = (tmp_path / "0" / "run" / "config.yml").read_bytes()
    done = run_ranks(
        *(tmp_path / "out", 2, "--resume", *settings, "RUN.FOLDER", ".", "RUN.NAME", "run"),
        *("OPTIM.LR", "2e-2"),
        prepare=lambda rank: os.chdir(tmp_path / str(rank)),
    )
    assert_refused_together(done, "do not start from the same thing: the digest of run/latest.pth")
    assert (tmp_path / "0" / "run" / "config.yml").read_bytes() == config


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (["DATA.TRAIN", "fewer"], "the number of samples per epoch is 6 in process 0 on"),
        (["DATA.TRAIN", "larger"], "the data of TRAIN is 12 files (digest"),
        (["OPTIM.LR", "2e-2"], "OPTIM.LR is 0.01 in process 0 on"),
    ],
)
def test_other_data_or_settings_in_one_process_are_refused(
    run_forked, tmp_path, monkeypatch, other, message
) -> None:
    write_pairs(tmp_path / "fewer", 4, 40, 48)
    write_pairs(tmp_path / "larger", 6, 40, 56)
    if other[0] == "DATA.TRAIN":  # the same folder's name on another disk
        monkeypatch.setattr(same_start, "OWN", ("DATA.CACHE", "DATA.TRAIN"))
        other = ["DATA.TRAIN", str(tmp_path / other[1])]

    def prepare(rank: int) -> None:
        sys.argv += other * rank

    done = run_forked(2, prepare=prepare)
    assert_refused_together(done, message)
    assert not (tmp_path / "run" / "config.yml").exists()


def test_the_code_is_compared_too(tmp_path, monkeypatch) -> None:
    cfg = load_config(ROOT / "configs" / "demo.yml")
    here = same_start.program_facts(cfg)
    assert here["OPTIM.LR"] == cfg.OPTIM.LR and "DATA.CACHE" not in here
    for name in ("train.py", *same_start.PACKAGES):
        copy = shutil.copyfile if name.endswith(".py") else shutil.copytree
        copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(same_start, "ROOT", tmp_path)
    assert same_start.program_facts(cfg) == here
    with (tmp_path / "losses" / "terms.py").open("a") as file:
        file.write("# another version\n")
    assert same_start.program_facts(cfg)["the code"] != here["the code"]


def test_times_of_copied_data_may_differ_and_sizes_may_not() -> None:
    facts = same_start.data_facts(6, {"TRAIN": {"input/1.png": (70, 1), "target/1.png": (80, 2)}})
    later = same_start.data_facts(6, {"TRAIN": {"target/1.png": (80, 9), "input/1.png": (70, 9)}})
    other = same_start.data_facts(6, {"TRAIN": {"input/1.png": (71, 1), "target/1.png": (80, 2)}})
    assert facts == later != other


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (["SCHEDULE.WARMUP_EPOCHS", 2], "WARMUP_EPOCHS is 2; it must be below OPTIM.EPOCHS, 2"),
        (["OPTIM.BATCH_SIZE", 3], "batches of 3; a batch must be a multiple of 2"),
    ],
)
def test_mistakes_of_all_processes_are_said_once(run_forked, setting, message) -> None:
    """Before any data are read: the folder does not exist."""
    assert_refused_together(run_forked(2, "DATA.TRAIN", "nowhere", *setting), message)


# One process that fails, stops or is missing.


@pytest.mark.parametrize(("how", "statuses"), [("error", [1, 1]), ("signal", [75, 75])])
def test_what_ends_one_process_while_it_prepares_ends_the_other(
    run_forked, tmp_path, how, statuses
) -> None:
    """The disk's refusal is patched; the signal reaches one of them only."""
    real = build.build_loaders

    def prepare(rank: int) -> None:
        def build_loaders(*args: object, **kwargs: object) -> object:
            if how == "error":
                raise OSError("the disk has gone")
            os.kill(os.getpid(), signal.SIGTERM)
            return real(*args, **kwargs)

        if rank == 1:
            build.build_loaders = build_loaders

    done = run_forked(2, prepare=prepare)
    assert done.statuses == statuses, done.output
    assert ("the disk has gone" in done.outputs[1]) == (how == "error")
    assert "error:" not in done.outputs[0].lower()  # it knows, and has not lost a connection
    assert not (tmp_path / "run").exists()


def test_a_hang_names_the_process_that_is_missing(run_forked, tmp_path) -> None:
    """Stopped by a signal in the fourth of six steps, after the first checkpoint."""
    at = At(signal.SIGSTOP, step=4, rank=1)
    done = run_forked(2, "RUN.TIMEOUT", "0.03", at=at, hanging=[1])
    assert done.statuses[0] == 1
    last = done.outputs[0].strip().splitlines()[-1]
    assert last.startswith("error: Process 1 is missing: process 0 has waited for 0.03")
    assert "--resume" in last and "Traceback" not in done.outputs[0]
    assert progress(tmp_path / "run")["step"] == 3


def test_processes_that_prepare_longer_are_waited_for(run_forked, tmp_path) -> None:
    """As one that builds a cache; the main process says whom it waits for."""
    real = build.build_loaders

    def prepare(rank: int) -> None:
        # Until the main process has said it, which its output shows.
        def build_loaders(*args: object, **kwargs: object) -> object:
            while rank == 1 and "waits for" not in (tmp_path / "out" / "rank0.txt").read_text():
                signal.sigtimedwait([], 0.05)
            return real(*args, **kwargs)

        build.build_loaders = build_loaders

    done = run_forked(2, "--dry-run", "RUN.TIMEOUT", "0.01", prepare=prepare)
    assert done.statuses == [0, 0], done.output
    assert done.outputs[0].count("note: process 0 waits for process 1, still preparing") == 1


LOST = "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:2"
TIMED_OUT = "[../gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1000ms for recv"
DUPLICATE = (
    "NCCL error in: ../ProcessGroupNCCL.cpp:3353, invalid usage (run with NCCL_DEBUG=WARN), NCCL "
    "version 2.27\nncclInvalidUsage: This usually reflects invalid usage of NCCL library.\n"
    "Last error:\nDuplicate GPU detected : rank 1 and rank 0 both on CUDA device 1a000"
)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError(LOST), r"^Another process .* has ended; .*\(Here: Connection closed by peer"),
        (RuntimeError(TIMED_OUT), r"^The processes cannot exchange values: Timed out waiting 1000"),
        (dist.DistBackendError(DUPLICATE), r"exchange values: Duplicate GPU detected : rank 1 and"),
    ],
)
def test_a_failure_within_a_collective_operation_is_its_own_sentence(error, message) -> None:
    """PyTorch's messages, raised by hand: two GPUs or a cut network are not at hand."""
    with pytest.raises(UserError, match=message), explained_failures(True, lambda: "Resume."):
        raise error
    with pytest.raises(type(error)), explained_failures(False, lambda: ""):  # a bug of ours
        raise error


# Batch norm on several processes.


def test_batch_norm_on_several_processes_is_resumed_exactly(run_forked, tmp_path) -> None:
    """Each process has the statistics of its share; all validate with the main one's."""
    straight = run_forked(2, name="straight")
    assert straight.statuses == [0, 0], straight.output
    assert straight.outputs[0].count("note: PyTorch synchronises batch norms between GPUs") == 1
    run_forked(2, "--stop-after-epoch", name="halves")
    assert run_forked(2, "--resume", name="halves").statuses == [0, 0]
    one, other = (progress(tmp_path / name)["history"] for name in ("straight", "halves"))
    for key in ("loss", "psnr", "ssim"):
        assert [line[key] for line in one] == [line[key] for line in other]


# Where processes meet.


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "a"}, r"variable RANK is 'a'; it must be a number"),
        ({"WORLD_SIZE": "-2"}, r"variable WORLD_SIZE is '-2'; it must be a number"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, r"RANK is 2 and WORLD_SIZE 2; the ranks are 0 to"),
        ({"WORLD_SIZE": "2"}, r"MASTER_ADDR and MASTER_PORT, .* are not set; .* torchrun"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "p"}, r"MASTER_PORT is"),
    ],
)
def test_variables_that_make_no_sense_are_refused(environment, variables, message) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    with pytest.raises(UserError, match=message):
        init_distributed()


@pytest.fixture
def port(environment: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A port of this machine where the first of two processes is to wait for the other."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        for name, value in {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1"}.items():
            environment.setenv(name, str(value))
        environment.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        yield taken


def test_a_mistake_in_the_settings_is_printed_although_nobody_meets(
    environment, settings, tmp_path, capsys
) -> None:
    """WORLD_SIZE names a second process, but no place to meet it is given."""
    environment.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="MASTER_ADDR and MASTER_PORT"):
        train_here(tmp_path, "run", *settings, "SCHEDULE.WARMUP_EPOCHS", "2")
    assert "error: SCHEDULE.WARMUP_EPOCHS is 2" in capsys.readouterr().err


def test_a_busy_port_is_a_sentence(port) -> None:
    port.listen()
    with pytest.raises(
        UserError, match=r"meet at 127\.0\.0\.1:\d+: another program uses that port"
    ):
        init_distributed()


def test_processes_that_never_come_are_counted(port) -> None:
    port.close()
    with pytest.raises(UserError, match=r"only 1/2 arrived in time \(RUN\.TIMEOUT\)"):
        init_distributed(timeout=0.02)


# Signals before anything is trained.

EARLY = """
import os, signal, threading
from utils.training.stopping import end_at_signals
end_at_signals()
os.kill(os.getpid(), signal.{name})
threading.Lock().acquire() and threading.Event().wait(20)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"])
def test_a_signal_while_a_script_starts_is_a_sentence_and_status_75(name) -> None:
    command = [sys.executable, "-c", EARLY.format(name=name)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (75, f"{name}: nothing is trained yet; ending\n")


def test_train_py_hears_signals_while_pytorch_is_loaded(tmp_path) -> None:
    """A stand-in for PyTorch sends one; loading the real one takes seconds."""
    (tmp_path / "torch.py").write_text(
        "import os, signal, threading\nos.kill(os.getpid(), signal.SIGTERM)\n"
        "threading.Event().wait(20)\n"
    )
    done = subprocess.run(
        [sys.executable, ROOT / "train.py"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert (done.returncode, done.stderr) == (75, "SIGTERM: nothing is trained yet; ending\n")


def status_of_forked(function: Callable[[], None]) -> int | None:
    process = FORK.Process(target=function)
    process.start()
    process.join(20)
    return process.exitcode


def test_a_signal_before_a_block_that_it_may_interrupt_ends_it_at_once() -> None:
    def train() -> None:
        with StopSignal(is_main=True) as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            try:
                with stop.interruptible():
                    os._exit(4)
            except RunStopped:
                os._exit(3)

    assert status_of_forked(train) == 3


def test_nohup_stays_in_force() -> None:
    """A process that was started with SIGHUP ignored must survive it."""

    def train() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with StopSignal(is_main=True) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        os._exit(3 if stop.received is None else 4)

    assert status_of_forked(train) == 3
