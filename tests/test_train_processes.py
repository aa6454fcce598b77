"""Training on several processes: none hangs, and the result is that of one."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from tests.helpers import write_pairs
from tests.ranks import At, run_ranks
from utils.checkpoints import read_checkpoint


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pairs to train on, and validation sets of 1, 2 and 4 images."""
    folder = tmp_path_factory.mktemp("data")
    write_pairs(folder / "train", 12, 40, 48)
    for count in (1, 2, 4):
        write_pairs(folder / f"val{count}", count, 40, 48)
    return folder


def settings(data: Path, images: int, *more: object) -> list[str]:
    """Two epochs of two steps of the smallest NeRD-Rain."""
    base = f"""
        MODEL.NAME nerd_rain_t DATA.TRAIN {data}/train DATA.VAL {data}/val{images} DATA.WORKERS 0
        AUGMENT.PATCH 32 OPTIM.BATCH_SIZE 6 LOSS.TERMS.L1 1 LOSS.TERMS.FFT_STACKED 0 LOSS.SCALES 3
        OPTIM.EPOCHS 2 SCHEDULE.WARMUP_EPOCHS 0 VALIDATION.SAMPLES_EVERY 0
        OPTIM.LR 1e-3
    """.split()
    return [*base, *map(str, more)]


def history(folder: Path) -> list[dict]:
    return read_checkpoint(folder / "latest.pth")["progress"]["history"]


def assert_same_course(one: Path, other: Path) -> None:
    """Equal losses, scores and weights, but for the order of float sums over processes."""
    for a, b in zip(history(one), history(other), strict=True):
        for key in ("step", "loss", "psnr", "ssim", "lr"):
            assert a[key] == pytest.approx(b[key], rel=1e-4), key
    weights = [read_checkpoint(folder / "latest.pth")["network"] for folder in (one, other)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=5e-5)


@pytest.fixture(scope="module")
def straight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Undisturbed runs of one process by the number of validation images."""
    folder = tmp_path_factory.mktemp("straight")
    for images in (1, 2, 4):
        name = f"images{images}"
        done = run_ranks(folder, 1, *settings(data, images, "RUN.FOLDER", folder, "RUN.NAME", name))
        assert done.statuses == [0], done.output
    return {images: folder / f"images{images}" for images in (1, 2, 4)}


@pytest.mark.parametrize(("world_size", "images"), [(2, 1), (3, 2)])
def test_fewer_validation_images_than_processes(
    data, straight, tmp_path, world_size, images
) -> None:
    done = run_ranks(
        tmp_path, world_size, *settings(data, images, "RUN.FOLDER", tmp_path, "RUN.NAME", "few")
    )
    assert done.statuses == [0] * world_size, done.output
    assert_same_course(straight[images], tmp_path / "few")


def test_a_stop_in_the_last_step_of_an_epoch_is_resumed(data, straight, tmp_path) -> None:
    arguments = settings(data, 1, "RUN.FOLDER", tmp_path, "RUN.NAME", "last")
    stopped = run_ranks(tmp_path, 2, *arguments, at=At(signal.SIGTERM, step=2))
    assert stopped.statuses == [75, 75], stopped.output
    assert read_checkpoint(tmp_path / "last" / "latest.pth")["progress"]["step_in_epoch"] == 2
    resumed = run_ranks(tmp_path, 2, "--resume", *arguments)
    assert resumed.statuses == [0, 0], resumed.output
    assert_same_course(straight[1], tmp_path / "last")


def test_a_kill_during_validation_is_resumed(data, straight, tmp_path) -> None:
    arguments = settings(data, 2, "RUN.FOLDER", tmp_path, "RUN.NAME", "killed")
    killed = run_ranks(tmp_path, 2, *arguments, at=At(signal.SIGKILL, image=1))
    assert killed.statuses == [-9, -9]
    resumed = run_ranks(tmp_path, 2, "--resume", *arguments)
    assert resumed.statuses == [0, 0], resumed.output
    assert_same_course(straight[2], tmp_path / "killed")


def test_a_signal_to_one_process_stops_all_of_them(data, straight, tmp_path) -> None:
    arguments = settings(data, 4, "RUN.FOLDER", tmp_path, "RUN.NAME", "one")
    at = At(signal.SIGUSR1, image=1, rank=1)
    stopped = run_ranks(tmp_path, 2, *arguments, at=at)
    assert stopped.statuses == [75, 75], stopped.output
    resumed = run_ranks(tmp_path, 2, "--resume", *arguments)
    assert resumed.statuses == [0, 0], resumed.output
    assert_same_course(straight[4], tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("images", [1, 2, 4])
@pytest.mark.parametrize("step", range(1, 5))
def test_a_stop_at_any_step_is_resumed(data, straight, tmp_path, world_size, images, step) -> None:
    arguments = settings(data, images, "RUN.FOLDER", tmp_path, "RUN.NAME", "any")
    stopped = run_ranks(tmp_path, world_size, *arguments, at=At(signal.SIGTERM, step=step))
    assert stopped.statuses == [75] * world_size, stopped.output
    assert read_checkpoint(tmp_path / "any" / "latest.pth")["progress"]["step"] == step
    resumed = run_ranks(tmp_path, world_size, "--resume", *arguments)
    assert resumed.statuses == [0] * world_size, resumed.output
    assert_same_course(straight[images], tmp_path / "any")
