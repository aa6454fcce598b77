"""Training on several processes: none hangs, and the result is that of one."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from tests.helpers import write_pairs
from tests.ranks import At
from tests.runs import progress, saved, tiny_settings, train_here
from tests.tiny_network import register


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Validation sets of 1, 2 and 4 images."""
    folder = tmp_path_factory.mktemp("sets")
    for count in (1, 2, 4):
        write_pairs(folder / f"val{count}", count, 40, 48)
    return folder


def course(sets: Path, images: int) -> list[str]:
    """Two epochs of two steps, without batch norm, whose averages a share of a batch changes."""
    return f"""
        MODEL.NAME tiny_plain OPTIM.BATCH_SIZE 6 DATA.REPEAT 2 DATA.VAL {sets}/val{images}
    """.split()


def assert_same_course(one: Path, other: Path) -> None:
    """Equal losses, scores and weights, but for the order of float sums over processes."""
    for a, b in zip(progress(one)["history"], progress(other)["history"], strict=True):
        for key in ("step", "loss", "psnr", "ssim", "lr"):
            assert a[key] == pytest.approx(b[key], rel=1e-4), key
    weights = [saved(folder)["network"] for folder in (one, other)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=5e-5)


@pytest.fixture(scope="module")
def straight(
    tiny_data: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Path]:
    """Undisturbed runs of one process by the number of validation images."""
    folder, settings = tmp_path_factory.mktemp("straight"), tiny_settings(tiny_data)
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        return {
            images: train_here(folder, str(images), *settings, *course(sets, images))
            for images in (1, 2, 4)
        }


@pytest.mark.parametrize(
    ("num", "images", "more"),
    [(2, 1, []), (3, 2, []), (1, 4, ["OPTIM.ACCUMULATE", "2"]), (3, 4, ["OPTIM.ACCUMULATE", "2"])],
)
def test_processes_and_accumulation_take_the_same_steps(
    run_forked, sets, straight, tmp_path, num, images, more
) -> None:
    """Also with fewer validation images than processes."""
    done = run_forked(num, *course(sets, images), *more)
    assert done.statuses == [0] * num, done.output
    assert_same_course(straight[images], tmp_path / "run")
    assert done.output.count("epoch 1/2 loss") == 1  # only one process speaks


@pytest.fixture
def published(settings: list[str], tiny_data: Path) -> list[str]:
    """One step of the smallest NeRD-Rain on two pairs."""
    settings += ["MODEL.NAME", "nerd_rain_t", "LOSS.SCALES", "3", "OPTIM.LR", "1e-3"]
    settings += ["OPTIM.EPOCHS", "1", "DATA.TRAIN", str(tiny_data / "val")]
    return settings


@pytest.mark.usefixtures("published")
def test_a_published_network_takes_the_same_step(run_train, run_forked, tmp_path) -> None:
    """With several outputs and 1x1 kernels, of which DistributedDataParallel warns."""
    one, done = run_train(name="one"), run_forked(2, name="two")
    assert done.statuses == [0, 0], done.output
    assert_same_course(one, tmp_path / "two")
    assert "strides" not in done.output


@pytest.mark.usefixtures("published")
def test_a_loss_that_does_not_reach_all_parameters_is_refused(run_forked) -> None:
    done = run_forked(2, "LOSS.SCALES", "1")
    assert done.statuses == [1, 1]
    assert "error: The loss does not reach " in done.outputs[0]
    assert "set LOSS.SCALES to" in done.outputs[0]


@pytest.mark.parametrize(
    ("at", "images", "status"),
    [
        (At(signal.SIGTERM, step=2), 1, 75),  # the last step of an epoch
        (At(signal.SIGUSR1, image=1, rank=1), 4, 75),  # reaches one of them
        (At(signal.SIGKILL, image=1), 2, -9),
    ],
    ids=["last step", "one process", "kill in validation"],
)
def test_stopped_processes_are_resumed(
    run_forked, sets, straight, tmp_path, at, images, status
) -> None:
    stopped = run_forked(2, *course(sets, images), at=at)
    assert stopped.statuses == [status] * 2, stopped.output
    assert progress(tmp_path / "run")["step_in_epoch"] == 2
    resumed = run_forked(2, *course(sets, images), "--resume")
    assert resumed.statuses == [0, 0], resumed.output
    assert_same_course(straight[images], tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("num", [1, 2, 3])
@pytest.mark.parametrize("images", [1, 2, 4])
@pytest.mark.parametrize("step", range(1, 5))
def test_a_stop_at_any_step_is_resumed(
    run_forked, sets, straight, tmp_path, num, images, step
) -> None:
    stopped = run_forked(num, *course(sets, images), at=At(signal.SIGTERM, step=step))
    assert stopped.statuses == [75] * num, stopped.output
    assert progress(tmp_path / "run")["step"] == step
    resumed = run_forked(num, *course(sets, images), "--resume")
    assert resumed.statuses == [0] * num, resumed.output
    assert_same_course(straight[images], tmp_path / "run")
