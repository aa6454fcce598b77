"""Training images whose scene is in a validation or test set are found, and nothing else is."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data as photographs

from configs import load_config
from data.leaks import Leak, find_leaks, leaks_sentence, write_leaks
from data.loaders import Loaders, build_loaders
from data.pairs import Pair, find_pairs
from data.scene_hashes import BYTES, hash_views, nearest, overlap, pack_scenes, scene_hashes
from tests.helpers import ROOT
from utils.errors import UserError
from utils.images import read_rgb

TRAINING = ROOT / "training.yml"
SCENES = ("astronaut", "camera", "chelsea", "coffee", "rocket", "coins", "brick")


def photograph(name: str) -> np.ndarray:
    """A photograph as gray, about 300 pixels wide."""
    image = getattr(photographs, name)()
    gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.resize(gray, None, fx=300 / gray.shape[1], fy=300 / gray.shape[1])


@pytest.fixture(scope="module")
def scenes() -> dict[str, np.ndarray]:
    return {name: photograph(name) for name in SCENES}


def write(folder: Path, images: dict[str, np.ndarray]) -> list[Pair]:
    folder.mkdir(parents=True)
    for name, image in images.items():
        cv2.imwrite(str(folder / name), image, [cv2.IMWRITE_JPEG_QUALITY, 60])
    return [Pair(folder / name, folder / name) for name in images]


COPIES = {
    "the same": lambda image: image,
    "mirrored": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
    "turned left": np.rot90,
    "turned right": lambda image: np.rot90(image, 3),
    "mirrored and turned": lambda image: np.rot90(image[:, ::-1]),
    "a row and a column less": lambda image: image[1:, :-1],
    "cropped in the middle": lambda image: image[4:-4, 5:-5],
    "cropped at a corner": lambda image: image[: -image.shape[0] // 20, image.shape[1] // 20 :],
    "half as large": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5),
    "brighter": lambda image: cv2.convertScaleAbs(image, alpha=0.9, beta=20),
}


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("is_training_copied", [True, False])
def test_copies_of_a_scene_are_found_and_others_are_not(
    scenes, tmp_path: Path, copy: str, is_training_copied: bool
) -> None:
    originals = {f"{name}.png": image for name, image in list(scenes.items())[:5]}
    copies = {f"{name}.jpg": COPIES[copy](scenes[name]) for name in ("chelsea", "camera", "coins")}
    training, test = (copies, originals) if is_training_copied else (originals, copies)
    leaks = find_leaks(
        write(tmp_path / "training", training), {"Rain100H": write(tmp_path / "test", test)}
    )
    assert {(leak.training.clean.stem, leak.other.clean.stem) for leak in leaks} == {
        ("chelsea", "chelsea"),
        ("camera", "camera"),
    }
    assert {leak.dataset for leak in leaks} == {"Rain100H"} and all(
        leak.bits <= 24 for leak in leaks
    )


def test_prenets_1254_pairs_are_left(tmp_path: Path) -> None:
    """On its counts alone: 546 of 1,800 training pairs show one of Rain100H's 91 scenes."""
    rng = np.random.default_rng(0)
    low = rng.integers(0, 256, (91 + 209, 12, 12), np.uint8)
    random = [cv2.resize(scene, (48, 48), interpolation=cv2.INTER_CUBIC) for scene in low]
    clean = write(tmp_path / "RainTrainH", {f"{i}.png": scene for i, scene in enumerate(random)})
    numbers = [*(i % 91 for i in range(546)), *(91 + i % 209 for i in range(1254))]
    pairs = [Pair(Path(f"rain-{i}.png"), clean[number].clean) for i, number in enumerate(numbers)]
    test = write(tmp_path / "Rain100H", {f"{i}.png": random[i % 91] for i in range(100)})
    leaks = find_leaks(pairs, {"Rain100H": test})
    assert [leak.training for leak in leaks] == pairs[:546]
    assert "546 training pairs of 1800" in leaks_sentence(leaks, 1800, "drop")
    assert leaks_sentence(leaks, 1800, "drop").endswith("they are left out, which leaves 1254")


def test_the_nearest_equals_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(3)
    upright = rng.integers(0, 256, (5, 6, BYTES), np.uint8)
    turned = rng.integers(0, 256, (4, 48, BYTES), np.uint8)
    turned[2, 17] = upright[3, 0] ^ np.eye(1, BYTES, 4, dtype=np.uint8)[0]  # a whole one, one bit
    turned[1, 6] = upright[0, 5]  # a crop and a whole image in another orientation
    turned[0, 7] = upright[1, 2]  # two crops, which are not compared
    for views in (1, 6):
        numbers, bits = nearest(upright[:, :views], turned)
        for i in range(5):
            expected = []
            for m in range(4):
                compared = [(0, w) for w in range(48)]
                compared += [(v, w) for v in range(1, views) for w in range(0, 48, 6)]
                differing = [
                    sum(
                        int(a ^ b).bit_count()
                        for a, b in zip(upright[i, v], turned[m, w], strict=True)
                    )
                    for v, w in compared
                ]
                expected.append(min(differing))
            assert bits[i] == min(expected) and numbers[i] == expected.index(min(expected))
    assert bits[0] == 0 and bits[3] == 1 and bits[1] > 24


def test_plain_images_have_no_scene(tmp_path: Path) -> None:
    plain = {f"{i}.png": np.full((40, 50), value, np.uint8) for i, value in enumerate((0, 99, 255))}
    pairs = write(tmp_path / "a", plain)
    assert find_leaks(pairs, {"b": write(tmp_path / "b", plain)}) == []
    assert overlap(pack_scenes(scene_hashes(pairs)), pairs) == []


def test_the_clean_half_is_hashed(scenes, tmp_path: Path) -> None:
    clean, other = scenes["coffee"], cv2.resize(scenes["brick"], scenes["coffee"].shape[::-1])
    write(tmp_path / "sides", {"1.png": np.hstack([clean, other])})
    test = write(tmp_path / "test", {"c.png": clean})
    path = tmp_path / "sides" / "1.png"
    assert len(find_leaks([Pair(path, path, "right")], {"t": test})) == 1
    assert find_leaks([Pair(path, path, "left")], {"t": test}) == []


def test_hashes_are_remembered_until_a_file_changes(scenes, tmp_path: Path) -> None:
    pairs = write(tmp_path / "set", {"1.png": scenes["coffee"], "2.png": scenes["rocket"]})
    index = tmp_path / "checked"
    rows = scene_hashes(pairs, index)
    np.testing.assert_array_equal(rows, np.stack([
        hash_views(cv2.cvtColor(read_rgb(pair.clean), cv2.COLOR_RGB2GRAY)) for pair in pairs
    ]))  # fmt: skip
    kept = pairs[0].clean.stat()
    pairs[0].clean.write_bytes(b"x" * kept.st_size)  # would be refused if it were read
    os.utime(pairs[0].clean, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    np.testing.assert_array_equal(scene_hashes(pairs[::-1], index), rows[::-1])
    with pytest.raises(UserError, match=r"1\.png is not a readable image"):
        scene_hashes(pairs, index, turned=True)  # other views, kept apart
    cv2.imwrite(str(pairs[0].clean), scenes["coins"])
    again = scene_hashes(pairs, index)
    assert not np.array_equal(again[0], rows[0]) and np.array_equal(again[1], rows[1])
    place = tmp_path / "checked_scenes_6"
    place.write_bytes(place.read_bytes()[:-5])  # as after a full disk
    np.testing.assert_array_equal(scene_hashes(pairs, index), again)


def test_one_clean_image_of_many_pairs_is_hashed_once(scenes, tmp_path: Path) -> None:
    (clean,) = write(tmp_path / "clean", {"1.png": scenes["coffee"]})
    pairs = [Pair(tmp_path / f"1_{k}.png", clean.clean) for k in range(14)]
    rows = scene_hashes(pairs, tmp_path / "index")
    assert rows.shape == (14, 6, 18) and np.array_equal(rows[0], rows[13])
    assert (tmp_path / "index_scenes_6").stat().st_size == 16 + 6 * 18


def test_what_each_policy_says(tmp_path: Path) -> None:
    pair = [Pair(tmp_path / f"{i}.png", tmp_path / f"{i}.png") for i in range(4)]
    leaks = [Leak(pair[0], pair[2], "Test100", 3), Leak(pair[1], pair[3], "Rain100L", 0)]
    assert leaks_sentence([], 9, "refuse") == ""
    found = (
        "2 training pairs of 9 show a scene of a validation or test set (1 in Test100, 1 in "
        f"Rain100L), such as {pair[0].clean}, which is {pair[2].clean}; "
    )
    assert leaks_sentence(leaks, 9) == (
        f"{found}scores on these sets are too good. DATA.LEAKS drop leaves them out"
    )
    assert leaks_sentence(leaks, 9, "drop") == f"{found}they are left out, which leaves 7"
    with pytest.raises(UserError, match=r"DATA\.LEAKS drop leaves them out, warn trains on them"):
        leaks_sentence(leaks, 9, "refuse")


def test_the_table_and_the_picture_of_leaks(scenes, tmp_path: Path) -> None:
    some = write(tmp_path / "set", {f"{name}.png": scenes[name] for name in SCENES[:4]})
    leaks = [Leak(some[0], some[1], "a,b", 7), Leak(some[2], some[3], "c", 0)]
    assert write_leaks(tmp_path / "run", []) == []
    table, picture = write_leaks(tmp_path / "run", leaks)
    rows = list(csv.reader(table.open()))
    assert rows[0] == ["training", "other", "set", "bits"]
    assert rows[1] == [str(some[0].clean), str(some[1].clean), "a,b", "7"] and len(rows) == 3
    page = read_rgb(picture)[..., 0].astype(int)
    for number, pair in enumerate(some):
        image = scenes[pair.clean.stem]
        width = round(image.shape[1] * 120 / image.shape[0])
        small = cv2.resize(image, (width, 120), interpolation=cv2.INTER_AREA)
        top = 2 + number // 2 * 124
        left = 2
        if number % 2:
            before = scenes[some[number - 1].clean.stem]
            left += round(before.shape[1] * 120 / before.shape[0]) + 4
        np.testing.assert_array_equal(page[top : top + 120, left : left + width], small)


def test_weights_record_the_scenes_of_their_training_set(scenes, tmp_path: Path) -> None:
    images = {f"{name}.png": image for name, image in scenes.items()}
    pairs = write(tmp_path / "all", images)
    packed = pack_scenes(scene_hashes(pairs[:3] + pairs[:2]))
    assert packed.startswith("phash144 3 ") and "\n" not in packed
    turned = write(tmp_path / "turned", {name: np.rot90(i) for name, i in images.items()})
    assert overlap(packed, turned) == turned[:3]
    assert overlap(packed, turned[3:]) == [] == overlap(packed, [])
    for damaged in ("", "phash144 3", packed[:-3], packed + "?", packed.replace("144", "64")):
        with pytest.raises(UserError, match="training scenes in the weights' metadata are damaged"):
            overlap(damaged, turned)


@pytest.fixture
def leaky(scenes, tmp_path: Path) -> list[str]:
    """Settings of a training set of five scenes, two of which are validated or tested on."""
    sets = {"train": SCENES[:5], "val": ("chelsea",), "test": ("rocket", "brick")}
    for folder, names in sets.items():
        for number, name in enumerate(names):
            for side in ("input", "target"):
                (tmp_path / folder / side).mkdir(parents=True, exist_ok=True)
                scene = scenes[name] if folder == "train" else scenes[name][:, ::-1]
                cv2.imwrite(str(tmp_path / folder / side / f"{number}.png"), scene)
    return [
        *("DATA.TRAIN", str(tmp_path / "train"), "DATA.VAL", f"[[{tmp_path}/val, val]]"),
        *("TEST.SETS", f"[[{tmp_path}/test, test]]", "DATA.WORKERS", "0", "OPTIM.BATCH_SIZE", "2"),
    ]


def loaders(settings: list[str], policy: str, *more: str) -> Loaders:
    return build_loaders(load_config(TRAINING, [*settings, *more, "DATA.LEAKS", policy]))


def test_training_warns_of_leaks_and_records_its_scenes(leaky, tmp_path, capsys) -> None:
    found = loaders(leaky, "warn")
    assert [(leak.training.clean.name, leak.dataset) for leak in found.leaks] == [
        ("2.png", "val"),
        ("4.png", "test"),
    ]
    assert len(found.train_pairs) == 5
    assert "warning: 2 training pairs of 5 show a scene" in capsys.readouterr().out
    test = find_pairs(tmp_path / "test").pairs
    assert overlap(found.scenes, test) == test[:1]
    with pytest.raises(UserError, match="2 training pairs of 5 show a scene"):
        loaders(leaky, "refuse")
    ignored = loaders(leaky, "ignore")
    assert ignored.leaks == [] and ignored.scenes == "" and len(ignored.train_pairs) == 5


def test_dropped_leaks_are_not_trained_on(leaky, tmp_path) -> None:
    clean = str(tmp_path / "train" / "target")
    for settings, suffix in (((), "input"), (("DATA.SYNTHESIS.CLEAN", clean), "target")):
        found = loaders(leaky, "drop", *settings, "DATA.REPEAT", "3")
        assert [pair.rainy for pair in found.train_pairs] == [
            tmp_path / "train" / suffix / f"{i}.png" for i in (0, 1, 3)
        ]
        assert found.sampler.num_samples == 9 and len(found.leaks) == 2
        assert overlap(found.scenes, find_pairs(tmp_path / "test").pairs) == []
    with pytest.raises(UserError, match="gives 3 patches per epoch, less than one batch of 4"):
        loaders(leaky, "drop", "OPTIM.BATCH_SIZE", "4")
    with pytest.raises(UserError, match=r"Every image of .*val shows a scene"):
        loaders(leaky, "drop", "DATA.TRAIN", str(tmp_path / "val"), "DATA.REPEAT", "9")


def test_a_test_set_that_cannot_be_read_does_not_stop_training(leaky, tmp_path, capsys) -> None:
    (tmp_path / "test" / "target" / "1.png").unlink()
    assert [leak.dataset for leak in loaders(leaky, "warn").leaks] == ["val"]
    assert "test (TEST.SETS) is not searched for training scenes" in capsys.readouterr().out
