"""Folders and lists as people have them: links, hidden folders, encodings, other words."""

from __future__ import annotations

import codecs
import os
import re
import unicodedata
from pathlib import Path

import pytest

from data.layouts.folders import images_by_name
from data.layouts.recognise import find_sides
from data.pairs import find_pairs
from data.results import pair_results, set_folders
from tests.data.archives import Archive, numbered
from tests.helpers import write_pairs
from utils.errors import UserError
from utils.evaluation.folders import single_jobs

PAIRS = numbered("input/{}.png", "target/{}.png")


def names(folder: Path, **options: str) -> list[tuple[str, str]]:
    """The pairs as files below the folder."""
    return [
        (os.path.relpath(pair.rainy, folder), os.path.relpath(pair.clean, folder))
        for pair in find_pairs(folder, **options).pairs
    ]


# --- links and hidden folders --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["input/12.png", "target/12.png", "input/link"])
def test_a_dead_link_is_named(tmp_path: Path, name: str) -> None:
    Archive(PAIRS).write(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=rf"{name} is a link to .*/gone, which does not exist"):
        find_pairs(tmp_path)
    (job,) = single_jobs(tmp_path / "target", tmp_path / "input", None, "rain13k", set_folders)
    assert "does not exist" in pair_results(job).problem


def test_linked_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    Archive([("a/1.png", "b/1.png"), ("a/2.png", "b/2.png")]).write(tmp_path / "disk")
    Archive([("input/x/3.png", "target/x/3.png")]).write(tmp_path / "set")
    for side, disk in (("input", "a"), ("target", "b")):
        (tmp_path / "set" / side / "linked").symlink_to(tmp_path / "disk" / disk)
        (tmp_path / "set" / side / "loop").symlink_to(tmp_path / "set")
    assert names(tmp_path / "set") == [
        ("input/linked/1.png", "target/linked/1.png"),
        ("input/linked/2.png", "target/linked/2.png"),
        ("input/x/3.png", "target/x/3.png"),
    ]


def test_hidden_folders_are_not_data(tmp_path: Path) -> None:
    nested = [(f"input/s{k}/{i}.png", f"target/s{k}/{i}.png") for k in (1, 2) for i in (1, 2)]
    hidden = [f"{side}/{where}.ipynb_checkpoints/1.png"
              for side in ("input", "target") for where in ("", "s1/")]  # fmt: skip
    Archive(nested, extras=[*hidden, ".trash/1.png", "input/s1/._1.png"]).write(tmp_path)
    found = find_pairs(tmp_path)
    assert names(tmp_path) == nested and found.notes == []


def test_images_beside_and_below_the_pairs_are_counted(tmp_path: Path) -> None:
    Archive(PAIRS, extras=["input/old/1.png", "input/old/2.png", "preview.png", "out/7.png"]).write(
        tmp_path
    )
    assert find_pairs(tmp_path).notes == [
        f"left out: {tmp_path}/input/old (2 images)",
        f"left out: {tmp_path}/out (1 image)",
        f"left out: 1 image directly in {tmp_path}",
    ]
    assert len(names(tmp_path)) == 3


# --- names ---------------------------------------------------------------------------------------


def test_decomposed_names_are_equal_to_composed_ones(tmp_path: Path) -> None:
    both = [unicodedata.normalize(form, "Zürich é") for form in ("NFD", "NFC")]
    assert both[0] != both[1]
    Archive(
        [(f"input/{both[0]} {i}.png", f"target/{both[1]} {i}.png") for i in (1, 2)]
        + [(f"input/{both[1]} 3.png", f"target/{both[0]} 3.png")]
    ).write(tmp_path)
    assert len(names(tmp_path)) == 3
    assert list(find_sides(tmp_path).rainy) == [f"{both[1]} {i}" for i in (1, 2, 3)]
    Archive([], extras=[f"input/{both[0]} 3.png"]).write(tmp_path)
    with pytest.raises(UserError, match="have the same name"):
        find_pairs(tmp_path)


def test_names_that_are_not_utf_8_pair_and_can_be_printed(tmp_path: Path) -> None:
    """As in archives of old Windows systems; here Latin 1."""
    write_pairs(tmp_path, 2)
    for side in ("input", "target"):
        folder = os.fsencode(tmp_path / side)
        os.rename(folder + b"/2.png", folder + b"/Stra\xdfe 2.png")
    pairs = find_pairs(tmp_path).pairs
    assert [os.fsencode(pair.rainy.name) for pair in pairs] == [b"1.png", b"Stra\xdfe 2.png"]
    os.remove(os.fsencode(tmp_path / "target") + b"/Stra\xdfe 2.png")
    with pytest.raises(UserError, match="has no clean partner"):
        find_pairs(tmp_path)


def test_numbers_of_folders_do_not_replace_those_of_files(tmp_path: Path) -> None:
    for scale in ("x4", "2x"):
        archive = Archive(numbered(f"lq/{scale}/{{:04}}x4.png", "gt/{:04}.png", (1, 2, 3, 4)))
        archive.write(tmp_path / scale)
        assert names(tmp_path / scale) == sorted(archive.pairs)


# --- lists ---------------------------------------------------------------------------------------

SPELLINGS = {
    "plain": lambda text: text.encode(),
    "byte order mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "PowerShell": lambda text: text.encode("utf-16"),
    "Windows": lambda text: text.replace("/", "\\").replace("\n", "\r\n").encode(),
    "leading slash": lambda text: re.sub("(input|target)/", r"/\1/", text).encode(),
    "Latin 1": lambda text: text.replace("ß", "\udcdf").encode(errors="surrogateescape"),
    "decomposed": lambda text: unicodedata.normalize("NFD", text).encode(),
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_lists_of_every_spelling(tmp_path: Path, spelling: str) -> None:
    write_pairs(tmp_path, 3, 24, 20)
    (tmp_path / "input" / "2.png").rename(tmp_path / "input" / "Straße é.png")
    if spelling == "Latin 1":
        (tmp_path / "input" / "Straße é.png").rename(tmp_path / "input" / "Stra\udcdfe é.png")
    text = "input/Straße é.png\ttarget/1.png\ninput/1.png\ttarget/3.png\n\n"
    (tmp_path / "list.txt").write_bytes(SPELLINGS[spelling](text))
    found = find_pairs(tmp_path / "list.txt")
    assert found.layout == "list" and [
        (pair.rainy.name[-4:], pair.clean.name) for pair in found.pairs
    ] == [(".png", "1.png"), (".png", "3.png")]
    assert [pair.rainy.stat().st_ino for pair in found.pairs] == [
        next(tmp_path.glob("input/Stra*")).stat().st_ino,
        (tmp_path / "input" / "1.png").stat().st_ino,
    ]


def test_a_list_is_a_target_to_score_against(tmp_path: Path) -> None:
    write_pairs(tmp_path, 3, 24, 20)
    listed = tmp_path / "list.txt"
    listed.write_text("input/2.png target/1.png\ninput/1.png target/3.png\n")
    (job,) = single_jobs(tmp_path / "input", listed, None, "rain13k", set_folders)
    (tmp_path / "input" / "3.png").unlink()
    result = pair_results(job)
    assert not result.problems
    assert [(i.restored.name, i.clean.name) for i in result.images] == [
        ("2.png", "1.png"),
        ("1.png", "3.png"),
    ]


def test_repeated_lines_are_noted_and_contradictions_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path, 3, 24, 20)
    listed = tmp_path / "list.txt"
    line = "input/1.png target/1.png\n"
    listed.write_text(line + "input/2.png target/1.png\n" + line)
    found = find_pairs(listed)
    assert len(found.pairs) == 2
    assert found.notes == [f"left out: 1 line of {listed} that repeat an earlier one"]
    listed.write_text(line + "input/1.png target/2.png\n")
    with pytest.raises(UserError, match=r"lists .*input/1\.png with two clean images"):
        find_pairs(listed)
    (tmp_path / "target" / "1.jpg").write_bytes((tmp_path / "target" / "1.png").read_bytes())
    listed.write_text(line + "input/2.png target/1.jpg\n")
    with pytest.raises(UserError, match=r"lists .*/1\.png and .*/1\.jpg, which have the same name"):
        find_pairs(listed)
    (tmp_path / "other.txt").write_text(line)
    with pytest.raises(UserError, match=r"several lists of pairs; name one: .*list\.txt, .*other"):
        find_pairs(tmp_path)


# --- patterns ------------------------------------------------------------------------------------


def test_one_folder_of_four_kinds_by_a_pattern(tmp_path: Path) -> None:
    kinds = ("rainregion", "rainstreak")
    Archive(
        numbered("rain-{}.png", "norain-{}.png"),
        extras=[f"{kind}-{i}.png" for kind in kinds for i in (1, 2, 12)],
    ).write(tmp_path)
    expected = numbered("rain-{}.png", "norain-{}.png")
    for match in ("", r"(\d+)", r"^(?:no)?rain-(\d+)$", r"^(?P<clean>no)?rain-(\d+)$"):
        assert names(tmp_path, match=match) == expected, match
    notes = find_pairs(tmp_path, match=r"^(?P<clean>no)?rain-(\d+)$").notes
    assert notes == [
        "left out: 6 rainy images that the pattern '^(?P<clean>no)?rain-(\\d+)$' does not match, "
        f"such as {tmp_path}/rainregion-1.png"
    ]


def test_a_pattern_helps_where_no_pair_of_folders_is_recognised(tmp_path: Path) -> None:
    pairs = numbered("wet/{}.png", "dry/{}.png")
    Archive(pairs).write(tmp_path)
    expected = r"wet/ with 3 images as the rainy side .* dry/ with 3 images as the clean"
    with pytest.raises(UserError, match=expected):
        find_pairs(tmp_path)
    match = r"(?:wet|(?P<clean>dry))/(\d+)"
    assert names(tmp_path, match=match) == pairs
    assert set_folders(tmp_path, match) == (tmp_path, tmp_path)
    (tmp_path / "dry").rename(tmp_path / "gt")
    with pytest.raises(UserError, match=r"holds one side of the pairs only, the clean images"):
        find_pairs(tmp_path)
    assert names(tmp_path, match=r"(\d+)$") == numbered("wet/{}.png", "gt/{}.png")
    one = Archive(numbered("a{}.png", "b{}.png")).write(tmp_path / "one")
    with pytest.raises(UserError, match="halves do not look like one scene"):
        find_pairs(one)
    assert names(one, match=r"(?:a|(?P<clean>b))(\d+)") == numbered("a{}.png", "b{}.png")


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    with pytest.raises(UserError, match="'x' matches no name of the rainy images, such as 1"):
        find_pairs(tmp_path, match="x")


def test_two_folders_of_clean_images_are_refused(tmp_path: Path) -> None:
    Archive(PAIRS, extras=["gt/1.png"]).write(tmp_path)
    with pytest.raises(UserError, match="several folders of clean images, gt and target"):
        find_pairs(tmp_path)


def test_the_names_of_known_sets_are_not_those_of_sides(tmp_path: Path) -> None:
    """HQ-RAIN, GT-RAIN, Outdoor-Rain, and a set with the words of both sides in its name."""
    for name, split in (("HQ-RAIN", "test"), ("Outdoor-Rain", "."), ("My clean rain", "train")):
        folder = Archive(numbered(f"{split}/input/{{}}.png", f"{split}/target/{{}}.png")).write(
            tmp_path / name
        )
        assert len(find_pairs(folder / split).pairs) == len(find_pairs(folder).pairs) == 3
    scene = Archive([("s1/s1-R-001.png", "s1/s1-C-000.png")]).write(tmp_path / "GT-RAIN")
    assert len(find_pairs(scene).pairs) == 1
    assert set_folders(tmp_path) == (None, None)
    assert set_folders(tmp_path / "HQ-RAIN") == (
        tmp_path / "HQ-RAIN" / "test" / "input", tmp_path / "HQ-RAIN" / "test" / "target",
    )  # fmt: skip


def test_folders_without_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"The folder .* holds no image \(\.png, "):
        images_by_name(tmp_path)
    with pytest.raises(UserError, match="There is no folder"):
        images_by_name(tmp_path / "nowhere")


def test_pictures_of_the_streaks_beside_rain_do_not_train(tmp_path: Path) -> None:
    extras = [f"{folder}/{i}.png" for folder in ("rainstreak", "data") for i in (1, 2, 12)]
    pairs = numbered("rain/{}.png", "norain/{}.png")
    assert names(Archive(pairs, extras=extras).write(tmp_path)) == pairs
    assert find_pairs(tmp_path).notes == [
        f"left out: {tmp_path}/data (3 images)",
        f"left out: {tmp_path}/rainstreak (3 images)",
    ]


def test_a_scene_has_one_clean_image(tmp_path: Path) -> None:
    Archive([("s/s-R-001.png", "s/s-C-000.png")], extras=["s/s-C-001.png"]).write(tmp_path)
    with pytest.raises(UserError, match="s-C-000 and s-C-001 are two clean images of one scene"):
        find_pairs(tmp_path)
    (tmp_path / "s" / "s-C-001.png").unlink()
    Archive([], extras=["t/t-R-001.png"]).write(tmp_path)
    with pytest.raises(UserError, match=r"t/t-R-001\.png has no clean partner"):
        find_pairs(tmp_path)


def test_a_readme_is_not_a_list(tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    (tmp_path / "readme.txt").write_text("Pairs of\nrainy images\n")
    assert find_pairs(tmp_path).layout == "folders"
