"""Checks are remembered, and files that changed are checked again."""

from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path

import cv2
import pytest

from data.cache import open_cache
from data.checked import check_pairs, check_photos
from data.pairs import Pair, find_pairs
from data.synthesis import read_layers
from tests.helpers import smooth_image, write_damaged_jpeg, write_pairs
from utils.errors import UserError
from utils.files import FileLock

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    return find_pairs(write_pairs(tmp_path / "pairs", 5))[1]


def touch(path: Path) -> None:
    """Change a file's time, as a program does that writes it again."""
    time = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(time, time))


def test_a_second_check_decodes_only_what_has_changed(pairs, tmp_path) -> None:
    index = tmp_path / "runs" / "checked"
    assert check_pairs(pairs, "first", index=index) == 5
    assert check_pairs(pairs, "second", index=index) == 0
    touch(pairs[1].rainy)
    touch(pairs[3].clean)
    assert check_pairs(pairs, "third", index=index) == 2
    assert check_pairs(pairs[::-1], "fourth", index=index) == 0
    assert check_pairs(pairs, "without memory") == 5


def test_a_broken_file_is_never_remembered(pairs, tmp_path) -> None:
    index = tmp_path / "checked"
    content = pairs[3].rainy.read_bytes()
    pairs[3].rainy.write_bytes(content[:-200])
    for _ in range(2):
        with pytest.raises(UserError, match=r"4\.png is not a readable image"):
            check_pairs(pairs, "broken", index=index)
    pairs[3].rainy.write_bytes(content)
    assert check_pairs(pairs, "mended", index=index) == 2  # the first three were sound


def test_a_file_that_was_replaced_by_another_size_is_noticed(pairs, tmp_path) -> None:
    index = tmp_path / "checked"
    check_pairs(pairs, "first", index=index)
    stat = pairs[0].clean.stat()
    cv2.imwrite(str(pairs[0].clean), smooth_image(9, 70, 88))
    os.utime(pairs[0].clean, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as cp -p leaves it
    with pytest.raises(UserError, match=r"input/1\.png is 88x72 .*target/1\.png is 88x70"):
        check_pairs(pairs, "second", index=index)


def test_a_cut_or_empty_index_is_not_an_error(pairs, tmp_path) -> None:
    index = tmp_path / "checked"
    check_pairs(pairs, "first", index=index)
    index.write_bytes(index.read_bytes()[:-11])
    assert check_pairs(pairs, "cut", index=index) == 2
    index.write_bytes(b"")
    assert check_pairs(pairs, "empty", index=index) == 5
    assert check_pairs(pairs, "again", index=index) == 0


def test_processes_add_to_one_index(pairs, tmp_path) -> None:
    index = tmp_path / "checked"
    assert [check_pairs(pairs[rank::2], "share", index=index) for rank in (0, 1)] == [3, 2]
    assert check_pairs(pairs, "all", index=index) == 0


def test_a_damaged_jpeg_is_refused_by_name(pairs, tmp_path) -> None:
    """OpenCV decodes it silently."""
    pairs[2].rainy.unlink()
    damaged = write_damaged_jpeg(pairs[2].rainy.with_suffix(".jpg"), smooth_image(3, 72, 88))
    assert cv2.imread(str(damaged)) is not None
    pairs = find_pairs(tmp_path / "pairs")[1]
    for index in (None, tmp_path / "checked"):
        with pytest.raises(
            UserError, match=r"3\.jpg is damaged, so a part of the picture may be w"
        ):
            check_pairs(pairs, "pairs", index=index)
        with pytest.raises(UserError, match=r"3\.jpg is damaged"):
            check_photos([damaged], "photographs", index=index)
    with pytest.raises(UserError, match=r"3\.jpg is damaged"):
        open_cache(pairs, tmp_path / "cache")
    with pytest.raises(UserError, match=r"3\.jpg is damaged"):
        read_layers(pairs)


@pytest.mark.parametrize(("protocol", "is_refused"), [("rain13k", True), ("rgb", False)])
def test_a_validation_image_that_is_too_small_to_score_is_named(
    pairs, tmp_path, protocol: str, is_refused: bool
) -> None:
    """Even after it was found sound for training; rgb scores images of any size."""
    for path in (pairs[4].rainy, pairs[4].clean):
        cv2.imwrite(str(path), smooth_image(5, 10, 40))
    index = tmp_path / "checked"
    assert check_pairs(pairs, "training", index=index) == 5
    if is_refused:
        with pytest.raises(UserError, match=r"5\.png cannot be scored: .*11"):
            check_pairs(pairs, "validation", protocol=protocol, index=index)
    else:
        assert check_pairs(pairs, "validation", protocol=protocol, index=index) == 5


def test_relative_and_linked_paths_are_remembered_too(pairs, tmp_path, monkeypatch) -> None:
    index = tmp_path / "checked"
    assert check_pairs(pairs, "absolute", index=index) == 5
    monkeypatch.chdir(tmp_path)
    assert check_pairs(find_pairs(Path("pairs"))[1], "relative", index=index) == 0
    (tmp_path / "link").symlink_to("pairs")
    assert check_pairs(find_pairs(Path("link"))[1], "through a link", index=index) == 0


def test_a_photograph_is_not_checked_as_two_halves(tmp_path) -> None:
    """A photograph may have an odd width; an image with both sides of a pair may not."""
    photo, index = tmp_path / "photo.png", tmp_path / "checked"
    cv2.imwrite(str(photo), smooth_image(1, 30, 45))
    assert check_photos([photo], "photograph", index=index) == 1
    assert check_photos([photo], "again", index=index) == 0
    with pytest.raises(UserError, match="45 pixels wide"):
        check_pairs([Pair(photo, photo)], "side by side", index=index)


def test_adding_to_the_index_waits_for_another_process(pairs, tmp_path) -> None:
    """Without the lock, one of two processes would overwrite what the other has added."""
    index = tmp_path / "checked"
    check_pairs(pairs[:2], "first", index=index)
    held, let_go = FORK.Event(), FORK.Event()

    def hold() -> None:
        with FileLock(tmp_path / "checked.lock"):
            held.set()
            let_go.wait(30)

    holder = FORK.Process(target=hold, daemon=True)
    holder.start()
    held.wait(30)
    adding = threading.Thread(target=check_pairs, args=(pairs, "all"), kwargs={"index": index})
    adding.start()
    adding.join(0.5)  # long enough for five small images
    assert adding.is_alive() and len(index.read_bytes()) == 2 * 8
    let_go.set()
    adding.join()
    assert len(index.read_bytes()) == 5 * 8
