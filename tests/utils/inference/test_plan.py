"""Which files are restored and where their results go."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.helpers import as_ordinary_user
from utils.errors import UserError
from utils.inference import photos, video
from utils.inference.plan import RestoringJob, check_output, plan_files


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(sources: list[Path], output: Path, root: Path, **options: object) -> dict[str, str]:
    """Source -> target, both below ``root``."""
    plan = plan_files(sources, output, **options)
    assert not plan.problems
    return {
        job.source.relative_to(root).as_posix(): job.target.relative_to(root).as_posix()
        for job in plan.jobs
    }


def test_every_suffix_that_works_alone_works_in_a_folder(tmp_path: Path) -> None:
    for suffix in (*photos.SUFFIXES, *video.SUFFIXES):
        touch(tmp_path / "in", f"a{suffix}", f"B{suffix.upper()}")
    together = {job.source for job in plan_files([tmp_path / "in"], tmp_path / "out").jobs}
    for path in (tmp_path / "in").iterdir():
        (alone,) = plan_files([path], tmp_path / "out").jobs
        assert alone.source in together
    touch(tmp_path, "notes.txt")
    with pytest.raises(UserError, match=r"notes\.txt does not end like an image or a video"):
        plan_files([tmp_path / "notes.txt"], tmp_path / "out")


def test_one_input_may_name_the_file_of_its_result(tmp_path: Path) -> None:
    touch(tmp_path, "a.heic", "b.png", "v.mov")
    a, b, v = (tmp_path / name for name in ("a.heic", "b.png", "v.mov"))
    assert names([a], tmp_path / "x.JPG", tmp_path) == {"a.heic": "x.JPG"}
    assert names([v], tmp_path / "x.mp4", tmp_path) == {"v.mov": "x.mp4"}
    (tmp_path / "folder.png").mkdir()
    assert names([a], tmp_path / "folder.png", tmp_path) == {"a.heic": "folder.png/a.png"}
    with pytest.raises(UserError, match="more than one input; name a folder"):
        plan_files([a, b], tmp_path / "x.png")
    for source, output in ((a, "x.gif"), (a, "x.mp4"), (v, "x.png")):
        with pytest.raises(UserError, match=f"{output} cannot be written as the result of"):
            plan_files([source], tmp_path / output)
    with pytest.raises(UserError, match="would replace an input"):
        plan_files([b], b)


def test_several_inputs_share_the_output(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "in/a.png", "in/b.jpg", "other/a.png")
    sources = [tmp_path / name for name in ("a.png", "in", "other")]
    assert names(sources, tmp_path / "out", tmp_path, suffix=".webp") == {
        "a.png": "out/a.webp",
        "in/a.png": "out/in/a.webp",
        "in/b.jpg": "out/in/b.webp",
        "other/a.png": "out/other/a.webp",
    }
    # files of one name, given twice or from two folders
    twice = [tmp_path / "in/a.png", tmp_path / "other/a.png", tmp_path / "in/a.png"]
    assert names(twice, tmp_path / "out", tmp_path) == {
        "in/a.png": "out/a.png.png",
        "other/a.png": "out/a.png.2.png",
    }


def test_a_folder_without_rights_is_a_problem_not_the_end(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.png", "closed/b.png", "open/c.png")
    (tmp_path / "in" / "closed").chmod(0)
    try:
        told = as_ordinary_user(
            "from pathlib import Path; from utils.inference.plan import plan_files;"
            f"plan = plan_files([Path({str(tmp_path / 'in')!r})], Path('out'), recursive=True);"
            "print([job.source.name for job in plan.jobs], plan.problems)"
        ).stdout
    finally:
        (tmp_path / "in" / "closed").chmod(0o755)
    assert "['a.png', 'c.png']" in told
    assert f"Cannot read the folder {tmp_path / 'in' / 'closed'}: Permission denied." in told


def test_an_output_that_cannot_be_written_is_told_first(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "file")
    jobs = [RestoringJob(tmp_path / "a.png", tmp_path / "file" / "a.png")]
    with pytest.raises(UserError, match=r"Cannot write to .*file, for .*file is a file"):
        check_output(jobs)
    jobs = [RestoringJob(tmp_path / "a.png", tmp_path / "new" / "deep" / "a.png")]
    check_output(jobs)
    assert sorted(os.listdir(tmp_path)) == ["a.png", "file"]  # and nothing is left by looking


def test_a_full_disk_is_told_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(bytes(3 * 2**20))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2 * 2**20))
    with pytest.raises(UserError, match="has 2 MiB left, but the inputs alone take 3 MiB"):
        check_output([RestoringJob(tmp_path / "a.png", tmp_path / "out" / "a.png")])
