"""What was checked is remembered, and whatever changed is checked again."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import pytest

from data.checked import check_pairs
from data.pairs import Pair, find_pairs
from tests.helpers import smooth_image, write_pairs
from utils.errors import UserError


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    return find_pairs(write_pairs(tmp_path / "pairs", 5))[1]


def touch(path: Path) -> None:
    """Another time of change, as a program that writes the file again leaves it."""
    time = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(time, time))


def test_a_second_check_decodes_what_has_changed_alone(pairs, tmp_path) -> None:
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
    with pytest.raises(UserError, match=r"1\.png is 88x72 .* is 88x70"):
        check_pairs(pairs, "second", index=index)


def test_a_cut_or_empty_memory_is_no_error(pairs, tmp_path) -> None:
    index = tmp_path / "checked"
    check_pairs(pairs, "first", index=index)
    index.write_bytes(index.read_bytes()[:-11])
    assert check_pairs(pairs, "cut", index=index) == 2
    index.write_bytes(b"")
    assert check_pairs(pairs, "empty", index=index) == 5
    assert check_pairs(pairs, "again", index=index) == 0


def test_processes_add_to_one_memory(pairs, tmp_path) -> None:
    index = tmp_path / "checked"
    assert [check_pairs(pairs[rank::2], "share", index=index) for rank in (0, 1)] == [3, 2]
    assert check_pairs(pairs, "all", index=index) == 0
