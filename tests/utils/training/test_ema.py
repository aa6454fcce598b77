"""The average of weights and buffers, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from utils.training.ema import ModelEma


def test_weights_and_statistics_are_averaged_and_counters_copied() -> None:
    network = nn.BatchNorm1d(1)
    average = ModelEma(network, 0.9)
    expected_weight, expected_mean = 1.0, 0.0
    for update, value in enumerate((3.0, 5.0, -2.0), start=1):
        with torch.no_grad():
            network.weight.fill_(value)
            network.running_mean.fill_(10 * value)
            network.num_batches_tracked.fill_(update)
        average.update(update)
        decay = min(0.9, update / (update + 9))
        expected_weight = decay * expected_weight + (1 - decay) * value
        expected_mean = decay * expected_mean + (1 - decay) * 10 * value
    assert average.network.weight.item() == pytest.approx(expected_weight)
    assert average.network.running_mean.item() == pytest.approx(expected_mean)
    assert average.network.num_batches_tracked.item() == 3
    assert network.weight.item() == -2.0  # the network in training is left alone


def test_late_updates_use_the_given_decay() -> None:
    network = nn.Linear(1, 1, bias=False)
    average = ModelEma(network, 0.999)
    with torch.no_grad():
        average.network.weight.fill_(0.0)
        network.weight.fill_(1.0)
    average.update(10**6)
    assert average.network.weight.item() == pytest.approx(0.001, rel=1e-3)


def test_without_decay_the_average_is_the_network() -> None:
    network = nn.Linear(1, 1)
    average = ModelEma(network, 0.0)
    average.update(1)
    assert average.network is network
