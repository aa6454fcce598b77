"""DMSR: deraining in the spatial and the frequency domain at three image sizes.

Paper: https://arxiv.org/abs/2503.12014

Map of the network (C = width, n = num_blocks; sizes relative to the input):

    rainy 1    --stem-->  C   --encoder.0-->  skip 1 --------------------------+
                          | down.0                                             |
    rainy 1/2  --embed.0--+merge.0--> 2C --encoder.1--> skip 1/2 -----+        |
                          | down.1                                    |        |
    rainy 1/4  --embed.1--+merge.1--> 4C --encoder.2--> decoder.0     |        |
                                                 | heads.0 -> 1/4     |        |
                                                 up.0 -> reduce_skip.0 -> decoder.1
                                                                 | heads.1 -> 1/2
                                                                 up.1 -> reduce_skip.1
                                                                   -> decoder.2 -> heads.2 -> 1

Every head predicts a residual, which is added to the rainy image of its size. A stage (encoder.i,
decoder.i) is n - 1 residual blocks and one dual-domain block, which concatenates two paths:

* MPSRM, multi-scale progressive spatial refinement: the features pooled by 4, 2 and 1; each copy
  is refined by SPGA (spatial-pixel guided attention) and passed on to the next finer one;
* FDSM, frequency domain scale mixer: depthwise 3x3 and 5x5 convolutions, then a 1x1 convolution
  over the real and imaginary parts of the spectrum.

Differences from the published code:

* ``FDSM.conv_mid`` is in every checkpoint but never used. It does not exist here.
* The last convolution of an embedding has no bias here, since the instance norm after it would
  cancel it.
* The Fourier unit always runs in float32, because FFTs in half precision are missing or limited to
  some sizes. On CUDA it computes what the release computes on a CPU (``inverse_by_axis``).
* ``dmsr_fast.py`` and ``layers_fast.py`` have faster forms with the same values.

Quirks of the release that are kept: SPGA applies a ReLU after a GELU, and it adds two maps that
the paper's figure multiplies.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.fast import replaceable
from models.layers import PixelwiseConv, full_precision
from models.network import DerainingNetwork


@dataclass(frozen=True)
class DMSRConfig:
    """Size of a DMSR: channels of the finest level, blocks in each of the six stages."""

    width: int = 48
    num_blocks: int = 16

    def __post_init__(self) -> None:
        if self.width < 2 or self.width % 2:
            raise ValueError(f"DMSR's width is {self.width}; it must be even and at least 2.")
        if self.num_blocks < 1:
            raise ValueError(f"DMSR's num_blocks is {self.num_blocks}; it must be at least 1.")


VARIANTS = {
    "dmsr": DMSRConfig(),
    # for tests, and for training in minutes on a laptop CPU
    "dmsr_s": DMSRConfig(width=16, num_blocks=2),
}


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution with a bias and zero padding that keeps H and W at stride 1."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2)


def conv_gelu(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """The release's basic convolution: conv, then the exact (erf) GELU."""
    return nn.Sequential(conv(in_channels, out_channels, kernel, stride), nn.GELU())


def pixelwise_gelu(in_channels: int, out_channels: int) -> nn.Sequential:
    """A 1x1 convolution, then GELU."""
    return nn.Sequential(PixelwiseConv(in_channels, out_channels), nn.GELU())


def depthwise(channels: int, kernel: int = 3, bias: bool = True) -> nn.Conv2d:
    """A convolution with one kernel per channel and zero padding that keeps H and W."""
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=bias)


def resize_bilinear(x: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """(B, C, h, w) to the given H and W, bilinear with aligned corners."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class ResidualBlock(nn.Module):
    """x + conv(GELU(depthwise(GELU(conv x)))), (B, C, H, W) kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_in = conv_gelu(channels, channels, 3)
        self.depthwise = depthwise(channels)
        self.conv_out = conv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_out(F.gelu(self.depthwise(self.conv_in(x))))


class PairConv(nn.Conv2d):
    """A 7x7 convolution of each channel together with its guide; both inputs (B, C, H, W), kept.

    The channels of ``x`` and ``guide`` are interleaved (x0, g0, x1, g1, ...) and convolved in C
    groups of two, with reflected borders.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(
            2 * channels, channels, 7, padding=3, padding_mode="reflect", groups=channels
        )

    @replaceable
    def forward(self, x: Tensor, guide: Tensor) -> Tensor:  # type: ignore[override]
        # (B, C, H, W) twice -> (B, C, 2, H, W) -> (B, 2C, H, W)
        return super().forward(torch.stack([x, guide], dim=2).flatten(1, 2))


class SPGA(nn.Module):
    """Spatial-pixel guided attention: a gate per pixel and channel, (B, C, H, W) kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = pixelwise_gelu(channels, channels)
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, padding_mode="reflect")
        self.channel = nn.Sequential(
            PixelwiseConv(channels, channels, bias=False),
            depthwise(channels, bias=False),
            nn.GELU(),
            PixelwiseConv(channels, channels, bias=False),
        )
        self.pixel = PairConv(channels)

    def forward(self, x: Tensor) -> Tensor:
        t = F.relu(self.project(x), inplace=True)  # a ReLU after the GELU, as released
        statistics = torch.cat([t.mean(1, keepdim=True), t.amax(1, keepdim=True)], dim=1)
        guide = self.spatial(statistics) * self.channel(t)  # (B, 1, H, W) * (B, C, H, W)
        return torch.sigmoid(self.pixel(x, guide)) + t  # a sum, as released


class MPSRM(nn.Module):
    """Multi-scale progressive spatial refinement, (B, C, H, W) kept; H and W multiples of 4."""

    POOLS = (4, 2, 1)  # coarse to fine; each branch adds the result of the one before

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in self.POOLS
        )
        self.attentions = nn.ModuleList(SPGA(channels) for _ in self.POOLS)
        self.conv_out = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        total, refined = x, None
        for pool, conv_branch, attention in zip(
            self.POOLS, self.convs, self.attentions, strict=True
        ):
            branch = F.avg_pool2d(x, pool)
            if refined is not None:
                branch = branch + resize_bilinear(refined, branch.shape[-2:])
            refined = attention(conv_branch(branch))
            total = total + resize_bilinear(refined, size)
        return self.conv_out(F.gelu(total))


class FourierUnit(nn.Module):
    """A 1x1 convolution, batch norm and ReLU over the half spectrum, (B, C, H, W) kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = PixelwiseConv(2 * channels, 2 * channels, bias=False)
        self.norm = nn.BatchNorm2d(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[-2], x.shape[-1])
        with full_precision(x):
            x = x.to(self.conv.weight.dtype).contiguous()  # back to float32 under autocast
            spectrum = torch.fft.rfft2(x, norm="ortho")
            # (B, C, H, W/2+1, 2) -> (B, 2C, H, W/2+1), real and imaginary parts interleaved
            parts = torch.view_as_real(spectrum).movedim(-1, 2).flatten(1, 2)
            parts = F.relu(self.norm(self.conv(parts)), inplace=True)
            # (B, 2C, H, W/2+1) -> (B, C, H, W/2+1, 2), the layout of complex numbers
            spectrum = parts.unflatten(1, (-1, 2)).movedim(2, -1).contiguous()
            spectrum = torch.view_as_complex(spectrum)
            if x.device.type == "cuda":
                return inverse_by_axis(spectrum, size)
            return torch.fft.irfft2(spectrum, s=size, norm="ortho")


def inverse_by_axis(spectrum: Tensor, size: tuple[int, int]) -> Tensor:
    """What ``torch.fft.irfft2(spectrum, s=size, norm="ortho")`` returns on a CPU, on any device.

    (B, C, H, W/2+1) to (B, C, H, W). After a ReLU the spectrum is not Hermitian, and FFT libraries
    disagree on the inverse of such a spectrum: with irfft2, DMSR's output on an H200 was 50 dB
    from that on a CPU. The result is unambiguous when the axes are inverted one after the other
    and the imaginary parts that a real row cannot have are set to zero.
    """
    height, width = size
    rows = torch.fft.ifft(spectrum, n=height, dim=-2, norm="ortho")
    is_kept = torch.ones(width // 2 + 1, device=spectrum.device, dtype=rows.real.dtype)
    is_kept[0] = 0
    if width % 2 == 0:
        is_kept[-1] = 0
    rows = torch.complex(rows.real, rows.imag * is_kept)
    return torch.fft.irfft(rows, n=width, dim=-1, norm="ortho")


class FDSM(nn.Module):
    """Frequency domain scale mixer, (B, C, H, W) kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.small_kernel = nn.Sequential(depthwise(half, 3), nn.GELU())
        self.large_kernel = nn.Sequential(depthwise(half, 5), nn.GELU())
        self.fourier = FourierUnit(channels)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)  # (B, C/2, H, W) each
        mixed = torch.cat([self.small_kernel(first), self.large_kernel(second)], dim=1)
        # In this order the sum takes the memory layout of the features.
        return F.relu(self.norm(mixed + self.fourier(mixed)), inplace=True)


class DualDomainBlock(nn.Module):
    """The last block of a stage: a residual block with MPSRM and FDSM inside, (B, C, H, W) kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_in = conv_gelu(channels, channels, 3)
        self.depthwise = depthwise(channels)
        self.spatial = MPSRM(channels)
        self.frequency = FDSM(channels)
        self.conv_out = conv(2 * channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        u = F.gelu(self.depthwise(self.conv_in(x)))
        return x + self.conv_out(torch.cat([self.spatial(u), self.frequency(u)], dim=1))


def stage(channels: int, num_blocks: int) -> nn.Sequential:
    """One level of the encoder or decoder, (B, C, H, W) kept."""
    blocks = [ResidualBlock(channels) for _ in range(num_blocks - 1)]
    return nn.Sequential(*blocks, DualDomainBlock(channels))


def embedding(channels: int) -> nn.Sequential:
    """Features of the rainy image at 1/2 or 1/4 of its size, (B, 3, h, w) to (B, C, h, w)."""
    return nn.Sequential(
        conv_gelu(3, channels // 4, 3),
        pixelwise_gelu(channels // 4, channels // 2),
        conv_gelu(channels // 2, channels // 2, 3),
        # no bias: the instance norm would cancel it
        PixelwiseConv(channels // 2, channels, bias=False),
        nn.InstanceNorm2d(channels, affine=True),
    )


def upsample(in_channels: int, out_channels: int) -> nn.Sequential:
    """(B, in, H, W) to (B, out, 2H, 2W) by a transposed convolution, then GELU."""
    return nn.Sequential(nn.ConvTranspose2d(in_channels, out_channels, 4, 2, padding=1), nn.GELU())


class DMSR(DerainingNetwork):
    """DMSR (module docstring). ``forward`` returns the images at 1, 1/2 and 1/4 of the size."""

    size_multiple = 16  # two halvings in the network, two more in MPSRM
    checkpointed_blocks = (DualDomainBlock,)
    tile_step = 16
    released_window = 128
    # The batch norms of the spectra hold the statistics of training patches. The spectrum of a
    # larger image has others: its constant term grows with the size.
    best_tile = 128
    min_size = 64  # MPSRM's coarsest map must have the 4 pixels that its reflect padding reads

    def __init__(self, config: DMSRConfig) -> None:
        super().__init__()
        self.config = config
        c, n = config.width, config.num_blocks
        fine_to_coarse = (c, 2 * c, 4 * c)
        self.stem = conv_gelu(3, c, 3)
        self.down = nn.ModuleList(conv_gelu(w, 2 * w, 3, stride=2) for w in (c, 2 * c))
        self.embed = nn.ModuleList(embedding(w) for w in (2 * c, 4 * c))
        self.merge = nn.ModuleList(conv(2 * w, w, 3) for w in (2 * c, 4 * c))
        self.encoder = nn.ModuleList(stage(w, n) for w in fine_to_coarse)
        self.decoder = nn.ModuleList(stage(w, n) for w in reversed(fine_to_coarse))
        self.up = nn.ModuleList(upsample(2 * w, w) for w in (2 * c, c))
        self.reduce_skip = nn.ModuleList(pixelwise_gelu(2 * w, w) for w in (2 * c, c))
        self.heads = nn.ModuleList(conv(w, 3, 3) for w in reversed(fine_to_coarse))

    def forward(self, rainy: Tensor) -> tuple[Tensor, ...]:
        images = self._pyramid(rainy)
        features = self._decode(self._encode(images))
        restored = [
            head(x) + image
            for head, x, image in zip(self.heads, features, reversed(images), strict=True)
        ]
        return tuple(reversed(restored))

    @staticmethod
    def _pyramid(rainy: Tensor) -> list[Tensor]:
        """The image and its halvings, which keep the even samples ("nearest")."""
        # Channels last: in NCHW a CPU spends 40% of the network's time on converting the layout of
        # maps for convolutions and back; tensor cores prefer it too.
        rainy = rainy.contiguous(memory_format=torch.channels_last)
        return [rainy, rainy[..., ::2, ::2], rainy[..., ::4, ::4]]

    def _encode(self, images: list[Tensor]) -> list[Tensor]:
        """The encoder's features, fine to coarse."""
        levels = [self.encoder[0](self.stem(images[0]))]
        for down, embed, merge, encoder, image in zip(
            self.down, self.embed, self.merge, self.encoder[1:], images[1:], strict=True
        ):
            x = torch.cat([down(levels[-1]), embed(image)], dim=1)
            levels.append(encoder(merge(x)))
        return levels

    def _decode(self, levels: list[Tensor]) -> list[Tensor]:
        """The decoder's features, coarse to fine, from the encoder's, fine to coarse."""
        features = [self.decoder[0](levels[-1])]
        for up, reduce_skip, decoder, skip in zip(
            self.up, self.reduce_skip, self.decoder[1:], reversed(levels[:-1]), strict=True
        ):
            x = torch.cat([up(features[-1]), skip], dim=1)  # decoder first, skip second
            features.append(decoder(reduce_skip(x)))
        return features
