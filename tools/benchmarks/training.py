"""What a training step takes here: time, images per second and memory, by train.py's own step.

    python tools/benchmark.py training --patch 64 --batch 2
    python tools/benchmark.py training --recipes configs/nerd_rain_rain200h.yml \\
        --modes float32 bf16 bf16+compile --device cuda

Each row builds the run of a recipe as train.py does, on pairs made here, in a process of its own,
and takes steps: loading, forward, loss, backward, optimiser, averaged weights. --operators adds
where the time goes. To compare with another commit, check it out beside this one (git worktree add)
and run its own tools/benchmark.py in turns with this one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

import train
from configs import load_config
from data.datasets import Prefetcher
from tools.benchmarks.data import make_pairs
from tools.benchmarks.releases import machine_kind
from tools.benchmarks.timing import (
    Timing,
    add_machine_options,
    checked_mode,
    in_fresh_process,
    least_seconds,
    machine_text,
    noise_note,
    seconds_text,
)
from utils.devices import PRECISIONS, peak_memory
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
# What a mode may have on besides its precision, by the setting that it switches on.
EXTRAS = {
    "tf32": "OPTIM.TF32",
    "channels_last": "OPTIM.CHANNELS_LAST",
    "compile": "OPTIM.COMPILE",
    "graph": "OPTIM.CUDA_GRAPH",
    "checkpointing": "OPTIM.GRADIENT_CHECKPOINTING",
}


@dataclass(frozen=True)
class Job:
    """What one row measures; None: the recipe's own."""

    recipe: Path
    mode: str
    patch: int | None
    batch: int | None
    device: torch.device
    threads: int
    seconds: float
    operators: bool = False


@dataclass(frozen=True)
class Row:
    """One line of the table; memory in bytes, of the process beyond what it had before."""

    job: Job
    network: str
    patch: int
    images: int  # of a step
    timing: Timing
    memory: int
    operators: str  # the largest ones with their shares of the time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--recipes", nargs="+", type=Path, default=RECIPES, metavar="FILE.yml",
        help="default: one published recipe for each network",
    )  # fmt: skip
    parser.add_argument(
        "--modes",
        nargs="+",
        type=partial(checked_mode, extras=EXTRAS),
        default=["float32"],
        metavar="MODE",
        help=f"{', '.join(PRECISIONS)}, with +{', +'.join(EXTRAS)} (default: float32)",
    )
    parser.add_argument("--patch", type=int, help="default: the recipe's")
    parser.add_argument("--batch", type=int, help="images per micro-batch (default: the recipe's)")
    parser.add_argument(
        "--operators", action="store_true", help="list the operators that take most of the time"
    )
    add_machine_options(parser, seconds=10)


def run(args: argparse.Namespace) -> str:
    jobs = [
        Job(recipe, mode, args.patch, args.batch, args.device, args.threads, args.seconds,
            args.operators)
        for recipe in args.recipes for mode in args.modes
    ]  # fmt: skip
    rows = []
    for job in jobs:
        print(f"measuring {job.recipe.stem} {job.mode} ...", file=sys.stderr)
        rows.append(in_fresh_process(measure, job))
    return table(rows)


def measure(job: Job) -> Row:
    """One row, in a fresh process."""
    torch.set_num_threads(job.threads)
    before = peak_memory(job.device)
    with steps_of(job) as (run_, step):
        step()  # allocates, compiles, records
        timing = least_seconds(step, job.device, job.threads, job.seconds)
        memory = peak_memory(job.device) - (0 if job.device.type == "cuda" else before)
        operators = largest_operators(step, job.device) if job.operators else ""
        cfg = run_.cfg
        images = cfg.OPTIM.BATCH_SIZE * cfg.OPTIM.ACCUMULATE
        return Row(job, cfg.MODEL.NAME, cfg.AUGMENT.PATCH, images, timing, memory, operators)


@contextmanager
def steps_of(job: Job) -> Iterator[tuple[Run, Callable[[], object]]]:
    """The run of a job's recipe, and a function that takes one step of it."""
    precision, *extras = job.mode.split("+")
    settings = ["OPTIM.PRECISION", precision, "DATA.WORKERS", "0", "DATA.CACHE", ""]
    for extra in extras:
        settings += [EXTRAS[extra], "True"]
    settings += ["AUGMENT.PATCH", str(job.patch)] if job.patch else []
    settings += ["OPTIM.BATCH_SIZE", str(job.batch)] if job.batch else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        patch = job.patch or load_config(job.recipe).AUGMENT.PATCH
        make_pairs(folder / "pairs", 8, "png", (patch + 32, patch + 32))
        # one epoch that is never ended
        settings += ["DATA.TRAIN", str(folder / "pairs"), "DATA.VAL", str(folder / "pairs"),
                     "DATA.REPEAT", "100000"]  # fmt: skip
        cfg = load_config(job.recipe, settings)
        processes = Processes(0, 1, job.device)
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
    """The operators that take most of a step, on the device's clock."""
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


def table(rows: Sequence[Row]) -> str:
    """Markdown, with where it was measured below it."""
    heads = ["network", "mode", "patch", "images", "step", "images/s", "memory"]
    lines = [
        [
            row.network,
            row.job.mode,
            str(row.patch),
            str(row.images),
            seconds_text(row.timing.seconds),
            f"{row.images / row.timing.seconds:.2f}",
            f"{row.memory / 2**20:.0f} MiB",
        ]
        for row in rows
    ]
    job = rows[0].job
    where = machine_text(job.device, job.threads, machine_kind())
    parts = [markdown_table(heads, lines, num_left=2)]
    parts.append(f"Steps of train.py, {where}." + noise_note([row.timing for row in rows]))
    parts += [f"{row.network} in {row.job.mode}: {row.operators}" for row in rows if row.operators]
    return "\n\n".join(parts)
