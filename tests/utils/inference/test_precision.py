"""bf16 where it is native and worth it, else float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from utils.devices import has_native_bf16
from utils.inference.precision import bf16_speedup, faster_hint, fastest_precision

CPU = torch.device("cpu")


class Work:
    """Multiplies matrices: ``float32`` times of them, or ``bf16`` times under autocast."""

    size_multiple = min_size = tile_step = 1
    released_window = best_tile = None

    def __init__(self, float32: int, bf16: int) -> None:
        self.times = {False: float32, True: bf16}
        self.matrix = torch.eye(200, dtype=torch.float64)  # which autocast leaves alone
        self.sizes: set[tuple[int, ...]] = set()

    def restore(self, rainy: Tensor) -> Tensor:
        self.sizes.add(tuple(rainy.shape))
        for _ in range(self.times[torch.is_autocast_enabled("cpu")]):
            self.matrix @ self.matrix
        return rainy


def test_the_speedup_is_measured() -> None:
    network = Work(50, 10)
    assert 2.5 < bf16_speedup(network, CPU) < 12  # 5, but for other work on the machine
    assert network.sizes == {(1, 3, 128, 128)}
    assert 1 / 12 < bf16_speedup(Work(10, 50), CPU) < 1 / 2.5


@pytest.mark.parametrize(
    ("native", "times", "chosen", "sentence"),
    [
        (True, (50, 10), "bf16", "precision: bf16, which is "),
        (True, (20, 20), "float32", "precision: float32, since bf16 is only "),
        (
            False,
            (50, 10),
            "float32",
            "precision: float32, since this processor has no",
        ),
    ],
)
def test_bf16_is_taken_where_it_is_native_and_worth_it(
    monkeypatch: pytest.MonkeyPatch,
    native: bool,
    times: tuple[int, int],
    chosen: str,
    sentence: str,
) -> None:
    """What the processor can do is patched: no machine is all of these."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert has_native_bf16(CPU) == native
    messages: list[str] = []
    assert fastest_precision(Work(*times), CPU, messages.append) == chosen
    (line,) = messages
    assert line.startswith(sentence)


def test_what_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
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
