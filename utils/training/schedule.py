"""The learning rate: warm-up and cosine by epoch, multi-step and exponential by step."""

from __future__ import annotations

import math
import warnings

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from warmup_scheduler import GradualWarmupScheduler
from yacs.config import CfgNode

from utils.errors import UserError

SCHEDULES = ("warmup_cosine", "multi_step", "exponential")


class Schedule:
    """Sets an optimiser's learning rate before each step, as the SCHEDULE settings say.

    The rate depends on the position alone, not on saved state: a resumed run continues it exactly.
    ``optimizer`` has the base rate; ``total_steps`` counts the steps of the whole run.
    """

    def __init__(self, optimizer: Optimizer, node: CfgNode, epochs: int, total_steps: int) -> None:
        self.optimizer = optimizer
        self.by_epoch = node.NAME == "warmup_cosine"
        self.position = 0  # epochs or steps that the scheduler has seen
        if node.NAME == "warmup_cosine":
            self.scheduler = _warmup_cosine(optimizer, node, epochs)
        elif node.NAME == "multi_step":
            milestones = [math.floor(fraction * total_steps) for fraction in node.MILESTONES]
            # One step after the milestone, as in DCSFN's release.
            self.scheduler = LambdaLR(
                optimizer, lambda step: node.GAMMA ** sum(step > m for m in milestones)
            )
        elif node.NAME == "exponential":
            floor = node.LR_MIN / optimizer.param_groups[0]["lr"]
            self.scheduler = LambdaLR(
                optimizer, lambda step: node.GAMMA ** (step / node.DECAY_STEPS) + floor
            )
        else:
            raise UserError(
                f"SCHEDULE.NAME is {node.NAME!r}; it must be warmup_cosine, multi_step or "
                "exponential."
            )

    def set(self, epoch: int, step: int) -> float:
        """Set and return the rate for ``epoch`` (from 1) and ``step`` of the whole run (from 0).

        Positions only grow during a run.
        """
        target = epoch if self.by_epoch else step
        if not self.by_epoch and target > self.position + 1:
            # After a resume: a LambdaLR can skip the steps in between.
            self.position = self.scheduler.last_epoch = target - 1
        with warnings.catch_warnings():
            # PyTorch expects the rate to be set after the optimiser's step; we set it before.
            # warmup-scheduler calls get_lr() of the scheduler that follows the warm-up.
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            warnings.filterwarnings("ignore", "To get the last learning rate")
            while self.position < target:
                self.scheduler.step()
                self.position += 1
        return self.optimizer.param_groups[0]["lr"]


def _warmup_cosine(optimizer: Optimizer, node: CfgNode, epochs: int) -> LRScheduler:
    """lr0 * e / W up to epoch e = W, then a cosine that ends at LR_MIN in the last epoch.

    warmup-scheduler with PyTorch's own cosine exceeds lr0 and ends above LR_MIN, because the two
    multiply their factors; with a cosine in closed form it is exact.
    """
    base = optimizer.param_groups[0]["lr"]
    warmup = node.WARMUP_EPOCHS

    def factor(epoch: int) -> float:
        cosine = (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup))) / 2
        return (node.LR_MIN + (base - node.LR_MIN) * cosine) / base

    if not warmup:
        return LambdaLR(optimizer, factor)
    # The scheduler after the warm-up counts from 0 at epoch W + 1.
    after = LambdaLR(optimizer, lambda count: factor(count + warmup + 1))
    return GradualWarmupScheduler(optimizer, 1.0, warmup, after)
