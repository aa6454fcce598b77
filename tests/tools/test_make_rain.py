"""Making pairs and clips: names, repeatability, the mixture, and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers import smooth_image, write_damaged_jpeg
from tools.make_rain import SKIMAGE_PHOTOS, main, skimage_photos
from utils.errors import UserError
from utils.images import read_rgb, write_png


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four small clean photographs of different sizes."""
    folder = tmp_path / "photos"
    for index, name in enumerate(("a", "b", "c", "d")):
        size = (48 + index, 64 - index, 3)
        image = np.random.default_rng(index).integers(0, 200, size, dtype=np.uint8)
        write_png(folder / f"{name}.png", image)
    return folder


def make(photos: Path | str, output: Path, *more: str) -> Path:
    main(["--clean", str(photos), "--output", str(output), *more])
    return output


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*.png"))
    }


def flat_pairs(folder: Path, strengths: dict[str, int]) -> Path:
    """Pairs whose rain is the same everywhere, so that its strength identifies the layer."""
    for stem, strength in strengths.items():
        clean = np.full((30, 40, 3), 50, np.uint8)
        write_png(folder / "target" / f"{stem}.png", clean)
        write_png(folder / "input" / f"{stem}.png", clean + np.uint8(strength))
    return folder


def gains(folder: Path) -> list[float]:
    """The mean strength of the rain in every pair of a folder."""
    return [
        float((read_rgb(path).astype(int) - read_rgb(folder / "target" / path.name)).mean())
        for path in sorted((folder / "input").iterdir())
    ]


def test_pairs_have_the_photographs_names_and_the_clean_one_is_the_photograph(photos, tmp_path):
    output = make(photos, tmp_path / "pairs", "--density", "0.3")
    names = [f"{stem}.png" for stem in "abcd"]
    assert sorted(path.name for path in (output / "input").iterdir()) == names
    assert sorted(path.name for path in (output / "target").iterdir()) == names
    for name in names:
        clean, rainy = (read_rgb(output / part / name) for part in ("target", "input"))
        assert np.array_equal(clean, read_rgb(photos / name))
        assert rainy.shape == clean.shape and not np.array_equal(rainy, clean)


def test_pairs_depend_on_seed_stem_and_variant_only(photos, tmp_path):
    first = contents(make(photos, tmp_path / "first"))
    assert contents(make(photos, tmp_path / "again")) == first
    other = contents(make(photos, tmp_path / "other", "--seed", "1"))
    assert all(other[f"input/{stem}.png"] != first[f"input/{stem}.png"] for stem in "abcd")

    # With fewer photographs and more variants, the first variants are unchanged.
    (photos / "a.png").unlink()
    more = contents(make(photos, tmp_path / "more", "--variants", "2"))
    assert sorted(more) == sorted(
        f"{part}/{stem}_{variant}.png"
        for part in ("input", "target")
        for stem in "bcd"
        for variant in (1, 2)
    )
    for stem in "bcd":
        assert more[f"input/{stem}_1.png"] == first[f"input/{stem}.png"]
        assert more[f"input/{stem}_2.png"] != first[f"input/{stem}.png"]


def test_equal_photographs_of_different_names_get_different_rain(photos, tmp_path):
    write_png(photos / "twin.png", read_rgb(photos / "a.png"))
    output = make(photos, tmp_path / "pairs")
    twins = [read_rgb(output / "input" / name) for name in ("a.png", "twin.png")]
    assert not np.array_equal(*twins)


def test_nothing_is_overwritten(photos, tmp_path):
    write_png(tmp_path / "pairs" / "target" / "c.png", np.zeros((5, 5, 3), np.uint8))
    before = contents(tmp_path / "pairs")
    with pytest.raises(UserError, match=r"c\.png already exists"):
        make(photos, tmp_path / "pairs")
    assert contents(tmp_path / "pairs") == before


def test_held_out_photographs_are_chosen_by_name_or_number(photos, tmp_path):
    def stems(folder: Path) -> set[str]:
        return {path.stem for path in (folder / "input").iterdir()}

    named = make(photos, tmp_path / "named", "--hold-out", "d,b", "--variants", "2")
    assert stems(named / "train") == {"a_1", "a_2", "c_1", "c_2"}
    assert stems(named / "val") == {"b", "d"}

    # Another seed gives other rain, but holds out the same photographs.
    arguments = ("--hold-out", "2", "--val-variants", "2")
    for output in (
        make(photos, tmp_path / "one", *arguments),
        make(photos, tmp_path / "two", *arguments, "--seed", "7"),
    ):
        assert stems(output / "val") == {"d_1", "d_2", "c_1", "c_2"}
        assert stems(output / "train") == {"b", "a"}


def test_no_variants_leave_the_held_out_photographs_alone(photos, tmp_path):
    output = make(photos, tmp_path / "pairs", "--hold-out", "2", "--variants", "0")
    with_train = make(photos, tmp_path / "both", "--hold-out", "2")
    assert not (output / "train").exists()
    assert contents(output / "val") == contents(with_train / "val")
    with pytest.raises(UserError, match="--variants 0"):
        make(photos, tmp_path / "none", "--variants", "0")


def test_dry_pairs_are_equal(photos, tmp_path):
    output = make(photos, tmp_path / "dry", "--share-dry", "1", "--variants", "3")
    assert gains(output) == [0] * 12
    for path in (output / "input").iterdir():
        assert np.array_equal(read_rgb(path), read_rgb(output / "target" / path.name))


def test_light_rain_is_light(photos, tmp_path):
    output = make(photos, tmp_path / "light", "--share-light", "1", "--density", "1")
    for path in (output / "input").iterdir():
        error = read_rgb(path).astype(float) - read_rgb(output / "target" / path.name)
        assert 23.8 < 10 * np.log10(255**2 / np.mean(error**2)) < 30.5  # 8-bit rounding


def test_skipped_layers_are_not_used(photos, tmp_path):
    layers = flat_pairs(tmp_path / "layers", {"strong": 100, "weak": 20})
    arguments = ("--variants", "4", "--layers", str(layers), "--share-layers", "1")
    assert max(gains(make(photos, tmp_path / "all", *arguments))) > 50
    weak = gains(make(photos, tmp_path / "weak", *arguments, "--skip-layers", "strong"))
    assert min(weak) > 10 and max(weak) < 30


def test_held_out_photographs_get_held_out_layers(photos, tmp_path):
    strengths = {"1": 100, "2": 20, "3": 20, "4": 20, "5": 20}
    layers = flat_pairs(tmp_path / "layers", strengths)
    output = make(
        *(photos, tmp_path / "pairs", "--variants", "4", "--val-variants", "4"),
        *("--layers", str(layers), "--share-layers", "1", "--hold-out", "2"),
    )
    assert min(gains(output / "val")) > 40
    assert max(gains(output / "train")) < 30


def test_options_fix_the_rain(photos, tmp_path):
    heavy = make(photos, tmp_path / "heavy", "--density", "2", "--brightness", "0.8")
    drizzle = ("--density", "0.02", "--brightness", "0.2", "--veil", "0")
    light = make(photos, tmp_path / "light", *drizzle)
    assert min(gains(heavy)) > 10 * max(gains(light)) > 0


def test_photographs_inside_scikit_image_are_there():
    found = skimage_photos()
    assert len(found) == len(SKIMAGE_PHOTOS)
    for path in found.values():
        image = read_rgb(path)
        assert image.dtype == np.uint8 and min(image.shape[:2]) >= 256


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--hold-out", "x"), "no such photograph"),
        (("--hold-out", "4"), "leaves none"),
        (("--hold-out", "a,b,c,d"), "every photograph"),
        (("--share-layers", "0.5"), "go together"),
        (("--layers", "nowhere"), "go together"),
        (("--layers", "nowhere", "--share-layers", "0.5"), "nowhere"),
        (("--share-light", "0.7", "--share-dry", "0.5"), "more than 1"),
        (("--pan", "0"), "--pan is for clips; add --clip"),
        (("--size", "40x30"), "--size is for clips"),
        (("--video", "25"), "--video is for clips"),
        (("--clip", "5", "--share-dry", "0.5"), "--share-dry is for single images"),
        (("--clip", "5", "--layers", "x", "--share-layers", "1"), "--share-layers is for single"),
        (("--clip", "5", "--size", "64x48", "--pan", "0.1"), "a.png has 64x48 pixels, .*66x50"),
        (("--clip", "5", "--pan", "9"), "needs 120x108; reduce --size or --pan"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(photos, tmp_path, arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        make(photos, tmp_path / "pairs", *arguments)
    assert not (tmp_path / "pairs").exists()


def test_an_unknown_layer_to_skip_is_refused(photos, tmp_path):
    layers = flat_pairs(tmp_path / "layers", {"x": 40})
    arguments = ("--layers", str(layers), "--share-layers", "1", "--skip-layers")
    with pytest.raises(UserError, match="names y"):
        make(photos, tmp_path / "pairs", *arguments, "y")
    with pytest.raises(UserError, match="leaves nothing of"):
        make(photos, tmp_path / "pairs", *arguments, "x")


@pytest.mark.parametrize(
    "option",
    [
        ("--brightness", "2"),
        ("--num-layers", "1.5"),
        ("--seed", "-1"),
        ("--clip", "1"),
        ("--video", "0"),
        ("--size", "40"),
    ],
)
def test_values_out_of_range_end_with_status_2(photos, tmp_path, option, capsys):
    with pytest.raises(SystemExit) as ended:
        make(photos, tmp_path / "pairs", *option)
    assert ended.value.code == 2
    assert f"argument {option[0]}: {option[1]} is not" in capsys.readouterr().err


def test_a_damaged_photograph_is_named(photos: Path, tmp_path: Path) -> None:
    write_damaged_jpeg(photos / "e.jpg", smooth_image(5, 60, 60))
    with pytest.raises(UserError, match=r"e\.jpg is damaged"):
        make(photos, tmp_path / "pairs")


CLIP = ("--clip", "5", "--size", "40x30", "--density", "0.3", "--veil", "0")


def test_clips_are_folders_of_frames(photos: Path, tmp_path: Path) -> None:
    frames = contents(make(photos, tmp_path / "clips", *CLIP))
    assert sorted(frames) == sorted(
        f"{part}/{stem}/{number:04}.png"
        for part in ("input", "target")
        for stem in "abcd"
        for number in range(1, 6)
    )
    for stem in "abcd":
        rainy, clean = (
            [read_rgb(tmp_path / f"clips/{part}/{stem}/{number:04}.png") for number in range(1, 6)]
            for part in ("input", "target")
        )
        # the camera moves, and rain falls in front of it
        assert clean[0].shape == (30, 40, 3) and not np.array_equal(clean[0], clean[1])
        gain = np.stack(rainy).astype(int) - np.stack(clean)
        assert gain.min() == 0 and gain.max() > 30

    # The photograph, the seed and the variant decide; fewer frames are the first of more.
    (photos / "a.png").unlink()
    held_out = ("--hold-out", "b", "--variants", "2")
    shorter = make(photos, tmp_path / "shorter", *held_out, *CLIP, "--clip", "3")
    assert contents(shorter / "val" / "input") == {
        f"b/{number:04}.png": frames[f"input/b/{number:04}.png"] for number in (1, 2, 3)
    }
    names = sorted(path.name for path in (shorter / "train" / "input").iterdir())
    assert names == ["c_1", "c_2", "d_1", "d_2"]
    with pytest.raises(UserError, match=r"val/input/b already exists"):
        make(photos, tmp_path / "shorter", *held_out, *CLIP)


def test_clips_as_videos_show_the_same_frames(photos: Path, tmp_path: Path) -> None:
    from utils.inference.video.reader import VideoReader

    for name in "bcd":
        (photos / f"{name}.png").unlink()
    odd = (*CLIP, "--size", "41x31")
    frames = make(photos, tmp_path / "frames", *odd)
    videos = make(photos, tmp_path / "videos", *odd, "--video", "29.97")
    for part in ("input", "target"):
        with VideoReader(videos / part / "a.mp4") as reader:
            shown = list(reader.frames())
            seconds = [float(time * reader.picture.time_base) for time in reader.times]
        assert seconds == pytest.approx([number / 29.97 for number in range(5)], abs=1e-4)
        for number, frame in enumerate(shown, 1):
            expected = read_rgb(frames / part / "a" / f"{number:04}.png")
            # 8-bit Y'CbCr in the limited range rounds by 1.7 levels at most
            assert np.abs(255 * frame - expected).max() < 2
