"""How large and how fast the authors' releases are: figures with their sources.

The releases' own code is not here. Their times are multiples of a fixed convolution (the unit of
``networks.py``), valid for one kind of processor at one speed: on another kind they were up to 34%
off.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Release(NamedTuple):
    """Trainable parameters of the authors' checkpoint, and multiply-accumulates of one image.

    The image has ``RELEASE_SIZE``. Convolutions and matrix products count, including those without
    effect; transforms, norms and activations do not, as in the papers.
    """

    parameters: int
    macs: float


# Parameters: the published checkpoints, where a tensor stored under several names counts once.
# Multiply-accumulates: the papers, and the releases' graphs counted layer by layer, which agree.
# The graph alone for NeRD-Rain with CNN blocks, whose paper does not give the figure.
RELEASES = {
    "dmsr": Release(35_472_543, 307.6e9),
    "nerd_rain": Release(22_893_146, 156.3e9),
    "nerd_rain_s": Release(10_530_314, 79.3e9),
    "nerd_rain_cnn": Release(22_983_411, 154.7e9),
    "dcsfn": Release(6_453_147, 73.2e9),
    "mspfn": Release(20_995_776, 353.0e9),
    "mspfn_n1": Release(15_823_424, 301.7e9),
}

RELEASE_SIZE = (256, 256)  # of the image that they restored, in float32
TOLERANCE = 0.15  # relative: by how much the unit of one machine varies


@dataclass(frozen=True)
class Reference:
    """The releases on one machine.

    ``kind`` is what ``machine_kind`` returns there, ``unit`` the seconds of its unit on one thread,
    ``units`` the releases' times by number of threads and network.
    """

    machine: str
    kind: str
    unit: float
    units: dict[int, dict[str, int]]


# PyTorch releases in PyTorch, MSPFN in TensorFlow 2.15 with random weights.
REFERENCES = (
    Reference(
        "an AMD EPYC with AVX-512, unit 32 ms, PyTorch 2.13",
        "AMD EPYC, AVX-512 with bf16",
        4.3 / 136,
        {
            1: {"dmsr": 136, "nerd_rain": 350, "nerd_rain_s": 161, "dcsfn": 160, "mspfn_n1": 98,
                "mspfn": 116},
            2: {"dmsr": 133, "nerd_rain": 342, "nerd_rain_s": 205, "dcsfn": 189, "mspfn_n1": 84,
                "mspfn": 99},
        },
    ),
    Reference(
        "an AMD EPYC with AVX-512 and bf16, unit 47 ms, PyTorch 2.15",
        "AMD EPYC, AVX-512 with bf16",
        0.0473,
        # NeRD-Rain-S from its 7.96 s, the others as measured
        {1: {"dmsr": 180, "nerd_rain": 264, "nerd_rain_s": 168, "dcsfn": 135, "mspfn_n1": 127,
             "mspfn": 147}},
    ),
)  # fmt: skip


def fitting_reference(kind: str, unit: float) -> Reference | None:
    """The reference of this kind of machine with the nearest unit; None if all are too far off."""

    def distance(reference: Reference) -> float:
        return abs(unit / reference.unit - 1)

    same_kind = [reference for reference in REFERENCES if reference.kind == kind]
    nearest = min(same_kind, key=distance, default=None)
    return nearest if nearest and distance(nearest) <= TOLERANCE else None


def machine_kind(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor, such as ``AMD EPYC, AVX-512 with bf16``; without Linux, its architecture."""
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    name = re.search(
        r"^model name\s*:.*?(AMD|Intel)(?:\S* (EPYC|Xeon|Ryzen|Core))?", text, re.MULTILINE
    )
    if name is None:
        return f"{platform.machine()} CPU"
    flags = re.findall(r"\w+", text.partition("\nflags")[2].partition("\n")[0])
    vector = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "SSE"
    extras = {"bf16": "avx512_bf16", "AMX": "amx_bf16"}
    found = " and ".join(extra for extra, flag in extras.items() if flag in flags)
    maker = " ".join(filter(None, name.groups()))
    return f"{maker}, {vector}" + (f" with {found}" if found else "")
