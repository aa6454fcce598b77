"""Learning rates over whole schedules against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from configs import default_config
from utils.errors import UserError
from utils.training.schedule import Schedule


def schedule(base: float, epochs: int, total_steps: int, **settings: object) -> Schedule:
    node = default_config().SCHEDULE
    for key, value in settings.items():
        node[key] = value
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=base)
    return Schedule(optimizer, node, epochs, total_steps)


def closed_form(epoch: int, epochs: int, warmup: int, base: float, least: float) -> float:
    if epoch <= warmup:
        return base * epoch / warmup
    angle = math.pi * (epoch - warmup) / (epochs - warmup)
    return least + (base - least) * (1 + math.cos(angle)) / 2


@pytest.mark.parametrize(("epochs", "warmup"), [(300, 3), (12, 3), (5, 1), (10, 0)])
def test_warmup_and_cosine_follow_the_closed_form_in_every_epoch(epochs, warmup) -> None:
    rates = schedule(2e-4, epochs, 0, WARMUP_EPOCHS=warmup)
    for epoch in range(1, epochs + 1):
        for step in range(3):  # constant within an epoch
            expected = closed_form(epoch, epochs, warmup, 2e-4, 1e-6)
            assert rates.set(epoch, 3 * epoch + step) == pytest.approx(expected, rel=1e-9)
    assert rates.set(epochs, 10**6) == pytest.approx(1e-6)  # the release ends above it


def test_warmup_and_cosine_in_figures() -> None:
    """Typed from the formula: a third, two thirds, all of 3e-4; half-way between it and 1e-6."""
    rates = schedule(3e-4, 13, 0, WARMUP_EPOCHS=3)
    found = [rates.set(epoch, 0) for epoch in (1, 2, 3, 8, 13)]
    assert found == pytest.approx([1e-4, 2e-4, 3e-4, 1.505e-4, 1e-6])


def test_multi_step_falls_one_step_after_fractions_of_all_steps() -> None:
    rates = schedule(5e-4, 10, 100, NAME="multi_step")
    for step in range(100):
        drops = (step > 60) + (step > 80)
        assert rates.set(1 + step // 10, step) == pytest.approx(5e-4 * 0.1**drops)


def test_exponential_decays_at_every_step() -> None:
    rates = schedule(5e-4, 10, 0, NAME="exponential", GAMMA=0.8)
    for step in (0, 1, 2, 19_999, 20_000, 123_456):
        assert rates.set(1, step) == pytest.approx(5e-4 * 0.8 ** (step / 20_000) + 1e-6, rel=1e-9)


@pytest.mark.parametrize("name", ["warmup_cosine", "multi_step", "exponential"])
def test_a_resumed_schedule_gives_the_rates_of_an_undisturbed_one(name) -> None:
    straight = schedule(1e-3, 20, 200, NAME=name)
    rates = [straight.set(1 + step // 10, step) for step in range(200)]
    resumed = schedule(1e-3, 20, 200, NAME=name)
    assert [resumed.set(1 + step // 10, step) for step in range(117, 200)] == rates[117:]


def test_impossible_schedules_are_refused() -> None:
    with pytest.raises(UserError, match="warmup_cosine, multi_step or exponential"):
        schedule(1e-3, 20, 200, NAME="linear")
