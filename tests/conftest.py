"""Shared by all tests: one thread, skipped GPU tests, and fixtures for small trainings."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

# One thread: small tensors gain nothing from more, and sums always have the same order, so results
# are bit-equal on any machine and in the scripts that tests start (tests/helpers.py).
torch.set_num_threads(1)


# Under nohup, SIGHUP is ignored, and the processes that tests start would inherit that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_configure(config: pytest.Config) -> None:
    # Exact figures are those of a CPU, so the GPU is hidden except with `-m gpu`.
    if "gpu" not in config.getoption("-m"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


# Small trainings. Their fixtures import what they need, because most tests do without.


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pairs in train/ and two in val/; tests must not change them."""
    from tests.helpers import write_pairs

    folder = tmp_path_factory.mktemp("data")
    write_pairs(folder / "train", 6, 40, 48)
    write_pairs(folder / "val", 2, 40, 48)
    return folder


@pytest.fixture
def settings(tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Settings of a run on ``tiny_data``; registers their network for the test."""
    from tests.runs import tiny_settings
    from tests.tiny_network import register

    register(monkeypatch)
    return tiny_settings(tiny_data)


@pytest.fixture
def own_data(tiny_data: Path, settings: list[str], tmp_path: Path) -> Path:
    """A copy of ``tiny_data`` that the test may change; ``settings`` are changed to use it."""
    for name in ("train", "val"):
        shutil.copytree(tiny_data / name, tmp_path / name)
    settings += ["DATA.TRAIN", f"{tmp_path}/train", "DATA.VAL", f"[[{tmp_path}/val, val]]"]
    return tmp_path


@pytest.fixture
def run_train(settings: list[str], tmp_path: Path) -> Callable[..., Path]:
    """``run_train(*arguments, name="run")`` trains in this process; returns tmp_path/NAME."""
    from tests.runs import train_here

    def run(*arguments: str, name: str = "run") -> Path:
        return train_here(tmp_path, name, *settings, *arguments)

    return run


@pytest.fixture
def run_forked(settings: list[str], tmp_path: Path) -> Callable[..., Any]:
    """``run_forked(num, *arguments, name="run", ...)`` trains in ``num`` forked processes.

    Further options and the return value are those of ``tests.ranks.run_ranks``.
    """
    from tests.ranks import run_ranks

    def run(num: int, *arguments: object, name: str = "run", **options: Any) -> Any:
        where = ["RUN.FOLDER", tmp_path, "RUN.NAME", name]
        return run_ranks(tmp_path / "out", num, *settings, *arguments, *where, **options)

    return run


@pytest.fixture(scope="session")
def finished_runs(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs: ``two`` with two epochs, and ``one``, stopped after its first epoch."""
    from tests.runs import tiny_settings, train_here
    from tests.tiny_network import register

    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        train_here(folder, "one", *tiny_settings(tiny_data), "--stop-after-epoch")
        train_here(folder, "two", *tiny_settings(tiny_data))
    return folder


@pytest.fixture
def one_epoch(finished_runs: Path, tmp_path: Path) -> Path:
    """tmp_path/run: a copy of a run that was stopped after its first epoch."""
    return Path(shutil.copytree(finished_runs / "one", tmp_path / "run"))


@pytest.fixture
def two_epochs(finished_runs: Path, tmp_path: Path) -> Path:
    """tmp_path/run: a copy of a finished run."""
    return Path(shutil.copytree(finished_runs / "two", tmp_path / "run"))
