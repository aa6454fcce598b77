"""Optimiser steps that the device may still be computing while the host queues the next one.

The host reads a step's values one step later, so that the device never waits for Python. A loss or
gradient norm that is not finite cannot wait for that: the device itself leaves the weights alone,
and the host refuses the step when it reads it, before anything is saved.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn


def steps_ahead(device: torch.device) -> int:
    """How many steps may be unread. On a CPU nothing is left to compute when a step returns."""
    return 0 if device.type == "cpu" else 1


class StepValues(NamedTuple):
    """What a step came to: means over all processes, the same on each of them."""

    values: dict[str, float]  # "loss", its parts, "grad_norm"
    is_stopped: bool  # whether a signal asks any process for the end


@dataclass(frozen=True)
class TakenStep:
    """An optimiser step, queued on the device."""

    number: int  # of the run, counted from 1
    epoch: int
    indices: list[int]  # the pairs that this process saw
    names: tuple[str, ...]
    results: Tensor  # (names + 1,) float64 on the host; the last one counts received signals
    gradient_norms: Tensor  # (gradients,) on the device
    has_gradient: list[bool]  # of each parameter
    is_copied: torch.cuda.Event | None  # when ``results`` are there; None: now

    def read(self) -> StepValues:
        """Wait for the values."""
        if self.is_copied:
            self.is_copied.synchronize()
        *values, num_stopped = self.results.tolist()
        return StepValues(dict(zip(self.names, values, strict=True)), num_stopped > 0)

    def is_sound(self, values: dict[str, float], *, is_scaled: bool) -> bool:
        """Whether the step's ``values`` may be trained on.

        With fp16's scaler (``is_scaled``) gradients overflow now and then; it skips such a step.
        """
        norm = values["grad_norm"]
        losses = (value for name, value in values.items() if name != "grad_norm")
        return all(map(math.isfinite, losses)) and (is_scaled or math.isfinite(norm))

    def norms_by_name(self, network: nn.Module) -> dict[str, float]:
        """The norm of each parameter's gradient in this process. Waits for the device."""
        names = (name for name, _ in network.named_parameters())
        norms = self.gradient_norms.tolist()
        return dict(zip(itertools.compress(names, self.has_gradient), norms, strict=True))


def to_host(values: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Start copying ``values`` to the host; the event is when they are there (None: now)."""
    if values.device.type != "cuda":
        return values.cpu(), None
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    is_copied = torch.cuda.Event()
    is_copied.record()
    return host, is_copied


def gradient_norms(parameters: Iterable[nn.Parameter]) -> Tensor:
    """(gradients,): the norm of each gradient. Stays on the device; nothing waits for it."""
    return torch.stack(torch._foreach_norm([p.grad for p in parameters if p.grad is not None]))


def take_guarded_step(
    optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, is_finite: Tensor
) -> None:
    """An optimiser step that leaves weights and moments alone unless ``is_finite``, a bool ().

    The device decides, so the host need not wait: fused optimisers skip a step with ``found_inf``,
    as GradScaler tells them in fp16, where it decides itself.
    """
    if scaler.is_enabled():
        scaler.step(optimizer)
        scaler.update()
        return
    optimizer.found_inf = is_finite.logical_not().float()  # type: ignore[attr-defined]
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf  # type: ignore[attr-defined]
