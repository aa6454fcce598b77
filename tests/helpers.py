"""Small images, files of weights and started scripts, for tests of all kinds."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch

from models import build_model
from utils.checkpoints import Weights, write_weights

ROOT = Path(__file__).parents[1]


def smooth_image(seed: int, height: int, width: int) -> np.ndarray:
    """A smooth colour image, uint8 (H, W, 3), different for each seed."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 255, (height // 16 + 2, width // 16 + 2, 3)).astype(np.float32)
    return (
        cv2.resize(low, (width, height), interpolation=cv2.INTER_CUBIC)
        .clip(0, 255)
        .astype(np.uint8)
    )


def random_image(shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    """Random values over the whole range of an integer type, or 0 to 1 for floats."""
    values = np.random.default_rng(0).integers(0, 65536, shape)
    if np.dtype(dtype).kind == "f":
        return (values / 65535).astype(dtype)
    return (values // {np.uint8: 257, np.uint16: 1}[dtype]).astype(dtype)


def streaked(clean: np.ndarray, seed: int) -> np.ndarray:
    """``clean`` with bright vertical streaks."""
    rng = np.random.default_rng(seed)
    drops = (rng.random(clean.shape[:2]) > 0.98).astype(np.float32) * 255
    return (clean + cv2.blur(drops, (1, 9))[..., None] * 3).clip(0, 255).astype(np.uint8)


def write_pairs(folder: Path, count: int, height: int = 72, width: int = 88) -> Path:
    """``count`` pairs 1.png, 2.png .. in folder/input and folder/target."""
    for name in ("input", "target"):
        (folder / name).mkdir(parents=True)
    for i in range(1, count + 1):
        clean = smooth_image(i, height, width)
        cv2.imwrite(str(folder / "target" / f"{i}.png"), clean)
        cv2.imwrite(str(folder / "input" / f"{i}.png"), streaked(clean, i))
    return folder


SMALL_DMSR = {"width": 4, "num_blocks": 1}  # options of dmsr_s


def write_random_weights(
    path: Path, name: str = "dmsr_s", options: Mapping[str, object] = SMALL_DMSR, seed: int = 0
) -> Path:
    """Write a file with random weights of a small network."""
    torch.manual_seed(seed)
    state = build_model(name, options).state_dict()
    write_weights(path, Weights(name, dict(options), state, {"epoch": seed}))
    return path


def write_damaged_jpeg(path: Path, image: np.ndarray) -> Path:
    """Write the image with noise as a JPEG without its last quarter, which decoders accept."""
    noise = np.random.default_rng(0).integers(0, 64, image.shape, np.uint8)
    content = cv2.imencode(".jpg", (image // 2 + noise)[..., ::-1])[1].tobytes()
    path.write_bytes(content[: len(content) * 3 // 4] + content[-2:])
    return path


def run_script(
    script: str, *arguments: object, launcher: tuple[str, ...] = (), timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run a script of the repository as a user starts it."""
    command = [sys.executable, *launcher, str(ROOT / script), *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def as_ordinary_user(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process that obeys file permissions even if the tests run as root."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def drop_rights() -> None:
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            prctl(24, capability)  # PR_CAPBSET_DROP: takes effect at the exec that follows

    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=drop_rights if os.geteuid() == 0 else None,
    )


def start_script(script: str, *arguments: object, timeout: float = 300) -> subprocess.Popen[str]:
    """Like ``run_script``, but does not wait; the process is killed after ``timeout`` seconds."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,  # a separate process group, which tests can signal as a whole
        # pytest may run with SIGINT ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    end = threading.Timer(timeout, process.kill)
    end.daemon = True
    end.start()
    return process


def read_until(process: subprocess.Popen[str], beginning: str) -> str:
    """Read a script's output and return the first line with this beginning; fail without one."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(beginning):
            return line
    raise AssertionError(f"no line begins with {beginning!r} in:\n{''.join(lines)}")


DETECTOR, SEGMENTER = "ssdlite320_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"


def write_task_networks(folder: Path) -> dict[str, Path]:
    """Random weights for DETECTOR, biased to find cars everywhere, and for SEGMENTER.

    The files have the names that torchvision looks for in $TORCH_HOME/hub/checkpoints.
    """
    from torchvision.models import get_model, get_model_weights

    torch.manual_seed(4)
    paths = {}
    for name, options in ((DETECTOR, {}), (SEGMENTER, {"aux_loss": True})):
        state = get_model(name, weights=None, weights_backbone=None, **options).state_dict()
        for key, value in state.items():
            if "classification_head" in key and key.endswith(".1.bias") and len(value) % 91 == 0:
                value.view(-1, 91)[:, 3] += 6.0  # 3 is "car"
        paths[name] = folder / get_model_weights(name).DEFAULT.url.rpartition("/")[2]
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(state, paths[name])
    return paths
