"""tools/export_onnx.py: the exported network computes the same as PyTorch."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.network import DerainingNetwork
from tests.helpers import write_random_weights
from tools import export_onnx
from utils.errors import UserError

OPTIONS: dict[str, dict[str, object]] = {
    "dmsr_s": {"width": 4, "num_blocks": 1},
    "nerd_rain_t": {"width": 4, "head_width": 8},
    "dcsfn_t": {"width": 4, "num_units": 1},
    "mspfn_t": {"width": 4, "num_units": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of small networks by name."""
    folder = tmp_path_factory.mktemp("weights")
    for name, options in OPTIONS.items():
        write_random_weights(folder / f"{name}.safetensors", name, options)
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["export_onnx.py", *map(str, arguments)])
    export_onnx.main()


@pytest.mark.extras
@pytest.mark.parametrize("any_size", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_onnxruntime_computes_the_same(
    folder: Path,
    name: str,
    any_size: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One network of each class, also at sizes that it was not exported at."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="tools/requirements.txt is optional")
    weights, path = folder / f"{name}.safetensors", tmp_path / "network.onnx"
    extra = ["--any-size"] if any_size else []
    run(monkeypatch, "--weights", weights, "--output", path, "--size", 64, 96, *extra)
    printed = capsys.readouterr().out
    assert "exported in" in printed and "64 x 96: differs by at most" in printed
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    network = export_onnx.load_weights(weights)
    for height, width in [(64, 96), (160, 64), (96, 224)] if any_size else [(64, 96)]:
        rainy = np.random.default_rng(0).random((1, 3, height, width), np.float32)
        (restored,) = session.run(["restored"], {"rainy": rainy})
        with torch.inference_mode():
            expected = network.restore(torch.from_numpy(rainy)).numpy()
        np.testing.assert_allclose(restored, expected, atol=2e-5)
    assert [file.name for file in tmp_path.iterdir()] == ["network.onnx"]


class Sorting(DerainingNetwork):
    """Uses an operation that ONNX does not have."""

    def restore(self, rainy: Tensor) -> Tensor:
        return torch.linalg.qr(rainy)[0]


@pytest.mark.extras
def test_what_cannot_be_exported_is_a_sentence(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="tools/requirements.txt is optional")
    with pytest.raises(UserError, match=r"cannot export Sorting to ONNX; restore with test\.py"):
        export_onnx.export(Sorting(), tmp_path / "a.onnx", (16, 16), any_size=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.extras
@pytest.mark.parametrize("size", [(64, 65), (48, 64)])
def test_sizes_that_the_network_does_not_take_are_refused(
    folder: Path, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="tools/requirements.txt is optional")
    arguments = ("--weights", folder / "dmsr_s.safetensors", "--output", tmp_path / "a.onnx")
    with pytest.raises(UserError, match="multiples of 16, at least 64"):
        run(monkeypatch, *arguments, "--size", *size)


def test_without_the_packages_their_list_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install -r tools/requirements\.txt"):
        export_onnx.require_packages()
