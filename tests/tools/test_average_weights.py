"""Averaged weights: the numbers, the network that the file names, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models import build_model, load_weights
from tools.average_weights import main
from utils.checkpoints import Weights, read_weights, write_weights
from utils.errors import UserError


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Two files of one network with other weights."""
    paths = tmp_path / "before.safetensors", tmp_path / "after.safetensors"
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        state = build_model("dcsfn_t").state_dict()
        write_weights(path, Weights("dcsfn_t", {}, state, {"epoch": seed}))
    return paths


def test_every_number_lies_where_the_share_says(files: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "mean.safetensors"
    main([*map(str, files), "--output", str(output), "--share", "0.25"])
    before, after, mean = (read_weights(path).state for path in (*files, output))
    for name, value in mean.items():
        assert torch.allclose(value, 0.75 * before[name] + 0.25 * after[name], atol=1e-6), name
    assert read_weights(output).info["epoch"] == 1
    load_weights(output)  # names its network


def test_mistakes_get_one_sentence(files: tuple[Path, Path], tmp_path: Path) -> None:
    before, after = map(str, files)
    new = str(tmp_path / "new.safetensors")
    with pytest.raises(UserError, match="already exists"):
        main([before, after, "--output", after])
    with pytest.raises(UserError, match="from 0 to 1"):
        main([before, after, "--output", new, "--share", "1.5"])
    other = tmp_path / "other.safetensors"
    state = build_model("dcsfn_t", {"width": 4}).state_dict()
    write_weights(other, Weights("dcsfn_t", {"width": 4}, state, {}))
    with pytest.raises(UserError, match="different networks"):
        main([before, str(other), "--output", new])
    assert not Path(new).exists()
