"""Distances between a restored image and the clean one, as the four releases train with.

Every term takes two (B, C, H, W) tensors in the same range and returns a scalar.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def l1(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute difference."""
    return F.l1_loss(restored, clean)


def charbonnier(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean of sqrt(d^2 + 1e-6): a smooth L1. The releases' epsilon of 1e-3 is squared."""
    return ((restored - clean).square() + 1e-6).sqrt().mean()


def fft_stacked(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute difference of the real and the imaginary parts of the 2-D spectra (DMSR).

    No normalisation of the transform; the mean runs over both parts.
    """
    difference = torch.fft.fft2(restored) - torch.fft.fft2(clean)
    return torch.view_as_real(difference).abs().mean()


def fft_complex(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean modulus of the difference of the 2-D spectra, not normalised (NeRD-Rain)."""
    return (torch.fft.fft2(restored) - torch.fft.fft2(clean)).abs().mean()


def edge(restored: Tensor, clean: Tensor) -> Tensor:
    """Charbonnier distance of the images' finest Laplacian pyramid levels (MPRNet, NeRD-Rain)."""
    return charbonnier(laplacian_level(restored), laplacian_level(clean))


def laplacian_level(image: Tensor) -> Tensor:
    """What an image loses when it is blurred, thinned to even samples and blurred back up."""
    thinned = torch.zeros_like(image)
    thinned[..., ::2, ::2] = 4 * _pyramid_blur(image)[..., ::2, ::2]
    return image - _pyramid_blur(thinned)


def _pyramid_blur(image: Tensor) -> Tensor:
    """Separable 5x5 blur with replicated borders."""
    taps = image.new_tensor([0.05, 0.25, 0.4, 0.25, 0.05])
    return _filter_channels(F.pad(image, (2, 2, 2, 2), mode="replicate"), torch.outer(taps, taps))


def laplacian(restored: Tensor, clean: Tensor) -> Tensor:
    """Charbonnier distance of the 8-neighbour Laplacians with zero padding (MSPFN's edge loss)."""
    kernel = restored.new_full((3, 3), -1.0)
    kernel[1, 1] = 8.0
    return charbonnier(
        _filter_channels(restored, kernel, padding=1), _filter_channels(clean, kernel, padding=1)
    )


def negative_ssim(restored: Tensor, clean: Tensor) -> Tensor:
    """Minus the structural similarity of images in [0, 1] (DCSFN).

    Gaussian window of 11x11, sigma 1.5, zero padding of 5, mean over all pixels and channels;
    Wang et al. 2004 with C1 = 0.01^2 and C2 = 0.03^2.
    """
    offsets = torch.arange(11, device=restored.device, dtype=restored.dtype) - 5
    taps = torch.exp(-offsets.square() / (2 * 1.5**2))
    taps = taps / taps.sum()
    window = torch.outer(taps, taps)

    def local_mean(x: Tensor) -> Tensor:
        return _filter_channels(x, window, padding=5)

    mean_x, mean_y = local_mean(restored), local_mean(clean)
    var_x = local_mean(restored.square()) - mean_x.square()
    var_y = local_mean(clean.square()) - mean_y.square()
    covariance = local_mean(restored * clean) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_x.square() + mean_y.square() + c1) * (var_x + var_y + c2))
    return -similarity.mean()


def _filter_channels(image: Tensor, kernel: Tensor, padding: int = 0) -> Tensor:
    """Correlate every channel of (B, C, H, W) with one (k, k) kernel."""
    channels = image.shape[1]
    weight = kernel.expand(channels, 1, -1, -1)
    return F.conv2d(image, weight, padding=padding, groups=channels)


# The names that a configuration's LOSS.TERMS uses.
TERMS = {
    "L1": l1,
    "CHARBONNIER": charbonnier,
    "FFT_STACKED": fft_stacked,
    "FFT_COMPLEX": fft_complex,
    "EDGE": edge,
    "LAPLACIAN": laplacian,
    "NEGATIVE_SSIM": negative_ssim,
}
