"""Optimiser steps whose values are read later, so that the device never waits for Python.

A loss or gradient norm that is not finite must not wait for that: the device itself leaves the
weights alone, and the host refuses the step when it reads it, before anything is saved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from utils.training.state import Progress


def steps_ahead(device: torch.device) -> int:
    """How many steps may be unread. On a CPU nothing is left to compute when a step returns."""
    return 0 if device.type == "cpu" else 1


class StepValues(NamedTuple):
    """The values of a step: means over all processes, the same on each of them."""

    values: dict[str, float]  # "loss", its parts, "grad_norm"
    is_stopped: bool  # whether a signal asks any process to stop


@dataclass(frozen=True)
class TakenStep:
    """An optimiser step, queued on the device."""

    number: int  # within the run, counted from 1
    epoch: int
    indices: list[int]  # the pairs that this process saw
    names: tuple[str, ...]
    results: Tensor  # (names + 1,) float64 on the host; the last one counts received signals
    is_copied: torch.cuda.Event | None  # when ``results`` have arrived; None: they have
    gradient_norms: dict[str, Tensor]  # in this process, by parameter; on the device

    @classmethod
    def queue(
        cls,
        progress: Progress,
        indices: list[int],
        names: tuple[str, ...],
        results: Tensor,
        gradient_norms: dict[str, Tensor],
    ) -> TakenStep:
        """The step after ``progress``; starts copying ``results`` from the device to the host."""
        number, epoch = progress.step + 1, progress.epoch
        return cls(number, epoch, indices, names, *to_host(results), gradient_norms)

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"step {self.number} (epoch {self.epoch})"

    def read(self) -> StepValues:
        """Wait for the values."""
        if self.is_copied:
            self.is_copied.synchronize()
        *values, num_stopped = self.results.tolist()
        return StepValues(dict(zip(self.names, values, strict=True)), num_stopped > 0)

    def is_sound(self, values: dict[str, float], *, is_scaled: bool) -> bool:
        """Whether the weights may be trained with the step's ``values``.

        With fp16's scaler (``is_scaled``) gradients overflow now and then; it skips such a step.
        """
        norm = values["grad_norm"]
        losses = (value for name, value in values.items() if name != "grad_norm")
        return all(map(math.isfinite, losses)) and (is_scaled or math.isfinite(norm))


def gradient_norms(network: nn.Module) -> dict[str, Tensor]:
    """The norm () of each parameter's gradient. Stays on the device; nothing waits for it."""
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return dict(zip(gradients, torch._foreach_norm([*gradients.values()]), strict=True))


def join_values(losses: Sequence[dict[str, Tensor]], norm: Tensor, is_stopped: bool) -> Tensor:
    """(losses + 2,): the micro-batches' mean losses, the gradient norm and a stop's 0 or 1."""
    means = torch.stack([torch.stack([*values.values()]) for values in losses]).mean(0)
    stop = torch.full((1,), float(is_stopped), device=norm.device)
    return torch.cat([means, norm.reshape(1), stop])


def to_host(values: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Start copying ``values`` to the host; the event fires when they have arrived (None: now)."""
    if values.device.type != "cuda":
        return values.cpu(), None
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    is_copied = torch.cuda.Event()
    is_copied.record()
    return host, is_copied


def take_guarded_step(
    optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, is_finite: Tensor
) -> None:
    """An optimiser step that leaves weights and moments alone unless ``is_finite``, a bool ().

    The device decides, so the host need not wait: fused optimisers skip a step if ``found_inf`` is
    set, which GradScaler sets in fp16, where it decides itself.
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
