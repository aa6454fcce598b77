"""tools/check_dataset.py: what it prints about a folder, the picture it draws, when it fails."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.data.archives import ARCHIVES, HEIGHT, WIDTH, Archive, numbered
from tests.helpers import write_pairs
from tools.check_dataset import ROW_HEIGHT, main, recipes_of
from utils.errors import UserError
from utils.images import read_rgb


def run(capsys: pytest.CaptureFixture, folder: Path, *options: object) -> tuple[int, list[str]]:
    status = main([str(folder), "--output", str(folder.parent / "seen.png"), *map(str, options)])
    return status, capsys.readouterr().out.splitlines()


def test_a_set_of_two_folders(tmp_path: Path, capsys) -> None:
    folder = ARCHIVES["Raindrop Clarity"].write(tmp_path / "Raindrop Clarity")
    status, lines = run(capsys, folder)
    assert status == 0 and lines == [
        f"{folder}: two folders such as input/ and target/",
        f"pairs: 4 (4 rainy, 4 clean images), the first is {folder}/Drop/00001/00001.png with "
        f"{folder}/Clear/00001/00001.png",
        f"sizes: {WIDTH}x{HEIGHT} (4)",
        f"note: left out: {folder}/Blur (4 images)",
        "set: called Raindrop Clarity, whose parts have 14,139 or 731 or 593 pairs, not 4",
        "Raindrop Clarity: protocol rain13k, recipes none; any network trains on DATA.TRAIN",
        f"Look at {tmp_path}/seen.png: rainy left, clean right.",
    ]


def test_the_half_and_the_picture_of_side_by_side_files(tmp_path: Path, capsys) -> None:
    folder = ARCHIVES["DID-MDN, test"].write(tmp_path / "DID-MDN")
    status, lines = run(capsys, folder)
    assert status == 0
    assert lines[0].endswith("pair, rainy and clean side by side, the left half rainy")
    picture = read_rgb(tmp_path / "DID-MDN" / "seen.png")
    width = round(2 * WIDTH * ROW_HEIGHT / HEIGHT)
    assert picture.shape == (3 * ROW_HEIGHT, width, 3)
    for row, name in enumerate(("1.jpg", "2.jpg", "12.jpg")):
        image = cv2.imread(str(folder / name))[..., ::-1]
        drawn = cv2.resize(image, (width, ROW_HEIGHT), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(picture[row * ROW_HEIGHT : (row + 1) * ROW_HEIGHT], drawn)
    _, lines = run(capsys, folder, "--rainy-half", "right")
    assert lines[0].endswith("the right half rainy")
    mirrored = read_rgb(tmp_path / "DID-MDN" / "seen.png")
    assert np.abs(mirrored[:, : width // 2].astype(int) - picture[:, -(width // 2) :]).mean() < 2


def test_a_known_set_by_name_and_count(tmp_path: Path, capsys) -> None:
    pairs = numbered("input/{}.png", "target/{}.png", tuple(range(1, 13)))
    for name, expected in (
        ("Rain12", ["set: Rain12, test, by its name and its 12 pairs", "Rain12: protocol did"]),
        ("mine", ["set: with 12 pairs this may be Rain12 test", "Rain12: protocol did"]),
        ("Rain100H", [
            "set: called Rain100H, whose parts have 1,800 or 100 pairs, not 12",
            "Rain100H: protocol rain13k, recipes dcsfn_rain100h",
        ]),
    ):  # fmt: skip
        _, lines = run(capsys, Archive(pairs).write(tmp_path / name))
        for line, words in zip(lines[3:5], expected, strict=True):
            assert line.startswith(words)
    write_pairs(tmp_path / "few", 2)
    assert run(capsys, tmp_path / "few")[1][3:5] == [
        "set: no known set has 2 pairs",
        "protocol: rain13k, as for any unknown set",
    ]


def test_the_recipes_of_a_set_are_those_whose_folders_name_it() -> None:
    assert recipes_of("SPA-Data") == ["nerd_rain_s_spa", "nerd_rain_spa", "petrichor_mixed"]
    assert {"dmsr_rain13k", "mspfn_rain13k", "dcsfn_rain100l"} <= set(recipes_of("Rain100L"))
    assert recipes_of("HQ-RAIN") == []


def test_what_is_wrong_is_named_and_the_status_is_1(tmp_path: Path, capsys) -> None:
    folder = write_pairs(tmp_path / "set", 4)
    (folder / "input" / "2.png").rename(folder / "input" / "stray.png")
    assert main([str(folder), "--output", str(tmp_path / "a.png")]) == 1
    error = capsys.readouterr().err
    assert f"error: {folder}/input/stray.png has no clean partner" in error
    assert f"error: {folder}/target/2.png has no rainy partner" in error
    folder = write_pairs(tmp_path / "sizes", 3)
    cv2.imwrite(str(folder / "input" / "3.png"), np.zeros((20, 30, 3), np.uint8))
    assert main([str(folder), "--output", str(tmp_path / "b.png")]) == 1
    captured = capsys.readouterr()
    assert "sizes: 88x72 (2), 30x20 (1)" in captured.out and not (tmp_path / "b.png").exists()
    sizes = f"{folder}/input/3.png is 30x20 and {folder}/target/3.png is 88x72 pixels"
    assert sizes in captured.err
    (folder / "input" / "3.png").write_bytes(b"no image")
    assert main([str(folder), "--output", str(tmp_path / "b.png")]) == 1
    assert "3.png is not a readable image" in capsys.readouterr().err
    with pytest.raises(UserError, match="holds no pairs; the nearest reading is"):
        main([str(Archive(numbered("dry/{}.png", "wet/{}.png")).write(tmp_path / "odd"))])
