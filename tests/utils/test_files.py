"""Files are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.files import atomic_write, remove_unfinished, write_text


def test_folders_are_made_and_the_mode_is_that_of_any_new_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "note.txt", "né")
    assert (tmp_path / "a" / "b" / "note.txt").read_text(encoding="utf-8") == "né"
    (tmp_path / "plain").touch()
    modes = {os.stat(path).st_mode for path in (tmp_path / "a/b/note.txt", tmp_path / "plain")}
    assert len(modes) == 1


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
def test_an_interrupted_writer_leaves_the_old_file_alone(
    tmp_path: Path, interruption: type[BaseException]
) -> None:
    path = tmp_path / "note.txt"
    path.write_text("old")

    def write(temporary: Path) -> None:
        assert temporary.suffix == ".txt"
        temporary.write_text("half of")
        raise interruption

    with pytest.raises(interruption):
        atomic_write(path, write)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("note.txt", "old")]


def test_a_refusing_disk_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="Cannot write"):
        write_text(tmp_path / "file" / "note.txt", "")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"Cannot write .*folder"):
        write_text(tmp_path / "folder", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_left_overs_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".partial-a-folder8_.txt").mkdir()
    kept = [
        *(".partial-a-folder8_.txt", ".partial-a.txt", ".partial-a-12345678.png"),
        *(".partial-b-12345678.txt", "partial-a-12345678.txt"),
    ]
    for name in kept[1:]:
        (tmp_path / name).touch()
    long = "n" * 200
    for name in (".partial-a-12345678.txt", f".partial-{long[:40]}-abc_efgh.txt"):
        (tmp_path / name).touch()
    remove_unfinished(tmp_path / "a.txt", tmp_path / f"{long}.txt", tmp_path / "absent" / "a.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
