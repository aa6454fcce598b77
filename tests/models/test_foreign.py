"""Networks of other projects through spandrel; nothing in their files is executed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models import load_foreign
from tests.helpers import smooth_image
from utils.errors import UserError
from utils.inference.restorer import Restorer

SMALL = {
    "NAFNet": {"enc_blk_nums": [1], "dec_blk_nums": [1]},
    "Restormer": {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1},
    "MPRNet": {"n_feat": 8, "scale_unetfeats": 4, "scale_orsnetfeats": 4, "num_cab": 2},
}


def small_network(name: str) -> nn.Module:
    """A small one of spandrel's, in eval mode."""
    package = "spandrel" if name == "NAFNet" else "spandrel_extra_arches"
    architecture = pytest.importorskip(f"{package}.architectures.{name}")
    torch.manual_seed(0)
    return getattr(architecture, name)(**SMALL[name]).eval()


@pytest.mark.extras
@pytest.mark.parametrize("name", SMALL)
def test_networks_that_spandrel_recognises(tmp_path: Path, name: str) -> None:
    """Restored as by the network itself; odd sizes too, which are padded."""
    network = small_network(name)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "theirs.pth")
    restorer = Restorer(load_foreign(tmp_path / "theirs.pth"))
    image = smooth_image(1, 64, 96)
    with torch.inference_mode():
        restored = network(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)
    restored = restored[0] if isinstance(restored, (list, tuple)) else restored
    expected = (restored[0].permute(1, 2, 0).numpy().clip(0, 1) * 255).round().astype(np.uint8)
    np.testing.assert_allclose(restorer(image), expected, atol=1)
    assert restorer(smooth_image(2, 67, 85)).shape == (67, 85, 3)


@pytest.mark.extras
@pytest.mark.parametrize("suffix", [".pt", ".pth.tar", ".ckpt", ".bin"])
def test_files_of_any_suffix_and_wrapper(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = small_network("NAFNet")
    entries = {f"module.{name}": value for name, value in network.state_dict().items()}
    entries["module.total_ops"] = torch.zeros(1)
    content = {"params": entries, "best_psnr": np.float64(31.5)}
    torch.save(content, tmp_path / f"theirs{suffix}")
    state = load_foreign(tmp_path / f"theirs{suffix}").network.state_dict()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(state[name], value)
    assert "the weights under params taken; 1 counter of thop left out" in capsys.readouterr().out


class Evil(nn.Module):
    """Writes a file where TorchScript loads it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return (self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path, self.training = state
        torch.save("text", self.path)

    def forward(self, rainy: Tensor) -> Tensor:
        return rainy


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".pt", ".pth.tar"])
def test_programs_are_refused_and_never_run(suffix: str, tmp_path: Path) -> None:
    written = tmp_path / "written"
    weights = tmp_path / f"evil{suffix}"
    torch.jit.script(Evil(str(written))).save(str(weights))
    torch.jit.load(str(weights))
    assert written.exists()  # so it would do what it is here for
    written.unlink()
    with pytest.raises(UserError, match="is a TorchScript archive"):
        load_foreign(weights)
    assert not written.exists()


@pytest.mark.extras
def test_what_spandrel_does_not_recognise_is_a_sentence(tmp_path: Path) -> None:
    entries = small_network("NAFNet").state_dict()
    entries["intro.weight"] = torch.zeros(3)
    torch.save(entries, tmp_path / "bent.pth")
    torch.save({"state_dict": {"weight": torch.zeros(3)}}, tmp_path / "theirs.pth")
    torch.save({}, tmp_path / "empty.pth")
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    for name, sentence in (
        ("theirs.pth", "does not recognise the network"),
        ("bent.pth", "spandrel cannot build the network in"),
        ("empty.pth", "holds no named tensors"),
        ("broken.pth", "not a torch file"),
        ("absent.pth", "There is no file"),
    ):
        with pytest.raises(UserError, match=sentence):
            load_foreign(tmp_path / name)


def test_without_spandrel_its_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "a.pth")
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(UserError, match="pip install spandrel spandrel_extra_arches"):
        load_foreign(tmp_path / "a.pth")
