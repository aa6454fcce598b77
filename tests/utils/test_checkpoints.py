"""Weights on disk: whole or not at all, and never executed."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models import build_model, load_published, load_weights
from tests.helpers import ROOT
from utils.checkpoints import Weights, read_checkpoint, write_checkpoint, write_weights
from utils.errors import UserError


@pytest.fixture
def weights() -> Weights:
    torch.manual_seed(0)
    network = build_model("dmsr_s", {"width": 4, "num_blocks": 1})
    options = {"width": 4, "num_blocks": 1}
    return Weights("dmsr_s", options, network.state_dict(), {"psnr": 30.0})


def test_weights_know_their_network(weights, tmp_path) -> None:
    write_weights(tmp_path / "w.safetensors", weights)
    network = load_weights(tmp_path / "w.safetensors")
    assert not network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, weights.state[name]), name


@pytest.mark.parametrize("kept", [0, 100, -100])
def test_truncated_weights_are_refused_by_name(weights, tmp_path, kept) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path, weights)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"w\.safetensors is not a complete safetensors file"):
        load_weights(path)


def test_foreign_files_are_refused_with_a_hint(tmp_path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "foreign.pth")
    with pytest.raises(UserError, match=r"not a checkpoint of this project.*--model"):
        load_weights(tmp_path / "foreign.pth")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(UserError, match=r"text\.pth"):
        load_weights(tmp_path / "text.pth")
    with pytest.raises(UserError, match="There is no file"):
        load_weights(tmp_path / "nothing.pth")


class Trap:
    """Unpickles by touching a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("save", [torch.save, lambda x, f: Path(f).write_bytes(pickle.dumps(x))])
def test_a_pickle_that_executes_code_is_refused_and_not_executed(tmp_path, save) -> None:
    save({"state_dict": Trap(tmp_path / "sprung")}, str(tmp_path / "trap.pth"))
    for load in (load_weights, lambda path: load_published("dmsr", path)):
        with pytest.raises(UserError, match=r"trap\.pth .*could execute code, so it is refused"):
            load(tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()


def test_a_new_checkpoint_keeps_the_previous_one(tmp_path) -> None:
    latest, previous = tmp_path / "latest.pth", tmp_path / "previous.pth"
    for step in range(3):
        write_checkpoint(latest, {"step": step}, keep=previous)
    assert read_checkpoint(latest)["step"] == 2
    assert read_checkpoint(previous)["step"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.pth", "previous.pth"]


def test_a_full_disk_is_one_sentence_and_leaves_the_checkpoint_before(tmp_path) -> None:
    """A limit on the size of files stands in for a full disk: the write fails halfway."""
    latest = tmp_path / "latest.pth"
    write_checkpoint(latest, {"step": 1})
    script = f"""
import resource, signal, sys
sys.path.insert(0, {str(ROOT)!r})
import torch
from pathlib import Path
from utils.checkpoints import write_checkpoint
from utils.errors import run_main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
state = {{"step": 2, "big": torch.zeros(100_000)}}
run_main(lambda: write_checkpoint(Path({str(latest)!r}), state))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert (
        done.stderr.startswith(f"error: Cannot write {latest}") and "Traceback" not in done.stderr
    )
    assert read_checkpoint(latest)["step"] == 1
    assert list(tmp_path.iterdir()) == [latest]
