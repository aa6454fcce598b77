"""The metrics: PSNR and SSIM of ``utils.metrics``, and those that pyiqa computes.

pyiqa is an optional package. Any of its metrics can be named: those that compare with the clean
image (LPIPS, Zhang et al. 2018; DISTS, Ding et al. 2020), those that judge an image alone (NIQE,
MUSIQ), and those of whole folders (FID, Heusel et al. 2017). pyiqa downloads the weights of its
networks, or finds them where the user put them.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import logging
import re
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import cv2
import numpy as np

from utils.errors import UserError
from utils.evaluation.score_cache import CachedScore, ScoreCache, cache_key, digest
from utils.images import write_png
from utils.wording import did_you_mean, size_text

if TYPE_CHECKING:
    from utils.evaluation.scoring import JobResult


class Metric(NamedTuple):
    """A metric: its key in files, its name in headings, its decimals and direction."""

    key: str
    name: str
    decimals: int
    higher_is_better: bool = True


PSNR = Metric("psnr", "PSNR", 2)
SSIM = Metric("ssim", "SSIM", 4)

# The metrics that papers report besides PSNR and SSIM. LPIPS is that of AlexNet unless its key says
# VGG; MUSIQ and MANIQA are trained on KonIQ-10k. These are pyiqa's defaults.
PERCEPTUAL = {
    metric.key: metric
    for metric in (
        Metric("lpips", "LPIPS", 4, higher_is_better=False),
        Metric("lpips-vgg", "LPIPS (VGG)", 4, higher_is_better=False),
        Metric("dists", "DISTS", 4, higher_is_better=False),
        Metric("niqe", "NIQE", 3, higher_is_better=False),
        Metric("piqe", "PIQE", 2, higher_is_better=False),
        Metric("brisque", "BRISQUE", 2, higher_is_better=False),
        Metric("musiq", "MUSIQ", 2),
        Metric("maniqa", "MANIQA", 4),
        Metric("fid", "FID", 2, higher_is_better=False),
        Metric("mse", "MSE", 2, higher_is_better=False),
    )
}
WITH_CLEAN = ("lpips", "lpips-vgg", "dists", "fid", "mse")
OF_FOLDERS = ("fid", "sfid", "fid_dinov2", "inception_score")
# Metrics of pyiqa that take more than images, or return more than one figure.
NOT_OF_IMAGES = ("clipscore", "fgresq_pair", "compare2score")

# Weights of the metrics above: the key in pyiqa's list of URLs, and the backbone that torchvision
# or timm provides.
_WEIGHTS = {
    "lpips": ("0.1_alex", "AlexNet_Weights"),
    "lpips-vgg": ("0.1_vgg", "VGG16_Weights"),
    "dists": ("url", "VGG16_Weights"),
    "niqe": ("url", ""),
    "brisque": ("url", ""),
    "musiq": ("koniq10k", ""),
    "maniqa": ("koniq", "timm/vit_base_patch8_224.augreg2_in21k_ft_in1k"),
}


class Scorer(Protocol):
    """Computes one metric. ``name`` states the implementation and all its values depend on."""

    metric: Metric
    name: str

    def score(self, restored: np.ndarray, clean: np.ndarray | None) -> float:
        """The value for uint8 images, (H, W, 3) RGB or (H, W).

        Raises UserError for an image that it cannot judge.
        """


class SetScorer(Protocol):
    """Computes metrics of all results of a job together. ``name`` is as for ``Scorer``."""

    metrics: tuple[Metric, ...]

    @property
    def name(self) -> str: ...

    def score(self, result: JobResult) -> tuple[float, ...]:
        """One value for each of ``metrics`` over ``result.scored``.

        Raises UserError for a folder that it cannot judge.
        """


class SquaredErrorScorer:
    """Mean squared error of the 8-bit colours, as 4K-Rain13k's paper reports it."""

    metric = PERCEPTUAL["mse"]
    name = "MSE of the 8-bit colours (0 to 255)"

    def score(self, restored: np.ndarray, clean: np.ndarray | None) -> float:
        """As ``Scorer.score``; if only one image is gray, it counts as three equal channels."""
        assert clean is not None
        if restored.ndim != clean.ndim:
            restored, clean = as_rgb(restored), as_rgb(clean)
        return float(np.mean((restored.astype(np.float64) - clean) ** 2))


class PyiqaScorer:
    """One of pyiqa's metrics of single images, on the CPU."""

    def __init__(self, key: str, **options: object) -> None:
        """Load pyiqa and the metric; ``options`` are pyiqa's own.

        Raises UserError if pyiqa or a file of weights is missing, and for an unknown metric.
        """
        self.metric = metric_of(key)
        self.needs_clean = key in WITH_CLEAN or pyiqa_config(key).get("metric_mode") == "FR"
        self.key = key
        self.model = load_metric(key, **options)
        self.name = f"{self.metric.name} of pyiqa {version('pyiqa')}"
        if key != "niqe":
            checksum = _checksum(self.model)
            self.name += f", weights {checksum}" if checksum else ""
        # Some of pyiqa's models store intermediate results: one thread at a time may use them.
        self._alone = contextlib.nullcontext() if key == "niqe" else threading.Lock()

    def score(self, restored: np.ndarray, clean: np.ndarray | None) -> float:
        """As ``Scorer.score``."""
        images = [restored]
        if self.needs_clean:
            assert clean is not None
            images.append(clean)
        try:
            with self._alone:
                value = float(self.model(*map(self._planes, images)))
        # PyTorch and pyiqa raise these for images smaller than a network's windows
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

        if self.key not in ("niqe", "brisque"):
            image = as_rgb(image)  # networks need three channels
        planes = np.ascontiguousarray(np.atleast_3d(image).transpose(2, 0, 1))
        return torch.from_numpy(planes)[None].float() / 255


class FolderScorer:
    """One of ``OF_FOLDERS``: a distance from the clean images, or a figure of the results alone."""

    def __init__(self, key: str, cache: ScoreCache, **options: object) -> None:
        """As ``PyiqaScorer``; ``cache`` keeps the figures by the content of the folders."""
        self._cache = cache
        self.metrics: tuple[Metric, ...] = (metric_of(key),)
        self.needs_clean = key != "inception_score"
        self.model = load_metric(key, **options)
        self.name = (
            f"{self.metrics[0].name} of pyiqa {version('pyiqa')}, weights {_checksum(self.model)}, "
            "over all images of a folder together"
        )

    def score(self, result: JobResult) -> tuple[float, ...]:
        """As ``SetScorer.score``; each half of a side-by-side file counts as an image."""
        from utils.evaluation.scoring import Side, read_side, side_digest

        images = result.scored
        if len(images) < 2:
            raise UserError(f"{self.metrics[0].name} needs at least two images")
        sides: tuple[Side, ...] = ("restored", "clean") if self.needs_clean else ("restored",)
        content = [digest("".join(side_digest(i, s) for i in images).encode()) for s in sides]
        key = cache_key(self.name, content)
        known = self._cache.get(key)
        if known is None:
            with TemporaryDirectory() as name:
                folders = [Path(name) / side for side in sides]
                for number, image in enumerate(images):
                    for folder, side in zip(folders, sides, strict=True):
                        path = folder / f"{number:06}.png"
                        write_png(path, as_rgb(read_side(image, side)))
                value = self.model(*map(str, folders), num_workers=0, verbose=False)
            known = CachedScore((float(value[0] if isinstance(value, tuple) else value),))
            self._cache.put(key, known)
        return known.scores


def metric_of(key: str) -> Metric:
    """The description of a metric of pyiqa. Raises UserError for an unknown one."""
    if key in PERCEPTUAL:
        return PERCEPTUAL[key]
    config = pyiqa_config(key)
    # 4 decimals for values up to 1 or without a known limit, otherwise 2
    largest = re.findall(r"[\d.]+", str(config.get("score_range", "")))[-1:]
    decimals = 2 if largest and float(largest[0]) > 1 else 4
    # the keys psnr and ssim belong to the protocol's metrics
    own, name = (f"pyiqa_{key}", f"{key} (pyiqa)") if key in ("psnr", "ssim") else (key, key)
    return Metric(own, name, decimals, not config.get("lower_better", False))


def pyiqa_config(key: str) -> dict[str, Any]:
    """pyiqa's own description of a metric. Raises UserError for an unknown one."""
    load_pyiqa()
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    if key not in DEFAULT_CONFIGS:
        known = [*PERCEPTUAL, *DEFAULT_CONFIGS]
        raise UserError(
            f"There is no metric {key}.{did_you_mean(key, known)} pyiqa {version('pyiqa')} has "
            f"{', '.join(sorted(DEFAULT_CONFIGS))}."
        )
    if key in NOT_OF_IMAGES:
        raise UserError(
            f"pyiqa's {key} does not give one figure for an image; choose another metric."
        )
    return DEFAULT_CONFIGS[key]


def load_pyiqa() -> Callable[..., Any]:
    """pyiqa's ``create_metric``. Raises UserError if the package is missing."""
    try:
        import pyiqa
        import torch
    except ModuleNotFoundError as error:
        raise UserError(
            f"This metric needs the package {error.name}, which is not installed; "
            "pip install pyiqa installs it."
        ) from error
    torch.set_num_threads(1)  # the images are spread over the cores
    logging.getLogger("pyiqa").setLevel(logging.WARNING)
    return pyiqa.create_metric


def load_metric(key: str, **options: object) -> Any:
    """A metric of pyiqa on the CPU. Raises UserError if its weights are missing."""
    create = load_pyiqa()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints a line for every file it opens
            return create(key, device="cpu", **options)
    except (OSError, RuntimeError) as error:  # raised by torch.hub and Hugging Face when offline
        given = "pretrained_model_path" in options
        missing = [] if given else [file for file in weight_files(key) if not file[1].exists()]
        name = metric_of(key).name
        if missing:
            address, path = missing[0]
            raise UserError(
                f"{name} needs {path.name}, which could not be downloaded; get it from {address} "
                f"and put it into {path.parent}."
            ) from error
        if given or key in _WEIGHTS:
            raise
        raise UserError(f"{name} could not load its weights: {error}") from error


def weight_files(key: str) -> list[tuple[str, Path]]:
    """The URL of each file of a metric's weights, and the path where pyiqa looks for it.

    Known for ``PERCEPTUAL`` only; an empty list for other metrics.
    """
    import torch
    from pyiqa.utils.download_util import DEFAULT_CACHE_DIR

    if key == "fid":
        from pyiqa.archs.inception import FID_WEIGHTS_URL

        return [(FID_WEIGHTS_URL, Path(DEFAULT_CACHE_DIR) / FID_WEIGHTS_URL.rsplit("/", 1)[-1])]
    own, backbone = _WEIGHTS.get(key, ("", ""))
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
        addresses = importlib.import_module(
            f"pyiqa.archs.{key.partition('-')[0]}_arch"
        ).default_model_urls
        files.append((addresses[own], Path(DEFAULT_CACHE_DIR) / addresses[own].rsplit("/", 1)[-1]))
    return files


def _checksum(model: Any) -> str:
    """Eight digits that identify a set of weights, "" without weights."""
    found = hashlib.sha256()
    state = {name: value for name, value in model.state_dict().items() if value.numel()}
    for name, value in state.items():
        found.update(name.encode())
        found.update(np.ascontiguousarray(value.cpu().numpy()).data)
    return found.hexdigest()[:8] if state else ""


def as_rgb(image: np.ndarray) -> np.ndarray:
    """A gray image as three equal channels."""
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image
