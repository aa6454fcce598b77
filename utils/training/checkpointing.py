"""Gradient checkpointing: blocks store only their inputs and are recomputed for the gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from utils.errors import UserError


def recompute_blocks(network: nn.Module, blocks: tuple[type[nn.Module], ...]) -> None:
    """Make modules of the classes ``blocks`` store only their inputs for the backward pass.

    Everything in between is computed a second time when the gradients need it: the same values for
    less memory and about a third more time. Raises UserError if a network names no blocks.
    """
    if not blocks:
        raise UserError(
            f"{type(network).__name__} names no blocks to recompute (checkpointed_blocks in its "
            "file); leave OPTIM.GRADIENT_CHECKPOINTING False."
        )
    for module in network.modules():
        if isinstance(module, blocks):
            module.forward = Recomputed(module)


class Recomputed:
    """The forward pass of a block that is recomputed in the backward pass."""

    def __init__(self, block: nn.Module) -> None:
        self._forward: Callable[..., Any] = block.forward
        modules = block.modules()
        self._norms = [m for m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    def __call__(self, *inputs: Any) -> Any:
        # No block draws random numbers, and the generator's state must not be read while a CUDA
        # graph is recorded.
        options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
        # torch.compile itself counts a batch once, and cannot trace contexts.
        if self._norms and not torch.compiler.is_compiling():
            options["context_fn"] = self._contexts
        return checkpoint(self._forward, *inputs, **options)

    def _contexts(
        self,
    ) -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
        """The contexts of the first and the second computation."""
        return contextlib.nullcontext(), untracked_statistics(self._norms)


@contextlib.contextmanager
def untracked_statistics(norms: list[nn.modules.batchnorm._BatchNorm]) -> Iterator[None]:
    """Inside, batch norms normalise a batch without updating their running statistics."""
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
            if norm.num_batches_tracked is not None:  # SyncBatchNorm insists on a counter
                norm.num_batches_tracked = norm.num_batches_tracked.clone()
        yield
    finally:
        for norm, (momentum, num_batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, num_batches
