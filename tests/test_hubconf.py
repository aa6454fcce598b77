"""hubconf.py, as torch.hub loads it from a folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import hubconf
from models import NETWORKS, build_model, load_weights
from models.published import to_published
from tests.helpers import ROOT, smooth_image
from utils.checkpoints import Weights, write_weights
from utils.inference.restorer import Restorer

# The class in the private package that hubconf imports.
UserError = sys.modules[f"{hubconf._PRIVATE}.utils.errors"].UserError

IN_A_PROJECT = """
import sys

clone, order = sys.argv[1:]
if order == "theirs first":
    import data, models, utils
    assert utils.mine == models.mine == data.mine == 7
import torch
network = torch.hub.load(clone, "petrichor", source="local")
restored = network.restore(torch.full((1, 3, 64, 64), 0.5))
assert not network.training and restored.shape == (1, 3, 64, 64)
if order == "ours first":
    assert not {"data", "models", "utils", "configs", "losses"} & set(sys.modules)
import data, models, utils
assert utils.mine == models.mine == data.mine == 7
import numpy as np
derain = torch.hub.load(clone, "restorer", source="local", tile=64)
assert derain(np.zeros((70, 31, 3), np.uint8)).shape == (70, 31, 3)
assert type(derain).__module__.endswith(".utils.inference.restorer")

# An import that runs later, in a function.
module = sys.modules[type(derain).__module__]
code = "import utils.wording\\n from models import registry\\n return utils, registry"
exec(f"def later():\\n {code}", vars(module))
ours, registry = module.later()
assert ours.wording.plural(2, "drop") == "2 drops" and "dmsr" in registry.NETWORKS
assert sys.modules["utils"] is utils and utils.mine == 7
import pickle
again = pickle.loads(pickle.dumps(network)).restore(torch.full((1, 3, 64, 64), 0.5))
torch.testing.assert_close(again, restored)
"""


@pytest.mark.parametrize("order", ["theirs first", "ours first"])
def test_the_users_own_utils_models_and_data_stay_theirs(order: str, tmp_path: Path) -> None:
    for name in ("utils", "models", "data"):
        (tmp_path / f"{name}.py").write_text("mine = 7")
    (tmp_path / "main.py").write_text(IN_A_PROJECT)
    done = subprocess.run(
        [sys.executable, "main.py", str(ROOT), order], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_an_entry(name: str) -> None:
    with torch.device("meta"):
        network = torch.hub.load(str(ROOT), name, source="local")
    assert type(network).__name__ == NETWORKS[name][0].__name__ and not network.training


def test_weights_of_ours_and_of_the_authors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = {"width": 4, "num_blocks": 1}
    small, whole = build_model("dmsr_s", options), build_model("dmsr_s")
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.pth"
    write_weights(ours, Weights("dmsr_s", options, small.state_dict(), {}))
    torch.save({"state_dict": to_published(whole)}, theirs)
    for path, expected in ((ours, small), (theirs, whole)):
        state = hubconf.dmsr_s(weights=path).state_dict()
        for key, value in expected.state_dict().items():
            torch.testing.assert_close(state[key], value)
    assert hubconf.dmsr_s(width=4).stem[0].out_channels == 4
    with pytest.raises(UserError, match="holds a DMSR, not a dcsfn"):
        hubconf.dcsfn(weights=ours)
    with pytest.raises(UserError, match="leave width out"):
        hubconf.dmsr_s(weights=ours, width=4)
    image = smooth_image(1, 70, 70)
    restored = hubconf.restorer(ours)(image)
    np.testing.assert_array_equal(restored, Restorer(load_weights(ours))(image))
    shutil.copy(ours, tmp_path / "OURS.SAFETENSORS")
    assert hubconf.dmsr_s(weights=tmp_path / "OURS.SAFETENSORS").stem[0].out_channels == 4


def test_the_entries_are_the_networks_and_the_restorer() -> None:
    """As ``torch.hub.list`` finds them: every callable."""
    entries = {name for name, value in vars(hubconf).items() if callable(value)}
    entries = {name for name in entries if not name.startswith("_")}
    assert entries == {"petrichor", "restorer", *NETWORKS}
    for name in entries:
        assert vars(hubconf)[name].__doc__  # what torch.hub.help shows


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"weights": "absent.safetensors"}, "There is no file absent"),
        ({"weights": ""}, "weights is ''; it must be the name of a file"),
        ({"weights": True}, "weights is True; it must be the name of a file"),
        ({"device": "warp"}, "'warp' is not a device; use cpu"),
        ({"device": "meta"}, "'meta' is not a device; use cpu"),
        ({"device": None}, "'None' is not a device; use cpu"),
        ({"device": "cuda:99"}, "finds no device cuda:99; use cpu"),
        ({"memory": "4"}, "memory is '4'; it must be a number of bytes above 0"),
        ({"overlap": 3.5}, "overlap is 3.5; it must be a number of pixels"),
        ({"strength": "1"}, "strength is '1'; it may be 0 to 1"),
    ],
)
def test_mistakes_are_sentences(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        torch.hub.load(str(ROOT), "restorer", source="local", **options)
    if "weights" in options:
        with pytest.raises(UserError, match=sentence):
            torch.hub.load(str(ROOT), "dcsfn", source="local", **options)


@pytest.mark.gpu
def test_the_restorer_computes_on_its_device() -> None:
    image = smooth_image(1, 70, 70)
    restored = hubconf.restorer(device="cuda")(image)
    assert np.abs(restored.astype(int) - hubconf.restorer()(image)).max() <= 1
