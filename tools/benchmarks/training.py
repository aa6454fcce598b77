"""Time, images per second and memory of a training step, as train.py takes it.

    python tools/benchmark.py training --patch 64 --batch 2
    python tools/benchmark.py training --recipes configs/nerd_rain_rain200h.yml \\
        --modes float32 bf16 bf16+compile --device cuda

Each row builds the run of a recipe as train.py does, in a fresh process and on synthetic pairs, and
takes steps: loading, forward, loss, backward, optimiser, averaged weights. --operators adds where
the time goes. To compare two commits, check the other one out beside this one (git worktree add)
and run the two benchmarks in turn.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

import train
from configs import load_config
from data.batches import Prefetcher
from tools.benchmarks import timing
from tools.benchmarks.data import make_pairs
from tools.benchmarks.timing import Timing, in_fresh_process, least_seconds
from utils.devices import peak_memory
from utils.markdown import markdown_table
from utils.training.build import Run, Start, build_run
from utils.training.distributed import Processes
from utils.training.run_folder import RunFolder
from utils.training.stopping import StopSignal

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RECIPES = [
    CONFIGS / f"{name}.yml"
    for name in (
        *("dmsr_rain13k", "nerd_rain_rain200h", "nerd_rain_s_rain200h", "nerd_rain_cnn_rain200h"),
        *("dcsfn_rain100h", "mspfn_rain13k", "mspfn_n1_rain13k"),
    )
]
# What a mode may add to its precision, and the setting that switches it on.
EXTRAS = {
    "tf32": "OPTIM.TF32",
    "channels_last": "OPTIM.CHANNELS_LAST",
    "compile": "OPTIM.COMPILE",
    "graph": "OPTIM.CUDA_GRAPH",
    "checkpointing": "OPTIM.GRADIENT_CHECKPOINTING",
}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    network: str
    mode: str
    patch: int
    images: int  # per step
    timing: Timing
    memory: int  # bytes beyond what the process held before
    operators: str  # the most expensive ones with their shares of the time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--recipes",
        nargs="+",
        type=Path,
        default=RECIPES,
        metavar="FILE.yml",
        help="default: one published recipe for each network",
    )
    timing.add_mode_option(parser, EXTRAS)
    parser.add_argument("--patch", type=timing.positive, help="default: the recipe's")
    parser.add_argument(
        "--batch", type=timing.positive, help="images per micro-batch (default: the recipe's)"
    )
    parser.add_argument(
        "--operators", action="store_true", help="list the most expensive operators"
    )
    timing.add_machine_options(parser, seconds=10)


def run(args: argparse.Namespace) -> str:
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences the profiler's log in each process
    rows = []
    for recipe, mode in itertools.product(args.recipes, args.modes):
        print(f"measuring {recipe.stem} {mode} ...", file=sys.stderr)
        rows.append(in_fresh_process(measure, recipe, mode, args))
    return table(rows, args)


def measure(recipe: Path, mode: str, args: argparse.Namespace) -> Row:
    """One row, in a fresh process."""
    torch.set_num_threads(args.threads)
    before = 0 if args.device.type == "cuda" else peak_memory(args.device)
    with steps_of(recipe, mode, args) as (run_, step):
        step()  # allocates, compiles, records
        measured = least_seconds(step, args.device, args.threads, args.seconds)
        memory = peak_memory(args.device) - before
        operators = largest_operators(step, args.device) if args.operators else ""
        cfg = run_.cfg
        images = cfg.OPTIM.BATCH_SIZE * cfg.OPTIM.ACCUMULATE
        patch = cfg.AUGMENT.PATCH
        return Row(cfg.MODEL.NAME, mode, patch, images, measured, memory, operators)


@contextmanager
def steps_of(
    recipe: Path, mode: str, args: argparse.Namespace
) -> Iterator[tuple[Run, Callable[[], object]]]:
    """The run of a recipe, and a function that takes one step of it."""
    precision, *extras = mode.split("+")
    settings = ["OPTIM.PRECISION", precision, "DATA.WORKERS", "0", "DATA.CACHE", ""]
    for extra in extras:
        settings += [EXTRAS[extra], "True"]
    settings += ["AUGMENT.PATCH", str(args.patch)] if args.patch else []
    settings += ["OPTIM.BATCH_SIZE", str(args.batch)] if args.batch else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        patch = args.patch or load_config(recipe).AUGMENT.PATCH
        make_pairs(folder / "pairs", 8, size=(patch + 32, patch + 32))
        # One endless epoch; nothing is validated, so the same pairs may serve for that.
        settings += ["DATA.TRAIN", str(folder / "pairs"), "DATA.VAL", str(folder / "pairs"),
                     "DATA.LEAKS", "ignore", "DATA.REPEAT", "100000"]  # fmt: skip
        cfg = load_config(recipe, settings)
        processes = Processes(0, 1, args.device)
        start = Start(resume=False, resume_from=None, accept_changed_data=False, dry_run=True)
        with StopSignal(is_main=True) as stop:
            run_ = build_run(cfg, start, RunFolder(folder / "run"), processes, stop)
            run_.loaders.sampler.set_epoch(
                1, patch=cfg.AUGMENT.PATCH, batch_size=cfg.OPTIM.BATCH_SIZE
            )
            micro_batches = Prefetcher(iter(run_.loaders.train))
            run_.state.network.train()

            def step() -> None:
                run_.schedule.set(1, 1)
                train.finish_one_step(run_, micro_batches)
                run_.state.ema.update(1)

            yield run_, step


def largest_operators(step: Callable[[], object], device: torch.device) -> str:
    """The operators that take most of a step, by the device's own time."""
    on_cuda = device.type == "cuda"
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if on_cuda else []
    with torch.profiler.profile(activities=kinds) as profiler:
        step()
    key = "self_device_time_total" if on_cuda else "self_cpu_time_total"
    events = profiler.key_averages()
    total = sum(getattr(event, key) for event in events) or 1
    largest = sorted(events, key=lambda event: -getattr(event, key))[:6]
    return ", ".join(f"{event.key[:48]} {getattr(event, key) / total:.0%}" for event in largest)


def table(rows: Sequence[Row], args: argparse.Namespace) -> str:
    """Markdown, then the machine and the operators."""
    heads = ["network", "mode", "patch", "images", "step", "images/s", "memory"]
    lines = [
        [
            row.network,
            row.mode,
            str(row.patch),
            str(row.images),
            timing.seconds_text(row.timing.seconds),
            f"{row.images / row.timing.seconds:.2f}",
            f"{row.memory / 2**20:.0f} MiB",
        ]
        for row in rows
    ]
    where = timing.machine_text(args.device, args.threads)
    noise = timing.noise_note(row.timing for row in rows)
    parts = [markdown_table(heads, lines, num_left=2), f"Steps of train.py, {where}.{noise}"]
    parts += [f"{row.network} in {row.mode}: {row.operators}" for row in rows if row.operators]
    return "\n\n".join(parts)
