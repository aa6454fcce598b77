"""Folders with links, pipes and hidden entries."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.folders import dead_link_sentence, scan_folder, walk_folders


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_entries_by_kind_in_natural_order(tmp_path: Path) -> None:
    make(tmp_path, "10.png", "2.png", "A.txt", ".hidden.png", "b/1.png", ".cache/1.png")
    make(tmp_path / "elsewhere", "x.png")
    (tmp_path / "3.png").symlink_to("2.png")
    (tmp_path / "c").symlink_to("elsewhere")
    (tmp_path / "dead.png").symlink_to("gone.png")
    (tmp_path / "itself.png").symlink_to("itself.png")
    os.mkfifo(tmp_path / "pipe.png")
    content = scan_folder(tmp_path)
    assert [path.name for path in content.files] == ["2.png", "3.png", "10.png", "A.txt"]
    assert [path.name for path in content.folders] == ["b", "c", "elsewhere"]
    assert [path.name for path in content.dead_links] == ["dead.png", "itself.png"]
    assert content.special == [tmp_path / "pipe.png"]
    assert "dead.png is a link to gone.png, which does not exist" in dead_link_sentence(
        content.dead_links[0]
    )
    with pytest.raises(UserError, match=r"Cannot read the folder .*absent: No such file"):
        scan_folder(tmp_path / "absent")


def test_linked_folders_are_walked_and_loops_are_not(tmp_path: Path) -> None:
    make(tmp_path, "in/1.png", "in/sub/2.png", "other/3.png")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "other")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in" / "sub")
    (tmp_path / "in" / "sub" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "other" / "self").symlink_to(".")
    problems: list[str] = []
    walked = [
        (folder.relative_to(tmp_path).as_posix(), [path.name for path in content.files])
        for folder, content in walk_folders(tmp_path / "in", problems)
    ]
    assert walked == [
        ("in", ["1.png"]),
        ("in/again", ["2.png"]),
        ("in/linked", ["3.png"]),
        ("in/sub", ["2.png"]),
    ]
    assert not problems
    entered = walk_folders(tmp_path / "in", problems, lambda folder: folder.name != "sub")
    assert "in/sub" not in [folder.relative_to(tmp_path).as_posix() for folder, _ in entered]
