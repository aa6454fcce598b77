"""How long the releases take, on the machines where that was measured.

The releases' own code is not here. Their times are multiples of a fixed convolution (the unit of
``tools/benchmark.py``), which hold for one kind of processor at one speed: on a second kind they
were up to 34% off.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

RELEASE_SIZE = (256, 256)  # of the image that they restored, in float32
TOLERANCE = 0.15  # of the unit: what one machine differs from itself


@dataclass(frozen=True)
class Reference:
    """The releases on one machine.

    ``kind`` is what ``machine_kind`` says there, ``unit`` the seconds of its unit on one thread,
    ``units`` the releases' times by threads and network.
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
    """Maker, family and vector units of the processor, as far as the system tells them."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
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
