"""DCSFN: deep cross-scale fusion network for single image rain removal.

Paper: https://arxiv.org/abs/2008.00767

Map of the network (c = width; sizes relative to the input; max pooling halves them and rounds
down):

    rainy --stem--> f1 (c, 1) --pool--> f2 (c, 1/2) --pool--> f4 (c, 1/4)
                    |                   |                     |
                    encoder.0           encoder.1             encoder.2         unit outputs
                    |                   |                     |                      |
    coarse_to_fine: cells.0 <--state--- cells.1 <---state---- cells.2                |
                    |                   |                     |                      |
    fine_to_coarse: cells.0 ---state--> cells.1 ----state---> cells.2                |
                    |                   |                     |                      |
                    decoder.0           decoder.1             decoder.2 <------------+
                    |                   up                    up
                    +-----------------> merge (3, 1) <--------+
                                          | rain
    restored = rainy - rain

An encoder or decoder is a dense chain of units u_i. Each is followed by a fusion F_i, a 1x1
convolution over the chain's input x and the outputs t of all units so far:

    t_i = u_i(y_{i-1} [+ t_i of the encoder, in a decoder]),   y_i = act(F_i [x, t_0, ..., t_i]),
    y_{-1} = x

A unit is the paper's inner-scale connection block: four 3x3 convolutions at each of 1/8, 1/4, 1/2
and 1 of its input's size, where every size also gets the result of the coarser one. The cells are
ConvGRUs that step through the sizes instead of through time; the state of the third cell in a pass
is fused from the first two. act is LeakyReLU(0.2) everywhere.

Differences from the published code:

* The release reads images with OpenCV, so its weights expect BGR; this network expects RGB. The
  mapping of published weights swaps the channels of the first and the last convolution.
* ``fusion_1_2_2``, ``fusion_2_2_2`` and the convolutions of a pass's first cell that would apply to
  a state or reset it are in every checkpoint but never used. They do not exist here.
* The convolutions of a cell with the same input are one convolution with stacked outputs.
* ``dcsfn_fast.py`` has a faster form of the fusions with the same values.

Quirk of the release that is kept: the state that a cell passes on has gone through the activation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.fast import replaceable
from models.network import DerainingNetwork


@dataclass(frozen=True)
class DCSFNConfig:
    """Size of a DCSFN: channels of all features, units in each of the six encoders and decoders."""

    width: int = 20
    num_units: int = 16

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"DCSFN's width is {self.width}; it must be at least 1.")
        if self.num_units < 1:
            raise ValueError(f"DCSFN's num_units is {self.num_units}; it must be at least 1.")


VARIANTS = {
    "dcsfn": DCSFNConfig(),
    # for tests, and for training in minutes on a laptop CPU
    "dcsfn_t": DCSFNConfig(width=8, num_units=2),
}


def activation() -> nn.LeakyReLU:
    """The only activation; in place, because its input is always a new convolution or sum."""
    return nn.LeakyReLU(0.2, inplace=True)


def conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3x3 convolution with a bias and zero padding that keeps H and W."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def conv_act(in_channels: int, out_channels: int) -> nn.Sequential:
    """The release's basic convolution: conv, then LeakyReLU."""
    return nn.Sequential(conv(in_channels, out_channels), activation())


def resize(x: Tensor, like: Tensor) -> Tensor:
    """(B, C, h, w) to the H and W of ``like``, up or down: row i reads row floor(i * h / H)."""
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")


class FusionConv(nn.Conv2d):
    """A 1x1 convolution over the concatenation of feature maps, enlarged to the size of the first.

    Parts (B, Ci, hi, wi), ordered fine to coarse, to (B, out_channels, h0, w0).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1)

    @replaceable
    def forward(self, *parts: Tensor) -> Tensor:
        return super().forward(torch.cat([resize(part, parts[0]) for part in parts], dim=1))


class InnerScaleUnit(nn.Module):
    """Inner-scale connection block, (B, C, H, W) kept; H and W at least 8."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # coarse to fine: 1/8, 1/4, 1/2, 1
        self.branches = nn.ModuleList(
            nn.Sequential(*(conv_act(channels, channels) for _ in range(4))) for _ in range(4)
        )
        self.connections = nn.ModuleList(FusionConv(2 * channels, channels) for _ in range(3))
        self.fusion = FusionConv(4 * channels, channels)
        self.act = activation()

    def forward(self, x: Tensor) -> Tensor:
        pooled = [x]
        for _ in range(3):
            # equals the release's 2x2, 4x4 and 8x8 max pooling of x
            pooled.append(F.max_pool2d(pooled[-1], 2))
        refined = [self.branches[0](pooled.pop())]  # fine to coarse
        for branch, connection in zip(self.branches[1:], self.connections, strict=True):
            refined.insert(0, branch(self.act(connection(pooled.pop(), refined[0]))))
        return x + self.act(self.fusion(*refined))


class DenseChain(nn.Module):
    """An encoder or decoder: units, each followed by a fusion, (B, C, H, W) kept."""

    def __init__(self, channels: int, num_units: int) -> None:
        super().__init__()
        self.units = nn.ModuleList(InnerScaleUnit(channels) for _ in range(num_units))
        self.fusions = nn.ModuleList(
            FusionConv((i + 2) * channels, channels) for i in range(num_units)
        )
        self.act = activation()

    def forward(
        self, x: Tensor, skips: Iterable[Tensor | None] = repeat(None)
    ) -> tuple[Tensor, list[Tensor]]:
        """The output of the last fusion and those of all units.

        ``skips``, the encoder's unit outputs, are added to the inputs of a decoder's units.
        """
        out, unit_outputs = x, []
        for unit, fusion, skip in zip(self.units, self.fusions, skips, strict=False):
            unit_outputs.append(unit(out if skip is None else out + skip))
            out = self.act(fusion(x, *unit_outputs))
        return out, unit_outputs


def handed_over(tensors: list[Tensor]) -> Iterator[Tensor]:
    """The tensors one by one, each removed from the list, so that its memory can be freed."""
    while tensors:
        yield tensors.pop(0)


class FirstCell(nn.Module):
    """The ConvGRU that starts a pass, without a state, (B, C, H, W) kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv(channels, 2 * channels)  # update, candidate
        self.act = activation()

    def forward(self, x: Tensor) -> Tensor:
        update, candidate = self.conv(x).chunk(2, dim=1)
        return self.act(torch.sigmoid(update) * torch.tanh(candidate))


class Cell(nn.Module):
    """A ConvGRU: features and state, both (B, C, H, W), to its output, which is the next state."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_input = conv(channels, 3 * channels)  # update, reset, candidate
        self.conv_state = conv(channels, 2 * channels)  # update, reset
        self.conv_reset_state = conv(channels, channels)  # candidate, from the reset state
        self.act = activation()

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        input_update, input_reset, input_candidate = self.conv_input(x).chunk(3, dim=1)
        state_update, state_reset = self.conv_state(state).chunk(2, dim=1)
        update = torch.sigmoid(input_update + state_update)
        reset = torch.sigmoid(input_reset + state_reset)
        candidate = torch.tanh(input_candidate + self.conv_reset_state(reset * state))
        return self.act((1 - update) * state + update * candidate)


class CrossScalePass(nn.Module):
    """A recurrence over the three sizes; features and results come fine to coarse."""

    def __init__(self, channels: int, order: tuple[int, int, int]) -> None:
        """``order`` lists the levels (0 is the finest) in the order of the recurrence."""
        super().__init__()
        self.order = order
        self.cells = nn.ModuleList(
            FirstCell(channels) if level == order[0] else Cell(channels) for level in range(3)
        )
        self.fusion = FusionConv(2 * channels, channels)
        self.act = activation()

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        first, second, third = self.order
        results = {first: self.cells[first](features[first])}
        state = resize(results[first], features[second])
        results[second] = self.cells[second](features[second], state)
        # In both directions the finer one is concatenated first.
        states = [resize(results[level], features[third]) for level in sorted((first, second))]
        results[third] = self.cells[third](features[third], self.act(self.fusion(*states)))
        return [results[level] for level in range(3)]


class DCSFN(DerainingNetwork):
    """DCSFN (module docstring). ``forward`` returns one image."""

    min_size = 32  # two halvings in the network, three more in a unit
    checkpointed_blocks = (InnerScaleUnit,)

    def __init__(self, config: DCSFNConfig) -> None:
        super().__init__()
        self.config = config
        c, n = config.width, config.num_units
        self.stem = conv_act(3, c)
        self.encoder = nn.ModuleList(DenseChain(c, n) for _ in range(3))
        self.coarse_to_fine = CrossScalePass(c, order=(2, 1, 0))
        self.fine_to_coarse = CrossScalePass(c, order=(0, 1, 2))
        self.decoder = nn.ModuleList(DenseChain(c, n) for _ in range(3))
        self.merge = FusionConv(3 * c, 3)
        self.head = nn.Sequential(activation(), conv(3, 3))

    def forward(self, rainy: Tensor) -> tuple[Tensor, ...]:
        image = rainy
        if image.device.type == "cpu":
            # In NCHW, converting layouts takes half the time of convolutions with so few channels.
            image = image.contiguous(memory_format=torch.channels_last)
        features = [self.stem(image)]
        for _ in range(2):
            features.append(F.max_pool2d(features[-1], 2))

        encoded, unit_outputs = [], []
        for encoder, x in zip(self.encoder, features, strict=True):
            out, outputs_of_scale = encoder(x)
            encoded.append(out)
            unit_outputs.append(outputs_of_scale)
        fused = self.fine_to_coarse(self.coarse_to_fine(encoded))
        decoded = [
            decoder(x, handed_over(skips))[0]
            for decoder, x, skips in zip(self.decoder, fused, unit_outputs, strict=True)
        ]
        rain = self.head(self.merge(*decoded))
        return (rainy - rain,)
