"""What a run records: every value once, also after a kill, and under any name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from configs import load_config
from tests.helpers import ROOT, smooth_image
from utils.checkpoints import Weights, read_weights, write_weights
from utils.errors import UserError
from utils.training.logs import RunLog, note_start

CFG = load_config(ROOT / "training.yml", ["OPTIM.EPOCHS", "3000"])


def epoch_line(epoch: int, step: int, psnr: float) -> dict:
    return {"kind": "epoch", "epoch": epoch, "step": step, "at": epoch, "loss": 0.5 / epoch,
            "psnr": psnr, "ssim": 0.5, "is_best": True, "seconds": 1.0}  # fmt: skip


def step_line(epoch: int, step: int) -> dict:
    return {"kind": "step", "epoch": epoch, "step": step, "loss": 1 / step, "lr": 0.1,
            "images_per_second": 2.0, "hours_left": 1.0}  # fmt: skip


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: step and value of each point by name, pictures with value 0."""
    accumulator = EventAccumulator(str(folder / "tensorboard"), {"scalars": 0, "images": 0})
    accumulator.Reload()
    found = {
        name: [(event.step, round(event.value, 4)) for event in accumulator.Scalars(name)]
        for name in accumulator.Tags()["scalars"]
    }
    for name in accumulator.Tags()["images"]:
        found[name] = [(event.step, 0.0) for event in accumulator.Images(name)]
    return found


def test_tensorboard_has_each_point_once_after_a_kill_in_a_validation(tmp_path: Path) -> None:
    picture = [smooth_image(1, 16, 16)] * 3
    log = RunLog(tmp_path, CFG)
    for line in (step_line(1, 2), step_line(1, 4), epoch_line(1, 4, 20.0), step_line(2, 6)):
        log.add(line)
    log.add_sample("1", picture, 1, 4)
    # The checkpoint of step 8 is written; the validation adds its points, and is killed.
    log.add(step_line(2, 8))
    log.add_sample("1", picture, 2, 8)
    log.add({"kind": "validation", "epoch": 2, "step": 8, "at": 2, "psnr": 21.0, "ssim": 0.5,
             "is_best": True})  # fmt: skip
    log.close()
    log = RunLog(tmp_path, CFG, history=[epoch_line(1, 4, 20.0)], step=8)
    log.add_sample("1", picture, 2, 8)
    log.add(epoch_line(2, 8, 21.5))
    log.close()
    found = points(tmp_path)
    assert found["step/loss"] == [(2, 0.5), (4, 0.25), (6, 0.1667), (8, 0.125)]
    assert found["epoch/psnr"] == [(4, 20.0), (8, 21.5)]
    assert "validation/psnr" not in found
    assert found["rainy, restored, clean: 1"] == [(4, 0.0), (8, 0.0)]


@pytest.mark.parametrize("stem", ["ä" * 123, os.fsdecode(b"rain\xe4\xff_1"), "a/b", "%"])
def test_a_sample_of_any_name_is_kept(tmp_path: Path, stem: str) -> None:
    log = RunLog(tmp_path, CFG)
    log.add_sample(stem, [smooth_image(1, 16, 16)] * 3, 7, 14)
    log.close()
    (picture,) = (tmp_path / "samples").iterdir()
    assert picture.name.startswith("epoch0007_") and picture.name.encode()  # is UTF-8
    assert cv2.imdecode(np.fromfile(picture, np.uint8), 1).shape == (16, 48, 3)
    RunLog(tmp_path, CFG, [epoch_line(7, 14, 20.0)], 14).close()
    assert [p for name, p in points(tmp_path).items() if "rainy" in name] == [[(14, 0.0)]]


def test_a_start_records_where_and_how(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "RUN.NAME", "my run"])
    note_start(tmp_path, "cpu (x86_64)", 2, 0)
    note_start(tmp_path, "cuda", 1, 40)
    first, second = map(json.loads, (tmp_path / "starts.jsonl").read_text().splitlines())
    assert first["command"] == "python train.py RUN.NAME 'my run'"
    assert first["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    found = first["processes"], first["device"], first["host"]
    assert found == (2, "cpu (x86_64)", os.uname()[1])
    assert (first["step"], second["step"], second["device"]) == (0, 40, "cuda")
    assert first["date"] and "commit" in first


def test_equal_weights_are_equal_files(tmp_path: Path) -> None:
    state = {f"layer{i}": torch.full((2, 3), float(i)) for i in (2, 10, 1)}
    info = {"psnr": 31.5, "config": "MODEL: {NAME: dmsr}", "epoch": 3, "name": "Größe"}
    paths = [tmp_path / f"{i}.safetensors" for i in range(6)]
    for path in paths:  # the library orders the header's entries at random in each call
        write_weights(path, Weights("dmsr", {"width": 8}, state, info))
    assert len({path.read_bytes() for path in paths}) == 1
    read = read_weights(paths[0])
    assert read.info == info and read.options == {"width": 8}
    assert all(torch.equal(read.state[name], value) for name, value in state.items())


def test_a_disk_that_refuses_is_a_sentence(tmp_path: Path) -> None:
    """A file where TensorBoard's folder should be; /dev/full as the log."""
    (tmp_path / "tensorboard").write_text("")  # a file where the folder should be
    with pytest.raises(UserError, match=r"Cannot write .*tensorboard"):
        RunLog(tmp_path, CFG)
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    (tmp_path / "tensorboard").unlink()
    log = RunLog(tmp_path / "other", CFG)
    log._path = Path("/dev/full")
    with pytest.raises(UserError, match="Cannot write /dev/full: No space left"):
        log.add(step_line(1, 2))
