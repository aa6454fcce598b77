"""An exponential moving average of a network's weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


class ModelEma(Generic[Network]):
    """The averaged copy ``network`` of a network in training; with decay 0 the network itself.

    Update n computes d * average + (1 - d) * weights with d = min(decay, n / (n + 9)), which soon
    forgets the random start; PyTorch's AveragedModel has no such warm-up. Buffers such as a batch
    norm's statistics are averaged too; counters are copied.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.decay = decay
        self.network = network
        if decay:
            self.network = copy.deepcopy(network).requires_grad_(False).eval()
        current, averages = network.state_dict(), self.network.state_dict()
        floats = [name for name, value in averages.items() if value.is_floating_point()]
        counters = [name for name in averages if name not in set(floats)]
        self._floats = [averages[name] for name in floats], [current[name] for name in floats]
        self._counters = [(averages[name], current[name]) for name in counters]

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Average in the weights after optimiser step number ``updates``, counted from 1."""
        if not self.decay:
            return
        decay = min(self.decay, updates / (updates + 9))
        torch._foreach_lerp_(*self._floats, 1 - decay)  # as torch.optim.swa_utils does
        for average, current in self._counters:
            average.copy_(current)
