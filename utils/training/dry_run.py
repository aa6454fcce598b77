"""``train.py --dry-run``: take a few steps of every stage and estimate the whole run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from data.batches import Prefetcher
from utils.console import say
from utils.devices import peak_memory
from utils.training.build import Run

NUM_STEPS = 3  # timed in each stage


def dry_run(run: Run, take_step: Callable[[Run, Prefetcher], object]) -> None:
    """Take a few steps of every stage, write nothing, and print what the whole run would take."""
    plan, seconds = run.state.plan, {}
    run.state.network.train()
    for stage in plan.stages:
        run.loaders.sampler.set_epoch(
            stage.first_epoch, patch=stage.patch, batch_size=stage.batch_size
        )
        micro_batches = Prefetcher(iter(run.loaders.train))
        times = []
        for _ in range(min(1 + NUM_STEPS, plan.steps(stage.first_epoch))):
            started = time.perf_counter()
            take_step(run, micro_batches)
            times.append(time.perf_counter() - started)
        # The first step also starts workers and compiles.
        seconds[stage] = statistics.mean(times[1:] or times)
    if run.processes.is_main:
        say(run.loaders.description)
        num = run.processes.world_size
        say(f"network  {run.cfg.MODEL.NAME} on {run.processes.device}, {num} process(es)")
        say(plan.report(seconds, peak_memory(run.processes.device) / 2**30))
