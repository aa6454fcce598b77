"""How fast the networks are here, beside their releases, as a table.

    python tools/benchmark.py --threads 1
    python tools/benchmark.py --networks dmsr --modes float32 bf16 --weights dmsr.safetensors
    python tools/benchmark.py --device cuda --modes float32 bf16 bf16+compile --size 512 512

time: the least of several runs; processor time on one thread of a CPU.
units: the time as a multiple of a fixed convolution (64 to 64 channels, 3x3, 256 x 256 pixels,
    float32, the same number of threads), measured in processes of its own just before and after.
ratio: the release's units over these. The releases' code is not here, and their units hold on the
    kind of machine where they were taken alone (tools/references.py): on another one there is
    no ratio. On CUDA, where no release was measured, the time of the plain float32 row over
    this one's.
peak: the share of the fastest matrix product that PyTorch has here in that precision.
memory: of a fresh process for the weights and one image.
agrees: PSNR between the result and that in float32, with random weights unless --weights is given.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import sys
import textwrap
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

from models import build_model, load_weights
from models.network import DerainingNetwork
from tools.complexity import add_networks_option, count_macs
from tools.measuring import Timing, disturbed_note, least_seconds, seconds_text
from tools.references import RELEASE_SIZE, Reference, fitting_reference, machine_kind
from utils.checkpoints import read_weights
from utils.devices import add_device_option, peak_memory
from utils.errors import UserError, run_main
from utils.files import write_text
from utils.inference.memory import keep_freed_memory
from utils.inference.tiling import legal_size
from utils.markdown import markdown_table

T = TypeVar("T")

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
    timing: Timing
    unit: Timing  # of the unit convolution
    macs: int
    peak: float  # multiply-accumulates a second of the fastest matrix product
    memory: int | None  # bytes
    psnr: float  # dB, against float32; infinite for float32 itself

    @property
    def seconds(self) -> float:
        return self.timing.seconds

    @property
    def units(self) -> float:
        return self.seconds / self.unit.seconds

    @property
    def share_of_peak(self) -> float:
        return self.macs / self.seconds / self.peak


def main() -> None:
    args = parse_arguments()
    alone = BenchmarkJob("", "", args.size, args.device, 1, 0, None)
    units = [in_fresh_process(unit_timing, alone)]  # of one thread: they tell the machine
    rows = []
    for name in args.networks:
        for mode in args.modes:
            print(f"measuring {name} {mode} ...", file=sys.stderr)
            job = BenchmarkJob(
                name, mode, args.size, args.device, args.threads, args.seconds, args.weights
            )
            before = in_fresh_process(unit_timing, job)
            row = in_fresh_process(measure, job)
            unit = min(before, in_fresh_process(unit_timing, job))
            rows.append(dataclasses.replace(row, unit=unit))
    units.append(in_fresh_process(unit_timing, alone))
    text = table(rows, fitting_reference(machine_kind(), min(units).seconds))
    print(text)
    if args.output:
        write_text(args.output, text + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_networks_option(parser)
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


def unit_timing(job: BenchmarkJob) -> Timing:
    """The time of the convolution that speeds are told in."""
    torch.set_num_threads(job.threads)
    device = torch.device(job.device)
    x = torch.rand(1, 64, 256, 256, device=device)
    weight = torch.rand(64, 64, 3, 3, device=device)
    with torch.inference_mode():
        return least_seconds(
            lambda: F.conv2d(x, weight, padding=1), device, job.threads, at_least=30
        )


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

    timing = least_seconds(run, device, job.threads, job.seconds)
    with torch.device("meta"):
        plain = build_model(job.network, read_weights(job.weights).options if job.weights else None)
    with torch.inference_mode():
        error = (network.restore(rainy) - restored.float()).square().mean()
    precision = torch.bfloat16 if job.mode.startswith("bf16") else torch.float32
    return Measurement(
        job,
        timing,
        Timing(float("nan"), False),
        count_macs(plain.eval(), (height, width)),
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
    """Multiply-accumulates a second of the faster of two products of large square matrices.

    On CPUs convolutions and matrix products come from different libraries, so one is also done as
    a 1x1 convolution (its dilation changes nothing but the path that PyTorch takes).
    """
    n = 1024 if device.type == "cpu" else 2048  # bf16 takes seconds on CPUs without it
    a, b = torch.rand(2, n, n, device=device).to(dtype)
    pixels = a.T.reshape(1, n, 32, n // 32).contiguous(memory_format=torch.channels_last)
    kernel = b.reshape(n, n, 1, 1).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def product() -> Tensor:
        return a @ b

    @torch.inference_mode()
    def convolution() -> Tensor:
        return F.conv2d(pixels, kernel, dilation=2)

    threads = torch.get_num_threads()
    times = (least_seconds(run, device, threads, at_least=4) for run in (product, convolution))
    return n**3 / min(timing.seconds for timing in times)


def release_ratio(
    row: Measurement, rows: list[Measurement], reference: Reference | None
) -> float | None:
    """How many times as fast as its release a row is; on CUDA, as the plain float32 row.

    None where there is nothing to compare with.
    """
    job = row.job
    if job.device.startswith("cuda"):
        plain = (r for r in rows if r.job.network == job.network and r.job.mode == "float32")
        return next((other.seconds / row.seconds for other in plain), None)
    if reference is None or job.size != RELEASE_SIZE:
        return None
    units = reference.units.get(job.threads, {}).get(job.network)
    return None if units is None else units / row.units


def table(rows: list[Measurement], reference: Reference | None) -> str:
    """Markdown, with what was measured and where below it."""
    job = rows[0].job
    heads = ["network", "mode", "time", "units", "ratio", "peak", "memory", "agrees"]
    lines = []
    for row in rows:
        ratio = release_ratio(row, rows, reference)
        lines.append(
            [
                row.job.network,
                row.job.mode,
                seconds_text(row.seconds),
                f"{row.units:.1f}",
                "-" if ratio is None else f"{ratio:.2f}",
                f"{row.share_of_peak:.0%}",
                "-" if row.memory is None else f"{row.memory / 2**20:.0f} MiB",
                "equal" if row.psnr == float("inf") else f"{row.psnr:.1f} dB",
            ]
        )
    grid = markdown_table(heads, lines, num_left=2)
    peaks = {row.job.mode.partition("+")[0]: f"{row.peak / 1e9:.0f}" for row in rows}
    caption = (
        f"One image of {job.size[0]}x{job.size[1]} (height x width), {where(job)}, "
        f"PyTorch {torch.__version__}. Unit: {median(r.unit.seconds for r in rows) * 1e3:.1f} ms. "
        "Fastest matrix product: "
        + ", ".join(f"{peak} GMAC/s in {precision}" for precision, peak in peaks.items())
        + f". {ratio_note(job, reference)}"
        + disturbed_note([timing for row in rows for timing in (row.timing, row.unit)])
    )
    return f"{grid}\n\n{textwrap.fill(caption, max(80, len(grid.splitlines()[0])))}"


def where(job: BenchmarkJob) -> str:
    if job.device.startswith("cuda"):
        return torch.cuda.get_device_name(torch.device(job.device))
    return f"{machine_kind()}, {job.threads} thread{'s' if job.threads > 1 else ''}"


def ratio_note(job: BenchmarkJob, reference: Reference | None) -> str:
    """What the ratios compare with, or why there are none."""
    if job.device.startswith("cuda"):
        return "Ratio: to the plain float32 row."
    if reference is None:
        return "No ratio: no release was measured on a machine of this kind and speed."
    if job.size != RELEASE_SIZE or job.threads not in reference.units:
        return "No ratio: no release was measured at this size with so many threads."
    return f"Ratio: to the releases on {reference.machine}."


if __name__ == "__main__":
    run_main(main)
