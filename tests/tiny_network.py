"""A network of two convolutions with everything that training must mind: batch norm and dropout."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from torch import Tensor, nn

from models.network import DerainingNetwork
from models.registry import NETWORKS


@dataclass(frozen=True)
class TinyConfig:
    width: int = 4
    dropout: float = 0.0
    norm: bool = True


class TinyNetwork(DerainingNetwork):
    def __init__(self, cfg: TinyConfig) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, cfg.width, 3, padding=1),
            nn.BatchNorm2d(cfg.width) if cfg.norm else nn.Identity(),
            nn.ReLU(),
            nn.Dropout(cfg.dropout),
            nn.Conv2d(cfg.width, 3, 3, padding=1),
        )

    def forward(self, rainy: Tensor) -> tuple[Tensor, ...]:
        return (rainy - self.body(rainy),)


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it known as ``tiny``, ``tiny_dropout`` and ``tiny_plain``, for one test."""
    configs = {
        "tiny": TinyConfig(),
        "tiny_dropout": TinyConfig(dropout=0.2),
        "tiny_plain": TinyConfig(norm=False),  # a share of a batch has other statistics
    }
    for name, config in configs.items():
        monkeypatch.setitem(NETWORKS, name, (TinyNetwork, config))
