"""Weights between the authors' format and ours, as a user converts them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from models import SHIPPED_WEIGHTS, build_model, load_published, load_weights
from models.published import to_published
from tests.helpers import run_script, write_random_weights
from tools.convert_weights import (
    command_line_options,
    convert_to_project,
    convert_to_published,
    main,
)
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
    ours = write_random_weights(tmp_path / "a.safetensors", name, options)
    theirs, back = tmp_path / "b", tmp_path / "c.safetensors"
    weights = convert_to_published(ours, theirs)
    settings = command_line_options(weights.options).removeprefix("--options ").split()
    convert_to_project(name, settings, theirs, back)
    state, returned = (load_weights(path).state_dict() for path in (ours, back))
    assert returned.keys() == state.keys()
    for key, value in state.items():
        assert torch.equal(returned[key], value), key


def test_the_shipped_network_goes_to_published_names_and_back(tmp_path: Path) -> None:
    weights = convert_to_published(SHIPPED_WEIGHTS, tmp_path / "published.pth")
    network = load_published(weights.model, tmp_path / "published.pth", weights.options)
    for key, value in load_weights(SHIPPED_WEIGHTS).state_dict().items():
        assert torch.equal(network.state_dict()[key], value), key


def test_another_width_than_that_of_the_file_is_refused(tmp_path: Path) -> None:
    ours = write_random_weights(tmp_path / "a.safetensors", "dcsfn_t", {"width": 3})
    convert_to_published(ours, tmp_path / "b.pth")
    with pytest.raises(UserError, match=r"of another shape .*\(3, 3, 3, 3\) instead of \(8, 3"):
        convert_to_project("dcsfn_t", [], tmp_path / "b.pth", tmp_path / "c.safetensors")


def test_an_authors_file_through_ours_is_what_the_authors_code_loads(tmp_path: Path) -> None:
    """DCSFN's, with its key and prefix; entries without effect come back as zeros."""
    torch.manual_seed(0)
    theirs = {
        f"module.{name}": torch.rand_like(value) + 0.1
        for name, value in to_published(build_model("dcsfn_t")).items()
    }
    torch.save({"net": theirs, "clock_net": 1, "opt_net": {}}, tmp_path / "theirs.pth")
    ours, back = tmp_path / "ours.safetensors", tmp_path / "back.pth"
    main(["--model", "dcsfn_t", "--weights", str(tmp_path / "theirs.pth"), "--output", str(ours)])
    main(["--to", "published", "--weights", str(ours), "--output", str(back)])
    returned = torch.load(back, weights_only=True)["net"]
    assert returned.keys() == theirs.keys()
    dead = re.compile(r"module\.(rec1_4|rec2_1)\.conv_(xr|hz|hr|hn)\.|module\.fusion_._2_2\.")
    assert sum(bool(dead.match(name)) for name in theirs) == 20
    for name, value in theirs.items():
        expected = torch.zeros_like(value) if dead.match(name) else value
        assert torch.equal(returned[name], expected), name
    with pytest.raises(UserError, match="already exists"):  # nothing is overwritten
        main(["--to", "published", "--weights", str(ours), "--output", str(back)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "published", "--model", "dmsr"], "leave out --model"),
        (["--options", "width=8"], "name it with --model"),
        (["--model", "dmsr"], r"c\.pth must end in \.safetensors"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        main(
            [*arguments, "--weights", str(tmp_path / "a.pth"), "--output", str(tmp_path / "c.pth")]
        )


def test_the_command_itself(tmp_path: Path) -> None:
    done = run_script(SCRIPT, "--model", "dcsfn", "--weights", tmp_path / "absent.pth",
                      "--output", tmp_path / "a.safetensors")  # fmt: skip
    assert done.returncode == 1 and "There is no file" in done.stderr
