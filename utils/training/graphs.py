"""A training step's forward pass, loss and backward pass as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from utils.errors import UserError

# From (rainy, clean), both (B, 3, H, W), to the loss and its parts; sets the network's gradients.
Compute = Callable[[Tensor, Tensor], dict[str, Tensor]]

WARM_UPS = 3  # runs before the recording, while libraries choose their kernels


def check_graph(cfg: CfgNode, device: torch.device, world_size: int) -> None:
    """Raise UserError if OPTIM.CUDA_GRAPH is on but impossible."""
    if not cfg.OPTIM.CUDA_GRAPH:
        return
    needs = {
        "needs a CUDA device": device.type != "cuda",
        "works in a single process only": world_size > 1,
        "cannot be combined with OPTIM.ACCUMULATE": cfg.OPTIM.ACCUMULATE > 1,
    }
    for need, is_missing in needs.items():
        if is_missing:
            raise UserError(f"OPTIM.CUDA_GRAPH {need}; leave it False.")


@dataclass(frozen=True)
class Recording:
    """A recorded graph and the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    rainy: Tensor
    clean: Tensor
    values: dict[str, Tensor]
    gradients: list[Tensor | None]

    def fits(self, rainy: Tensor, clean: Tensor) -> bool:
        """Whether a replay suits these images: another shape or layout needs other kernels."""
        return _kind(self.rainy) == _kind(rainy) and _kind(self.clean) == _kind(clean)


def _kind(images: Tensor) -> tuple[object, ...]:
    return images.shape, images.stride(), images.dtype, images.device


class GraphedCompute:
    """Records a computation for images of a new shape, type, layout or device; else replays it.

    A replay launches all kernels of a step at once, which removes Python's overhead. Networks with
    many small kernels, such as NeRD-Rain, wait for Python most of the time without it. Unless
    ``enabled``, this is a plain call.
    """

    def __init__(self, network: nn.Module, *, enabled: bool) -> None:
        self.network = network
        self.enabled = enabled
        self.recording: Recording | None = None

    def __call__(self, compute: Compute, rainy: Tensor, clean: Tensor) -> dict[str, Tensor]:
        """The result of ``compute``; valid until the next call, as the gradients are."""
        if not self.enabled:
            return compute(rainy, clean)
        if self.recording is None or not self.recording.fits(rainy, clean):
            self.recording = None  # frees its memory
            self.recording = self._record(compute, rainy, clean)
        recording = self.recording
        recording.rainy.copy_(rainy)
        recording.clean.copy_(clean)
        recording.graph.replay()
        for parameter, gradient in zip(self.network.parameters(), recording.gradients, strict=True):
            parameter.grad = gradient
        return recording.values

    def _record(self, compute: Compute, rainy: Tensor, clean: Tensor) -> Recording:
        rainy, clean = rainy.clone(), clean.clone()
        buffers = [(buffer, buffer.clone()) for buffer in self.network.buffers()]
        # On a separate stream: a graph must not wait for work on the default stream.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                compute(rainy, clean)
                self._forget_gradients()
            for buffer, before in buffers:  # batch norms must not count the warm-ups
                buffer.copy_(before)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            values = compute(rainy, clean)
        gradients = [parameter.grad for parameter in self.network.parameters()]
        self._forget_gradients()
        return Recording(graph, rainy, clean, values, gradients)

    def _forget_gradients(self) -> None:
        for parameter in self.network.parameters():
            parameter.grad = None
