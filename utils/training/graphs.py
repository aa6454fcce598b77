"""A training step's forward, loss and backward as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from utils.errors import UserError

# (rainy, clean), both (B, 3, H, W), to the loss and its parts; leaves gradients in the network.
Compute = Callable[[Tensor, Tensor], dict[str, Tensor]]

WARM_UPS = 3  # runs before the recording, in which libraries choose their kernels


def check_graph(cfg: CfgNode, device: torch.device, world_size: int) -> None:
    """Raise UserError if OPTIM.CUDA_GRAPH is on and not possible."""
    if not cfg.OPTIM.CUDA_GRAPH:
        return
    needs = {
        "needs a CUDA device": device.type != "cuda",
        "works in one process": world_size > 1,
        "does not go with OPTIM.ACCUMULATE": cfg.OPTIM.ACCUMULATE > 1,
    }
    for need, is_missing in needs.items():
        if is_missing:
            raise UserError(f"OPTIM.CUDA_GRAPH {need}; leave it False.")


@dataclass(frozen=True)
class Recording:
    """A recorded graph, and the memory that it reads from and writes to."""

    graph: torch.cuda.CUDAGraph
    rainy: Tensor
    clean: Tensor
    values: dict[str, Tensor]
    gradients: list[Tensor | None]

    def fits(self, rainy: Tensor, clean: Tensor) -> bool:
        """Whether a replay computes what these images need: other kernels serve other kinds."""
        return _kind(self.rainy) == _kind(rainy) and _kind(self.clean) == _kind(clean)


def _kind(images: Tensor) -> tuple[object, ...]:
    return images.shape, images.stride(), images.dtype, images.device


class GraphedCompute:
    """A computation, recorded for images of a new shape, type, layout or device, else replayed.

    A replay launches all kernels of a step at once. Networks with many small ones, such as
    NeRD-Rain, otherwise wait for Python most of the time. Unless ``enabled``, it is a plain call.
    """

    def __init__(self, network: nn.Module, *, enabled: bool) -> None:
        self.network = network
        self.enabled = enabled
        self.recording: Recording | None = None

    def __call__(self, compute: Compute, rainy: Tensor, clean: Tensor) -> dict[str, Tensor]:
        """What ``compute`` returns; valid until the next call, as the gradients are."""
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
        # On a stream of its own: a graph may not wait for work of the default stream.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                compute(rainy, clean)
                self._forget_gradients()
            for buffer, before in buffers:  # the statistics of batch norms count no warm-up
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
