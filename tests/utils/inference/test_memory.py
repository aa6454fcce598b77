"""Counting the bytes of living tensors."""

from __future__ import annotations

import platform

import pytest
import torch

from utils.inference.memory import keep_freed_memory, peak_tensor_bytes

MIB = 2**20


def test_peak_counts_tensors_that_are_alive_together() -> None:
    def compute() -> None:
        a = torch.zeros(MIB // 4)  # 1 MiB
        b = a + 1
        del a
        c = b.repeat(2)  # b and c: 3 MiB
        del b
        view = c[::2].reshape(2, -1)
        view.add_(1)  # allocates nothing
        del c, view
        torch.zeros(MIB // 4)

    assert peak_tensor_bytes(compute) == 3 * MIB


def test_each_computation_is_traced_separately() -> None:
    kept = []
    assert peak_tensor_bytes(lambda: kept.append(torch.zeros(MIB))) == 4 * MIB
    assert peak_tensor_bytes(lambda: kept.append(torch.zeros(MIB))) == 4 * MIB


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_the_allocator_takes_the_settings() -> None:
    assert keep_freed_memory()
