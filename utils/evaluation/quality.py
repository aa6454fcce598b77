"""The figures of merit: PSNR and SSIM of ``utils.metrics``, and those that pyiqa computes.

LPIPS (Zhang et al. 2018) and DISTS (Ding et al. 2020) compare with the clean image; NIQE, PIQE,
BRISQUE, MUSIQ and MANIQA judge an image alone. pyiqa is an optional package; the weights of its
networks are the user's to have, downloaded by pyiqa itself or put where it looks for them.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import logging
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from utils.errors import UserError
from utils.wording import size_text


class Metric(NamedTuple):
    """A figure of merit: its key in files, its name in headings, how it is shown and compared."""

    key: str
    name: str
    decimals: int
    higher_is_better: bool = True


PSNR = Metric("psnr", "PSNR", 2)
SSIM = Metric("ssim", "SSIM", 4)

# What --metrics takes; LPIPS with AlexNet, MUSIQ and MANIQA trained on KonIQ-10k, pyiqa's defaults.
PERCEPTUAL = {
    metric.key: metric
    for metric in (
        Metric("lpips", "LPIPS", 4, higher_is_better=False),
        Metric("dists", "DISTS", 4, higher_is_better=False),
        Metric("niqe", "NIQE", 3, higher_is_better=False),
        Metric("piqe", "PIQE", 2, higher_is_better=False),
        Metric("brisque", "BRISQUE", 2, higher_is_better=False),
        Metric("musiq", "MUSIQ", 2),
        Metric("maniqa", "MANIQA", 4),
    )
}
WITH_CLEAN = ("lpips", "dists")

# Files that pyiqa loads: the key of its own list of addresses, and the backbone that torchvision
# or timm brings.
_WEIGHTS = {
    "lpips": ("0.1_alex", "AlexNet_Weights"),
    "dists": ("url", "VGG16_Weights"),
    "niqe": ("url", ""),
    "piqe": ("", ""),
    "brisque": ("url", ""),
    "musiq": ("koniq10k", ""),
    "maniqa": ("koniq", "timm/vit_base_patch8_224.augreg2_in21k_ft_in1k"),
}


class Scorer(Protocol):
    """Computes one metric. ``name`` tells the implementation and all that its values depend on."""

    metric: Metric
    name: str

    def score(self, restored: np.ndarray, clean: np.ndarray | None) -> float:
        """The value for uint8 images, (H, W, 3) RGB or (H, W).

        Raises UserError for an image that it cannot judge.
        """


class PyiqaScorer:
    """One of ``PERCEPTUAL`` on the CPU."""

    def __init__(self, key: str, **options: object) -> None:
        """Load pyiqa and the metric; ``options`` are pyiqa's own.

        Raises UserError where pyiqa or a file of weights is missing.
        """
        self.metric = PERCEPTUAL[key]
        create = load_pyiqa()
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # its notes on every file it opens
                self.model = create(key, device="cpu", **options)
        except (OSError, RuntimeError) as error:  # what torch.hub and the hubs raise offline
            given = "pretrained_model_path" in options
            missing = [] if given else [file for file in weight_files(key) if not file[1].exists()]
            if not missing:
                raise
            address, path = missing[0]
            raise UserError(
                f"{self.metric.name} needs {path.name}, which could not be downloaded; get it from "
                f"{address} and put it into {path.parent}."
            ) from error
        self.name = f"{self.metric.name} of pyiqa {version('pyiqa')}"
        if key != "niqe":
            checksum = _checksum([path for _, path in weight_files(key)])
            self.name += f", weights {checksum}" if checksum else ""
        # Some of pyiqa's models keep intermediate results in themselves.
        self._alone = contextlib.nullcontext() if key == "niqe" else threading.Lock()

    def score(self, restored: np.ndarray, clean: np.ndarray | None) -> float:
        """As ``Scorer.score``."""
        images = [restored]
        if self.metric.key in WITH_CLEAN:
            assert clean is not None
            images.append(clean)
        try:
            with self._alone:
                value = float(self.model(*map(self._planes, images)))
        # what PyTorch and pyiqa raise for images smaller than a network's windows
        except (AssertionError, IndexError, RuntimeError, ValueError) as error:
            raise UserError(
                f"{self.metric.name} cannot judge an image of {size_text(restored)} px ({error})"
            ) from error
        if not np.isfinite(value):
            raise UserError(
                f"{self.metric.name} is not defined for this image; it may be of one colour"
            )
        return value

    def _planes(self, image: np.ndarray) -> Any:
        """(H, W) or (H, W, 3) uint8 as a tensor (1, C, H, W) in [0, 1]."""
        import torch

        if image.ndim == 2 and self.metric.key not in ("niqe", "brisque"):
            image = np.dstack([image] * 3)  # networks take colours
        planes = np.ascontiguousarray(np.atleast_3d(image).transpose(2, 0, 1))
        return torch.from_numpy(planes)[None].float() / 255


def load_pyiqa() -> Callable[..., Any]:
    """pyiqa's ``create_metric``. Raises UserError where the package is missing."""
    try:
        import pyiqa
        import torch
    except ModuleNotFoundError as error:
        raise UserError(
            f"This metric needs the package {error.name}, which is not installed; "
            "pip install pyiqa brings it."
        ) from error
    torch.set_num_threads(1)  # the images are spread over the cores
    logging.getLogger("pyiqa").setLevel(logging.WARNING)
    return pyiqa.create_metric


def weight_files(key: str) -> list[tuple[str, Path]]:
    """Addresses of the files that a metric's weights are in, and where pyiqa looks for them."""
    import torch
    from pyiqa.utils.download_util import DEFAULT_CACHE_DIR

    own, backbone = _WEIGHTS[key]
    files = []
    if backbone.startswith("timm/"):
        from huggingface_hub.constants import HF_HUB_CACHE

        files.append(
            (
                f"https://huggingface.co/{backbone}",
                Path(HF_HUB_CACHE) / f"models--{backbone.replace('/', '--')}",
            )
        )
    elif backbone:
        models = importlib.import_module("torchvision.models")
        address = getattr(models, backbone).IMAGENET1K_V1.url
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        files.append((address, folder / address.rsplit("/", 1)[-1]))
    if own:
        addresses = importlib.import_module(f"pyiqa.archs.{key}_arch").default_model_urls
        files.append((addresses[own], Path(DEFAULT_CACHE_DIR) / addresses[own].rsplit("/", 1)[-1]))
    return files


def _checksum(files: list[Path]) -> str:
    """Eight digits that tell one set of weights from another, none without weights."""
    found = hashlib.sha256()
    present = [path for path in files if path.is_file()]
    for path in present:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
    return found.hexdigest()[:8] if present else ""
