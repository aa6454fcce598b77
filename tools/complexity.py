"""Size and speed of the networks on this machine, as a table.

    python tools/complexity.py
    python tools/complexity.py --networks dmsr nerd_rain --size 512 512 --device cuda

Multiply-accumulates are those of convolutions and matrix products for one restored image (FFTs,
norms and activations are not counted, as usual). Memory is what a fresh process needs for the
weights and one image.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # the repository's root holds our packages

from models import NETWORKS, build_model
from models.network import DerainingNetwork
from utils.devices import add_device_option
from utils.errors import run_main
from utils.files import write_text
from utils.inference.tiling import legal_size

MIB = 2**20


@dataclass(frozen=True)
class Complexity:
    """One line of the table; memory is None where the system does not tell it."""

    network: str
    size: tuple[int, int]  # height and width that were measured
    parameters: int
    macs: int
    seconds: float
    memory: int | None  # bytes


def main() -> None:
    args = parse_arguments()
    lines = []
    for name in args.networks:
        print(f"measuring {name} ...", file=sys.stderr)
        # A process of its own: the memory of one network must not hide that of the next.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            job = process.submit(measure, name, args.size, args.device, args.threads, args.seconds)
            lines.append(job.result())
    text = table(lines, args.size, args.device, args.threads)
    print(text)
    if args.output:
        write_text(args.output, text + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), metavar="NAME"
    )
    parser.add_argument(
        "--size", nargs=2, type=int, default=(256, 256), metavar=("HEIGHT", "WIDTH")
    )
    add_device_option(parser)
    parser.add_argument(
        "--threads",
        type=int,
        default=torch.get_num_threads(),
        help="of the CPU (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds", type=float, default=5, help="measure each network for so long (default: 5)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the table there too")
    args = parser.parse_args()
    args.size = tuple(args.size)
    if min(*args.size, args.threads) < 1:
        parser.error("--size and --threads must be at least 1")
    return args


def measure(
    name: str, size: tuple[int, int], device: torch.device, threads: int, seconds: float
) -> Complexity:
    """Everything about one network; run in a fresh process."""
    torch.set_num_threads(threads)
    torch.nn.functional.conv2d(torch.zeros(1, 3, 8, 8), torch.zeros(3, 3, 3, 3))  # loads libraries
    before = peak_memory(device)
    network = build_model(name).eval().to(device)
    height, width = (legal_size(network, side) for side in size)
    rainy = torch.rand(1, 3, height, width, device=device)
    macs = count_macs(network, rainy)  # also the run that allocates and chooses algorithms
    latency = median_seconds(network, rainy, seconds)
    after = peak_memory(device)
    return Complexity(
        name,
        (height, width),
        sum(parameter.numel() for parameter in network.parameters()),
        macs,
        latency,
        None if before is None or after is None else after - before,
    )


def count_macs(network: DerainingNetwork, rainy: Tensor) -> int:
    """Multiply-accumulates of restoring ``rainy``, (B, 3, H, W)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.restore(rainy)
    return counter.get_total_flops() // 2  # it counts multiplications and additions


def median_seconds(network: DerainingNetwork, rainy: Tensor, seconds: float) -> float:
    """Median time of restoring ``rainy``, repeated for so many seconds."""
    times: list[float] = []
    with torch.inference_mode():
        while sum(times) < seconds:
            start = time.perf_counter()
            network.restore(rainy)
            if rainy.device.type == "cuda":
                torch.cuda.synchronize(rainy.device)
            times.append(time.perf_counter() - start)
    return median(times)


def peak_memory(device: torch.device) -> int | None:
    """The most bytes that this process has held so far on the device; None on Windows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def table(
    lines: list[Complexity], size: tuple[int, int], device: torch.device, threads: int
) -> str:
    """The measurements as a Markdown table with a caption."""
    rows = [["Network", "Parameters", "MACs", "Latency", "Peak memory"]]
    for line in lines:
        memory = "-" if line.memory is None else f"{line.memory / MIB:.0f} MiB"
        name = line.network
        if line.size != size:
            name += f" at {line.size[0]}x{line.size[1]}"
        rows.append(
            [
                name,
                f"{line.parameters / 1e6:.3f} M",
                f"{line.macs / 1e9:.1f} G",
                f"{line.seconds * 1e3:.{1 if line.seconds < 0.1 else 0}f} ms",
                memory,
            ]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def pipes(row: list[str]) -> str:
        cells = [
            row[0].ljust(widths[0]),
            *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
        ]
        return "| " + " | ".join(cells) + " |"

    rule = (
        "|" + "-" * (widths[0] + 2) + "|" + "|".join("-" * (w + 1) + ":" for w in widths[1:]) + "|"
    )
    where = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{platform.machine()} CPU, {threads} thread{'s' if threads > 1 else ''}"
    )
    caption = (
        f"One image of {size[0]}x{size[1]} (height x width), float32, {where}, "
        f"PyTorch {torch.__version__}."
    )
    return "\n".join([pipes(rows[0]), rule, *map(pipes, rows[1:]), "", caption])


if __name__ == "__main__":
    run_main(main)
