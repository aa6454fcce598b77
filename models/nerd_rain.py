"""NeRD-Rain: bidirectional multi-scale Transformers with implicit neural representations.

Paper: https://arxiv.org/abs/2404.01547

Map of the network (C = width; U is a whole U-Net with levels C, 2C, 4C; its latent, the coarsest
level, has a quarter of the scale's height and width):

    scale  coarse to fine           chained U-Nets; from their latents fine to coarse    out
     1/4   x4                   -> U: s1, decode s1 + F(m1, m2)                        -> f_s
                 INR: guess from s1                                                        |
     1/2   x2 + up(guess)       -> U: m1, decode m1 + F(M1, M2)                            v
                                -> U: m2, decode m2 + F(M2, M3)                        -> f_m
                 INR: guess from m1                                                        |
      1    x + up(guess)        -> U: M1, decode -> U: M2, decode -> U: M3, decode         v
                                                                                       -> f_M

* x, x2, x4: the rainy image at 1, 1/2 and 1/4 of its size. Coarse to fine, an implicit neural
  representation (INR) of the first latent guesses a residual of the scale's input; the sum,
  enlarged, is added to the rainy image of the next finer scale.
* Fine to coarse, the latents of neighbouring passes of one scale are fused (F, which halves H and
  W) and added to a latent of the next coarser scale.
* In the end the features f are added coarse to fine, enlarged, and a 3x3 convolution of each
  gives the residual of the rainy image of its size.

A Transformer block is x + MDTA(norm x), then x + GDFN(norm x), with, as in Restormer,

    MDTA, multi-Dconv head transposed attention: 1x1 (softmax(temperature * q k^T) v) over the
        channels of each head, with q, k, v = depthwise 3x3 (1x1 x), q and k of unit length over
        the pixels
    GDFN, gated-Dconv feed-forward network: 1x1 (gelu(a) * b) with a, b = depthwise 3x3 (1x1 x)

Differences from the published code (none changes a value beyond float rounding):

* The INR unfolds 3x3 neighbourhoods and evaluates its MLP at four query points whose relative
  coordinates are all exactly 0: it is a 3x3 and three 1x1 convolutions.
* ``reduce_chan_level1_max3`` and the 18 columns for the zero coordinates are in every checkpoint
  and have no effect; they do not exist here.
* On CPUs, MDTA and GDFN are computed strip by strip (``mdta_by_strips``, ``gdfn_by_strips``) and
  the gates of a fusion at the even pixels alone (``fuse_even_pixels``).
* On CUDA, the layer norms may be compiled (``normalise_compiled``).
* The features lie in memory pixel by pixel (channels_last), which CPUs and GPUs prefer here.

Published quirk that is kept: the third U-Net of the finest scale merges its finest skip with the
second one's weights.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import (
    PixelwiseConv,
    full_precision,
    module_list,
    pixelwise,
    takes_fast_form,
    widened,
)
from models.network import DerainingNetwork


@dataclass(frozen=True)
class NeRDRainConfig:
    """Size of a NeRD-Rain network.

    Channels of the finest level, channels inside the implicit heads, and Transformer blocks of
    the levels C, 2C and 4C of every U-Net.
    """

    width: int = 48
    head_width: int = 256
    num_blocks: tuple[int, ...] = (2, 3, 3)

    def __post_init__(self) -> None:
        if self.width < 2 or self.width % 2:
            raise ValueError(f"NeRD-Rain's width is {self.width}; it must be even and at least 2.")
        if self.head_width < 1:
            raise ValueError(f"NeRD-Rain's head_width is {self.head_width}; it must be at least 1.")
        counts = self.num_blocks
        if len(counts) != 3 or not all(type(count) is int and count >= 1 for count in counts):
            raise ValueError(
                f"NeRD-Rain's num_blocks is {counts}; it must be three whole numbers of at least "
                "1, one for each level of its U-Nets."
            )


VARIANTS = {
    "nerd_rain": NeRDRainConfig(),
    "nerd_rain_s": NeRDRainConfig(width=32),
    # for tests and first trials on a laptop CPU
    "nerd_rain_t": NeRDRainConfig(width=8, head_width=32, num_blocks=(1, 1, 1)),
}


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """A 3x3 convolution with zero padding that keeps H and W at stride 1."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=bias)


class LayerNorm(nn.LayerNorm):
    """Normalises the channels of each pixel, (B, C, H, W) kept."""

    is_compiled = False

    def forward(self, x: Tensor) -> Tensor:
        if self.is_compiled and x.device.type != "meta":
            return normalise_compiled(self, x)
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def normalise_rows(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Layer norm of each row of (N, C), computed in float32, in the type of ``x``."""
    wide = widened(x)
    centred = wide - wide.mean(1, keepdim=True)
    variance = centred.square().mean(1, keepdim=True)
    return (centred * torch.rsqrt(variance + eps) * weight + bias).to(x.dtype)


@functools.cache
def _compiled_rows() -> Callable[[Tensor, Tensor, Tensor, float], Tensor]:
    return torch.compile(normalise_rows, dynamic=True)


def normalise_compiled(norm: LayerNorm, x: Tensor) -> Tensor:
    """``LayerNorm.forward`` for training on GPUs: one kernel there, one or two on the way back.

    PyTorch's own gives each pixel a block of threads, which few channels leave idle: a quarter of
    the time of a training step at a width of 16 (H200). Only the number of channels, not that of
    pixels, is compiled in. tests/models/test_nerd_rain.py compares the two.
    """
    rows = x.permute(0, 2, 3, 1).flatten(0, 2)  # (B, C, H, W) -> (B * H * W, C)
    torch._dynamo.mark_static(rows, 1)
    with full_precision(x):
        rows = _compiled_rows()(rows, norm.weight, norm.bias, norm.eps)
    return rows.unflatten(0, (x.shape[0], *x.shape[2:])).permute(0, 3, 1, 2)


class SplitProjection(nn.Module):
    """Depthwise 3x3 (1x1 x) with several outputs, (B, C, H, W) to ``parts`` times (B, O, H, W).

    On CPUs each part is computed for itself: slices of one large map are not dense in memory.
    """

    def __init__(self, in_channels: int, out_channels: int, parts: int) -> None:
        super().__init__()
        total = parts * out_channels
        self.parts = parts
        self.pixelwise = PixelwiseConv(in_channels, total, bias=False)
        self.depthwise = nn.Conv2d(total, total, 3, padding=1, groups=total, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if not takes_fast_form(x):
            return self.depthwise(self.pixelwise(x)).chunk(self.parts, dim=1)
        weights = zip(
            self.pixelwise.weight.chunk(self.parts),
            self.depthwise.weight.chunk(self.parts),
            strict=True,
        )
        return tuple(
            F.conv2d(pixelwise(x, mix), kernels, padding=1, groups=len(kernels))
            for mix, kernels in weights
        )


class MDTA(nn.Module):
    """x + multi-Dconv head transposed attention of norm x, (B, C, H, W) kept.

    Attention between the channels of each head, over all pixels.
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = LayerNorm(channels)
        self.qkv = SplitProjection(channels, channels, parts=3)
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.project_out = PixelwiseConv(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if takes_fast_form(x):
            return mdta_by_strips(self, x)
        # (B, C, H, W) -> (B, heads, C/heads, H * W)
        q, k, v = (y.unflatten(1, (self.num_heads, -1)).flatten(3) for y in self.qkv(self.norm(x)))
        with full_precision(x):  # float16 would overflow
            cosines = F.normalize(widened(q), dim=3) @ F.normalize(widened(k), dim=3).mT
            attention = (cosines * self.temperature).softmax(dim=3)  # (B, heads, C/heads, C/heads)
        # (B, heads, C/heads, H * W) -> (B, C, H, W)
        out = (attention.to(v.dtype) @ v).flatten(1, 2).unflatten(2, x.shape[2:])
        return x + self.project_out(out)


class GDFN(nn.Module):
    """x + gated-Dconv feed-forward network of norm x, (B, C, H, W) kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = int(2.66 * channels)
        self.norm = LayerNorm(channels)
        self.project_in = SplitProjection(channels, hidden, parts=2)
        self.project_out = PixelwiseConv(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if takes_fast_form(x):
            return gdfn_by_strips(self, x)
        a, b = self.project_in(self.norm(x))
        return x + self.project_out(F.gelu(a) * b)


def strips(x: Tensor) -> list[tuple[Tensor, slice]]:
    """(B, C, H, W) as strips of rows, each with the slice of the rows that are its own.

    A strip has one row more at each inner border, so that a 3x3 convolution gives its own rows
    the same values as in the whole image. On a CPU a strip's intermediate maps stay in the cache,
    while those of a whole image (66 MB between the two halves of a GDFN, for 256 x 256 pixels)
    take most of the time to allocate. For gradients, which keep every map anyway, the image is
    one strip.
    """
    height = x.shape[2]
    if torch.is_grad_enabled():
        return [(x, slice(0, height))]
    count = max(1, height // 32)
    borders = [height * i // count for i in range(count + 1)]
    cut = []
    for top, bottom in pairwise(borders):
        above = min(top, 1)
        cut.append((x[:, :, top - above : bottom + 1], slice(above, above + bottom - top)))
    return cut


def gdfn_by_strips(block: GDFN, x: Tensor) -> Tensor:
    """``GDFN.forward`` for CPUs, strip by strip."""
    out = []
    for strip, own in strips(x):
        a, b = (y[:, :, own] for y in block.project_in(block.norm(strip)))
        out.append(strip[:, :, own] + block.project_out(F.gelu(a) * b))
    return torch.cat(out, dim=2)


def mdta_by_strips(block: MDTA, x: Tensor) -> Tensor:
    """``MDTA.forward`` for CPUs, strip by strip, with fewer passes over the pixels.

    The products of q and k and their squared lengths are sums over the pixels, so they are added
    up over the strips, and the small matrix of products is divided by the lengths instead of q
    and k. Attention and the projection behind it are both matrices over the channels, so they
    are multiplied with each other before they meet v.
    """
    values, sums = [], []
    for strip, own in strips(x):
        q, k, v = (y[:, :, own] for y in block.qkv(block.norm(strip)))
        values.append((strip[:, :, own], v))
        sums.append(_attention_sums(q, k, block.num_heads))
    products, q_squares, k_squares = (sum(parts) for parts in zip(*sums, strict=True))
    with full_precision(x):
        # lengths of at least 1e-12, as in F.normalize
        q_length, k_length = (y.clamp_min(1e-24).sqrt() for y in (q_squares, k_squares))
        cosines = products / (q_length.unsqueeze(3) * k_length.unsqueeze(2))
        attention = (cosines * block.temperature).softmax(dim=-1)
        # (C, C, 1, 1) -> (C, heads, C/heads): the columns of each head
        projection = block.project_out.weight.flatten(1).unflatten(1, (block.num_heads, -1))
        # (B, C, C), a 1x1 convolution for each image
        mixes = torch.einsum("ohi,bhij->bohj", projection, attention).flatten(2)
    return torch.cat([rows + _pixelwise_each(v, mixes) for rows, v in values], dim=2)


def _attention_sums(q: Tensor, k: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over the pixels of (B, C, H, W): q k^T of each head, q squared, k squared.

    Shapes (B, heads, C/heads, C/heads) and twice (B, heads, C/heads).
    """
    with full_precision(q):
        # (B, C, H, W) -> (B, heads, C/heads, H * W)
        q, k = (widened(y).unflatten(1, (num_heads, -1)).flatten(3) for y in (q, k))
        return q @ k.mT, q.square().sum(dim=3), k.square().sum(dim=3)


def _pixelwise_each(x: Tensor, weights: Tensor) -> Tensor:
    """``pixelwise`` with weights (B, O, C), one matrix for each image of (B, C, H, W)."""
    pairs = zip(x.split(1), weights, strict=True)
    return torch.cat([pixelwise(image, weight[..., None, None]) for image, weight in pairs])


def transformer_block(channels: int, num_heads: int) -> nn.Sequential:
    """Attention, then the feed-forward network, (B, C, H, W) kept."""
    return nn.Sequential(MDTA(channels, num_heads), GDFN(channels))


def downsample(channels: int) -> nn.Sequential:
    """(B, C, H, W) to (B, 2C, H/2, W/2)."""
    return nn.Sequential(conv3x3(channels, channels // 2), nn.PixelUnshuffle(2))


def upsample(channels: int) -> nn.Sequential:
    """(B, C, H, W) to (B, C/2, 2H, 2W)."""
    return nn.Sequential(conv3x3(channels, 2 * channels), nn.PixelShuffle(2))


def double(x: Tensor) -> Tensor:
    """Twice the height and width, every pixel four times."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


class UNet(nn.Module):
    """One pass over a scale's features, in two halves: ``encode`` and ``decode``.

    Widths and heads fine to coarse: C and 1, 2C and 2, 4C and 4. The 1x1 convolution that merges
    the finest skip is the caller's, because two U-Nets share one.
    """

    def __init__(self, config: NeRDRainConfig) -> None:
        super().__init__()
        c, n = config.width, config.num_blocks

        def level(i: int) -> nn.Sequential:
            heads = 2**i
            return nn.Sequential(*(transformer_block(heads * c, heads) for _ in range(n[i])))

        self.encoder = nn.ModuleList(level(i) for i in (0, 1, 2))
        self.down = nn.ModuleList(downsample(w) for w in (c, 2 * c))
        self.up = nn.ModuleList(upsample(w) for w in (4 * c, 2 * c))
        self.coarse_merge = PixelwiseConv(4 * c, 2 * c, bias=False)
        self.decoder = nn.ModuleList(level(i) for i in (1, 0))

    def encode(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) to the features of the three levels, fine to coarse; the last: latent."""
        levels = [self.encoder[0](x)]
        for down, blocks in zip(self.down, self.encoder[1:], strict=True):
            levels.append(blocks(down(levels[-1])))
        return levels

    def decode(self, latent: Tensor, skips: Sequence[Tensor], fine_merge: nn.Module) -> Tensor:
        """The latent and the skips, fine to coarse, to features (B, C, H, W)."""
        x = latent
        for up, skip, merge, blocks in zip(
            self.up, reversed(skips), (self.coarse_merge, fine_merge), self.decoder, strict=True
        ):
            x = blocks(merge(torch.cat([up(x), skip], dim=1)))
        return x


class LatentFusion(nn.Module):
    """Two neighbouring latents of one scale to a latent of the next coarser: halves H and W.

    The even pixels of x g[0] + (x e) g[1] + y g'[0] + (y e) g'[1] with
    e = sigmoid(query(x) key(y)) and the gates g = gate_x(x, x e), g' = gate_y(y, y e).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = conv3x3(channels, channels, bias=True)
        self.key = conv3x3(channels, channels, bias=True)
        self.gate_x = conv3x3(2 * channels, 2, bias=True)
        self.gate_y = conv3x3(2 * channels, 2, bias=True)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        energy = torch.sigmoid(self.query(x) * self.key(y))
        if takes_fast_form(x):
            return fuse_even_pixels(self, x, y, energy)
        fused = []
        for gate, z in ((self.gate_x, x), (self.gate_y, y)):
            g = gate(torch.cat([z, z * energy], dim=1))  # (B, 2, H, W)
            fused.append(z * g[:, :1] + z * energy * g[:, 1:])
        return (fused[0] + fused[1])[..., ::2, ::2]


def fuse_even_pixels(fusion: LatentFusion, x: Tensor, y: Tensor, energy: Tensor) -> Tensor:
    """The rest of ``LatentFusion.forward`` at the pixels that it keeps: gates of stride 2."""
    fused = []
    for gate, z in ((fusion.gate_x, x), (fusion.gate_y, y)):
        weighted = z * energy
        g = F.conv2d(torch.cat([z, weighted], dim=1), gate.weight, gate.bias, 2, 1)
        fused.append(z[..., ::2, ::2] * g[:, :1] + weighted[..., ::2, ::2] * g[:, 1:])
    return fused[0] + fused[1]


class INR(nn.Module):
    """The implicit neural representation of an image: a latent (B, 4C, H, W) to (B, 3, 4H, 4W).

    The release evaluates an MLP at every pixel of the enlarged latent, over its 3x3 neighbours
    (9C values), 18 values of relative coordinates and 2 of the cell's size. Its grid of queries
    is the grid of the features, so the coordinates are 0 and the cell is (2, 2) everywhere: the
    first layer is a 3x3 convolution with the bias ``bias + 2 * (the two cell columns)``. The
    three parts of that bias stay parameters of their own, because a plainly folded one would
    learn at another rate than the release's.
    """

    def __init__(self, config: NeRDRainConfig) -> None:
        super().__init__()
        c, hidden = config.width, config.head_width
        self.up = nn.Sequential(upsample(4 * c), upsample(2 * c))
        self.neighbours = conv3x3(c, hidden, bias=True)
        self.cell = nn.Parameter(torch.empty(hidden, 2))
        self.layers = nn.ModuleList(PixelwiseConv(hidden, out) for out in (hidden, hidden, 3))
        # the start of a linear layer of 9C + 20 inputs, PyTorch's default
        bound = (9 * c + 20) ** -0.5
        for parameter in (*self.neighbours.parameters(), self.cell):
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, latent: Tensor) -> Tensor:
        assert self.neighbours.bias is not None
        bias = self.neighbours.bias + 2 * self.cell.sum(dim=1)
        x = F.conv2d(self.up(latent), self.neighbours.weight, bias, padding=1)
        for layer in self.layers:
            x = layer(F.relu(x, inplace=True))
        return x


class Scale(nn.Module):
    """All that one image size owns: ``num_passes`` chained U-Nets and what lies around them."""

    def __init__(self, config: NeRDRainConfig, num_passes: int) -> None:
        super().__init__()
        c = config.width
        self.embed = conv3x3(3, c)
        self.passes = module_list(UNet(config) for _ in range(num_passes))
        # Released quirk: a third pass merges its finest skip with the second's weights.
        self.fine_merges = nn.ModuleList(
            PixelwiseConv(2 * c, c, bias=False) for _ in range(min(num_passes, 2))
        )
        self.contexts = nn.ModuleList(conv3x3(c, c) for _ in range(num_passes - 1))
        self.fusions = nn.ModuleList(LatentFusion(4 * c) for _ in range(num_passes - 1))
        self.output = conv3x3(c, 3)

    def begin(self, image: Tensor) -> list[Tensor]:
        """The first pass' encoder: (B, 3, H, W) to the features of its levels, fine to coarse."""
        # every map computed from this one keeps its memory format
        image = image.contiguous(memory_format=torch.channels_last)
        return self.passes[0].encode(self.embed(image))

    def finish(
        self, levels: list[Tensor], feedback: Iterable[Tensor | float]
    ) -> tuple[Tensor, list[Tensor]]:
        """The rest of the passes, from the first one's levels and the finer scale's feedback.

        Returns the features (B, C, H, W) and the feedback for the next coarser scale: one fused
        latent for each pair of neighbouring passes.
        """
        latents = []
        for i, (unet, fused) in enumerate(zip(self.passes, feedback, strict=True)):
            *skips, latent = levels
            latents.append(latent)
            features = unet.decode(latent + fused, skips, self.fine_merges[min(i, 1)])
            if i < len(self.contexts):
                levels = self.passes[i + 1].encode(self.contexts[i](features))
        pairs = zip(self.fusions, pairwise(latents), strict=True)
        return features, [fusion(*pair) for fusion, pair in pairs]


class NeRDRain(DerainingNetwork):
    """NeRD-Rain (module docstring).

    ``forward`` returns the restored images at 1, 1/2 and 1/4 of the size; then, as released, the
    guess for 1/2, half of the input of scale 1/2, the guess for 1/4 and the rainy image at 1/4.
    """

    size_multiple = 16  # two halvings of the image, two more in the coarsest U-Net
    min_size = 16
    checkpointed_blocks = (MDTA, GDFN)
    released_window = 256
    implicit_outputs = ((3, 1), (5, 2))  # the guesses for 1/2 and 1/4
    published_key = "state_dict"

    def __init__(self, config: NeRDRainConfig) -> None:
        super().__init__()
        self.config = config
        # coarse to fine, at 1/4, 1/2 and 1 of the size
        self.scales = module_list(Scale(config, num_passes) for num_passes in (1, 2, 3))
        self.heads = nn.ModuleList(INR(config) for _ in range(2))

    def compile_for_training(self) -> None:
        """The layer norms alone: ten seconds instead of minutes, for most of the gain.

        What Python costs beside them is OPTIM.CUDA_GRAPH's to take away.
        """
        for module in self.modules():
            if isinstance(module, LayerNorm):
                module.is_compiled = True

    def forward(self, rainy: Tensor) -> tuple[Tensor, ...]:
        images = self._pyramid(rainy)
        levels, inputs, guesses = self._coarse_to_fine(images)
        features = self._fine_to_coarse(levels)
        restored = [
            scale.output(x) + image
            for scale, x, image in zip(self.scales, features, images, strict=True)
        ]
        return (*reversed(restored), guesses[1], inputs[1] / 2, guesses[0], images[0])

    def restore(self, rainy: Tensor) -> Tensor:
        levels, _, _ = self._coarse_to_fine(self._pyramid(rainy))
        features = self._fine_to_coarse(levels)
        return self.scales[-1].output(features[-1]) + rainy

    @staticmethod
    def _pyramid(rainy: Tensor) -> list[Tensor]:
        """The image at 1/4, 1/2 (the even samples, "nearest") and 1 of its size."""
        return [rainy[..., ::4, ::4], rainy[..., ::2, ::2], rainy]

    def _coarse_to_fine(
        self, images: list[Tensor]
    ) -> tuple[list[list[Tensor]], list[Tensor], list[Tensor]]:
        """First-pass levels of the three scales, their inputs, the guesses of the two coarser."""
        levels: list[list[Tensor]] = []
        inputs: list[Tensor] = []
        guesses: list[Tensor] = []
        for i, (scale, image) in enumerate(zip(self.scales, images, strict=True)):
            inputs.append(image + double(guesses[-1]) if guesses else image)
            levels.append(scale.begin(inputs[-1]))
            if i < len(self.heads):
                guesses.append(self.heads[i](levels[-1][-1]) + inputs[-1])
        return levels, inputs, guesses

    def _fine_to_coarse(self, levels: list[list[Tensor]]) -> list[Tensor]:
        """Features of the three scales, coarse to fine, from the levels of their first passes."""
        decoded = []  # fine to coarse
        feedback: Sequence[Tensor | float] = [0.0] * 3  # nothing is finer than the finest scale
        for scale, first_levels in zip(reversed(self.scales), reversed(levels), strict=True):
            x, feedback = scale.finish(first_levels, feedback)
            decoded.append(x)
        features = [decoded[-1]]
        for x in reversed(decoded[:-1]):
            features.append(x + double(features[-1]))
        return features

    def to_published(self) -> dict[str, Tensor]:
        state = self.state_dict()
        published = {}
        for ours, theirs in published_names(self.config).items():
            value = state[ours]
            if ours.endswith("neighbours.weight"):
                # (hidden, C, 3, 3) -> (hidden, 9C), then the columns of the relative coordinates,
                # which are always multiplied by 0, then those of the cell
                coordinates = value.new_zeros(len(value), 18)
                cell = state[ours.replace("neighbours.weight", "cell")]
                value = torch.cat([value.flatten(1), coordinates, cell], dim=1)
            elif theirs.startswith("INR") and value.ndim == 4:
                value = value.flatten(1)  # a 1x1 convolution of ours, a linear layer of theirs
            published[theirs] = value
        # the weights that the quirk of ``Scale.fine_merges`` leaves unused
        used = published["reduce_chan_level1_max2.weight"]
        published["reduce_chan_level1_max3.weight"] = torch.zeros_like(used)
        return published

    def from_published(self, published: dict[str, Tensor]) -> dict[str, Tensor]:
        own, state = self.state_dict(), {}
        for ours, theirs in published_names(self.config).items():
            value = published[theirs]
            if ours.endswith("neighbours.weight"):
                cell = ours.replace("neighbours.weight", "cell")
                state[cell] = value[:, -2:].contiguous()
                value = value[:, : own[ours][0].numel()]
            state[ours] = value.reshape(own[ours].shape).contiguous()
        return state


def published_names(config: NeRDRainConfig) -> dict[str, str]:
    """Our names of parameters to the release's.

    The INRs' ``cell`` is missing: it is two columns of the release's ``layers.0.weight``.
    """
    names: dict[str, str] = {}

    def add(ours: str, theirs: str, entries: tuple[str, ...] = ("weight",)) -> None:
        for entry in entries:
            names[f"{ours}.{entry}"] = f"{theirs}.{entry}"

    def add_biased(ours: str, theirs: str) -> None:
        add(ours, theirs, ("weight", "bias"))

    def add_blocks(ours: str, theirs: str, num_blocks: int) -> None:
        for block in range(num_blocks):
            mdta, gdfn, theirs_i = f"{ours}.{block}.0", f"{ours}.{block}.1", f"{theirs}.{block}"
            add_biased(f"{mdta}.norm", f"{theirs_i}.norm1.body")
            names[f"{mdta}.temperature"] = f"{theirs_i}.attn.temperature"
            add(f"{mdta}.qkv.pixelwise", f"{theirs_i}.attn.qkv")
            add(f"{mdta}.qkv.depthwise", f"{theirs_i}.attn.qkv_dwconv.main.0")
            add(f"{mdta}.project_out", f"{theirs_i}.attn.project_out")
            add_biased(f"{gdfn}.norm", f"{theirs_i}.norm2.body")
            add(f"{gdfn}.project_in.pixelwise", f"{theirs_i}.ffn.project_in")
            add(f"{gdfn}.project_in.depthwise", f"{theirs_i}.ffn.dwconv.main.0")
            add(f"{gdfn}.project_out", f"{theirs_i}.ffn.project_out")

    def add_unet(ours: str, scale: str, number: str, later: str) -> None:
        """``number`` counts the U-Nets of a scale that has several, ``later`` all but the first."""
        fine, middle, coarse = config.num_blocks
        add_blocks(f"{ours}.encoder.0", f"encoder_level1_{scale}{number}", fine)
        add(f"{ours}.down.0.0", f"down1_2_{scale}{later}.body.0")
        add_blocks(f"{ours}.encoder.1", f"encoder_level2_{scale}{number}", middle)
        add(f"{ours}.down.1.0", f"down2_3_{scale}{later}.body.0")
        add_blocks(f"{ours}.encoder.2", f"latent_{scale}{number}", coarse)
        add(f"{ours}.up.0.0", f"up3_2_{scale}{later}.body.0")
        add(f"{ours}.coarse_merge", f"reduce_chan_level2_{scale}{number}")
        add_blocks(f"{ours}.decoder.0", f"decoder_level2_{scale}{number}", middle)
        add(f"{ours}.up.1.0", f"up2_1_{scale}{later}.body.0")
        add_blocks(f"{ours}.decoder.1", f"decoder_level1_{scale}{number}", fine)

    def add_fusion(ours: str, theirs: str) -> None:
        for layer, their_layer in (("query", "query_conv"), ("key", "key_conv"),
                                   ("gate_x", "gamma1"), ("gate_y", "gamma2")):  # fmt: skip
            add_biased(f"{ours}.{layer}", f"{theirs}.{their_layer}")

    def add_inr(ours: str, theirs: str, ups: str) -> None:
        add(f"{ours}.up.0.0", f"{ups}1.body.0")
        add(f"{ours}.up.1.0", f"{ups}2.body.0")
        add_biased(f"{ours}.neighbours", f"{theirs}.imnet.layers.0")
        for i in (0, 1, 2):
            add_biased(f"{ours}.layers.{i}", f"{theirs}.imnet.layers.{2 * i + 2}")

    for i, (scale, num_passes) in enumerate((("small", 1), ("mid", 2), ("max", 3))):
        add(f"scales.{i}.embed", f"patch_embed_{scale}.proj")
        add(f"scales.{i}.output", f"output_{scale}")
        for p in range(num_passes):
            number, later = str(p + 1) if num_passes > 1 else "", str(p + 1) if p else ""
            add_unet(f"scales.{i}.passes.{p}", scale, number, later)
            if p < 2:  # the third pass' own weights are never used
                add(f"scales.{i}.fine_merges.{p}", f"reduce_chan_level1_{scale}{number}")
    for ours, context, fusion in (
        ("scales.1.{}.0", "output_mid_context", "BF3"),
        ("scales.2.{}.0", "output_max_context1", "BF1"),
        ("scales.2.{}.1", "output_max_context2", "BF2"),
    ):
        add(ours.format("contexts"), context)
        add_fusion(ours.format("fusions"), fusion)
    add_inr("heads.0", "INR", "upsmall2mid")
    add_inr("heads.1", "INR2", "upmid2max")
    return names
