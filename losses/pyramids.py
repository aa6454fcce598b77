"""How the clean image is halved to meet a network's smaller outputs."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bilinear_pyramid(clean: Tensor, levels: int) -> list[Tensor]:
    """Bilinear resizes of the full image by 1, 1/2, 1/4 .., without antialiasing (DMSR)."""
    sizes = [(clean.shape[-2] // 2**i, clean.shape[-1] // 2**i) for i in range(levels)]
    return [clean] + [
        F.interpolate(clean, size=size, mode="bilinear", align_corners=False) for size in sizes[1:]
    ]


def gaussian_pyramid(clean: Tensor, levels: int) -> list[Tensor]:
    """Each level a 5x5 binomial blur (reflected borders) of the one before, halved bilinearly.

    (NeRD-Rain.) Halving without aligned corners takes the mean of 2x2 pixels.
    """
    taps = clean.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    kernel = taps.outer(taps).expand(clean.shape[1], 1, 5, 5)
    pyramid = [clean]
    for _ in range(levels - 1):
        padded = F.pad(pyramid[-1], (2, 2, 2, 2), mode="reflect")
        blurred = F.conv2d(padded, kernel, groups=clean.shape[1])
        size = (blurred.shape[-2] // 2, blurred.shape[-1] // 2)
        pyramid.append(F.interpolate(blurred, size=size, mode="bilinear", align_corners=False))
    return pyramid


PYRAMIDS = {"bilinear": bilinear_pyramid, "gaussian": gaussian_pyramid}
