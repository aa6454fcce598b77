"""Restoring images of any size with a network that has size requirements."""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor


class Network(Protocol):
    """What restoring needs of a network; ``models.network.DerainingNetwork`` offers it."""

    size_multiple: ClassVar[int]
    min_size: ClassVar[int]

    def restore(self, rainy: Tensor) -> Tensor:
        """(B, 3, H, W), RGB in [0, 1], H and W legal, to the restored images of the same shape."""
        ...


def legal_size(network: Network, size: int) -> int:
    """The smallest height or width of at least ``size`` that the network takes."""
    multiple = network.size_multiple
    return -(-max(size, network.min_size) // multiple) * multiple


def reflect_indices(length: int, wanted: int) -> np.ndarray:
    """The indices that continue ``length`` samples to ``wanted`` by reflection, (wanted,) int64.

    The edge sample is not repeated; where one reflection is too short the samples go on to and
    fro, so any length is enough: 3 samples to 8 are 0 1 2 1 0 1 2 1.
    """
    period = max(2 * (length - 1), 1)
    position = np.arange(wanted) % period
    return np.minimum(position, period - position) if length > 1 else position


@torch.inference_mode()
def restore_tensor(network: Network, rainy: Tensor) -> Tensor:
    """Restored images, (B, 3, H, W), of rainy ones of any size from 1 x 1, RGB in [0, 1].

    Pads by reflection at the bottom and the right to what the network takes and crops back. The
    result is not clipped.
    """
    height, width = rainy.shape[-2:]
    rows = reflect_indices(height, legal_size(network, height))
    columns = reflect_indices(width, legal_size(network, width))
    padded = rainy
    if len(rows) != height:
        padded = padded[..., torch.from_numpy(rows).to(rainy.device), :]
    if len(columns) != width:
        padded = padded[..., torch.from_numpy(columns).to(rainy.device)]
    return network.restore(padded)[..., :height, :width]


def restore_image(network: Network, image: np.ndarray) -> np.ndarray:
    """The restored image, (H, W, 3) RGB of the same type, uint8 or uint16."""
    peak = np.iinfo(image.dtype).max
    rainy = torch.from_numpy(image.astype(np.float32) / peak).permute(2, 0, 1)[None]
    restored = restore_tensor(network, rainy)[0].permute(1, 2, 0).numpy()
    return np.rint(np.clip(restored, 0, 1) * peak).astype(image.dtype)
