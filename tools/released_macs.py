"""Multiply-accumulates of the releases' own graphs, which the papers report.

Here some of that arithmetic is left out because it has no effect or is done on fewer pixels, so
counting what runs here gives other figures. The releases' can be told from their checkpoints: a
kernel is applied at so many positions, each time with one multiplication for each of its weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from models.network import DerainingNetwork
from models.published import to_published

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # in checkpoints, not trained

# The positions at which an entry of the checkpoint is applied to an image of a height and a width.
Positions = Callable[[str, int, int], int]


def released_parameters(network: DerainingNetwork) -> int:
    """Trained values in the authors' checkpoint of this network, the unused ones too.

    A value that is stored under several names counts once.
    """
    entries = to_published(network).items()
    trained = {id(x): x for name, x in entries if name.split(".")[-1] not in BUFFERS}
    return sum(value.numel() for value in trained.values())


def released_macs(network: DerainingNetwork, height: int, width: int) -> int | None:
    """Multiply-accumulates of the release for one image; None for a network without a release.

    Convolutions and matrix products count, as usual; transforms, norms and activations do not.
    """
    if type(network).__name__ not in RULES:
        return None
    positions = RULES[type(network).__name__]
    shapes = {name: tuple(value.shape) for name, value in to_published(network).items()}
    total = sum(
        math.prod(shape) * positions(name, height, width)
        for name, shape in shapes.items()
        if len(shape) > 1 and not name.endswith("temperature")
    )
    for name, shape in shapes.items():
        if name.endswith("temperature"):  # (heads, 1, 1): q k^T, and its product with v
            channels = shapes[name.replace("temperature", "project_out.weight")][0]
            products = 2 * channels * channels // shape[0]
            total += products * positions(name, height, width)
    return total


def dmsr_positions(name: str, height: int, width: int) -> int:
    """DMSR; levels 0 to 2 have 1, 1/2 and 1/4 of the image's side."""
    if "conv_mid" in name:
        return 0  # stored and never used
    part, _, rest = name.partition(".")
    if part in ("Encoder", "Decoder"):
        level = int(rest[0]) if part == "Encoder" else 2 - int(rest[0])
        side = 2**level
        if "FFC" in name:  # the half spectrum
            return height // side * (width // side // 2 + 1)
        if branch := re.search(r"MPSRM\.(?:convs|dynas)\.(\d)", name):
            side *= (4, 2, 1)[int(branch[1])]
    elif part == "feat_extract":
        # 3 and 4 are transposed convolutions, applied at the pixels of their input
        side = (1, 2, 4, 4, 2, 1)[int(rest[0])]
    elif part in ("Convs", "ConvsOut"):
        side = {"Convs": (2, 1), "ConvsOut": (4, 2)}[part][int(rest[0])]
    else:  # SCM and FAM, 2 at a half and 1 at a quarter
        side = 2 if part.endswith("2") else 4
    return (height // side) * (width // side)


def nerd_rain_positions(name: str, height: int, width: int) -> int:
    """NeRD-Rain; the implicit heads are evaluated four times at every pixel."""
    if "conv_du" in name:
        return 1  # the gates of a CAB, from one mean per channel
    uses = 1
    fixed = {
        "upsmall2mid1": 16, "upsmall2mid2": 8, "upmid2max1": 8, "upmid2max2": 4,
        "BF1": 4, "BF2": 4, "BF3": 8, "INR": 4, "INR2": 2,
    }  # fmt: skip
    part = name.partition(".")[0]
    if part in fixed:
        side = fixed[part]
        uses = 4 if part.startswith("INR") else 1
    else:
        scale = re.search(r"_(small|mid|max)", part)
        assert scale is not None, name
        side = {"small": 4, "mid": 2, "max": 1}[scale[1]]
        if re.match(r"latent|up3_2", part):
            side *= 4
        elif re.match(r"(en|de)coder_level2|reduce_chan_level2|down2_3|up2_1", part):
            side *= 2
        # the third pass takes the second one's weights
        uses = {"reduce_chan_level1_max2": 2, "reduce_chan_level1_max3": 0}.get(part, 1)
    return uses * (height // side) * (width // side)


def dcsfn_positions(name: str, height: int, width: int) -> int:
    """DCSFN; a scale's number is what its side is divided by."""
    if name.startswith(("fusion_1_2_2", "fusion_2_2_2")) or re.match(
        r"(rec1_4|rec2_1)\.conv_(xr|hz|hr|hn)", name
    ):
        return 0  # stored and never used
    side = 1
    if name.startswith("fusion_2_2_1"):
        side = 4
    elif place := re.match(r"(?:rec\d_|(?:en|de)coder_scale)(\d)", name):
        side = int(place[1])
        if branch := re.search(r"\.(?:scale|fusion\d)(\d)\.", name):
            side *= int(branch[1])
    return (height // side) * (width // side)


def mspfn_positions(name: str, height: int, width: int) -> int:
    """MSPFN; transposed convolutions are applied at the pixels of their input."""
    first, second = name.split("/")[:2]
    top = {"rnn1": 1, "rnn2": 2, "rnn4": 4, "rnn_recon4": 4, "rnn_recon2": 2, "rnn_recon": 1,
           "up4_2": 4, "up2_1": 2, "rnn5": 1, "rnn7": 1}  # fmt: skip
    if first in top:
        side = top[first]
    elif first == "residual_memory":
        side = {"upRMM4_2": 4, "upRMM4_1": 2, "upRMM2_1": 2}.get(second, 0)
        if not side:
            place = re.match(r"(?:rain|lstm_group)(\d?)", second)
            assert place is not None, name
            side = int(place[1] or 1)
    else:
        if re.search(r"conv2d_[23]/", name):
            return 1  # the gates, from one mean a channel
        unit = re.match(r"URAB(\d?)_", first)
        assert unit is not None, name
        side = 2 * int(unit[1] or 1)  # everything in a unit is at half its size
        if second.startswith("upURAB"):
            side = 4 if second.startswith("upURAB4_2") else 2
    return (height // side) * (width // side)


# By the class of the network
RULES: dict[str, Positions] = {
    "DMSR": dmsr_positions,
    "NeRDRain": nerd_rain_positions,
    "DCSFN": dcsfn_positions,
    "MSPFN": mspfn_positions,
}
