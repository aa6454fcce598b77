"""Gradient checkpointing takes the same steps, with batch norms of both kinds and compiled."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from utils.errors import UserError
from utils.training.checkpointing import recompute_blocks


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.computed = 0

    def forward(self, x: Tensor) -> Tensor:
        self.computed += 1
        return x + torch.relu(self.norm(self.conv(x)))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), Block(4), Block(4)).train()


def after_two_batches(model: Callable[[Tensor], Tensor], plain: nn.Module) -> dict[str, Tensor]:
    """Gradients and buffers of ``plain``, which ``model`` computes."""
    for seed in (1, 2):
        x = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(seed))
        model(x).square().mean().backward()
    gradients = {name: p.grad for name, p in plain.named_parameters()}
    return gradients | dict(plain.named_buffers())


def is_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize("is_synced", [False, True])
def test_a_batch_counts_once_although_it_passes_twice(is_synced: bool) -> None:
    """Also with SyncBatchNorm, which several GPUs take and which insists on its counter."""
    plain = network()
    expected = after_two_batches(plain, plain)
    recomputed = network()
    if is_synced:
        recomputed = nn.SyncBatchNorm.convert_sync_batchnorm(recomputed)
    recompute_blocks(recomputed, (Block,))
    is_same(after_two_batches(recomputed, recomputed), expected)
    assert recomputed[1].norm.num_batches_tracked == 2 and recomputed[1].norm.momentum == 0.1
    assert [recomputed[1].computed, plain[1].computed] == [4, 2]


def test_compiled_blocks_take_the_same_steps() -> None:
    """By torch.compile's front, without a C++ compiler."""
    plain = network()
    expected = after_two_batches(plain, plain)
    recomputed = network()
    for block in recomputed[1:]:
        del block.computed
        block.forward = lambda x, b=block: x + torch.relu(b.norm(b.conv(x)))
    recompute_blocks(recomputed, (Block,))
    compiled = torch.compile(recomputed, backend="aot_eager", fullgraph=True)
    is_same(after_two_batches(compiled, recomputed), expected)


def test_no_random_numbers_are_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the generator's state is what a CUDA graph forbids; here it is patched to fail."""

    def illegal() -> Tensor:
        raise RuntimeError("operation not permitted when stream is capturing")

    recomputed = network()
    recompute_blocks(recomputed, (Block,))
    monkeypatch.setattr(torch, "get_rng_state", illegal)
    after_two_batches(recomputed, recomputed)


def test_a_copy_made_before_stays_plain() -> None:
    average = network()
    recomputed = copy.deepcopy(average)
    recompute_blocks(recomputed, (Block,))
    average(torch.rand(2, 3, 6, 5)).mean().backward()
    assert average[1].computed == 1


def test_a_network_without_such_blocks_is_refused() -> None:
    with pytest.raises(UserError, match="names no blocks to recompute"):
        recompute_blocks(network(), ())
