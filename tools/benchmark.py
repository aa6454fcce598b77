"""How fast the networks are here, beside their releases, as a table.

    python tools/benchmark.py --threads 1
    python tools/benchmark.py --networks dmsr --modes float32 bf16 --weights dmsr.safetensors
    python tools/benchmark.py --device cuda --modes float32 bf16 bf16+compile --size 512 512

units: the time as a multiple of a fixed convolution (64 to 64 channels, 3x3, 256 x 256 pixels,
    float32, the same number of threads), measured in processes of its own just before and after.
ratio: the releases' units over these. The releases' code is not here, but their units hold on any
    machine, give or take the 15% that a shared one varies. On CUDA, where no release was measured,
    the time of the plain float32 row over this one's.
peak: the share of the fastest matrix product that PyTorch has here in that precision.
memory: of a fresh process for the weights and one image.
agrees: PSNR between the result and that in float32, with random weights unless --weights is given.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import platform
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the root holds our packages

from models import NETWORKS, build_model, load_weights
from models.network import DerainingNetwork
from tools.complexity import count_macs, peak_memory
from utils.checkpoints import read_weights
from utils.devices import add_device_option
from utils.errors import UserError, run_main
from utils.files import write_text
from utils.inference.memory import keep_freed_memory
from utils.inference.tiling import legal_size

T = TypeVar("T")

# Units of the releases for one 256 x 256 image in float32, by threads (PyTorch 2.13, MSPFN
# TensorFlow 2.15; AMD EPYC with AVX512). A unit has 2.4 G multiply-accumulates.
RELEASE_SIZE = (256, 256)
RELEASE_UNITS = {
    "dmsr": {1: 136, 2: 133},
    "nerd_rain": {1: 350, 2: 342},
    "nerd_rain_s": {1: 161, 2: 205},
    "dcsfn": {1: 160, 2: 189},
    "mspfn_n1": {1: 98, 2: 84},
    "mspfn": {1: 116, 2: 99},
}
MODES = ("float32", "bf16", "float32+compile", "bf16+compile")


@dataclass(frozen=True)
class BenchmarkJob:
    """What one row measures."""

    network: str
    mode: str
    size: tuple[int, int]
    device: str
    threads: int
    seconds: float
    weights: Path | None


@dataclass(frozen=True)
class Measurement:
    """One line of the table; ``memory`` is None where the system does not tell it."""

    job: BenchmarkJob
    seconds: float
    unit: float  # seconds of the unit convolution
    macs: int
    peak: float  # multiply-accumulates a second of the fastest matrix product
    memory: int | None  # bytes
    psnr: float  # dB, against float32; infinite for float32 itself

    @property
    def units(self) -> float:
        return self.seconds / self.unit

    @property
    def share_of_peak(self) -> float:
        return self.macs / self.seconds / self.peak


def main() -> None:
    args = parse_arguments()
    rows = []
    for name in args.networks:
        for mode in args.modes:
            print(f"measuring {name} {mode} ...", file=sys.stderr)
            job = BenchmarkJob(
                name, mode, args.size, args.device, args.threads, args.seconds, args.weights
            )
            before = in_fresh_process(unit_seconds, job)
            row = in_fresh_process(measure, job)
            unit = (before + in_fresh_process(unit_seconds, job)) / 2
            rows.append(dataclasses.replace(row, unit=unit))
    text = table(rows)
    print(text)
    if args.output:
        write_text(args.output, text + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=list(NETWORKS),
        default=list(RELEASE_UNITS),
        metavar="NAME",
        help="default: the published ones",
    )
    parser.add_argument("--weights", type=Path, help="of the one network given")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["float32", "bf16"])
    parser.add_argument(
        "--size", nargs=2, type=int, default=RELEASE_SIZE, metavar=("HEIGHT", "WIDTH")
    )
    add_device_option(parser)
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: 1)")
    parser.add_argument(
        "--seconds", type=float, default=10, help="measure each row for so long (default: 10)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the table there too")
    args = parser.parse_args()
    args.size = tuple(args.size)
    if min(*args.size, args.threads) < 1:
        parser.error("--size and --threads must be at least 1")
    if args.weights and len(args.networks) != 1:
        parser.error("--weights belong to one network; name it with --networks")
    args.device = str(args.device)
    if args.weights:
        model = read_weights(args.weights).model
        if model != args.networks[0]:
            raise UserError(f"{args.weights} holds weights of {model}, not of {args.networks[0]}.")
    return args


def in_fresh_process(function: Callable[[BenchmarkJob], T], job: BenchmarkJob) -> T:
    """``function(job)`` where no earlier measurement has left libraries or memory behind."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, job).result()


def unit_seconds(job: BenchmarkJob) -> float:
    """The median time of the convolution that speeds are told in."""
    torch.set_num_threads(job.threads)
    device = torch.device(job.device)
    x = torch.rand(1, 64, 256, 256, device=device)
    weight = torch.rand(64, 64, 3, 3, device=device)
    with torch.inference_mode():
        times = [seconds_of(lambda: F.conv2d(x, weight, padding=1), device) for _ in range(20)]
    return median(times[1:])


def measure(job: BenchmarkJob) -> Measurement:
    """One row but for its unit."""
    keep_freed_memory()  # as test.py does
    torch.set_num_threads(job.threads)
    device = torch.device(job.device)
    F.conv2d(torch.zeros(1, 1, 8, 8, device=device), torch.zeros(1, 1, 3, 3, device=device))
    before = peak_memory(device)
    network = load_weights(job.weights) if job.weights else build_model(job.network).eval()
    network.to(device)
    torch.manual_seed(0)
    height, width = (legal_size(network, side) for side in job.size)
    rainy = torch.rand(1, 3, height, width, device=device)
    run = runner(network, job.mode, rainy)
    restored = run()
    after = peak_memory(device)

    times: list[float] = []
    while sum(times) < job.seconds or len(times) < 3:
        times.append(seconds_of(run, device))
    with torch.inference_mode():
        error = (network.restore(rainy) - restored.float()).square().mean()
    precision = torch.bfloat16 if job.mode.startswith("bf16") else torch.float32
    return Measurement(
        job,
        median(times),
        float("nan"),
        count_macs(network, rainy),
        fastest_product(precision, device),
        None if before is None or after is None else after - before,
        float(-10 * torch.log10(error)),
    )


def runner(network: DerainingNetwork, mode: str, rainy: Tensor) -> Callable[[], Tensor]:
    """Restoring ``rainy`` once, as test.py does in that mode."""
    precision, _, compiled = mode.partition("+")
    restore = torch.compile(network.restore) if compiled else network.restore

    @torch.inference_mode()
    def run() -> Tensor:
        bf16 = precision == "bf16"
        with torch.autocast(rainy.device.type, torch.bfloat16, enabled=bf16):
            return restore(rainy)

    return run


def fastest_product(dtype: torch.dtype, device: torch.device) -> float:
    """Multiply-accumulates a second of the faster of two products of 2048 x 2048 matrices.

    On CPUs convolutions and matrix products come from different libraries, so one is also done as
    a 1x1 convolution (its dilation changes nothing but the path that PyTorch takes).
    """
    n = 2048
    a, b = torch.rand(2, n, n, device=device).to(dtype)
    pixels = a.T.reshape(1, n, 32, n // 32).contiguous(memory_format=torch.channels_last)
    kernel = b.reshape(n, n, 1, 1).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def product() -> Tensor:
        return a @ b

    @torch.inference_mode()
    def convolution() -> Tensor:
        return F.conv2d(pixels, kernel, dilation=2)

    best = min(min(seconds_of(run, device) for _ in range(4)) for run in (product, convolution))
    return n**3 / best


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def release_ratio(row: Measurement, rows: list[Measurement]) -> float | None:
    """How many times as fast as its release a row is; on CUDA, as the plain float32 row.

    None where there is nothing to compare with.
    """
    job = row.job
    if job.device.startswith("cuda"):
        plain = (r for r in rows if r.job.network == job.network and r.job.mode == "float32")
        return next((other.seconds / row.seconds for other in plain), None)
    units = RELEASE_UNITS.get(job.network, {}).get(job.threads)
    if units is None or job.size != RELEASE_SIZE:
        return None
    return units / row.units


def table(rows: list[Measurement]) -> str:
    """Markdown, with what was measured and where below it."""
    job = rows[0].job
    on_cuda = job.device.startswith("cuda")
    lines = [["network", "mode", "time", "units", "ratio", "peak", "memory", "agrees"]]
    for row in rows:
        ratio = release_ratio(row, rows)
        lines.append(
            [
                row.job.network,
                row.job.mode,
                f"{row.seconds:.2f} s" if row.seconds >= 1 else f"{row.seconds * 1e3:.1f} ms",
                f"{row.units:.1f}",
                "-" if ratio is None else f"{ratio:.2f}",
                f"{row.share_of_peak:.0%}",
                "-" if row.memory is None else f"{row.memory / 2**20:.0f} MiB",
                "equal" if row.psnr == float("inf") else f"{row.psnr:.1f} dB",
            ]
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]

    def pipes(line: list[str]) -> str:
        cells = [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return "| " + " | ".join(cells) + " |"

    rules = ["-" * width if i < 2 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    where = (
        torch.cuda.get_device_name(torch.device(job.device))
        if on_cuda
        else f"{platform.machine()} CPU, {job.threads} thread{'s' if job.threads > 1 else ''}"
    )
    peaks = {row.job.mode.partition("+")[0]: f"{row.peak / 1e9:.0f}" for row in rows}
    caption = (
        f"One image of {job.size[0]}x{job.size[1]} (height x width), {where}, "
        f"PyTorch {torch.__version__}. Unit: {median(r.unit for r in rows) * 1e3:.1f} ms. "
        "Fastest matrix product: "
        + ", ".join(f"{peak} GMAC/s in {precision}" for precision, peak in peaks.items())
        + "."
    )
    caption = textwrap.fill(caption, max(80, len(pipes(rules))))
    return "\n".join([pipes(lines[0]), pipes(rules), *map(pipes, lines[1:]), "", caption])


if __name__ == "__main__":
    run_main(main)
