"""The work of a run: its epochs' patches, batches and steps, and how long they take."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import accumulate

from yacs.config import CfgNode


@dataclass(frozen=True)
class Stage:
    """Patch side in pixels and batch size (over all processes), from one epoch on."""

    first_epoch: int
    patch: int
    batch_size: int


class RunPlan:
    """The stages of a run; an epoch's incomplete last batch is left out.

    ``num_samples`` counts the samples per epoch.
    """

    def __init__(self, cfg: CfgNode, num_samples: int) -> None:
        self.num_samples = num_samples
        self.epochs: int = cfg.OPTIM.EPOCHS
        first = Stage(1, cfg.AUGMENT.PATCH, cfg.OPTIM.BATCH_SIZE)
        later = [Stage(*stage) for stage in sorted(cfg.AUGMENT.PROGRESSIVE)]
        self._stages = [first, *later]
        pixels = [self._pixels(epoch) for epoch in range(1, self.epochs + 1)]
        self._pixels_before = [0, *accumulate(pixels)]  # of each epoch, counted from 1

    def stage(self, epoch: int) -> Stage:
        """The stage of an epoch."""
        return [stage for stage in self._stages if stage.first_epoch <= epoch][-1]

    @property
    def stages(self) -> list[Stage]:
        """The stages that the run reaches, each with the first epoch that uses it."""
        used = {self.stage(epoch): epoch for epoch in range(self.epochs, 0, -1)}
        return [Stage(epoch, s.patch, s.batch_size) for s, epoch in reversed(used.items())]

    def steps(self, epoch: int) -> int:
        """Optimiser steps of an epoch."""
        return self.num_samples // self.stage(epoch).batch_size

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return sum(self.steps(epoch) for epoch in range(1, self.epochs + 1))

    def pixels_left(self, epoch: int, step_in_epoch: int) -> int:
        """Pixels of the remaining patches, a measure of the remaining work."""
        if epoch > self.epochs:
            return 0
        done = step_in_epoch * self._step_pixels(epoch)
        return self._pixels_before[-1] - self._pixels_before[epoch - 1] - done

    def report(self, seconds: dict[Stage, float], memory: float) -> str:
        """A dry run's result: seconds per step of each stage, and what the whole run takes."""
        lines = [
            f"a step   {stage.batch_size} patches of {stage.patch} x {stage.patch}: {taken:.2f} s"
            + (f" (from epoch {stage.first_epoch})" if len(seconds) > 1 else "")
            for stage, taken in seconds.items()
        ]
        epochs = dict.fromkeys(seconds, 0)
        for epoch in range(1, self.epochs + 1):
            epochs[[s for s in seconds if s.first_epoch <= epoch][-1]] += 1
        total = sum(n * self.steps(s.first_epoch) * seconds[s] for s, n in epochs.items()) / 3600
        lines.append(
            f"the run  {self.epochs} epochs, {self.total_steps:,} steps, {total:.1f} h, "
            "and validation"
        )
        lines.append(f"memory   {memory:.1f} GiB at most in this process")
        return "\n".join(lines)

    def _step_pixels(self, epoch: int) -> int:
        stage = self.stage(epoch)
        return stage.batch_size * stage.patch**2

    def _pixels(self, epoch: int) -> int:
        return self.steps(epoch) * self._step_pixels(epoch)


def is_every(interval: int, number: int, last: int = 0) -> bool:
    """Whether something due every ``interval`` (0: never), last done at ``last``, is due now."""
    return bool(interval) and number > last and number % interval == 0


class Pace:
    """The speed of training: recent images per second and the hours left.

    Only the steps' time counts: after other work, such as validation, ``start`` is called again.
    """

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan
        self._seconds = 0.0
        self._pixels = 0
        self.start()

    def start(self) -> None:
        """Steps begin; the time since the last one does not count."""
        self._mark = self._recent_mark = time.perf_counter()
        self._recent_images = 0

    def count(self, stage: Stage) -> None:
        """Count a finished step."""
        now = time.perf_counter()
        self._seconds += now - self._mark
        self._mark = now
        self._pixels += stage.batch_size * stage.patch**2
        self._recent_images += stage.batch_size

    def images_per_second(self) -> float:
        """Since the last call or the last start, whichever was later."""
        seconds = self._mark - self._recent_mark
        rate = self._recent_images / seconds if seconds else 0.0
        self._recent_mark, self._recent_images = self._mark, 0
        return rate

    def recent(self) -> dict[str, float]:
        """``images_per_second`` for a record; empty without a step since the last one."""
        return {"images_per_second": self.images_per_second()} if self._recent_images else {}

    def hours_left(self, epoch: int, step_in_epoch: int) -> float:
        """Hours for the run's remaining steps at the speed so far, without validation."""
        if not self._pixels:
            return 0.0
        left = self._plan.pixels_left(epoch, step_in_epoch)
        return left * self._seconds / self._pixels / 3600
