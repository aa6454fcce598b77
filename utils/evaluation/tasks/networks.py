"""The detectors and segmenters of ``--tasks``: torchvision's, with torchvision's weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch.nn import functional as F
from torchvision import models as zoo

from utils.checkpoints import read_torch_file
from utils.errors import UserError
from utils.evaluation.tasks.boxes import Boxes
from utils.evaluation.tasks.options import SEGMENTERS


class Detector:
    """A detector of COCO's objects. ``name`` identifies the implementation and the weights."""

    def __init__(self, key: str, weights: Path | None, device: torch.device, batch: int) -> None:
        """``weights`` is a weights file of torchvision; None uses the cached or downloaded one."""
        enum = zoo.get_model_weights(key).DEFAULT
        self.categories: list[str] = enum.meta["categories"]
        self._network, self.name = _load(key, enum, weights, device)
        self._device, self.batch = device, batch

    def __call__(self, images: Sequence[np.ndarray]) -> list[Boxes]:
        """The objects in uint8 images (H, W, 3), RGB, of any sizes, whatever their scores."""
        found = []
        for start in range(0, len(images), self.batch):
            part = [_planes(image).to(self._device) for image in images[start : start + self.batch]]
            with torch.inference_mode():
                outputs = self._network(part)
            found += [
                Boxes.of(*(output[key].cpu().numpy() for key in ("boxes", "labels", "scores")))
                for output in outputs
            ]
        return found


class Segmenter:
    """Segments images into VOC's 20 classes and the background (class 0)."""

    def __init__(self, key: str, weights: Path | None, device: torch.device) -> None:
        """``weights`` is a weights file of torchvision; None uses the cached or downloaded one."""
        enum = zoo.get_model_weights(key).DEFAULT
        self.categories: list[str] = enum.meta["categories"]
        self._prepare = enum.transforms()
        self._network, self.name = _load(key, enum, weights, device)
        self._device = device

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The class of each pixel, (H, W) uint8, of a uint8 image (H, W, 3), RGB.

        As torchvision evaluates it: the shorter side becomes 520 pixels; the logits are resized
        to the image before the best class is taken.
        """
        with torch.inference_mode():
            rainy = self._prepare(_planes(image)).to(self._device)[None]
            logits = self._network(rainy)["out"]
            logits = F.interpolate(logits, image.shape[:2], mode="bilinear", align_corners=False)
        return logits[0].argmax(0).to(torch.uint8).cpu().numpy()


def _planes(image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) or gray (H, W) uint8 as (3, H, W) float32 in [0, 1]."""
    image = np.dstack([image] * 3) if image.ndim == 2 else image
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255


def _load(
    key: str, enum: Any, weights: Path | None, device: torch.device
) -> tuple[torch.nn.Module, str]:
    """A network of torchvision in eval mode, and its name with eight digits of its weights."""
    path = weights or Path(torch.hub.get_dir()) / "checkpoints" / enum.url.rsplit("/", 1)[-1]
    if weights is None and not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(enum.url, str(path), enum.url.rsplit("-", 1)[-1][:8])
        except (OSError, RuntimeError) as error:  # no network, or a damaged download
            raise UserError(
                f"{key} needs {path.name}, which could not be downloaded; get it from {enum.url} "
                f"and put it into {path.parent}, or name it with --detector-weights or "
                "--segmenter-weights."
            ) from error
    state = read_torch_file(path)
    options = {"aux_loss": True} if key in SEGMENTERS else {}  # the file holds its weights
    network = zoo.get_model(key, weights=None, weights_backbone=None, **options)
    try:
        network.load_state_dict(state)
    except (AttributeError, RuntimeError, TypeError) as error:
        raise UserError(f"{path} does not hold the weights of torchvision's {key}.") from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    version = torchvision.__version__.split("+")[0]
    return network.eval().to(device), f"{key} of torchvision {version}, weights {digest}"
