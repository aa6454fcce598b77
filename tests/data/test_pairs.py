"""Who belongs to whom in every layout, and one clear sentence for what does not fit."""

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


def test_a_whole_pair_of_folders_comes_before_one_side(tmp_path) -> None:
    for name in ("rain/001_rain.png", "gt/001gt.png", "rain/002_rain.png", "gt/002gt.png"):
        write(tmp_path / name)
    assert names(find_pairs(tmp_path)[1]) == [
        ("001_rain.png", "001gt.png"),
        ("002_rain.png", "002gt.png"),
    ]
    write(tmp_path / "other" / "target" / "1.png")
    with pytest.raises(UserError, match="other holds one side of the pairs only"):
        find_pairs(tmp_path / "other")


def test_stems_decide_in_natural_order_whatever_the_suffix(tmp_path) -> None:
    for name in ("1.png", "2.jpg", "10.png"):
        write(tmp_path / "input" / name)
    for name in ("10.jpg", "2.png", "1.bmp"):
        write(tmp_path / "target" / name)
    layout, pairs, _ = find_pairs(tmp_path)
    assert layout == "folders"
    assert names(pairs) == [("1.png", "1.bmp"), ("2.jpg", "2.png"), ("10.png", "10.jpg")]


def test_auto_recognises_each_layout(tmp_path) -> None:
    for name in ("rain-001.png", "rain-002.png", "norain-001.png", "norain-002.png"):
        write(tmp_path / "one" / name)
    for i in (1, 2):
        write(tmp_path / "two" / "norain" / f"norain-{i}.png")
        write(tmp_path / "two" / "rain" / f"norain-{i}x2.png")
        write(tmp_path / "three" / "rain" / f"rain-{i} x2.png")
        write(tmp_path / "three" / "norain" / f"norain-{i}.png")
        write(tmp_path / "many" / "ground_truth" / f"{i}.jpg")
        for k in (1, 2, 14):
            write(tmp_path / "many" / "rainy_image" / f"{i}_{k}.jpg")
        clean = smooth_image(i, 48, 40)
        write(tmp_path / "sides" / f"{i}.png", np.hstack([clean, streaked(clean, i)]))
        write(tmp_path / "samples" / "rainysamples" / f"file{i}" / "a.png")
        write(tmp_path / "samples" / "cleansamples" / f"file{i}" / "a.png")
    expected = {
        "one": (
            "one_folder",
            [("rain-001.png", "norain-001.png"), ("rain-002.png", "norain-002.png")],
        ),
        "two": (
            "folders",
            [("norain-1x2.png", "norain-1.png"), ("norain-2x2.png", "norain-2.png")],
        ),
        "three": (
            "folders",
            [("rain-1 x2.png", "norain-1.png"), ("rain-2 x2.png", "norain-2.png")],
        ),
        "many": ("folders", [(f"{i}_{k}.jpg", f"{i}.jpg") for i in (1, 2) for k in (1, 2, 14)]),
        "sides": ("side_by_side", [("1.png", "1.png"), ("2.png", "2.png")]),
        "samples": ("folders", [("a.png", "a.png")] * 2),
    }
    for folder, (layout, pairs) in expected.items():
        found, found_pairs, _ = find_pairs(tmp_path / folder)
        assert (found, names(found_pairs)) == (layout, pairs), folder
        assert find_pairs(tmp_path / folder, layout)[1] == found_pairs  # and when named
    samples = find_pairs(tmp_path / "samples")[1]
    assert all(pair.rainy.parent.name == pair.clean.parent.name for pair in samples)


@pytest.mark.parametrize("half", ["left", "right"])
def test_each_half_of_a_side_by_side_file_is_what_it_is_said_to_be(tmp_path, half) -> None:
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


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tiff", "webp"])
def test_a_truncated_file_is_named_before_training(tmp_path, suffix) -> None:
    write_pairs(tmp_path, 2)
    (tmp_path / "input" / "2.png").unlink()
    broken = write(tmp_path / "input" / f"2.{suffix}", smooth_image(2, 72, 88))
    check_pairs(find_pairs(tmp_path)[1], "whole")
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size * 2 // 3])
    with pytest.raises(UserError, match=rf"input/2\.{suffix} is not a readable image"):
        check_pairs(find_pairs(tmp_path)[1], "cut")


def test_two_sizes_in_a_pair_are_named_with_both(tmp_path) -> None:
    write_pairs(tmp_path, 2)
    write(tmp_path / "target" / "2.png", smooth_image(2, 70, 88))
    with pytest.raises(UserError, match=r"input/2\.png is 88x72 .*target/2\.png is 88x70"):
        check_pairs(find_pairs(tmp_path)[1], "sizes")


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


def test_every_kind_of_file_arrives_as_three_channels_of_uint8(tmp_path) -> None:
    rgb = smooth_image(3, 24, 20)
    gray = rgb[..., 0]
    kinds = {
        "rgb.png": rgb,
        "alpha.png": np.dstack([rgb, np.full((24, 20, 1), 9, np.uint8)]),
        "deep.png": rgb.astype(np.uint16) * 257,
        "rgb.bmp": rgb,
        "rgb.tiff": rgb,
        "deep.tiff": rgb.astype(np.uint16) * 257,
    }
    for name, image in kinds.items():
        path = write(tmp_path / name, image)
        for read in Pair(path, write(tmp_path / "other.png", rgb)).read_uint8():
            assert read.dtype == np.uint8
            assert np.array_equal(read, rgb[..., ::-1]), name
    path = write(tmp_path / "gray.png", gray)
    read, _ = Pair(path, write(tmp_path / "other.png", rgb)).read_uint8()
    assert np.array_equal(read, np.repeat(gray[..., None], 3, axis=2))
    for name in ("rgb.jpg", "rgb.webp"):  # lossy
        read, _ = Pair(write(tmp_path / name, rgb), tmp_path / "other.png").read_uint8()
        assert np.abs(read.astype(int) - rgb[..., ::-1]).mean() < 8, name
