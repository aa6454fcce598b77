"""The learning rate as a function of the position in a run: SCHEDULES, by SCHEDULE.NAME."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch.optim import Optimizer
from yacs.config import CfgNode


@dataclass(frozen=True)
class Position:
    """Where a run is: its epoch (from 1) and its step (from 0), and how many there are."""

    epoch: int
    step: int
    num_epochs: int
    num_steps: int


def warmup_cosine(base: float, node: CfgNode, at: Position) -> float:
    """Rise by epoch to ``base`` in the last warm-up epoch, fall to LR_MIN in the last epoch.

    warmup-scheduler 0.3 in front of PyTorch's cosine, as the releases use them, exceeds ``base``
    and ends above LR_MIN.
    """
    warmup = node.WARMUP_EPOCHS
    if at.epoch <= warmup:
        return base * at.epoch / warmup
    angle = math.pi * (at.epoch - warmup) / (at.num_epochs - warmup)
    return node.LR_MIN + (base - node.LR_MIN) * (1 + math.cos(angle)) / 2


def multi_step(base: float, node: CfgNode, at: Position) -> float:
    """Multiply by GAMMA one step behind each of MILESTONES, as DCSFN's release does."""
    milestones = [math.floor(fraction * at.num_steps) for fraction in node.MILESTONES]
    return base * node.GAMMA ** sum(at.step > milestone for milestone in milestones)


def exponential(base: float, node: CfgNode, at: Position) -> float:
    """Decay by GAMMA per DECAY_STEPS, a little at each step, towards LR_MIN."""
    return base * node.GAMMA ** (at.step / node.DECAY_STEPS) + node.LR_MIN


SCHEDULES: dict[str, Callable[[float, CfgNode, Position], float]] = {
    "warmup_cosine": warmup_cosine,
    "multi_step": multi_step,
    "exponential": exponential,
}


class Schedule:
    """The schedule of one run; without state, so a resumed run continues it exactly."""

    def __init__(self, cfg: CfgNode, num_steps: int) -> None:
        self._cfg = cfg
        self._num_steps = num_steps

    def rate(self, epoch: int, step: int) -> float:
        """The learning rate of ``step`` (from 0, of the whole run) in ``epoch`` (from 1)."""
        at = Position(epoch, step, self._cfg.OPTIM.EPOCHS, self._num_steps)
        return SCHEDULES[self._cfg.SCHEDULE.NAME](self._cfg.OPTIM.LR, self._cfg.SCHEDULE, at)

    def set(self, optimizer: Optimizer, epoch: int, step: int) -> float:
        """Set and return the learning rate of ``step`` in ``epoch``."""
        rate = self.rate(epoch, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        return rate
