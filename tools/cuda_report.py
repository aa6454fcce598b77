"""All that there is to know of a GPU in one command: python tools/cuda_report.py [--output FILE]

Runs the tests marked gpu (training of all networks in three precisions, resume, SyncBatchNorm on
two processes, golden outputs), then measures every network in every mode and prints one table:

restore: one 256 x 256 image, the median.
agrees: PSNR between its result and that of the CPU in float32, with random weights.
step, images/s: a training step (forward, the recipe's loss, backward, fused Adam) on the recipe's
    patches and batch; memory: the most that tensors took in it.

A mode's graph is that of OPTIM.CUDA_GRAPH, its compile that of OPTIM.COMPILE and test.py --compile.
Rows are printed as they come. Below the table stands where the time of a training step goes.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the root holds our packages

from configs import load_config
from losses import build_criterion
from models import build_model
from utils.devices import PRECISIONS, add_device_option
from utils.errors import UserError, run_main
from utils.files import write_text
from utils.training.graphs import GraphedCompute
from utils.training.optim import build_optimizer

ROOT = Path(__file__).resolve().parents[1]
SIZE = 256

# Network -> the recipe whose loss, patch and batch its training step takes.
RECIPES = {
    "dmsr": "dmsr_rain13k",
    "nerd_rain": "nerd_rain_rain200h",
    "nerd_rain_s": "nerd_rain_s_rain200h",
    "dcsfn": "dcsfn_rain100h",
    "mspfn_n1": "mspfn_n1_rain13k",
    "mspfn": "mspfn_rain13k",
}
# Precision, then what is on besides it.
MODES = (
    "float32",
    "float32+tf32",
    "float32+tf32+compile",
    "bf16",
    "bf16+channels_last",
    "bf16+compile",
    "bf16+graph",
    "fp16",
)


@dataclass(frozen=True)
class Row:
    """One network in one mode; seconds, dB and bytes."""

    network: str
    mode: str
    restore: float
    psnr: float
    step: float
    batch: int
    memory: int


def main() -> None:
    args = parse_arguments()
    device: torch.device = args.device
    if device.type != "cuda" and not args.without_tests:
        raise UserError("PyTorch finds no CUDA device here; --without-tests measures the CPU.")
    tests = "" if args.without_tests else run_tests()
    rows = []
    for network in args.networks:
        rainy, expected = reference(network)
        for mode in args.modes:
            rows.append(measure(network, mode, rainy, expected, device, args.seconds))
            print(table(rows).splitlines()[-1], file=sys.stderr)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    where = f"{name}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}"
    parts = [tests, table(rows), where, *(profile(n, device) for n in args.networks)]
    text = "\n\n".join(part for part in parts if part)
    print(text)
    if args.output:
        write_text(args.output, text + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--seconds", type=float, default=3, help="for each figure (default: 3)")
    parser.add_argument("--without-tests", action="store_true", help="measure only")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write it all there too")
    add_device_option(parser)
    return parser.parse_args()


def run_tests() -> str:
    """The last line of pytest, and each failed test; all lines go to stderr as they come."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-v",
        "--tb=short",
        "tests/test_cuda.py",
    ]
    lines = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as tests:
        for line in tests.stdout or ():
            print(line, end="", file=sys.stderr, flush=True)
            lines.append(line.rstrip())
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return "\n".join(["Tests on the GPU:", *failed, *lines[-1:]])


def reference(name: str) -> tuple[Tensor, Tensor]:
    """An image and its restored one, (1, 3, SIZE, SIZE), by the network of seed 0 on the CPU."""
    torch.manual_seed(0)
    network, rainy = build_model(name).eval(), torch.rand(1, 3, SIZE, SIZE)
    with torch.inference_mode():
        return rainy, network.restore(rainy)


def measure(
    name: str, mode: str, rainy: Tensor, expected: Tensor, device: torch.device, seconds: float
) -> Row:
    """One row of the table."""
    torch.manual_seed(0)
    network = build_model(name).eval()
    with switches(mode) as (dtype, is_compiled, layout):
        network.to(device).to(memory_format=layout)
        on_device = rainy.to(device, memory_format=layout)
        restore = torch.compile(network.restore) if is_compiled else network.restore

        @torch.inference_mode()
        def run() -> Tensor:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                return restore(on_device)

        error = (run().float().cpu() - expected).square().mean()
        psnr = float(-10 * torch.log10(error)) if error > 0 else float("inf")
        restoring = median_seconds(run, device, seconds)
        step, batch = training_step(
            name, dtype, is_compiled, layout, device, is_graph="graph" in mode.split("+")
        )
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        stepping = median_seconds(step, device, seconds)
        memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return Row(name, mode, restoring, psnr, stepping, batch, memory)


@contextlib.contextmanager
def switches(mode: str) -> Iterator[tuple[torch.dtype, bool, torch.memory_format]]:
    """Precision, whether to compile, and layout of a mode; TF32 is on inside where it says so."""
    precision, *extras = mode.split("+")
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = "tf32" in extras
    torch.backends.cudnn.benchmark = True
    layout = torch.channels_last if "channels_last" in extras else torch.preserve_format
    try:
        yield PRECISIONS[precision], "compile" in extras, layout
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def training_step(
    name: str,
    dtype: torch.dtype,
    is_compiled: bool,
    layout: torch.memory_format,
    device: torch.device,
    *,
    is_graph: bool = False,
) -> tuple[Callable[[], None], int]:
    """A step of the network's recipe, and its batch size."""
    cfg = load_config(ROOT / "configs" / f"{RECIPES[name]}.yml")
    network = build_model(name).train().to(device).to(memory_format=layout)
    if is_compiled:
        network.compile_for_training()
    criterion = build_criterion(cfg.LOSS, network.implicit_outputs).cuda()
    optimizer = build_optimizer(cfg, network)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    patch, batch = cfg.AUGMENT.PATCH, cfg.OPTIM.BATCH_SIZE
    rainy, clean = torch.rand(2, batch, 3, patch, patch).to(device).unbind()
    rainy = rainy.contiguous(memory_format=layout)

    def compute(rainy: Tensor, clean: Tensor) -> dict[str, Tensor]:
        is_half = dtype != torch.float32
        with torch.autocast(device.type, dtype, is_half, cache_enabled=not is_graph):
            outputs = network(rainy)
        loss, _ = criterion(outputs, clean)
        scaler.scale(loss).backward()
        return {"loss": loss.detach()}

    graphs = GraphedCompute(network, enabled=is_graph)

    def step() -> None:
        graphs(compute, rainy, clean)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    return step, batch


def median_seconds(run: Callable[[], object], device: torch.device, seconds: float) -> float:
    """The median time of one call, after two that set things up."""
    times: list[float] = []
    while len(times) < 5 or sum(times) < seconds:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return median(times[2:])


def profile(name: str, device: torch.device) -> str:
    """The operators that take most of a training step in bf16, on the device's clock."""
    step, _ = training_step(name, torch.bfloat16, False, torch.preserve_format, device)
    step()
    on_cuda = device.type == "cuda"
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if on_cuda else []
    with torch.profiler.profile(activities=kinds) as profiler:
        step()
    key = "self_device_time_total" if on_cuda else "self_cpu_time_total"
    events = profiler.key_averages()
    total = sum(getattr(event, key) for event in events) or 1
    largest = sorted(events, key=lambda event: -getattr(event, key))[:6]
    shares = ", ".join(f"{event.key[:48]} {getattr(event, key) / total:.0%}" for event in largest)
    return f"{name}, a training step in bf16: {shares}"


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        "| network | mode | restore | agrees | step | images/s | memory |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row.network} | {row.mode} | {row.restore * 1e3:.1f} ms | {row.psnr:.1f} dB "
        f"| {row.step * 1e3:.1f} ms | {row.batch / row.step:.1f} | {row.memory / 2**30:.2f} GiB |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run_main(main)
