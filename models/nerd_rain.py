"""NeRD-Rain: bidirectional multi-scale Transformers with implicit neural representations.

Paper: https://arxiv.org/abs/2404.01547

Map of the network (x, x2, x4: the rainy image at 1, 1/2 and 1/4 of its size; C = width; every U is
a whole U-Net with levels of C, 2C and 4C channels, and s1, m1, .. M3 are their latents, the
features of the coarsest level):

    scale  coarse to fine           chained U-Nets                                       out
     1/4   x4                   -> U: s1, decode s1 + F(m1, m2)                        -> f_s
                 INR: guess from s1                                                        |
     1/2   x2 + up(guess)       -> U: m1, decode m1 + F(M1, M2)                            v
                                -> U: m2, decode m2 + F(M2, M3)                        -> f_m
                 INR: guess from m1                                                        |
      1    x + up(guess)        -> U: M1, decode -> U: M2, decode -> U: M3, decode         v
                                                                                       -> f_M

* Coarse to fine, an implicit neural representation (INR) turns the scale's first latent into a
  residual of the scale's input. Their sum, the guess, is enlarged and added to the next finer
  rainy image.
* Fine to coarse, F fuses the latents of two consecutive passes and halves their height and width;
  the result is added to a latent of the next coarser scale.
* The features f are enlarged and summed coarse to fine. A 3x3 convolution of each sum gives the
  residual of the rainy image of that size.

A Transformer block is x + MDTA(norm x), then x + GDFN(norm x), as in Restormer:

    MDTA, multi-Dconv head transposed attention: 1x1 (softmax(temperature * q k^T) v) over the
        channels of each head; q, k, v = depthwise 3x3 (1x1 x); q and k have unit length over
        the pixels
    GDFN, gated-Dconv feed-forward network: 1x1 (gelu(a) * b); a, b = depthwise 3x3 (1x1 x)

The CNN variant (Table 6 of the paper) has two of MPRNet's channel attention blocks instead:

    CAB: x + r * sigmoid(1x1 relu(1x1 mean r)); r = 3x3 prelu(3x3 x); the mean is over the pixels

Differences from the published code (none changes a value beyond float rounding):

* The release's INR unfolds 3x3 neighbourhoods and evaluates an MLP at four query points whose
  relative coordinates are all exactly 0. That is a 3x3 and three 1x1 convolutions.
* ``reduce_chan_level1_max3`` and the 18 columns of the MLP for those coordinates are in every
  checkpoint but have no effect. They do not exist here.
* Features are channels_last in memory, which is faster here on CPUs and GPUs.
* ``nerd_rain_fast.py`` has faster forms of the blocks with the same values.

Quirks of the release that are kept: the third U-Net of the finest scale merges its finest skip with
the second one's weights; all CABs share one PReLU with a single slope.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.fast import replaceable
from models.layers import PixelwiseConv, full_precision, module_list, widened
from models.network import DerainingNetwork


@dataclass(frozen=True)
class NeRDRainConfig:
    """Size of a NeRD-Rain: channels of the finest level and inside the INRs, blocks in the levels
    C, 2C and 4C of every U-Net, and the kind of the blocks, ``transformer`` or ``cnn``.
    """

    width: int = 48
    head_width: int = 256
    num_blocks: tuple[int, ...] = (2, 3, 3)
    block: str = "transformer"

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
        if self.block not in ("transformer", "cnn"):
            raise ValueError(f"NeRD-Rain's block is {self.block!r}; it must be transformer or cnn.")
        if self.block == "cnn" and self.width % 4:
            raise ValueError(
                f"NeRD-Rain's width is {self.width}; with CNN blocks it must be a multiple of 4."
            )


VARIANTS = {
    "nerd_rain": NeRDRainConfig(),
    "nerd_rain_s": NeRDRainConfig(width=32),
    "nerd_rain_cnn": NeRDRainConfig(num_blocks=(1, 1, 1), block="cnn"),
    # for tests, and for training in minutes on a laptop CPU
    "nerd_rain_t": NeRDRainConfig(width=8, head_width=32, num_blocks=(1, 1, 1)),
    "nerd_rain_cnn_t": NeRDRainConfig(width=8, head_width=32, num_blocks=(1, 1, 1), block="cnn"),
}


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """A 3x3 convolution with zero padding that keeps H and W at stride 1."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=bias)


class LayerNorm(nn.LayerNorm):
    """Normalises the channels of each pixel, (B, C, H, W) kept."""

    is_compiled = False  # ``DerainingNetwork.compile_for_training`` sets it

    @replaceable
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SplitProjection(nn.Module):
    """Depthwise 3x3 (1x1 x), split: (B, C, H, W) to ``parts`` tensors (B, O, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, parts: int) -> None:
        super().__init__()
        total = parts * out_channels
        self.parts = parts
        self.pixelwise = PixelwiseConv(in_channels, total, bias=False)
        self.depthwise = nn.Conv2d(total, total, 3, padding=1, groups=total, bias=False)

    @replaceable
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.depthwise(self.pixelwise(x)).chunk(self.parts, dim=1)


class MDTA(nn.Module):
    """x + multi-Dconv head transposed attention of norm x, (B, C, H, W) kept.

    The channels of each head attend to one another; their products are summed over all pixels.
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = LayerNorm(channels)
        self.qkv = SplitProjection(channels, channels, parts=3)
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.project_out = PixelwiseConv(channels, channels, bias=False)

    @replaceable
    def forward(self, x: Tensor) -> Tensor:
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

    @replaceable
    def forward(self, x: Tensor) -> Tensor:
        a, b = self.project_in(self.norm(x))
        return x + self.project_out(F.gelu(a) * b)


class CAB(nn.Module):
    """Channel attention block, (B, C, H, W) kept: x + r times one gate per channel.

    All blocks share ``activation``. Only the network registers it, so that its slope is one
    parameter to the optimiser and the gradient norm, as in the release.
    """

    def __init__(self, channels: int, activation: nn.PReLU) -> None:
        super().__init__()
        self.conv_in = conv3x3(channels, channels)
        self.conv_out = conv3x3(channels, channels)
        self.squeeze = PixelwiseConv(channels, channels // 4, bias=False)
        self.excite = PixelwiseConv(channels // 4, channels, bias=False)
        self.shared = (activation,)  # a tuple, so that this module does not register it

    def forward(self, x: Tensor) -> Tensor:
        (activation,) = self.shared
        r = self.conv_out(activation(self.conv_in(x)))
        mean = r.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(mean))))
        return x + r * gate


def block(channels: int, num_heads: int, activation: nn.PReLU | None) -> nn.Sequential:
    """A Transformer block or, if there is an activation to share, two CABs, (B, C, H, W) kept."""
    if activation is None:
        return nn.Sequential(MDTA(channels, num_heads), GDFN(channels))
    return nn.Sequential(CAB(channels, activation), CAB(channels, activation))


def downsample(channels: int) -> nn.Sequential:
    """(B, C, H, W) to (B, 2C, H/2, W/2)."""
    return nn.Sequential(conv3x3(channels, channels // 2), nn.PixelUnshuffle(2))


def upsample(channels: int) -> nn.Sequential:
    """(B, C, H, W) to (B, C/2, 2H, 2W)."""
    return nn.Sequential(conv3x3(channels, 2 * channels), nn.PixelShuffle(2))


def double(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, 2H, 2W); every pixel is repeated four times."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


class UNet(nn.Module):
    """One pass over a scale's features, in two halves: ``encode`` and ``decode``.

    The levels have C, 2C and 4C channels and 1, 2 and 4 heads. The 1x1 convolution that merges the
    finest skip belongs to ``Scale``, because two U-Nets share one.
    """

    def __init__(self, config: NeRDRainConfig, activation: nn.PReLU | None) -> None:
        super().__init__()
        c, n = config.width, config.num_blocks

        def level(i: int) -> nn.Sequential:
            heads = 2**i
            return nn.Sequential(*(block(heads * c, heads, activation) for _ in range(n[i])))

        self.encoder = nn.ModuleList(level(i) for i in (0, 1, 2))
        self.down = nn.ModuleList(downsample(w) for w in (c, 2 * c))
        self.up = nn.ModuleList(upsample(w) for w in (4 * c, 2 * c))
        self.coarse_merge = PixelwiseConv(4 * c, 2 * c, bias=False)
        self.decoder = nn.ModuleList(level(i) for i in (1, 0))

    def encode(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) to the features of the three levels; the last is the latent.

        They are (B, C, H, W), (B, 2C, H/2, W/2) and (B, 4C, H/4, W/4).
        """
        levels = [self.encoder[0](x)]
        for down, blocks in zip(self.down, self.encoder[1:], strict=True):
            levels.append(blocks(down(levels[-1])))
        return levels

    def decode(self, latent: Tensor, skips: Sequence[Tensor], fine_merge: nn.Module) -> Tensor:
        """The latent and the skips (fine to coarse) to features (B, C, H, W)."""
        x = latent
        for up, skip, merge, blocks in zip(
            self.up, reversed(skips), (self.coarse_merge, fine_merge), self.decoder, strict=True
        ):
            x = blocks(merge(torch.cat([up(x), skip], dim=1)))
        return x


class LatentFusion(nn.Module):
    """Two latents (B, C, H, W) of one scale to one of the next coarser scale, (B, C, H/2, W/2).

    The even pixels of x g[0] + (x e) g[1] + y g'[0] + (y e) g'[1] with
    e = sigmoid(query(x) key(y)) and the gates g = gate_x(x, x e), g' = gate_y(y, y e).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = conv3x3(channels, channels, bias=True)
        self.key = conv3x3(channels, channels, bias=True)
        self.gate_x = conv3x3(2 * channels, 2, bias=True)
        self.gate_y = conv3x3(2 * channels, 2, bias=True)

    @replaceable
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        energy = torch.sigmoid(self.query(x) * self.key(y))
        fused = []
        for gate, z in ((self.gate_x, x), (self.gate_y, y)):
            g = gate(torch.cat([z, z * energy], dim=1))  # (B, 2, H, W)
            fused.append(z * g[:, :1] + z * energy * g[:, 1:])
        return (fused[0] + fused[1])[..., ::2, ::2]


class INR(nn.Module):
    """Implicit neural representation of an image: a latent (B, 4C, H, W) to (B, 3, 4H, 4W).

    The release evaluates an MLP at every pixel of the enlarged latent. Its inputs are the 3x3
    neighbours (9C values), 18 values of relative coordinates and 2 of the cell's size. The grid of
    queries is the grid of the features, so all coordinates are 0 and all cells (2, 2): the first
    layer is a 3x3 convolution with the bias ``bias + 2 * (sum of the two cell columns)``. Bias and
    columns stay separate parameters, because Adam would train their sum at a fifth of the rate.
    """

    def __init__(self, config: NeRDRainConfig) -> None:
        super().__init__()
        c, hidden = config.width, config.head_width
        self.up = nn.Sequential(upsample(4 * c), upsample(2 * c))
        self.neighbours = conv3x3(c, hidden, bias=True)
        self.cell = nn.Parameter(torch.empty(hidden, 2))
        self.layers = nn.ModuleList(PixelwiseConv(hidden, out) for out in (hidden, hidden, 3))
        # PyTorch's default start for the release's first layer, linear with 9C + 20 inputs
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
    """One of the three image sizes: ``num_passes`` chained U-Nets and the layers around them."""

    def __init__(
        self, config: NeRDRainConfig, num_passes: int, activation: nn.PReLU | None
    ) -> None:
        super().__init__()
        c = config.width
        self.embed = conv3x3(3, c)
        self.passes = module_list(UNet(config, activation) for _ in range(num_passes))
        # Released quirk: the third pass merges its finest skip with the second one's weights.
        self.fine_merges = nn.ModuleList(
            PixelwiseConv(2 * c, c, bias=False) for _ in range(min(num_passes, 2))
        )
        self.contexts = nn.ModuleList(conv3x3(c, c) for _ in range(num_passes - 1))
        self.fusions = nn.ModuleList(LatentFusion(4 * c) for _ in range(num_passes - 1))
        self.output = conv3x3(c, 3)

    def begin(self, image: Tensor) -> list[Tensor]:
        """The first pass's encoder: (B, 3, H, W) to the features of its levels, fine to coarse."""
        # all features keep the memory format of the image
        image = image.contiguous(memory_format=torch.channels_last)
        return self.passes[0].encode(self.embed(image))

    def finish(
        self, levels: list[Tensor], feedback: Iterable[Tensor | float]
    ) -> tuple[Tensor, list[Tensor]]:
        """The rest of the passes, from the first one's levels and the finer scale's feedback.

        Returns the features (B, C, H, W) and the feedback for the next coarser scale: a fused
        latent for every two consecutive passes.
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
    checkpointed_blocks = (MDTA, GDFN, CAB)
    released_window = 256
    implicit_outputs = ((3, 1), (5, 2))  # the guesses for 1/2 and 1/4
    # Ten seconds of compilation instead of minutes, for most of the gain; OPTIM.CUDA_GRAPH removes
    # the Python overhead of the rest.
    compiled_blocks = (LayerNorm,)

    def __init__(self, config: NeRDRainConfig) -> None:
        super().__init__()
        self.config = config
        self.activation = nn.PReLU() if config.block == "cnn" else None  # shared by all CABs
        # coarse to fine, at 1/4, 1/2 and 1 of the size
        self.scales = module_list(Scale(config, n, self.activation) for n in (1, 2, 3))
        self.heads = nn.ModuleList(INR(config) for _ in range(2))

    def forward(self, rainy: Tensor) -> tuple[Tensor, ...]:
        images = self._pyramid(rainy)
        levels, inputs, guesses = self._coarse_to_fine(images)
        features = self._fine_to_coarse(levels)
        restored = [
            scale.output(x) + image
            for scale, x, image in zip(self.scales, features, images, strict=True)
        ]
        return (*reversed(restored), guesses[1], inputs[1] / 2, guesses[0], images[0])

    @staticmethod
    def _pyramid(rainy: Tensor) -> list[Tensor]:
        """The image at 1/4, 1/2 (the even samples, "nearest") and 1 of its size."""
        return [rainy[..., ::4, ::4], rainy[..., ::2, ::2], rainy]

    def _coarse_to_fine(
        self, images: list[Tensor]
    ) -> tuple[list[list[Tensor]], list[Tensor], list[Tensor]]:
        """First-pass levels and input of each scale, and the guesses of the coarser two."""
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
        """Features of the three scales from their first-pass levels; both coarse to fine."""
        decoded = []  # fine to coarse
        feedback: Sequence[Tensor | float] = [0.0] * 3  # the finest scale gets none
        for scale, first_levels in zip(reversed(self.scales), reversed(levels), strict=True):
            x, feedback = scale.finish(first_levels, feedback)
            decoded.append(x)
        features = [decoded[-1]]
        for x in reversed(decoded[:-1]):
            features.append(x + double(features[-1]))
        return features
