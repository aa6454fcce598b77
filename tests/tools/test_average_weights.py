"""Averaged weights: their values, their network, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models import load_weights
from tests.helpers import write_random_weights
from tools.average_weights import main
from utils.checkpoints import read_weights
from utils.errors import UserError


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Two files of one network with different weights."""
    paths = tmp_path / "before.safetensors", tmp_path / "after.safetensors"
    for seed, path in enumerate(paths):
        write_random_weights(path, "dcsfn_t", {}, seed)
    return paths


def test_every_weight_is_the_mean_by_share(files: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "mean.safetensors"
    main([*map(str, files), "--output", str(output), "--share", "0.25"])
    before, after, mean = (read_weights(path).state for path in (*files, output))
    for name, value in mean.items():
        assert torch.allclose(value, 0.75 * before[name] + 0.25 * after[name], atol=1e-6), name
    assert read_weights(output).info["epoch"] == 1
    load_weights(output)  # the file names its network


def test_mistakes_get_one_sentence(files: tuple[Path, Path], tmp_path: Path) -> None:
    before, after = map(str, files)
    new = str(tmp_path / "new.safetensors")
    with pytest.raises(UserError, match="already exists"):
        main([before, after, "--output", after])
    with pytest.raises(UserError, match="from 0 to 1"):
        main([before, after, "--output", new, "--share", "1.5"])
    other = write_random_weights(tmp_path / "other.safetensors", "dcsfn_t", {"width": 4})
    with pytest.raises(UserError, match="different networks"):
        main([before, str(other), "--output", new])
    assert not Path(new).exists()
