"""hubconf.py, as torch.hub loads it from a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import hubconf
from models import NETWORKS, build_model, load_weights
from tests.helpers import ROOT, smooth_image
from utils.checkpoints import Weights, write_weights
from utils.errors import UserError

FROM_ELSEWHERE = """
import sys, torch
network = torch.hub.load(sys.argv[1], "petrichor", source="local")
restored = network.restore(torch.full((1, 3, 64, 64), 0.5))
assert not network.training and restored.shape == (1, 3, 64, 64)
import numpy as np
derain = torch.hub.load(sys.argv[1], "restorer", source="local", tile=64)
assert derain(np.zeros((70, 30, 3), np.uint8)).shape == (70, 30, 3)
"""


def test_torch_hub_loads_from_another_folder(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FROM_ELSEWHERE, str(ROOT)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_an_entry(name: str) -> None:
    with torch.device("meta"):
        network = torch.hub.load(str(ROOT), name, source="local")
    assert type(network) is NETWORKS[name][0] and not network.training


def test_weights_of_ours_and_of_the_authors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = {"width": 4, "num_blocks": 1}
    small, whole = build_model("dmsr_s", options), build_model("dmsr_s")
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.pth"
    write_weights(ours, Weights("dmsr_s", options, small.state_dict(), {}))
    torch.save({"state_dict": whole.to_published()}, theirs)
    for path, expected in ((ours, small), (theirs, whole)):
        state = hubconf.dmsr_s(weights=path).state_dict()
        for key, value in expected.state_dict().items():
            torch.testing.assert_close(state[key], value)
    assert hubconf.dmsr_s(width=4).stem[0].out_channels == 4
    with pytest.raises(UserError, match="holds a DMSR, which is no dcsfn"):
        hubconf.dcsfn(weights=ours)
    with pytest.raises(UserError, match="leave width out"):
        hubconf.dmsr_s(weights=ours, width=4)
    image = smooth_image(1, 70, 70)
    restored = hubconf.restorer(ours)(image)
    np.testing.assert_array_equal(restored, hubconf.Restorer(load_weights(ours))(image))
