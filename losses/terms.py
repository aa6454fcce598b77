"""Distances between a restored and a clean image, those with which the four releases train.

Every term is a module that maps two (B, C, H, W) tensors in the same range to a scalar. Kernels are
buffers, so that ``criterion.to(device)`` moves them once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class L1(nn.Module):
    """Mean absolute difference."""

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        return F.l1_loss(restored, clean)


class Charbonnier(nn.Module):
    """Mean of sqrt(d^2 + 1e-6), a smooth L1; 1e-6 is the square of the releases' epsilon."""

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        return ((restored - clean).square() + 1e-6).sqrt().mean()


class FftStacked(nn.Module):
    """Mean absolute difference of the real and imaginary parts of the 2-D spectra (DMSR).

    The transform is not normalised; the mean is over both parts.
    """

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        difference = torch.fft.fft2(restored) - torch.fft.fft2(clean)
        return torch.view_as_real(difference).abs().mean()


class FftComplex(nn.Module):
    """Mean modulus of the difference of the 2-D spectra, which are not normalised (NeRD-Rain)."""

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        return (torch.fft.fft2(restored) - torch.fft.fft2(clean)).abs().mean()


class Edge(Charbonnier):
    """Charbonnier distance of the finest levels of Laplacian pyramids (MPRNet, NeRD-Rain)."""

    kernel: Tensor  # (5, 5)

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([0.05, 0.25, 0.4, 0.25, 0.05])
        self.register_buffer("kernel", torch.outer(taps, taps), persistent=False)

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        return super().forward(self._finest_level(restored), self._finest_level(clean))

    def _finest_level(self, image: Tensor) -> Tensor:
        """The image minus its blurred version: even samples of a blur, enlarged by another blur."""
        thinned = torch.zeros_like(image)
        thinned[..., ::2, ::2] = 4 * self._blur(image)[..., ::2, ::2]
        return image - self._blur(thinned)

    def _blur(self, image: Tensor) -> Tensor:
        """A 5x5 blur with replicated borders."""
        return filter_channels(F.pad(image, (2, 2, 2, 2), mode="replicate"), self.kernel)


class Laplacian(Charbonnier):
    """Charbonnier distance of 8-neighbour Laplacians with zero padding (MSPFN's edge loss)."""

    kernel: Tensor  # (3, 3)

    def __init__(self) -> None:
        super().__init__()
        kernel = torch.full((3, 3), -1.0)
        kernel[1, 1] = 8.0
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        edges = (filter_channels(image, self.kernel, padding=1) for image in (restored, clean))
        return super().forward(*edges)


class NegativeSsim(nn.Module):
    """Minus the structural similarity of images in [0, 1] (DCSFN).

    Wang et al. 2004 with an 11x11 Gaussian window of sigma 1.5, zero padding of 5, C1 = 0.01^2 and
    C2 = 0.03^2; the mean is over all pixels and channels.
    """

    window: Tensor  # (11, 11), sums to 1

    def __init__(self) -> None:
        super().__init__()
        offsets = torch.arange(11, dtype=torch.float32) - 5
        taps = torch.exp(-offsets.square() / (2 * 1.5**2))
        taps = taps / taps.sum()
        self.register_buffer("window", torch.outer(taps, taps), persistent=False)

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        mean_x, mean_y = self._local_mean(restored), self._local_mean(clean)
        var_x = self._local_mean(restored.square()) - mean_x.square()
        var_y = self._local_mean(clean.square()) - mean_y.square()
        covariance = self._local_mean(restored * clean) - mean_x * mean_y
        c1, c2 = 0.01**2, 0.03**2
        similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
        similarity = similarity / ((mean_x.square() + mean_y.square() + c1) * (var_x + var_y + c2))
        return -similarity.mean()

    def _local_mean(self, image: Tensor) -> Tensor:
        return filter_channels(image, self.window, padding=5)


def filter_channels(image: Tensor, kernel: Tensor, padding: int = 0) -> Tensor:
    """Correlate every channel of (B, C, H, W) with one (k, k) kernel."""
    channels = image.shape[1]
    weight = kernel.expand(channels, 1, -1, -1)
    return F.conv2d(image, weight, padding=padding, groups=channels)


# The keys of LOSS.TERMS.
TERMS: dict[str, Callable[[], nn.Module]] = {
    "L1": L1,
    "CHARBONNIER": Charbonnier,
    "FFT_STACKED": FftStacked,
    "FFT_COMPLEX": FftComplex,
    "EDGE": Edge,
    "LAPLACIAN": Laplacian,
    "NEGATIVE_SSIM": NegativeSsim,
}
