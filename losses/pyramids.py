"""How the clean image is halved for the comparison with a network's smaller outputs.

A pyramid is a module that maps (B, C, H, W) and a number of levels to a list of levels, the image
itself first.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses.terms import filter_channels


class BilinearPyramid(nn.Module):
    """Bilinear resizes of the full image to 1/2, 1/4 .. without antialiasing (DMSR)."""

    def forward(self, clean: Tensor, num_levels: int) -> list[Tensor]:
        height, width = clean.shape[-2:]
        sizes = [(height // 2**i, width // 2**i) for i in range(1, num_levels)]
        return [clean, *(_resize(clean, size) for size in sizes)]


class GaussianPyramid(nn.Module):
    """Each level is the one before, blurred by a 5x5 binomial kernel and halved (NeRD-Rain).

    The blur reflects the borders. Bilinear halving without aligned corners is the mean of 2x2
    pixels.
    """

    kernel: Tensor  # (5, 5), sums to 1

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
        self.register_buffer("kernel", torch.outer(taps, taps), persistent=False)

    def forward(self, clean: Tensor, num_levels: int) -> list[Tensor]:
        pyramid = [clean]
        for _ in range(num_levels - 1):
            padded = F.pad(pyramid[-1], (2, 2, 2, 2), mode="reflect")
            blurred = filter_channels(padded, self.kernel)
            pyramid.append(_resize(blurred, (blurred.shape[-2] // 2, blurred.shape[-1] // 2)))
        return pyramid


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)


# The values of LOSS.PYRAMID.
PYRAMIDS: dict[str, Callable[[], nn.Module]] = {
    "bilinear": BilinearPyramid,
    "gaussian": GaussianPyramid,
}
