"""MSPFN: deraining by progressive fusion of three image sizes.

Paper: https://arxiv.org/abs/2003.10985

Map of the network (C = width; sizes relative to the input; r, u, M, a, c, v, w have C channels):

    x = 2 rainy - 1; x 1/2 and x 1/4 are 2x2 and 4x4 mean pools of it

    CFM, coarse fusion module
    x 1/4 --embed.0--> r4 --RRU.0-----------------------------------------> M4
                                          M4 --quarter_to_half--> u
    x 1/2 --embed.1--> r2 --RRU.1 of r2 + u-------------------------------> M2
                              M2 --half_to_full-->, u --quarter_to_full-->
    x 1   --embed.2--> r1 --RRU.2 of r1 and both--------------------------> M1

    FFM, fine fusion module
    (a4, a2, a1) = (M4, M2, M1) --FFM.0--> ... --FFM.n--> (a4, a2, a1)      num_units times

    RM, reconstruction module
    a4, M4 --reconstruct.0--> c4 --merge_quarter--> v
    a2, M2 --reconstruct.1--> c2,      v, c2 --merge_half--> w
    a1, M1 --reconstruct.2--> c1,      c1, w --merge_full--> --head--> rain

    restored = x - rain, which in [0, 1] is rainy - rain / 2

* An RRU (residual recurrent unit) is one step of a convolutional LSTM between two convolutions,
  plus a shortcut. The step starts from a zero state, where it reduces to

      h = tanh(sigmoid(i) tanh(j)) sigmoid(o),   (i, j, o) = conv3x3 of the input.

* An FFM adds to the features of every size the output of a URAB (U-shaped residual attention
  block): a convolution of stride 2, CAUs (channel attention units), and back to the size. The input
  of a URAB also gets the enlarged features of the coarser sizes.

Outside the CAUs and the LSTMs no convolution has a bias, all but the head are followed by a PReLU
with one slope per channel, and those that keep or double the size are transposed.

Differences from the published code:

* The release takes BGR in [-1, 1], this network RGB in [0, 1]: ``forward`` changes the range, the
  mapping of published weights the channel order.
* The LSTM's recurrent kernel and forget gate multiply a zero state, so these 3,226,048 parameters
  never affect the output or get a gradient. They do not exist here.
* ``mspfn_fast.py`` has faster forms with the same values.

Quirks of the release that are kept: TensorFlow's SAME padding, which pads even sizes at the end
only; the shortcut around an RRU leaves out what came from the coarser sizes (M2 adds r2, not
r2 + u); the full size gets the features of the quarter size through u, which was enlarged for the
half size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.fast import replaceable
from models.network import DerainingNetwork

# Features at 1/4, 1/2 and 1 of the input's size, always in this order.
Pyramid = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class MSPFNConfig:
    """Size of an MSPFN: channels, number of FFMs, CAUs in a URAB at 1/4, 1/2 and 1 of the size."""

    width: int = 64
    num_units: int = 17
    num_attention: tuple[int, ...] = (1, 3, 3)

    def __post_init__(self) -> None:
        if self.width < 4 or self.width % 4:
            raise ValueError(f"MSPFN's width is {self.width}; it must be a multiple of 4.")
        if self.num_units < 1:
            raise ValueError(f"MSPFN's num_units is {self.num_units}; it must be at least 1.")
        counts = self.num_attention
        if len(counts) != 3 or not all(type(count) is int and count >= 1 for count in counts):
            raise ValueError(
                f"MSPFN's num_attention is {counts}; it must be three whole numbers of at least 1, "
                "for a quarter, a half and the full size."
            )


VARIANTS = {
    "mspfn": MSPFNConfig(),
    # MSPFN-N1, whose weights the authors publish
    "mspfn_n1": MSPFNConfig(num_attention=(1, 1, 1)),
    # for tests, and for training in minutes on a laptop CPU
    "mspfn_t": MSPFNConfig(width=32, num_units=2, num_attention=(1, 1, 1)),
}


class Same(nn.Module):
    """Transposed 3x3 convolution and PReLU at the same size, (B, in, H, W) to (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.prelu = nn.PReLU(out_channels, init=0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.prelu(self.conv(x))


class Down(nn.Module):
    """3x3 convolution of stride 2 and PReLU, (B, C, H, W) to (B, C, ceil(H/2), ceil(W/2))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, bias=False)
        self.prelu = nn.PReLU(channels, init=0.0)

    def forward(self, x: Tensor) -> Tensor:
        # TensorFlow pads odd sizes by 1 at both ends, even sizes by 1 at the end only. For even
        # sizes PyTorch pads by 2 at both ends, and the first row and column are dropped.
        even_h, even_w = 1 - x.shape[-2] % 2, 1 - x.shape[-1] % 2
        x = F.conv2d(x, self.conv.weight, stride=2, padding=(1 + even_h, 1 + even_w))
        return self.prelu(x[..., even_h:, even_w:])


class Up(nn.Module):
    """Transposed 3x3 convolution of stride 2 and PReLU, with the adjoint geometry of ``Down``.

    (B, in, ceil(H/2), ceil(W/2)) to (B, out, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, bias=False)
        self.prelu = nn.PReLU(out_channels, init=0.0)

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        height, width = size  # of the output
        x = F.conv_transpose2d(x, self.conv.weight, stride=2, padding=(height % 2, width % 2))
        return self.prelu(x[..., :height, :width])


@replaceable
def tanh(x: Tensor) -> Tensor:
    """``torch.tanh``, replaceable."""
    return torch.tanh(x)


class ConvLSTM(nn.Module):
    """One step of a convolutional LSTM from the zero state, (B, in, H, W) to (B, hidden, H, W)."""

    def __init__(self, in_channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Conv2d(in_channels, 3 * hidden, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.output_of(self.gates(x))

    @staticmethod
    def output_of(gates: Tensor) -> Tensor:
        """The gates i, j, o, (B, 3 hidden, H, W), to (B, hidden, H, W)."""
        i, j, o = gates.chunk(3, dim=1)
        return tanh(torch.sigmoid(i) * tanh(j)) * torch.sigmoid(o)


class RRU(nn.Module):
    """Residual recurrent unit, without its shortcut, (B, C, H, W) kept."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = Same(channels, channels // 2)
        self.lstm = ConvLSTM(channels // 2, hidden)
        self.expand = Same(hidden, channels)

    @replaceable
    def forward(self, x: Tensor) -> Tensor:
        return self.expand(self.lstm(self.reduce(x)))


class CAU(nn.Module):
    """Channel attention unit: a residual block with a gate per channel, (B, C, H, W) kept.

    The gates depend on the mean over the whole map, so tiles do not give the whole image's values.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, channels, 3, padding=1)
        self.prelu_in = nn.PReLU(channels, init=0.0)
        self.conv_out = nn.Conv2d(channels, channels, 3, padding=1)
        self.squeeze = nn.Linear(channels, channels // 4)
        self.prelu_gate = nn.PReLU(channels // 4, init=0.0)
        self.excite = nn.Linear(channels // 4, channels)

    def forward(self, x: Tensor) -> Tensor:
        f = self.conv_out(self.prelu_in(self.conv_in(x)))
        gate = torch.sigmoid(self.excite(self.prelu_gate(self.squeeze(f.mean((2, 3))))))
        return torch.addcmul(x, f, gate[:, :, None, None])  # (B, C) -> (B, C, 1, 1)


class URAB(nn.Module):
    """U-shaped residual attention block without its shortcut, (B, C, H, W) kept."""

    def __init__(self, channels: int, num_attention: int) -> None:
        super().__init__()
        self.down = Down(channels)
        self.attention = nn.Sequential(*(CAU(channels) for _ in range(num_attention)))
        self.up = Up(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.down(x)
        return self.up(torch.cat([shallow, self.attention(shallow)], dim=1), x.shape[-2:])


class CFM(nn.Module):
    """Coarse fusion module: an image (B, 3, H, W) in [-1, 1] to its memories M4, M2, M1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels
        self.embed = nn.ModuleList(Same(3, c) for _ in range(3))
        self.memory = nn.ModuleList(RRU(c, hidden) for hidden in (c, 2 * c, 4 * c))
        self.quarter_to_half = Up(c, c)
        self.quarter_to_full = Up(c, c)
        self.half_to_full = Up(c, c)

    def forward(self, x: Tensor) -> Pyramid:
        images = (F.avg_pool2d(x, 4), F.avg_pool2d(x, 2), x)
        r4, r2, r1 = (embed(image) for embed, image in zip(self.embed, images, strict=True))
        m4 = self.memory[0](r4) + r4
        u = self.quarter_to_half(m4, r2.shape[-2:])
        m2 = self.memory[1](r2 + u) + r2
        size = r1.shape[-2:]
        m1 = self.memory[2](r1 + self.half_to_full(m2, size) + self.quarter_to_full(u, size)) + r1
        return m4, m2, m1


class FFM(nn.Module):
    """Fine fusion module: features of the three sizes to the same."""

    def __init__(self, channels: int, num_attention: tuple[int, ...]) -> None:
        super().__init__()
        self.quarter_to_half = Up(channels, channels)
        self.quarter_to_full = Up(channels, channels)
        self.half_to_full = Up(channels, channels)
        self.urab = nn.ModuleList(URAB(channels, count) for count in num_attention)

    def forward(self, features: Pyramid) -> Pyramid:
        # Only new outputs of a PReLU are added to in place, never the features that came in.
        a4, a2, a1 = features
        a4 = self.urab[0](a4).add_(a4)
        u = self.quarter_to_half(a4, a2.shape[-2:])
        a2 = self.urab[1](a2 + u).add_(a2)
        size = a1.shape[-2:]
        e = self.quarter_to_full(u, size).add_(a1).add_(self.half_to_full(a2, size))
        a1 = self.urab[2](e).add_(a1)
        return a4, a2, a1


class RM(nn.Module):
    """Reconstruction module: the rain (B, 3, H, W) of an image in [-1, 1]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels
        self.reconstruct = nn.ModuleList(Same(2 * c, c) for _ in range(3))
        self.merge_quarter = Up(c, c)
        self.merge_half = Up(2 * c, c)
        self.merge_full = Same(2 * c, c // 2)
        self.head = nn.ConvTranspose2d(c // 2, 3, 3, padding=1, bias=False)

    def forward(self, features: Pyramid, memories: Pyramid) -> Tensor:
        c4, c2, c1 = (
            reconstruct(torch.cat([a, m], dim=1))
            for reconstruct, a, m in zip(self.reconstruct, features, memories, strict=True)
        )
        v = self.merge_quarter(c4, c2.shape[-2:])
        w = self.merge_half(torch.cat([v, c2], dim=1), c1.shape[-2:])
        return self.head(self.merge_full(torch.cat([c1, w], dim=1)))


def initialise(module: nn.Module) -> None:
    """TensorFlow's defaults: Glorot's uniform kernels, biases of zero."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, ConvLSTM):
        # The bound is that of the released kernel, with its recurrent part and four gates.
        hidden, channels = module.gates.out_channels // 3, module.gates.in_channels
        bound = math.sqrt(6 / (9 * (channels + hidden + 4 * hidden)))
        nn.init.uniform_(module.gates.weight, -bound, bound)


class MSPFN(DerainingNetwork):
    """MSPFN (module docstring). ``forward`` returns one image."""

    size_multiple = 4  # for the mean pools; the convolutions take any size
    min_size = 4
    checkpointed_blocks = (URAB,)

    def __init__(self, config: MSPFNConfig) -> None:
        super().__init__()
        self.config = config
        self.cfm = CFM(config.width)
        self.ffm = nn.ModuleList(
            FFM(config.width, config.num_attention) for _ in range(config.num_units)
        )
        self.rm = RM(config.width)
        self.apply(initialise)

    def forward(self, rainy: Tensor) -> tuple[Tensor, ...]:
        # Channels last: 1.7 times as fast on a CPU; tensor cores prefer it too.
        x = (2 * rainy - 1).contiguous(memory_format=torch.channels_last)
        memories = self.cfm(x)
        features = memories
        for ffm in self.ffm:
            features = ffm(features)
        return (rainy - self.rm(features, memories) / 2,)
