"""What all tests share: one thread, and markers for what a machine cannot run."""

from __future__ import annotations

import os
import signal

import pytest
import torch

# Small tensors gain nothing from more threads, and sums keep one order: bit-equal on any machine
# and in the scripts that tests start (tests/helpers.py).
torch.set_num_threads(1)


# pytest may run under nohup, and what tests start would inherit that SIGHUP is ignored.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_configure(config: pytest.Config) -> None:
    # Figures that must agree to the last bit are those of a CPU; `-m gpu` alone sees a GPU.
    if "gpu" not in config.getoption("-m"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
