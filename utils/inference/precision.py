"""Which precision restores fastest on a device, by trying it."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import torch

from utils.devices import has_native_bf16
from utils.inference.tiling import Network, legal_size

AUTO_PRECISION = "auto"
PROBE_SIDE = 128  # pixels
PROBE_SECONDS = 0.8
# Below this bf16 is not worth the digits that it costs.
WORTH_IT = 1.2


def fastest_precision(
    network: Network, device: torch.device, notify: Callable[[str], object]
) -> str:
    """``"bf16"`` where the device computes it natively and at least WORTH_IT times as fast as
    float32, measured within about a second; else ``"float32"``. ``notify`` receives the reason.
    """
    if not has_native_bf16(device):
        notify(f"precision: float32, since this {_name(device)} has no native bf16.")
        return "float32"
    speedup = bf16_speedup(network, device)
    if speedup < WORTH_IT:
        notify(f"precision: float32, since bf16 is only {speedup:.2f} times as fast here.")
        return "float32"
    notify(
        f"precision: bf16, which is {speedup:.1f} times as fast as float32 here; --precision "
        "float32 gives the last digits."
    )
    return "bf16"


@torch.inference_mode()
def bf16_speedup(network: Network, device: torch.device) -> float:
    """How many times as fast as in float32 a network restores a small image in bf16.

    The two take turns, so that other work on the machine meets both; the fastest run of each
    counts, after a first one that prepares weights and kernels.
    """
    side = legal_size(network, PROBE_SIDE)
    rainy = torch.rand(1, 3, side, side, device=device)

    def seconds(enabled: bool) -> float:
        _wait_for(device)
        start = perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            network.restore(rainy)
        _wait_for(device)
        return perf_counter() - start

    for enabled in (False, True):
        seconds(enabled)
    float32, bf16 = [seconds(False)], [seconds(True)]
    while sum(float32) + sum(bf16) < PROBE_SECONDS:
        float32.append(seconds(False))
        bf16.append(seconds(True))
    return min(float32) / min(bf16)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _name(device: torch.device) -> str:
    return "processor" if device.type == "cpu" else "GPU"


def faster_hint(device: torch.device, precision: str) -> str:
    """What would restore faster than this device in this precision, in a sentence, else ""."""
    ways = []
    if precision == "float32" and has_native_bf16(device):
        ways.append("--precision bf16")
    if device.type == "cpu":
        ways.append("--device cuda" if torch.cuda.is_available() else "a GPU")
    return f"note: {' or '.join(ways)} is faster." if ways else ""
