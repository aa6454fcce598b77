"""The releases' figures in tests/golden, and the rules that regenerate their weights and batches.

Figures of DCSFN and MSPFN are in the releases' channel order, those of MSPFN in NHWC and [-1, 1];
everything here is (B, 3, H, W), RGB in [0, 1].
"""

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

from models import build_model
from models.network import DerainingNetwork
from models.published import from_published
from models.published.mspfn import MSPFNForm

FOLDER = Path(__file__).parent / "golden"
RELEASED = sorted(path.name.removesuffix("_forward.npz") for path in FOLDER.glob("*_forward.npz"))
# Those with a PyTorch checkpoint; the other one is MSPFN, in two variants.
RELEASED_IN_PYTORCH = [name for name in RELEASED if (FOLDER / f"{name}_keys.json").is_file()]


def read_json(name: str) -> dict:
    return json.loads((FOLDER / name).read_text())


def read_arrays(name: str) -> dict[str, Tensor]:
    with np.load(FOLDER / name) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def golden_shapes(name: str) -> dict[str, list[int]]:
    """The entries of a published checkpoint and their shapes."""
    if name in RELEASED_IN_PYTORCH:
        return read_json(f"{name}_keys.json")
    entry_name = MSPFNForm().name_from_file
    return {
        entry_name(f"model/{entry['name']}"): entry["shape"]
        for entry in read_json(f"{name}_vars.json")
    }


def golden_weights(name: str) -> dict[str, Tensor]:
    """The entries of a published checkpoint with regenerable random values."""
    if name in RELEASED_IN_PYTORCH:
        return _pytorch_weights(name)
    entry_name = MSPFNForm().name_from_file
    return {entry_name(f"model/{key}"): x for key, x in mspfn_variables(name).items()}


def _pytorch_weights(name: str) -> dict[str, Tensor]:
    state = {}
    for key, shape in golden_shapes(name).items():
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
    # NeRD-Rain's CABs share one PReLU, whose slope has another rule.
    slopes = [key for key in state if key.endswith(".body.1.weight")]
    if slopes:
        state |= dict.fromkeys(slopes, 0.25 + 0.1 * (state[slopes[0]] - 1))
    return state


def mspfn_variables(name: str, training_graph: bool = False) -> dict[str, Tensor]:
    """The variables of a released graph, without its root.

    The values depend on the names; the training graph of MSPFN-N1 says URAB for BCM.
    """
    variables = {}
    for entry in read_json(f"{name}_vars.json"):
        variable, shape = entry["name"], entry["shape"]
        if training_graph:
            variable = variable.replace("BCM", "URAB")
        rng = np.random.default_rng(zlib.crc32(variable.encode()))
        z = rng.standard_normal(shape).astype(np.float32)
        last = variable.rsplit("/", 1)[-1]
        if last == "alpha":
            z = np.float32(0.25) + np.float32(0.05) * z
        elif last in ("bias", "biases"):
            z = np.float32(0.02) * z
        else:
            fan_in = shape[0] * shape[1] * shape[3 if entry["kind"] == "conv_transpose" else 2]
            z = z * np.float32(1 / np.sqrt(fan_in))
        variables[variable] = torch.from_numpy(z)
    return variables


def golden_network(name: str) -> DerainingNetwork:
    """The network with ``golden_weights``."""
    network = build_model(name)
    network.load_state_dict(from_published(network, golden_weights(name)))
    return network


def golden_order(name: str) -> list[int]:
    """The channels of golden images in the order R, G, B, and the inverse."""
    return [2, 1, 0] if name == "dcsfn" else [0, 1, 2]


def golden_images(name: str) -> tuple[Tensor, list[Tensor]]:
    """A rainy image and the outputs of the release for it."""
    arrays = read_arrays(f"{name}_forward.npz")
    rainy = arrays.pop("input")
    if name in RELEASED_IN_PYTORCH:
        order = golden_order(name)
        return rainy[:, order], [arrays[f"output{i}"][:, order] for i in range(len(arrays))]
    return mspfn_to_rgb(rainy), [mspfn_to_rgb(arrays["imitation"])]


def golden_batch(step: int, batch: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Rainy and clean images of a training step of a PyTorch release, in its channel order."""
    rng = np.random.default_rng(1000 + step)
    low = rng.uniform(0, 1, (batch, 3, height // 8 + 1, width // 8 + 1)).astype(np.float32)
    clean = F.interpolate(
        torch.from_numpy(low), size=(height, width), mode="bilinear", align_corners=True
    )
    mask = (rng.uniform(0, 1, (batch, 1, height, width)) > 0.93).astype(np.float32)
    padded = F.pad(torch.from_numpy(mask), (0, 0, 3, 3))
    streaks = F.avg_pool2d(padded, (7, 1), stride=1) * 1.5
    return (clean + streaks).clamp(0, 1), clean


def golden_steps(name: str) -> list[tuple[Tensor, Tensor, dict[str, float]]]:
    """Rainy images, clean images and the release's figures of its first two training steps.

    Of MSPFN only the first one, since TensorFlow's Adam differs from PyTorch's.
    """
    golden = read_json(f"{name}_train.json")
    if name not in RELEASED_IN_PYTORCH:
        rainy, clean = (images.float() for images in mspfn_batch(0))
        first = golden["steps"][0]
        figures = {"loss": first["train_loss"], "edge": first["edge_loss"], "lr": first["lr"]}
        return [(rainy, clean, figures)]
    steps, order = [], golden_order(name)
    for number, figures in enumerate(golden["steps"][:2], start=1):
        rainy, clean = (images[:, order] for images in golden_batch(number, *golden["batch"]))
        steps.append((rainy, clean, {**figures, "lr": golden["lr"]}))
    return steps


def mspfn_batch(step: int) -> tuple[Tensor, Tensor]:
    """Rainy and clean images of a training step of MSPFN, in double precision."""
    shape = (2, 32, 32, 3)
    clean = np.random.default_rng(100 + step).uniform(-1, 1, shape)
    noise = np.random.default_rng(200 + step).uniform(0, 1, shape)
    rainy = np.clip(clean + 0.3 * noise, -1, 1)
    # The release rounds its batches to float32.
    rainy, clean = (torch.from_numpy(x.astype(np.float32)).double() for x in (rainy, clean))
    return mspfn_to_rgb(rainy), mspfn_to_rgb(clean)


def mspfn_to_rgb(images: Tensor) -> Tensor:
    """MSPFN's (B, H, W, 3), BGR in [-1, 1], to (B, 3, H, W), RGB in [0, 1]."""
    return (images.permute(0, 3, 1, 2).flip(1) + 1) / 2


def run_tensorflow(program: str, *arguments: object) -> None:
    """Run a Python program that uses TensorFlow; skip the test if it is not installed.

    In another process, since the LLVMs of TensorFlow and of PyTorch's CUDA build crash one.
    """
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("tensorflow-cpu is not installed")
    subprocess.run([sys.executable, "-c", program, *map(str, arguments)], check=True)
