"""Files with rainy and clean side by side: which half is rainy, and when that is in doubt."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.layouts.halves import are_side_by_side, rainy_half
from data.pairs import find_pairs
from tests.helpers import smooth_image, streaked
from utils.errors import UserError


def write(folder: Path, kinds: str) -> list[Path]:
    """A file for each letter: rainy on the L(eft), on the R(ight), or on N(either) half."""
    folder.mkdir(parents=True)
    paths = []
    for i, kind in enumerate(kinds, start=1):
        clean = smooth_image(i, 64, 64)
        rainy = streaked(clean, i)
        halves = {"L": [rainy, clean], "R": [clean, rainy], "N": [clean, clean]}[kind]
        paths.append(folder / f"{i}.png")
        cv2.imwrite(str(paths[-1]), np.hstack(halves))
    return paths


@pytest.mark.parametrize(
    ("kinds", "half"), [("LLLLL", "left"), ("RRRR", "right"), ("LNLLLL", "left"), ("R", "right")]
)
def test_the_images_decide_where_they_agree(tmp_path, kinds, half) -> None:
    assert rainy_half(write(tmp_path / "set", kinds)) == half


@pytest.mark.parametrize(
    ("kinds", "left", "right"),
    [("LLLLLLLR", 7, 1), ("RRRRRRRL", 1, 7), ("LLNN", 2, 0), ("NNN", 0, 0)],
)
def test_doubt_is_refused_and_the_user_decides(tmp_path, kinds, left, right) -> None:
    paths = write(tmp_path / "set", kinds)
    seen = rf"of {len(kinds)} inspected images, {left} are rougher on the left and {right} on the"
    with pytest.raises(UserError, match=rf"in doubt .*{seen}.*DATA.RAINY_HALF or --rainy-half"):
        rainy_half(paths)
    with pytest.raises(UserError, match="in doubt"):
        find_pairs(tmp_path / "set")
    assert rainy_half(paths, "left") == "left" and rainy_half(paths, "right") == "right"
    with pytest.raises(UserError, match="no half 'up'; known are auto, left, right"):
        rainy_half(paths, "up")


def test_twenty_images_spread_over_the_set_are_inspected(tmp_path) -> None:
    paths = write(tmp_path / "set", "L" * 41)
    for path in paths[1:3] + paths[4:]:  # every third file, from the first, is inspected
        if (int(path.stem) - 1) % 3:
            path.write_bytes(b"not read")
    assert rainy_half(paths) == "left"


def test_a_known_set_decides_where_its_images_do_not(tmp_path) -> None:
    assert rainy_half(write(tmp_path / "Rain_Heavy" / "train2018new", "NNN")) == "left"
    assert rainy_half(write(tmp_path / "Rain800" / "training", "NNN")) == "right"
    wrong = write(tmp_path / "DID-MDN" / "test", "RRR")
    with pytest.raises(UserError, match="whose left halves are rainy, but the right halves of its"):
        rainy_half(wrong)
    assert rainy_half(wrong, "right") == "right"


def test_halves_that_are_not_one_scene_are_not_a_pair(tmp_path) -> None:
    for i in range(1, 5):
        cv2.imwrite(str(tmp_path / f"{i}.png"), smooth_image(i, 48, 200))
    assert not are_side_by_side(sorted(tmp_path.iterdir()))
    with pytest.raises(UserError, match="halves do not look like one scene: put rainy images in"):
        find_pairs(tmp_path)
    assert len(find_pairs(tmp_path, "side_by_side", half="left").pairs) == 4
