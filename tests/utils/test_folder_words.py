"""What the names of folders say about their images, and which names a data set can have."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.folder_words import FolderSide, read_side
from utils.set_names import dataset_name


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("Rainy_Images", FolderSide("rainy", 0)),
        ("no-rain", FolderSide("clean")),
        ("cleancrop", FolderSide("clean")),
        ("a1_Rain", FolderSide("rainy", 0, "a1")),
        ("b12_GT", FolderSide("clean", 0, "b12")),
        ("rainstreak_raindrop", FolderSide("rainy", 1)),
        ("terrain", FolderSide("")),
    ],
)
def test_the_side_that_a_folder_states(name: str, side: FolderSide) -> None:
    assert read_side(name) == side


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("datasets/Rain100H/test/target", "Rain100H"),
        ("sets/Rain200L/Rainy Images", "Rain200L"),
        ("sets/Rain200L/no-rain", "Rain200L"),
        ("RainDS/rainstreak_raindrop", "RainDS"),
        ("sets/Raindrop/test/gt", "Raindrop"),
        ("GT-RAIN/test/input", "GT-RAIN"),
        ("photos/rain_L/gt", "rain_L"),
        ("datasets/val/target", "val"),
        ("data/target", "images"),
    ],
)
def test_a_data_set_is_called_by_no_side(folder: str, name: str) -> None:
    assert dataset_name(Path("/") / folder) == name
