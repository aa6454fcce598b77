"""The optimiser and PyTorch's backend switches, from the settings."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def set_backends(cfg: CfgNode) -> None:
    """Set TF32, cuDNN's autotuner and determinism as the settings say."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = cfg.OPTIM.TF32
    torch.backends.cudnn.benchmark = not cfg.RUN.DETERMINISTIC
    torch.use_deterministic_algorithms(cfg.RUN.DETERMINISTIC)
    if cfg.RUN.DETERMINISTIC:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS requires it


@contextlib.contextmanager
def autotuner_off() -> Iterator[None]:
    """Turn off cuDNN's autotuner, which would try all kernels for each new image size."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Give each parameter's moments the parameter's memory layout.

    Fused optimisers pair elements by address, so moments from a checkpoint with another setting of
    channels_last would be applied to the wrong weights.
    """
    for parameter, moments in optimizer.state.items():
        for name, moment in moments.items():
            if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(moment)


def build_optimizer(cfg: CfgNode, network: nn.Module) -> torch.optim.Optimizer:
    """The optimiser that the OPTIM settings name.

    Weight decay applies to the weights of convolutions and linear layers only, not to biases, norms
    and other vectors. The fused kernels take a quarter of the time for thousands of small tensors
    on a CPU.
    """
    optim = cfg.OPTIM
    parameters = list(network.parameters())
    groups: list[dict[str, object]] = [{"params": parameters}]
    if optim.WEIGHT_DECAY:
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": optim.WEIGHT_DECAY},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
    kind = OPTIMIZERS[optim.NAME]
    return kind(
        groups, lr=optim.LR, betas=tuple(optim.BETAS), eps=optim.EPS, weight_decay=0.0, fused=True
    )  # type: ignore[call-arg]


def has_batch_norm(network: nn.Module) -> bool:
    """Whether the network keeps running statistics of its batches."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())
