"""Parameters, arithmetic, speed and memory of restoring one image with each network.

    python tools/benchmark.py networks --threads 1 --modes float32 bf16
    python tools/benchmark.py networks --networks runs/mine/best.safetensors configs/mine.yml dmsr
    python tools/benchmark.py networks --networks nerd_rain --options width=16 --size 512 512
    python tools/benchmark.py networks --facts facts.csv       (for evaluate.py --facts)

release: trainable parameters of the authors' checkpoint and multiply-accumulates (MACs) of their
    graph.
here: the same for this code, which leaves out what has no effect and computes some of it on fewer
    pixels. MACs are those of convolutions and matrix products.
units: time as a multiple of a fixed convolution (64 to 64 channels, 3x3, 256 x 256 pixels, float32,
    the same number of threads), measured right after it in the same process.
ratio: the release's units over these, on a machine of the kind on which the releases were measured
    (tools/benchmarks/releases.py). On CUDA, the time of the plain float32 row over this one's.
peak: the speed as a share of the fastest matrix product that PyTorch has here in that precision.
memory: what a fresh process needs for the weights and one image.
agrees: PSNR between the result and that in float32; networks given by name have random weights.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from configs import load_config
from models import NETWORKS, SHIPPED_WEIGHTS, build_model, load_weights
from models.network import DerainingNetwork
from models.registry import parse_options
from tools.benchmarks import timing
from tools.benchmarks.releases import (
    RELEASE_SIZE,
    RELEASES,
    Reference,
    fitting_reference,
    machine_kind,
)
from tools.benchmarks.timing import Timing, in_fresh_process, least_seconds
from utils.checkpoints import read_weights
from utils.devices import PRECISIONS, peak_memory
from utils.errors import UserError
from utils.files import atomic_write
from utils.inference.memory import keep_freed_memory
from utils.inference.tiling import legal_size
from utils.markdown import markdown_table

EXTRAS = ("tf32", "channels_last", "compile")


@dataclass(frozen=True)
class Subject:
    """A network to be measured: its name in tables, how it is built, and its file of weights."""

    label: str
    name: str
    options: dict[str, Any]
    weights: Path | None = None

    def build(self) -> DerainingNetwork:
        """With the weights of the file, or the same random ones at each call."""
        if self.weights:
            return load_weights(self.weights)
        torch.manual_seed(0)
        return build_model(self.name, self.options).eval()

    @property
    def release(self) -> str:
        """The name of the release with these options; "" if there is none."""
        return self.name if self.name in RELEASES and not self.options else ""


@dataclass(frozen=True)
class Row:
    """One line of the tables."""

    subject: Subject
    mode: str
    size: tuple[int, int]  # the smallest that the network takes, at least --size
    parameters: int
    macs: int
    timing: Timing
    peak: float  # multiply-accumulates per second of the fastest matrix product
    memory: int  # bytes
    psnr: float  # dB, against float32; infinite for float32 itself
    unit: Timing

    @property
    def units(self) -> float:
        return self.timing.seconds / self.unit.seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--networks",
        nargs="+",
        default=[str(SHIPPED_WEIGHTS), *RELEASES],
        metavar="NETWORK",
        help=f"files of weights, recipes (.yml), or names: {', '.join(NETWORKS)}",
    )
    parser.add_argument(
        "--options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="MODEL.OPTIONS of networks given by name, such as width=32",
    )
    timing.add_mode_option(parser, EXTRAS)
    parser.add_argument(
        "--size", nargs=2, type=timing.positive, default=RELEASE_SIZE, metavar=("HEIGHT", "WIDTH")
    )
    parser.add_argument(
        "--facts", type=Path, metavar="FILE.csv", help="write the CSV for evaluate.py --facts"
    )
    timing.add_machine_options(parser, seconds=5)


def run(args: argparse.Namespace) -> str:
    options = parse_options(args.options)
    subjects = [find_subject(what, options) for what in args.networks]
    rows = []
    for subject in subjects:
        for mode in args.modes:
            print(f"measuring {subject.label} {mode} ...", file=sys.stderr)
            rows.append(in_fresh_process(measure, subject, mode, args))
    reference = None
    if args.device.type == "cpu":  # a machine is recognised by its unit on one thread
        units = [row.unit for row in rows]
        if args.threads > 1:
            units = [in_fresh_process(unit_timing, args.device, 1)]
        reference = fitting_reference(machine_kind(), min(units).seconds)
    if args.facts:
        atomic_write(args.facts, lambda file: write_facts(rows, file))
    return f"{size_table(rows, args)}\n\n{speed_table(rows, args, reference)}"


def find_subject(what: str, options: dict[str, Any]) -> Subject:
    """A network by its name, with ``options``, or by a recipe or a file of weights."""
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
        f"{what} is not a network; give one of {', '.join(NETWORKS)}, a file of weights "
        "(.safetensors, .pth) or a recipe (.yml)."
    )


def unit_timing(device: torch.device, threads: int) -> Timing:
    """The time of the convolution that speeds are multiples of."""
    x = torch.rand(1, 64, 256, 256, device=device)
    weight = torch.rand(64, 64, 3, 3, device=device)
    with torch.inference_mode():
        return least_seconds(lambda: F.conv2d(x, weight, padding=1), device, threads, seconds=0.5)


def measure(subject: Subject, mode: str, args: argparse.Namespace) -> Row:
    """One row, in a fresh process."""
    keep_freed_memory()  # as test.py does
    torch.set_num_threads(args.threads)
    device = args.device
    # loads the libraries of convolutions, which are not the network's memory
    F.conv2d(torch.zeros(1, 1, 8, 8, device=device), torch.zeros(1, 1, 3, 3, device=device))
    before = peak_memory(device)
    network = subject.build().to(device)
    height, width = (legal_size(network, side) for side in args.size)
    rainy = torch.rand(1, 3, height, width, device=device)
    allow_tf32("tf32" in mode)
    restore = restoring(network, mode)
    restored = restore(rainy)
    memory = peak_memory(device) - before
    measured = least_seconds(lambda: restore(rainy), device, args.threads, args.seconds)
    allow_tf32(False)
    expected = restoring(subject.build().to(device), "float32")(rainy)
    error = (expected - restored.float()).square().mean()
    return Row(
        subject,
        mode,
        (height, width),
        *network_size(subject.name, subject.options, (height, width)),
        measured,
        fastest_product(PRECISIONS[mode.partition("+")[0]], device, args.threads),
        memory,
        float(-10 * torch.log10(error)),
        unit_timing(device, args.threads),
    )


def allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def restoring(network: DerainingNetwork, mode: str) -> Callable[[Tensor], Tensor]:
    """``network.restore`` as test.py calls it in a mode."""
    precision, *extras = mode.split("+")
    dtype = PRECISIONS[precision]
    if "channels_last" in extras:
        network.to(memory_format=torch.channels_last)
    if "compile" in extras:
        network.compile_restoring()

    @torch.inference_mode()
    def restore(rainy: Tensor) -> Tensor:
        with torch.autocast(rainy.device.type, dtype, enabled=dtype != torch.float32):
            return network.restore(rainy)

    return restore


def network_size(name: str, options: Mapping[str, Any], size: tuple[int, int]) -> tuple[int, int]:
    """Parameters, and multiply-accumulates of restoring one image of (height, width)."""
    with torch.device("meta"):
        network = build_model(name, options).eval()
    return sum(parameter.numel() for parameter in network.parameters()), count_macs(network, size)


def count_macs(network: DerainingNetwork, size: tuple[int, int]) -> int:
    """Multiply-accumulates of restoring one image of (height, width).

    The network is on the meta device: nothing is computed, and no faster form replaces a block.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.restore(torch.empty(1, 3, *size, device="meta"))
    return counter.get_total_flops() // 2  # it counts multiplications and additions


def fastest_product(dtype: torch.dtype, device: torch.device, threads: int) -> float:
    """Multiply-accumulates per second of the faster of two products of large square matrices.

    On CPUs, convolutions and matrix products come from different libraries. So the product is also
    computed as a 1x1 convolution; its dilation only selects the path that PyTorch takes.
    """
    n = 1024 if device.type == "cpu" else 2048  # bf16 takes seconds on CPUs that emulate it
    a, b = torch.rand(2, n, n, device=device).to(dtype)
    pixels = a.T.reshape(1, n, 32, n // 32).contiguous(memory_format=torch.channels_last)
    kernel = b.reshape(n, n, 1, 1).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        times = [
            least_seconds(compute, device, threads, seconds=0.2).seconds
            for compute in (lambda: a @ b, lambda: F.conv2d(pixels, kernel, dilation=2))
        ]
    return n**3 / min(times)


def release_ratios(
    rows: Sequence[Row], args: argparse.Namespace, reference: Reference | None
) -> tuple[list[float | None], str]:
    """The speed of each row over that of its release, or on CUDA over the plain float32 row's.

    None for a row without anything to compare with. Then a sentence about them for the caption.
    """
    if args.device.type == "cuda":
        plain = {row.subject.label: row.timing.seconds for row in rows if row.mode == "float32"}
        ratios = [
            plain[row.subject.label] / row.timing.seconds if row.subject.label in plain else None
            for row in rows
        ]
        return ratios, "Ratio: to the plain float32 row."
    if reference is None:
        note = "No ratio: no release was measured on a machine of this kind and speed."
        return [None] * len(rows), note
    if tuple(args.size) != RELEASE_SIZE or args.threads not in reference.units:
        note = "No ratio: no release was measured at this size with so many threads."
        return [None] * len(rows), note
    units = reference.units[args.threads]
    ratios = [
        units[row.subject.release] / row.units if row.subject.release in units else None
        for row in rows
    ]
    return ratios, f"Ratio: to the releases on {reference.machine}."


def size_table(rows: Sequence[Row], args: argparse.Namespace) -> str:
    """Parameters and multiply-accumulates, one line for each network."""
    lines = {}
    for row in rows:
        label = row.subject.label
        if row.size != tuple(args.size):
            label += f" at {row.size[0]}x{row.size[1]}"
        release = RELEASES.get(row.subject.release)
        has_macs = row.size == RELEASE_SIZE
        lines[label] = [
            label,
            f"{release.parameters:,}" if release else "-",
            f"{release.macs / 1e9:.1f} G" if release and has_macs else "-",
            f"{row.parameters:,}",
            f"{row.macs / 1e9:.1f} G",
        ]
    heads = ["network", "release: parameters", "MACs", "here: parameters", "MACs"]
    return markdown_table(heads, list(lines.values()))


def speed_table(rows: Sequence[Row], args: argparse.Namespace, reference: Reference | None) -> str:
    """Time and memory, one line for each network and mode, then the machine."""
    ratios, note = release_ratios(rows, args, reference)
    heads = ["network", "mode", "time", "units", "ratio", "peak", "memory", "agrees"]
    lines = [
        [
            row.subject.label,
            row.mode,
            timing.seconds_text(row.timing.seconds),
            f"{row.units:.1f}",
            "-" if ratio is None else f"{ratio:.2f}",
            f"{row.macs / row.timing.seconds / row.peak:.0%}",
            f"{row.memory / 2**20:.0f} MiB",
            "equal" if row.psnr == float("inf") else f"{row.psnr:.1f} dB",
        ]
        for row, ratio in zip(rows, ratios, strict=True)
    ]
    grid = markdown_table(heads, lines, num_left=2)
    peaks = {row.mode.partition("+")[0]: f"{row.peak / 1e9:.0f}" for row in rows}
    caption = (
        f"One image of {args.size[0]}x{args.size[1]} (height x width), "
        f"{timing.machine_text(args.device, args.threads)}. "
        f"Unit: {min(row.unit for row in rows).seconds * 1e3:.1f} ms. Fastest matrix product: "
        + ", ".join(f"{peak} GMAC/s in {precision}" for precision, peak in peaks.items())
        + f". {note}"
        + timing.noise_note(t for row in rows for t in (row.timing, row.unit))
    )
    return f"{grid}\n\n{textwrap.fill(caption, max(80, len(grid.splitlines()[0])))}"


def write_facts(rows: Sequence[Row], path: Path) -> None:
    """The CSV for ``evaluate.py --facts``, with each network's first mode.

    Networks of a release have its parameters and MACs, as in the papers.
    """
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.subject.label, row)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", "parameters", "macs", "seconds", "weights", "sha256"])
        for label, row in first.items():
            weights, release = row.subject.weights, RELEASES.get(row.subject.release)
            writer.writerow(
                [
                    label,
                    release.parameters if release else row.parameters,
                    int(release.macs) if release and row.size == RELEASE_SIZE else row.macs,
                    f"{row.timing.seconds:.4g}",
                    weights.name if weights else "",
                    hashlib.sha256(weights.read_bytes()).hexdigest() if weights else "",
                ]
            )
