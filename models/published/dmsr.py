"""DMSR's weights as its authors store them."""

from __future__ import annotations

import torch
from torch import Tensor

from models.dmsr import DMSR, MPSRM, DMSRConfig
from models.published.form import PublishedForm


class DMSRForm(PublishedForm[DMSR]):
    """Entries without effect are zeros: ``FDSM.conv_mid`` and a bias in each ``SCM``."""

    key = "state_dict"

    def to_published(self, network: DMSR) -> dict[str, Tensor]:
        state, names = network.state_dict(), published_names(network.config)
        published = {theirs: state[ours] for ours, theirs in names.items()}
        for name in list(published):
            if name.endswith("FDSM.conv_init_1.0.bias"):
                # conv_mid, a 1x1 convolution of 2h channels to h, is stored and never used.
                half, conv_mid = published[name], name.replace("conv_init_1", "conv_mid")
                published[conv_mid] = torch.zeros_like(half)
                published[conv_mid.replace("bias", "weight")] = half.new_zeros(
                    len(half), 2 * len(half), 1, 1
                )
        for embed in ("SCM2", "SCM1"):  # the instance norm cancels this bias
            weight = published[f"{embed}.main.3.main.0.weight"]
            published[f"{embed}.main.3.main.0.bias"] = weight.new_zeros(len(weight))
        return published

    def from_published(self, network: DMSR, published: dict[str, Tensor]) -> dict[str, Tensor]:
        names = published_names(network.config)
        return {ours: published[theirs] for ours, theirs in names.items()}


def published_names(config: DMSRConfig) -> dict[str, str]:
    """Our names of parameters and buffers to the release's."""
    names: dict[str, str] = {}
    conv_entries = ("weight", "bias")
    norm_entries = (*conv_entries, "running_mean", "running_var", "num_batches_tracked")

    def add(ours: str, theirs: str, entries: tuple[str, ...] = conv_entries) -> None:
        for entry in entries:
            names[f"{ours}.{entry}"] = f"{theirs}.{entry}"

    def add_attention(ours: str, theirs: str) -> None:
        add(f"{ours}.project.0", f"{theirs}.conv2.main.0")
        add(f"{ours}.spatial", f"{theirs}.sa.sa")
        for layer in (0, 1, 3):
            add(f"{ours}.channel.{layer}", f"{theirs}.dwconv.{layer}", ("weight",))
        add(f"{ours}.pixel", f"{theirs}.pa.pa2")

    def add_dual_domain(ours: str, theirs: str) -> None:
        for branch in range(len(MPSRM.POOLS)):
            add(f"{ours}.spatial.convs.{branch}", f"{theirs}.MPSRM.convs.{branch}", ("weight",))
            add_attention(f"{ours}.spatial.attentions.{branch}", f"{theirs}.MPSRM.dynas.{branch}")
        add(f"{ours}.spatial.conv_out", f"{theirs}.MPSRM.conv_sum", ("weight",))
        add(f"{ours}.frequency.small_kernel.0", f"{theirs}.FDSM.conv_init_1.0")
        add(f"{ours}.frequency.large_kernel.0", f"{theirs}.FDSM.conv_init_2.0")
        add(f"{ours}.frequency.fourier.conv", f"{theirs}.FDSM.FFC.conv_layer", ("weight",))
        add(f"{ours}.frequency.fourier.norm", f"{theirs}.FDSM.FFC.bn", norm_entries)
        add(f"{ours}.frequency.norm", f"{theirs}.FDSM.bn", norm_entries)

    add("stem.0", "feat_extract.0.main.0")
    add("heads.2", "feat_extract.5.main.0")
    for i in (0, 1):
        add(f"down.{i}.0", f"feat_extract.{1 + i}.main.0")
        add(f"up.{i}.0", f"feat_extract.{3 + i}.main.0")
        add(f"heads.{i}", f"ConvsOut.{i}.main.0")
        add(f"reduce_skip.{i}.0", f"Convs.{i}.main.0")
        add(f"merge.{i}", f"FAM{2 - i}.merge.main.0")
        for layer in (0, 1, 2):
            add(f"embed.{i}.{layer}.0", f"SCM{2 - i}.main.{layer}.main.0")
        add(f"embed.{i}.3", f"SCM{2 - i}.main.3.main.0", ("weight",))
        add(f"embed.{i}.4", f"SCM{2 - i}.main.4")
    for part, their_part in (("encoder", "Encoder"), ("decoder", "Decoder")):
        for level in range(3):
            for block in range(config.num_blocks):
                ours, theirs = f"{part}.{level}.{block}", f"{their_part}.{level}.layers.{block}"
                add(f"{ours}.conv_in.0", f"{theirs}.conv1.main.0")
                add(f"{ours}.depthwise", f"{theirs}.proj")
                add(f"{ours}.conv_out", f"{theirs}.conv2.main.0")
            add_dual_domain(ours, theirs)  # the last block of a stage
    return names
