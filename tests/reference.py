"""The reference figures in tests/golden and the rules that regenerate their weights and batches."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

FOLDER = Path(__file__).parent / "golden"
# Networks whose PyTorch checkpoints we know by names and shapes, and those with golden outputs.
GOLDEN_CHECKPOINTS = sorted(
    path.name.removesuffix("_keys.json") for path in FOLDER.glob("*_keys.json")
)
GOLDEN_OUTPUTS = sorted(
    path.name.removesuffix("_forward.npz") for path in FOLDER.glob("*_forward.npz")
)


def read_json(name: str) -> dict:
    return json.loads((FOLDER / name).read_text())


def read_arrays(name: str) -> dict[str, Tensor]:
    with np.load(FOLDER / name) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def golden_weights(name: str) -> dict[str, Tensor]:
    """The published checkpoint of ``name`` with regenerable random weights."""
    state = {}
    for key, shape in read_json(f"{name}_keys.json").items():
        z = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
        last = key.rsplit(".", 1)[-1]
        if last == "num_batches_tracked":
            state[key] = torch.tensor(0)
            continue
        if last == "running_var":
            value = 1 + 0.1 * np.abs(z)
        elif last == "running_mean":
            value = 0.1 * z
        elif last == "temperature" or (len(shape) == 1 and last != "bias"):
            value = 1 + 0.1 * z
        elif last == "bias":
            value = 0.02 * z
        else:
            value = 0.6 * z / np.sqrt(np.prod(shape[1:]))
        state[key] = torch.from_numpy(np.asarray(value, dtype=np.float32))
    # NeRD-Rain's CABs share one PReLU, whose slope has a rule of its own.
    slopes = [key for key in state if key.endswith(".body.1.weight")]
    if slopes:
        state |= dict.fromkeys(slopes, 0.25 + 0.1 * (state[slopes[0]] - 1))
    return state


def run_tensorflow(program: str, *arguments: object) -> None:
    """Run a Python program that uses TensorFlow; skip the test where it is not installed.

    In a process of its own: TensorFlow and PyTorch with CUDA each bring an LLVM, and two of them
    in one process end it.
    """
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("tensorflow-cpu is not installed")
    subprocess.run([sys.executable, "-c", program, *map(str, arguments)], check=True)


def golden_order(name: str) -> list[int]:
    """Channels of golden images in R, G, B; the inverse too. DCSFN's release reads B, G, R."""
    return [2, 1, 0] if name == "dcsfn" else [0, 1, 2]


def golden_batch(step: int, batch: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Rainy and clean images of a training step, (B, 3, H, W) in [0, 1]."""
    rng = np.random.default_rng(1000 + step)
    low = rng.uniform(0, 1, (batch, 3, height // 8 + 1, width // 8 + 1)).astype(np.float32)
    clean = F.interpolate(
        torch.from_numpy(low), size=(height, width), mode="bilinear", align_corners=True
    )
    mask = (rng.uniform(0, 1, (batch, 1, height, width)) > 0.93).astype(np.float32)
    padded = F.pad(torch.from_numpy(mask), (0, 0, 3, 3))
    streaks = F.avg_pool2d(padded, (7, 1), stride=1) * 1.5
    return (clean + streaks).clamp(0, 1), clean
