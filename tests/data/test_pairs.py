"""Pairs as files: what is read of them, and one clear sentence for what does not fit."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.checked import check_pairs
from data.pairs import Pair, find_pairs
from tests.helpers import smooth_image, streaked, write_pairs
from utils.errors import UserError


def write(path: Path, image: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), smooth_image(0, 16, 20) if image is None else image)
    return path


def names(pairs: list[Pair]) -> list[tuple[str, str]]:
    return [(pair.rainy.name, pair.clean.name) for pair in pairs]


def test_a_text_file_lists_pairs_as_spa_data_does(tmp_path) -> None:
    folder = write_pairs(tmp_path / "real_world", 3, 24, 20)
    lines = [
        f"/real_world/input/{i}.png {folder}/target/{j}.png" for i, j in ((2, 1), (1, 2), (3, 2))
    ]
    listed = tmp_path / "real_world.txt"
    listed.write_text("\n".join(lines) + "\n\n")
    layout, pairs, _ = find_pairs(listed)
    assert layout == "list"
    assert names(pairs) == [("2.png", "1.png"), ("1.png", "2.png"), ("3.png", "2.png")]
    assert check_pairs(pairs, "listed") == 3
    for text, words in (
        ("a b c", "line 1 is 'a b c'; a line names a rainy and a clean image"),
        ("real_world/input/1.png\treal_world/target/4.png", "line 1: there is no file .*4.png"),
        ("\n", "is empty"),
    ):
        listed.write_text(text)
        with pytest.raises(UserError, match=words):
            find_pairs(listed)


def test_stems_decide_in_natural_order_whatever_the_suffix(tmp_path) -> None:
    for name in ("1.png", "2.jpg", "10.png"):
        write(tmp_path / "input" / name)
    for name in ("10.jpg", "2.png", "1.bmp"):
        write(tmp_path / "target" / name)
    layout, pairs, _ = find_pairs(tmp_path)
    assert layout == "folders"
    assert names(pairs) == [("1.png", "1.bmp"), ("2.jpg", "2.png"), ("10.png", "10.jpg")]


@pytest.mark.parametrize("half", ["left", "right"])
def test_either_half_of_a_side_by_side_file_may_be_rainy(tmp_path, half) -> None:
    clean = smooth_image(1, 32, 40)
    rainy = streaked(clean, 1)
    halves = [rainy, clean] if half == "left" else [clean, rainy]
    path = write(tmp_path / "1.png", np.hstack(halves))
    read_rainy, read_clean = Pair(path, path, half).read()
    assert np.array_equal(read_rainy, rainy[..., ::-1])
    assert np.array_equal(read_clean, clean[..., ::-1])
    assert find_pairs(tmp_path).pairs == [Pair(path, path, half)]
    other = "left" if half == "right" else "right"
    assert find_pairs(tmp_path, half=other).pairs == [Pair(path, path, other)]


def test_images_without_a_partner_are_named(tmp_path) -> None:
    write_pairs(tmp_path / "a", 3)
    write(tmp_path / "a" / "input" / "stray.png")
    with pytest.raises(UserError, match=r"input/stray\.png has no clean partner"):
        find_pairs(tmp_path / "a")
    write_pairs(tmp_path / "b", 3)
    write(tmp_path / "b" / "target" / "stray.png")
    with pytest.raises(UserError, match=r"target/stray\.png has no rainy partner"):
        find_pairs(tmp_path / "b")


def test_two_files_of_one_stem_are_refused(tmp_path) -> None:
    write_pairs(tmp_path, 2)
    write(tmp_path / "input" / "1.jpg")
    with pytest.raises(UserError, match=r"1\.(png|jpg) .* same name but for the suffix"):
        find_pairs(tmp_path)


def test_empty_missing_and_unknown_are_one_sentence(tmp_path) -> None:
    (tmp_path / "input").mkdir()
    (tmp_path / "target").mkdir()
    with pytest.raises(UserError, match="input and target there hold no image"):
        find_pairs(tmp_path)
    with pytest.raises(UserError, match="no data folder"):
        find_pairs(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no pairs; it holds no image\. Pairs are two"):
        find_pairs(tmp_path / "empty")
    with pytest.raises(UserError, match="no data layout 'sideways'; known are auto, folders"):
        find_pairs(tmp_path, "sideways")


def test_float_images_of_another_range_are_refused_as_in_scoring(tmp_path) -> None:
    write_pairs(tmp_path, 2, 24, 20)
    image = smooth_image(2, 24, 20)
    (tmp_path / "input" / "2.png").unlink()
    path = write(tmp_path / "input" / "2.tiff", image.astype(np.float32) / 255)
    pairs = find_pairs(tmp_path).pairs
    check_pairs(pairs, "in [0, 1]")
    assert np.array_equal(pairs[1].read_uint8()[0], image[..., ::-1])
    write(path, image.astype(np.float32))
    with pytest.raises(UserError, match=r"2\.tiff holds float values from .* expected in \[0, 1\]"):
        check_pairs(pairs, "0..255")
    write(path, np.full_like(image, np.nan, np.float32))
    with pytest.raises(UserError, match=r"2\.tiff has 1440 pixel values that are NaN"):
        check_pairs(pairs, "not finite")


def test_alpha_is_dropped_and_16_bits_become_8(tmp_path) -> None:
    bgr = smooth_image(3, 24, 20)
    other = write(tmp_path / "other.png", bgr)
    for name, image in (
        ("alpha.png", np.dstack([bgr, np.full((24, 20, 1), 9, np.uint8)])),
        ("deep.png", bgr.astype(np.uint16) * 257),
        ("deep.tiff", bgr.astype(np.uint16) * 257),
    ):
        for read in Pair(write(tmp_path / name, image), other).read_uint8():
            assert read.dtype == np.uint8
            assert np.array_equal(read, bgr[..., ::-1]), name
