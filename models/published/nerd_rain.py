"""NeRD-Rain's weights as its authors store them."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from models.nerd_rain import NeRDRain, NeRDRainConfig
from models.published.form import PublishedForm
from utils.errors import UserError


class NeRDRainForm(PublishedForm[NeRDRain]):
    """The release's INRs have linear layers, its third pass a merge that is never used."""

    key = "state_dict"

    def to_published(self, network: NeRDRain) -> dict[str, Tensor]:
        state = network.state_dict()
        published = {}
        for ours, theirs in published_names(network.config).items():
            value = state[ours]
            if ours.endswith("neighbours.weight"):
                # (hidden, C, 3, 3) -> (hidden, 9C), then the columns of the relative coordinates,
                # whose inputs are always 0, then those of the cell
                coordinates = value.new_zeros(len(value), 18)
                cell = state[ours.replace("neighbours.weight", "cell")]
                value = torch.cat([value.flatten(1), coordinates, cell], dim=1)
            elif theirs.startswith("INR") and value.ndim == 4:
                value = value.flatten(1)  # a linear layer in the release
            published[theirs] = value
        if network.config.block == "cnn":  # the same tensor under the name of every CAB
            slope = state[SLOPE]
            published |= dict.fromkeys(slope_names(network.config), slope)
        # unused because of the quirk in ``Scale.fine_merges``
        used = published["reduce_chan_level1_max2.weight"]
        published["reduce_chan_level1_max3.weight"] = torch.zeros_like(used)
        return published

    def from_published(self, network: NeRDRain, published: dict[str, Tensor]) -> dict[str, Tensor]:
        own, state = network.state_dict(), {}
        for ours, theirs in published_names(network.config).items():
            value = published[theirs]
            if ours.endswith("neighbours.weight"):
                cell = ours.replace("neighbours.weight", "cell")
                state[cell] = value[:, -2:].contiguous()
                value = value[:, : own[ours][0].numel()]
            state[ours] = value.reshape(own[ours].shape).contiguous()
        if network.config.block == "cnn":
            slopes = [published[name] for name in slope_names(network.config)]
            if any(not torch.equal(slope, slopes[0]) for slope in slopes):
                raise UserError(
                    f"The {len(slopes)} copies of the slope that all CABs share differ, so these "
                    "weights do not fit nerd_rain_cnn."
                )
            state[SLOPE] = slopes[0]
        return state


# The PReLU that all CABs share; the release stores it under the name of each.
SLOPE = "activation.weight"


def slope_names(config: NeRDRainConfig) -> list[str]:
    """The release's names of ``SLOPE``."""
    names = published_names(config).values()
    return [name.replace("body.0", "body.1") for name in names if name.endswith(".body.0.weight")
            and ".decoder_level1." in name]  # fmt: skip


def published_names(config: NeRDRainConfig) -> dict[str, str]:
    """Our names of parameters to the release's.

    Two entries are missing: the INRs' ``cell``, which is two columns of the release's
    ``layers.0.weight``, and ``SLOPE``, which has many names.
    """
    names: dict[str, str] = {}

    def add(ours: str, theirs: str, entries: tuple[str, ...] = ("weight",)) -> None:
        for entry in entries:
            names[f"{ours}.{entry}"] = f"{theirs}.{entry}"

    def add_biased(ours: str, theirs: str) -> None:
        add(ours, theirs, ("weight", "bias"))

    def add_blocks(ours: str, theirs: str, num_blocks: int) -> None:
        if config.block == "cnn":
            add_cabs(ours, theirs, num_blocks)
            return
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

    def add_cabs(ours: str, theirs: str, num_blocks: int) -> None:
        for block, i in itertools.product(range(num_blocks), (0, 1)):
            cab, their_cab = f"{ours}.{block}.{i}", f"{theirs}.{block}.decoder_level1.{i}"
            add(f"{cab}.conv_in", f"{their_cab}.body.0")
            add(f"{cab}.conv_out", f"{their_cab}.body.2")
            add(f"{cab}.squeeze", f"{their_cab}.CA.conv_du.0")
            add(f"{cab}.excite", f"{their_cab}.CA.conv_du.2")

    def add_unet(ours: str, scale: str, number: str, later: str) -> None:
        """The release numbers the U-Nets of a scale if it has several, some layers from 2 on."""
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
            if p < 2:  # the weights of the third pass are never used
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
