"""bf16 where it is native and faster, else float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from utils.devices import has_native_bf16
from utils.inference.precision import bf16_speedup, faster_hint, fastest_precision

CPU = torch.device("cpu")


class Clock:
    """A fake clock and a network that takes given seconds in float32 and in bf16."""

    size_multiple = min_size = tile_step = 1
    released_window = best_tile = None

    def __init__(self, float32: float, bf16: float, first: float = 5) -> None:
        self.seconds = {False: float32, True: bf16}
        self.first = first  # extra seconds for the first run of each
        self.now = 100.0
        self.runs: list[tuple[bool, tuple[int, ...]]] = []

    def restore(self, rainy: Tensor) -> Tensor:
        is_bf16 = torch.is_autocast_enabled("cpu")
        is_first = is_bf16 not in [enabled for enabled, _ in self.runs]
        self.runs.append((is_bf16, tuple(rainy.shape)))
        self.now += self.seconds[is_bf16] + self.first * is_first
        return rainy


def clock(monkeypatch: pytest.MonkeyPatch, float32: float, bf16: float) -> Clock:
    """Patches the clock: with the real one, other work on the machine could decide."""
    network = Clock(float32, bf16)
    monkeypatch.setattr("utils.inference.precision.perf_counter", lambda: network.now)
    return network


def test_the_speedup_is_measured_alternately_for_about_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = clock(monkeypatch, 0.25, 0.125)
    assert bf16_speedup(network, CPU) == 2
    turns = [enabled for enabled, _ in network.runs]
    assert turns == [False, True] * 4  # one to prepare, then 0.375 s until 0.8 are over
    assert {shape for _, shape in network.runs} == {(1, 3, 128, 128)}
    assert bf16_speedup(clock(monkeypatch, 0.5, 2), CPU) == 0.25


@pytest.mark.parametrize(
    ("native", "times", "chosen", "sentence"),
    [
        (True, (0.61, 0.5), "bf16", "precision: bf16, which is "),
        (True, (0.59, 0.5), "float32", "precision: float32, since bf16 is only "),
        (
            False,
            (50, 10),
            "float32",
            "precision: float32, since this processor has no",
        ),
    ],
)
def test_bf16_is_used_where_it_is_native_and_faster(
    monkeypatch: pytest.MonkeyPatch,
    native: bool,
    times: tuple[float, float],
    chosen: str,
    sentence: str,
) -> None:
    """The features of the processor are patched, because no machine has all combinations."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert has_native_bf16(CPU) == native
    messages: list[str] = []
    assert fastest_precision(clock(monkeypatch, *times), CPU, messages.append) == chosen
    (line,) = messages
    assert line.startswith(sentence)


def test_the_faster_precision_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for native, precision, hint in (
        (True, "float32", "note: --precision bf16 or a GPU is faster."),
        (True, "bf16", "note: a GPU is faster."),
        (False, "float32", "note: a GPU is faster."),
    ):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        assert faster_hint(CPU, precision) == hint
