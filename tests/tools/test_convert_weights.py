"""Weights between the authors' format and ours, as a user converts them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models import SHIPPED_WEIGHTS, build_model, load_published, load_weights
from models.published import to_published
from tests.helpers import run_script
from tests.reference import golden_weights
from tools.convert_weights import command_line_options, convert_to_project, convert_to_published
from utils.checkpoints import Weights, write_weights
from utils.errors import UserError

SCRIPT = "tools/convert_weights.py"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dmsr_s", {"width": 6, "num_blocks": 1}),
        ("nerd_rain", {"width": 6, "head_width": 5, "num_blocks": [1, 2, 1]}),
        ("dcsfn_t", {"width": 3}),
        pytest.param("mspfn_t", {"width": 8, "num_attention": [1, 2, 1]}, marks=pytest.mark.extras),
        pytest.param("mspfn_n1", {"width": 4, "num_units": 2}, marks=pytest.mark.extras),
    ],
)
def test_every_width_goes_to_published_names_and_back(
    name: str, options: dict, tmp_path: Path
) -> None:
    network = build_model(name, options)
    ours, theirs, back = (tmp_path / file for file in ("a.safetensors", "b", "c.safetensors"))
    write_weights(ours, Weights(name, options, network.state_dict(), {}))
    weights = convert_to_published(ours, theirs)
    settings = command_line_options(weights.options).removeprefix("--options ").split()
    convert_to_project(name, settings, theirs, back)
    returned = load_weights(back).state_dict()
    assert returned.keys() == network.state_dict().keys()
    for key, value in network.state_dict().items():
        assert torch.equal(returned[key], value), key


def test_the_shipped_network_goes_to_published_names_and_back(tmp_path: Path) -> None:
    weights = convert_to_published(SHIPPED_WEIGHTS, tmp_path / "published.pth")
    network = load_published(weights.model, tmp_path / "published.pth", weights.options)
    for key, value in load_weights(SHIPPED_WEIGHTS).state_dict().items():
        assert torch.equal(network.state_dict()[key], value), key


def test_another_width_than_the_file_is_told(tmp_path: Path) -> None:
    network = build_model("dcsfn_t", {"width": 3})
    write_weights(
        tmp_path / "a.safetensors", Weights("dcsfn_t", {"width": 3}, network.state_dict(), {})
    )
    convert_to_published(tmp_path / "a.safetensors", tmp_path / "b.pth")
    with pytest.raises(UserError, match=r"of another shape .*\(3, 3, 3, 3\) instead of \(8, 3"):
        convert_to_project("dcsfn_t", [], tmp_path / "b.pth", tmp_path / "c.safetensors")


def test_conversion_to_published_names_and_back(tmp_path) -> None:
    """An author's DCSFN checkpoint, through our format, to a file that the authors' code loads."""
    golden = golden_weights("dcsfn")
    published = {f"module.{name}": value for name, value in golden.items()}
    torch.save({"net": published, "clock_net": 1, "opt_net": {}}, tmp_path / "theirs.pth")
    ours, back = tmp_path / "ours.safetensors", tmp_path / "back.pth"
    script = "tools/convert_weights.py"
    done = run_script(
        script, "--model", "dcsfn", "--weights", tmp_path / "theirs.pth", "--output", ours
    )
    assert done.returncode == 0, done.stderr
    done = run_script(script, "--to", "published", "--weights", ours, "--output", back)
    assert done.returncode == 0, done.stderr
    returned = torch.load(back, weights_only=True)["net"]
    assert {name: value.shape for name, value in returned.items()} == {
        name: value.shape for name, value in published.items()
    }
    live = set(to_published(build_model("dcsfn")))
    same = {name for name in live if torch.equal(returned[f"module.{name}"], golden[name])}
    unused = live - same
    assert all((returned[f"module.{name}"] == 0).all() for name in unused)
    dead_cells = ("rec1_4.", "rec2_1.", "fusion_1_2_2", "fusion_2_2_2")
    assert all(name.startswith(dead_cells) for name in unused), sorted(unused)
    done = run_script(script, "--to", "published", "--weights", ours, "--output", back)
    assert done.returncode == 1 and "exists" in done.stderr  # nothing is overwritten
