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


def test_every_suffix_works_for_a_file_and_in_a_folder(tmp_path: Path) -> None:
    for suffix in (*photos.SUFFIXES, *video.SUFFIXES):
        touch(tmp_path / "in", f"a{suffix}", f"B{suffix.upper()}")
    together = {job.source for job in plan_files([tmp_path / "in"], tmp_path / "out").jobs}
    for path in (tmp_path / "in").iterdir():
        (alone,) = plan_files([path], tmp_path / "out").jobs
        assert alone.source in together
    touch(tmp_path, "notes.txt")
    with pytest.raises(UserError, match=r"notes\.txt has an unsupported extension"):
        plan_files([tmp_path / "notes.txt"], tmp_path / "out")


def test_the_output_of_one_input_may_be_a_file(tmp_path: Path) -> None:
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


def test_several_inputs_share_an_output_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "in/a.png", "in/b.jpg", "other/a.png")
    sources = [tmp_path / name for name in ("a.png", "in", "other")]
    assert names(sources, tmp_path / "out", tmp_path, suffix=".webp") == {
        "a.png": "out/a.webp",
        "in/a.png": "out/in/a.webp",
        "in/b.jpg": "out/in/b.webp",
        "other/a.png": "out/other/a.webp",
    }
    # files with one name, given twice or from two folders
    twice = [tmp_path / "in/a.png", tmp_path / "other/a.png", tmp_path / "in/a.png"]
    assert names(twice, tmp_path / "out", tmp_path) == {
        "in/a.png": "out/a.png.png",
        "other/a.png": "out/a.png.2.png",
    }


def test_subfolders_keep_their_structure_and_results_are_not_inputs(tmp_path: Path) -> None:
    source, above = tmp_path / "all" / "in", tmp_path / "all"
    touch(source, "a.png", "sub/a.png", "sub/deeper/b.png", ".hidden/c.png", "out/sub/a.png")
    below = {"a.png": "a.png", "sub/a.png": "sub/a.png", "sub/deeper/b.png": "sub/deeper/b.png"}
    assert names([source], source / "out", source) == {"a.png": "out/a.png"}
    assert names([source], source / "out", source, recursive=True) == {
        name: f"out/{target}" for name, target in below.items()
    }
    assert names([source], above, above, recursive=True) == {
        **{f"in/{name}": target for name, target in below.items()},
        "in/out/sub/a.png": "out/sub/a.png",
    }


def test_files_of_one_stem_do_not_overwrite_each_other(tmp_path: Path) -> None:
    expected = {"a.png": "a.png.png", "A.bmp": "A.bmp.png", "b.png": "b.png.png",
                "b.png.png": "b.png.png.png", "b.tif": "b.tif.png", "c.jpg": "c.png"}  # fmt: skip
    touch(tmp_path / "in", *expected)
    assert names([tmp_path / "in"], tmp_path / "out", tmp_path) == {
        f"in/{name}": f"out/{target}" for name, target in expected.items()
    }


def test_results_that_keep_a_suffix_are_reported(tmp_path: Path) -> None:
    touch(tmp_path / "in", "1.jpg", "1.png", "2.png")
    plan = plan_files([tmp_path / "in"], tmp_path / "out", suffix=".jpg")
    assert sorted(job.target.name for job in plan.jobs) == ["1.jpg.jpg", "1.png.jpg", "2.jpg"]
    (note,) = plan.notes
    assert note.startswith(f"Inputs of {tmp_path / 'out'} that share a name keep their suffix")
    assert note.endswith("result: 1.jpg -> 1.jpg.jpg, 1.png -> 1.png.jpg.")
    touch(tmp_path / "many", *(f"{i}{suffix}" for i in (1, 2) for suffix in (".bmp", ".png")))
    (note,) = plan_files([tmp_path / "many"], tmp_path / "out").notes
    assert note.endswith("2.bmp -> 2.bmp.png and 1 more.")
    assert not plan_files([tmp_path / "in" / "2.png"], tmp_path / "out").notes


def test_links_and_hidden_folders(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.png", "in/.ipynb_checkpoints/a.png", "other/b.png")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "up").symlink_to(tmp_path / "in")
    source, output = tmp_path / "in", tmp_path / "out"
    assert names([source], output, tmp_path, recursive=True) == {
        "in/a.png": "out/a.png",
        "in/more/b.png": "out/more/b.png",
    }
    for name in ("gone.png", "gone", "gone.txt"):
        (source / name).symlink_to(tmp_path / "nowhere")
    plan = plan_files([source], output)
    assert [job.source.name for job in plan.jobs] == ["a.png"]
    assert plan.problems == [
        f"{source / name} is a link to {tmp_path / 'nowhere'}, which does not exist; mend or "
        "remove it."
        for name in ("gone", "gone.png")
    ]
    with pytest.raises(UserError, match=r"gone\.png is a link to .*nowhere, which does not exist"):
        plan_files([source / "gone.png"], output)


def test_pipes_and_devices_are_refused_before_they_are_opened(tmp_path: Path) -> None:
    """Reading a pipe would block forever."""
    touch(tmp_path / "in", "a.png")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    for source in (tmp_path / "in" / "pipe.png", Path(os.devnull)):
        with pytest.raises(UserError, match=f"{source} is a pipe, socket or device"):
            plan_files([source], tmp_path / "out")
    plan = plan_files([tmp_path / "in"], tmp_path / "out")
    assert [job.source.name for job in plan.jobs] == ["a.png"]
    assert plan.problems == [
        f"{tmp_path / 'in' / 'pipe.png'} is a pipe, socket or device; name a file or a folder."
    ]


def test_an_unreadable_folder_is_reported_and_the_rest_is_planned(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.png", "closed/b.png", "open/c.png")
    (tmp_path / "in" / "closed").chmod(0)
    try:
        printed = as_ordinary_user(
            "from pathlib import Path; from utils.inference.plan import plan_files;"
            f"plan = plan_files([Path({str(tmp_path / 'in')!r})], Path('out'), recursive=True);"
            "print([job.source.name for job in plan.jobs], plan.problems)"
        ).stdout
    finally:
        (tmp_path / "in" / "closed").chmod(0o755)
    assert "['a.png', 'c.png']" in printed
    assert f"Cannot read the folder {tmp_path / 'in' / 'closed'}: Permission denied." in printed


def test_an_output_that_cannot_be_written_is_reported_first(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "file")
    jobs = [RestoringJob(tmp_path / "a.png", tmp_path / "file" / "a.png")]
    with pytest.raises(UserError, match=r"Cannot write to .*file: .*file is a file"):
        check_output(jobs)
    jobs = [RestoringJob(tmp_path / "a.png", tmp_path / "new" / "deep" / "a.png")]
    check_output(jobs)
    assert sorted(os.listdir(tmp_path)) == ["a.png", "file"]  # and the check leaves nothing behind


def test_a_full_disk_is_reported_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(bytes(3 * 2**20))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2 * 2**20))
    with pytest.raises(UserError, match="has 2 MiB left, but the inputs alone take 3 MiB"):
        check_output([RestoringJob(tmp_path / "a.png", tmp_path / "out" / "a.png")])
