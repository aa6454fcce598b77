"""What the releases are and how fast they are: figures beside their sources.

The releases' own code is not here. Their times are multiples of a fixed convolution (the unit of
``networks.py``), which hold for one kind of processor at one speed: on a second kind they were up
to 34% off.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Release(NamedTuple):
    """Trained values in the authors' checkpoint, and multiply-accumulates of one image.

    The image has ``RELEASE_SIZE``. Convolutions and matrix products count, the ones without effect
    too; transforms, norms and activations do not, as in the papers.
    """

    parameters: int
    macs: float


# Parameters: the published checkpoints, in which what is stored under several names counts once.
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
TOLERANCE = 0.15  # of the unit: how much one machine varies


@dataclass(frozen=True)
class Reference:
    """The releases on one machine.

    ``kind`` is what ``machine_kind`` gives there, ``unit`` the seconds of its unit on one thread,
    ``units`` the releases' times by number of threads and network.
    """

    machine: str
    kind: str
    unit: float
    units: dict[int, dict[str, int]]


# PyTorch releases under PyTorch, MSPFN under TensorFlow 2.15 with random weights.
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
    """The reference of this kind of machine whose unit is nearest, None where all are too far."""
    near = [
        (abs(unit / reference.unit - 1), reference)
        for reference in REFERENCES
        if reference.kind == kind
    ]
    distance, reference = min(near, key=lambda pair: pair[0], default=(1.0, None))
    return reference if distance <= TOLERANCE else None


def machine_kind(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Maker, family and vector units of the processor, as far as the system reports them."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return f"{platform.machine()} CPU"
    values: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        values.setdefault(key.strip(), value.strip())
    maker = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel"}.get(values.get("vendor_id", ""))
    if maker is None:
        return f"{platform.machine()} CPU"
    family = next((f for f in ("EPYC", "Xeon", "Ryzen", "Core") if f in values["model name"]), "")
    flags = values.get("flags", "").split()
    vector = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "SSE"
    extras = [
        name for flag, name in (("avx512_bf16", "bf16"), ("amx_bf16", "AMX")) if flag in flags
    ]
    described = f"{vector} with {' and '.join(extras)}" if extras else vector
    return f"{maker} {family}".strip() + f", {described}"
