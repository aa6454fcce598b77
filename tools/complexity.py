"""Size, arithmetic and speed of networks, as a table.

    python tools/complexity.py                       # the shipped network, then the published ones
    python tools/complexity.py --networks runs/mine/best.safetensors configs/dmsr_rain13k.yml dmsr
    python tools/complexity.py --networks nerd_rain --options width=16 --size 512 512

release: trained values in the authors' checkpoint and multiply-accumulates of their graph, which
    the papers report.
here: the parameters that the network has in this code, and the multiply-accumulates of its own
    graph. What has no effect in the release does not exist here, and some arithmetic is done on
    fewer pixels. Counted without running, so the device does not matter.
time: the least of several runs; processor time on one thread of a CPU.
memory: what a fresh process needs for the weights and one image.

Multiply-accumulates are those of convolutions and matrix products for one restored image (FFTs,
norms and activations are not counted, as usual). --output FILE.csv writes what evaluate.py --facts
takes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import multiprocessing
import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # the repository's root holds our packages

from configs import load_config
from models import NETWORKS, SHIPPED_WEIGHTS, build_model, load_weights
from models.network import DerainingNetwork
from models.registry import parse_options
from tools.measuring import Timing, disturbed_note, least_seconds, seconds_text
from tools.released_macs import released_macs, released_parameters
from utils.checkpoints import read_weights
from utils.devices import add_device_option, peak_memory
from utils.errors import UserError, run_main
from utils.files import write_text
from utils.inference.tiling import legal_size
from utils.markdown import markdown_table

MIB = 2**20
PUBLISHED = ("dmsr", "nerd_rain", "nerd_rain_s", "nerd_rain_cnn", "dcsfn", "mspfn", "mspfn_n1")


@dataclass(frozen=True)
class Subject:
    """A network to be measured: as it is called, built and, where there is a file, loaded."""

    label: str
    name: str
    options: dict[str, Any]
    weights: Path | None = None


@dataclass(frozen=True)
class Complexity:
    """One line of the table; None is what a release or the system does not tell."""

    subject: Subject
    size: tuple[int, int]  # height and width that were measured
    released_parameters: int | None
    released_macs: int | None
    parameters: int
    macs: int
    timing: Timing
    memory: int | None  # bytes


def add_networks_option(parser: argparse._ActionsContainer) -> None:
    """``--networks``: any of the zoo's, by default the published ones."""
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=list(NETWORKS),
        default=list(PUBLISHED),
        metavar="NAME",
        help="default: the published ones",
    )


def main() -> None:
    args = parse_arguments()
    lines = []
    for what in args.networks:
        subject = find_subject(what, args.options)
        print(f"measuring {subject.label} ...", file=sys.stderr)
        # A process of its own: the memory of one network must not hide that of the next.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            job = process.submit(
                measure, subject, args.size, args.device, args.threads, args.seconds
            )
            lines.append(job.result())
    text = table(lines, args.size, args.device, args.threads)
    print(text)
    if args.output:
        is_csv = args.output.suffix.lower() == ".csv"
        write_text(args.output, facts_csv(lines) if is_csv else text + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--networks",
        nargs="+",
        default=[str(SHIPPED_WEIGHTS), *PUBLISHED],
        metavar="NETWORK",
        help=f"files of weights, recipes (.yml), or names: {', '.join(NETWORKS)}",
    )
    parser.add_argument(
        "--options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="MODEL.OPTIONS of the names given, such as width=32",
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
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the table there too, or a .csv"
    )
    args = parser.parse_args()
    args.size = tuple(args.size)
    if min(*args.size, args.threads) < 1:
        parser.error("--size and --threads must be at least 1")
    args.options = parse_options(args.options)
    return args


def find_subject(what: str, options: dict[str, Any]) -> Subject:
    """A network by a file of weights, a recipe or its name; ``options`` belong to names."""
    path = Path(what)
    if what in NETWORKS:
        label = what + "".join(f" {key}={value}" for key, value in options.items())
        return Subject(label, what, options)
    if path.suffix in (".yml", ".yaml"):
        model = load_config(path).MODEL
        return Subject(path.stem, model.NAME, dict(model.OPTIONS))
    if path.suffix in (".safetensors", ".pth"):
        weights = read_weights(path)
        is_run = path.stem in ("best", "latest")  # runs/NAME/best.safetensors
        label = path.resolve().parent.name if is_run else path.stem
        return Subject(label, weights.model, weights.options, path)
    raise UserError(
        f"{what} is no network; there are {', '.join(NETWORKS)}, files of weights (.safetensors, "
        ".pth) and recipes (.yml)."
    )


def measure(
    subject: Subject, size: tuple[int, int], device: torch.device, threads: int, seconds: float
) -> Complexity:
    """Everything about one network; run in a fresh process."""
    torch.set_num_threads(threads)
    torch.nn.functional.conv2d(torch.zeros(1, 3, 8, 8), torch.zeros(3, 3, 3, 3))  # loads libraries
    before = peak_memory(device)
    if subject.weights:
        network = load_weights(subject.weights)
    else:
        network = build_model(subject.name, subject.options).eval()
    network.to(device)
    height, width = (legal_size(network, side) for side in size)
    rainy = torch.rand(1, 3, height, width, device=device)
    with torch.inference_mode():
        network.restore(rainy)  # allocates, and chooses algorithms
        timing = least_seconds(lambda: network.restore(rainy), device, threads, seconds)
    after = peak_memory(device)
    with torch.device("meta"):
        plain = build_model(subject.name, subject.options).eval()
    macs = released_macs(plain, height, width)
    return Complexity(
        subject,
        (height, width),
        None if macs is None else released_parameters(plain),
        macs,
        sum(parameter.numel() for parameter in plain.parameters()),
        count_macs(plain, (height, width)),
        timing,
        None if before is None or after is None else after - before,
    )


def count_macs(network: DerainingNetwork, size: tuple[int, int]) -> int:
    """Multiply-accumulates of restoring one image of a height and width.

    The network's parameters are on the meta device: nothing is computed, and no faster path for
    some device is taken.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.restore(torch.empty(1, 3, *size, device="meta"))
    return counter.get_total_flops() // 2  # it counts multiplications and additions


def table(
    lines: list[Complexity], size: tuple[int, int], device: torch.device, threads: int
) -> str:
    """The measurements as a Markdown table with a caption."""
    rows = []
    for line in lines:
        name = line.subject.label
        if line.size != size:
            name += f" at {line.size[0]}x{line.size[1]}"
        rows.append(
            [
                name,
                "-" if line.released_parameters is None else f"{line.released_parameters:,}",
                "-" if line.released_macs is None else f"{line.released_macs / 1e9:.1f} G",
                f"{line.parameters:,}",
                f"{line.macs / 1e9:.1f} G",
                seconds_text(line.timing.seconds),
                "-" if line.memory is None else f"{line.memory / MIB:.0f} MiB",
            ]
        )
    heads = ["network", "release: params", "MACs", "here: params", "MACs", "time", "memory"]
    where = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{platform.machine()} CPU, {threads} thread{'s' if threads > 1 else ''}"
    )
    caption = (
        f"One image of {size[0]}x{size[1]} (height x width), float32, {where}, "
        f"PyTorch {torch.__version__}." + disturbed_note([line.timing for line in lines])
    )
    grid = markdown_table(heads, rows)
    return f"{grid}\n\n{caption}"


def facts_csv(lines: list[Complexity]) -> str:
    """What ``evaluate.py --facts`` takes: a paper's figures, the release's where there is one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "parameters", "macs", "seconds", "weights", "sha256"])
    for line in lines:
        weights = line.subject.weights
        writer.writerow(
            [
                line.subject.label,
                line.parameters if line.released_parameters is None else line.released_parameters,
                line.macs if line.released_macs is None else line.released_macs,
                f"{line.timing.seconds:.4g}",
                weights.name if weights else "",
                hashlib.sha256(weights.read_bytes()).hexdigest() if weights else "",
            ]
        )
    return text.getvalue()


if __name__ == "__main__":
    run_main(main)
