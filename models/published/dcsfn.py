"""DCSFN's weights as its authors store them."""

from __future__ import annotations

import torch
from torch import Tensor

from models.dcsfn import DCSFN, DCSFNConfig
from models.published.form import PublishedForm


class DCSFNForm(PublishedForm[DCSFN]):
    """The release is BGR and has separate convolutions for the gates of a cell."""

    key = "net"

    def to_published(self, network: DCSFN) -> dict[str, Tensor]:
        state = network.state_dict()
        published: dict[str, Tensor] = {}
        for ours, theirs in published_names(network.config).items():
            parts = _swap_rgb(ours, state[ours]).chunk(len(theirs))
            published.update(zip(theirs, parts, strict=True))
        # Stored by the release but never used: two fusions, and the convolutions of a pass's first
        # cell that would apply to a state or reset it.
        unused = {f"fusion_{i}_2_2.0": f"fusion_{i}_2_1.0" for i in (1, 2)}
        for cell in ("rec1_4", "rec2_1"):
            for gate in ("xr", "hz", "hr", "hn"):
                unused[f"{cell}.conv_{gate}"] = f"{cell}.conv_xz"
        for layer, used in unused.items():
            for entry in ("weight", "bias"):
                published[f"{layer}.{entry}"] = torch.zeros_like(published[f"{used}.{entry}"])
        return published

    def from_published(self, network: DCSFN, published: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            ours: _swap_rgb(ours, torch.cat([published[name] for name in theirs]))
            for ours, theirs in published_names(network.config).items()
        }

    def name_in_file(self, network: DCSFN, name: str) -> str:
        return f"module.{name}"  # the prefix of parallel training


def _swap_rgb(name: str, value: Tensor) -> Tensor:
    """Weights of the RGB network from those of the BGR network, and the inverse."""
    if name == "stem.0.weight":
        return value.flip(1)
    return value.flip(0) if name.startswith("head.1.") else value


def published_names(config: DCSFNConfig) -> dict[str, list[str]]:
    """Our names of parameters to the release's: the parts that give ours, stacked along dim 0."""
    names: dict[str, list[str]] = {}

    def add(ours: str, *theirs: str) -> None:
        for entry in ("weight", "bias"):
            names[f"{ours}.{entry}"] = [f"{layer}.{entry}" for layer in theirs]

    def add_unit(ours: str, theirs: str) -> None:
        for i, divisor in enumerate((8, 4, 2, 1)):
            for layer in range(4):
                add(f"{ours}.branches.{i}.{layer}.0", f"{theirs}.scale{divisor}.{layer}.0")
        for i, sizes in enumerate(("84", "42", "21")):
            add(f"{ours}.connections.{i}", f"{theirs}.fusion{sizes}.0")
        add(f"{ours}.fusion", f"{theirs}.fusion_all.0")

    def add_cell(ours: str, theirs: str, is_first: bool) -> None:
        def gates(*which: str) -> list[str]:
            return [f"{theirs}.conv_{gate}" for gate in which]

        if is_first:
            add(f"{ours}.conv", *gates("xz", "xn"))
        else:
            add(f"{ours}.conv_input", *gates("xz", "xr", "xn"))
            add(f"{ours}.conv_state", *gates("hz", "hr"))
            add(f"{ours}.conv_reset_state", *gates("hn"))

    add("stem.0", "convert.0")
    add("merge", "merge.0")
    add("head.1", "merge.2")
    for level, divisor in enumerate((1, 2, 4)):  # the release counts sizes by their divisors
        for part in ("encoder", "decoder"):
            theirs = f"{part}_scale{divisor}"
            for i in range(config.num_units):
                add_unit(f"{part}.{level}.units.{i}", f"{theirs}.units.{i}")
                add(f"{part}.{level}.fusions.{i}", f"{theirs}.conv1x1.{i}.0")
        add_cell(f"coarse_to_fine.cells.{level}", f"rec1_{divisor}", is_first=level == 2)
        add_cell(f"fine_to_coarse.cells.{level}", f"rec2_{divisor}", is_first=level == 0)
    add("coarse_to_fine.fusion", "fusion_1_2_1.0")
    add("fine_to_coarse.fusion", "fusion_2_2_1.0")
    return names
