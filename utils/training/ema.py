"""An exponential moving average of a network's weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


class ModelEma:
    """The averaged copy ``network`` of a network in training; with decay 0 the network itself.

    After update n the average is d * average + (1 - d) * weights with d = min(decay, n / (n + 9)):
    a short memory at first, so that the random start is soon forgotten. Buffers such as a batch
    norm's statistics are averaged too, counters copied.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = network
        if decay:
            self.network = copy.deepcopy(network).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, network: nn.Module, updates: int) -> None:
        """Take in the weights after optimiser step number ``updates``, counted from 1."""
        if not self.decay:
            return
        decay = min(self.decay, updates / (updates + 9))
        current = network.state_dict()
        for name, average in self.network.state_dict().items():
            if average.is_floating_point():
                average.lerp_(current[name], 1 - decay)
            else:
                average.copy_(current[name])
