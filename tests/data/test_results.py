"""Results are paired with clean images, in every layout that can be used for training."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.pairs import find_pairs
from data.results import pair_results, set_folders
from tests.helpers import run_script, smooth_image, streaked
from utils.errors import UserError
from utils.evaluation.folders import benchmark_jobs, method_name, single_jobs
from utils.evaluation.score_cache import ScoreCache
from utils.evaluation.scoring import JobResult, ScoringJob, score_jobs
from utils.metrics import score
from utils.set_names import dataset_name

SHARES = {"rainy input": 1.0, "good": 0.2, "poor": 0.6}


def images(number: int) -> dict[str, np.ndarray]:
    """The clean and rainy images with this number, and the results of each method."""
    clean = smooth_image(number, 24, 32)
    rainy = streaked(clean, number)
    return {"clean": clean} | {
        method: cv2.addWeighted(rainy, share, clean, 1 - share, 0)
        for method, share in SHARES.items()
    }


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


# Names of the rainy and clean files by number (and variant); None: side by side.
LAYOUTS = {
    "input_target": ("input/{}.png", "target/{}.png"),
    "rain_norain": ("rain/rain-{:03}.png", "norain/norain-{:03}.png"),
    "x2": ("rain/norain-{}x2.png", "norain/norain-{}.png"),
    "numbers": ("input/{:03}.png", "target/{}.png"),
    "gt": ("data/{}_rain.png", "gt/{}_clean.png"),
    "DDN-Data": ("rainy_image/{}_{}.png", "ground_truth/{}.png"),
    "one_folder": ("rain-{:03}.png", "norain-{:03}.png"),
    "samples": ("rainysamples/file{0}/a.png", "cleansamples/file{0}/a.png"),
    "side_by_side": ("{}.png", None),
}
NAMINGS = {"good": "{}.png", "poor": "{}_derained.png"}  # as test.py names them, and with a suffix


def write_set(folder: Path, results: Path, layout: str, split: str) -> dict[str, list]:
    """Write three scenes in a layout and results of two methods; returns the expected scores."""
    rainy_name, clean_name = LAYOUTS[layout]
    expected: dict[str, list] = {}
    for number in (1, 2, 10):
        for variant in (1, 2) if "_{}" in rainy_name else (1,):
            made = images(number)
            rainy = rainy_name.format(number, variant)
            if clean_name is None:
                both = np.hstack([made["clean"], made["rainy input"]])
                write(folder / split / rainy, both)
            else:
                write(folder / split / rainy, made["rainy input"])
                write(folder / split / clean_name.format(number), made["clean"])
            for method, image in made.items():
                if method in NAMINGS:
                    inside = (
                        Path(rainy).relative_to(Path(rainy).parts[0]) if "/" in rainy else rainy
                    )
                    name = NAMINGS[method].format(Path(inside).with_suffix(""))
                    write(results / method / folder.name / name, image)
                if method != "clean":
                    expected.setdefault(method, []).append(
                        tuple(score(*(x[..., ::-1] for x in (image, made["clean"]))))
                    )
    return expected


def scores(result: JobResult) -> list[tuple[float, ...]]:
    return [image.scores for image in result.images]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("split", [".", "test", "val"])
def test_every_layout_for_training_can_be_scored(tmp_path: Path, layout: str, split: str) -> None:
    data, results = tmp_path / "datasets", tmp_path / "results"
    expected = write_set(data / layout, results, layout, split)
    pairs = find_pairs(data / layout / split).pairs
    assert len(pairs) == len(expected["good"])
    found = benchmark_jobs(results, [data], "rain13k", set_folders)
    assert [job.method for job in found.jobs] == ["rainy input", "good", "poor"]
    assert not found.unmatched and not found.notes
    scored = score_jobs(
        [pair_results(job) for job in found.jobs], ScoreCache(tmp_path / "scores.json")
    )
    for result in scored:
        assert not result.problems and result.num_expected == len(pairs)
        np.testing.assert_allclose(scores(result), expected[result.job.method], rtol=1e-12)
    names = [[image.stem for image in result.images] for result in scored]
    assert names[0] == names[1] == names[2]  # independent of the file names of a method


def test_one_folder_of_results_against_every_kind_of_target(tmp_path: Path) -> None:
    data, results = tmp_path / "datasets", tmp_path / "results"

    def run(target: str, rainy: str | None = None, match: str = "") -> list[JobResult]:
        name = target.split("/")[0]
        jobs = single_jobs(
            results / "poor" / name,
            data / target,
            data / rainy if rainy else None,
            "rain13k",
            set_folders,
        )
        assert {job.dataset for job in jobs} == {name}
        paired = [pair_results(job, match) for job in jobs]
        return score_jobs(paired, ScoreCache(tmp_path / "scores.json"))

    expected = {layout: write_set(data / layout, results, layout, "test") for layout in LAYOUTS}
    for target, num_rows in (
        ("x2/test/norain", 1), ("x2/test", 2), ("DDN-Data/test/ground_truth", 1),
        ("side_by_side/test", 1), ("numbers/test/target", 1),
    ):  # fmt: skip
        rows = run(target)
        assert len(rows) == num_rows
        np.testing.assert_allclose(scores(rows[-1]), expected[target.split("/")[0]]["poor"])
    both = run("side_by_side/test", "side_by_side/test")
    np.testing.assert_allclose(scores(both[0]), expected["side_by_side"]["rainy input"])
    np.testing.assert_allclose(scores(both[1]), expected["side_by_side"]["poor"])
    patterned = run("DDN-Data/test/ground_truth", match=r"^(\d+)")
    np.testing.assert_allclose(scores(patterned[0]), expected["DDN-Data"]["poor"])


def test_files_that_do_not_match_are_reported(tmp_path: Path) -> None:
    data, results = tmp_path / "datasets", tmp_path / "results"
    write_set(data / "DDN-Data", results, "DDN-Data", "test")
    clean, rainy = (data / "DDN-Data" / "test" / name for name in ("ground_truth", "rainy_image"))
    folder = results / "good" / "DDN-Data"

    def problems(rainy: Path | None, folder: Path = folder) -> list[str]:
        return pair_results(ScoringJob("m", "s", "did", folder, clean, rainy=rainy)).problems

    assert problems(rainy) == [] == problems(None)
    (folder / "2_2.png").unlink()
    (with_rainy,) = problems(rainy)
    assert with_rainy.startswith("missing") and "no result named 2_2" in with_rainy
    (without,) = problems(None)
    assert without.endswith(f"has 1 result for {clean / '2.png'}, up to 2 for others")
    lacking = pair_results(ScoringJob("m", "s", "did", folder, clean))
    assert lacking.num_expected == 6  # two for each of three scenes, one of which is missing
    write(folder / "11_1.png", images(1)["good"])
    assert any(p.startswith("extra") and "11_1.png" in p for p in problems(rainy))
    # one result per scene is not enough for a set with several rainy images per scene
    for number in (1, 2, 10):
        write(tmp_path / "few" / f"{number}.png", images(1)["good"])
    assert "no name in common" in problems(rainy, tmp_path / "few")[0]
    assert "--match PATTERN" in problems(rainy, tmp_path / "few")[0]
    (rainy / "1_1.png").rename(rainy / "x.png")
    job = ScoringJob("rainy input", "s", "did", rainy, clean, is_input=True, rainy=rainy)
    assert any("x.png has no partner" in problem for problem in pair_results(job).problems)


def test_two_results_for_one_image_are_reported(tmp_path: Path) -> None:
    data, results = tmp_path / "datasets", tmp_path / "results"
    write_set(data / "numbers", results, "numbers", "test")
    folder = results / "good" / "numbers"
    write(folder / "001_x.png", images(3)["good"])
    job = ScoringJob("m", "s", "did", folder, data / "numbers/test/target")
    assert [p.split(":")[0] for p in pair_results(job).problems] == ["extra"]


def test_sets_of_several_roots_share_one_table(tmp_path: Path) -> None:
    """Rain13K's test sets are inside its folder, and other sets next to it."""
    data, results = tmp_path / "datasets", tmp_path / "results"
    places = {
        "Test1200": data / "Rain13K/test/Test1200",
        "Rain100H": data / "Rain13K/test/Rain100H",
        "Rain200L": data / "Rain200L/test",
        "mine": tmp_path / "elsewhere/mine/val",
    }
    for name, folder in places.items():
        write(folder / "input/1.png", images(1)["rainy input"])
        write(folder / "target/1.png", images(1)["clean"])
        write(results / "good" / name / "1.png", images(1)["good"])
    for train in (data / "Rain13K/train", tmp_path / "elsewhere/mine/train"):
        write(train / "input/1.png", images(1)["rainy input"])
        write(train / "target/1.png", images(1)["clean"])
    for number in (1, 2):
        write(data / f"unused{number}/target/1.png", images(1)["clean"])

    found = benchmark_jobs(results, [data, tmp_path / "elsewhere"], None, set_folders)
    of_good = {job.dataset: job for job in found.jobs if job.method == "good"}
    assert {name: job.clean for name, job in of_good.items()} == {
        name: folder / "target" for name, folder in places.items()
    }
    assert not found.unmatched
    assert found.notes == [f"{results} holds no results for unused1, unused2."]
    # for a set that is not found, the searched folders are listed
    found = benchmark_jobs(results, [data], None, set_folders)
    (sentence,) = found.unmatched
    for place in ("mine/target", "mine/test/target", "mine/val/target", "*/test/mine/target"):
        assert f"{data}/{place}" in sentence
    with pytest.raises(UserError, match=r"data set Rain200 in .*\*/test/NAME/target.*Rain200L\?"):
        benchmark_jobs(results, [data], None, set_folders, datasets=["Rain200"])
    # a folder of ROOT takes precedence over one inside another set
    write(data / "Rain100H/target/1.png", images(2)["clean"])
    found = benchmark_jobs(results, [data], None, set_folders, datasets=["Rain100H"])
    assert {job.clean for job in found.jobs} == {data / "Rain100H/target"}
    assert found.notes == [f"Rain100H is {data / 'Rain100H'}; {places['Rain100H']} is left out."]


def test_raindrop_is_scored_by_the_protocol_of_its_published_rows(tmp_path: Path) -> None:
    folder, results = tmp_path / "datasets" / "Raindrop-A", tmp_path / "results"
    write(folder / "data/0_rain.png", images(1)["rainy input"])
    write(folder / "gt/0_clean.png", images(1)["clean"])
    write(results / "good/Raindrop-A/0_rain.png", images(1)["good"])
    for published, protocol in ((True, "rain13k"), (False, "raindrop")):
        found = benchmark_jobs(results, [folder.parent], None, set_folders, published=published)
        assert {job.protocol for job in found.jobs} == {protocol}
    jobs = single_jobs(results / "good/Raindrop-A", folder, None, None, set_folders)
    assert {job.protocol for job in jobs} == {"raindrop"}


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("datasets/val/target", "val"), ("datasets/Rain100H/test/target", "Rain100H"),
        ("datasets/Rain100H/target", "Rain100H"), ("datasets/test/Rain100H/target", "Rain100H"),
        ("demo/pairs/val/target", "pairs"), ("DDN-Data/test/ground_truth", "DDN-Data"),
        ("datasets/target", "images"), ("datasets/real", "real"),
    ],
)  # fmt: skip
def test_a_set_is_named_after_its_folder(folder: str, name: str) -> None:
    assert dataset_name(Path("/home/me/petrichor") / folder) == name


@pytest.mark.parametrize(
    ("folder", "dataset", "name"),
    [
        ("results/dmsr/Rain100H", "Rain100H", "dmsr"), ("results/dmsr", "val", "dmsr"),
        ("results/dmsr/rain100h/test", "Rain100H", "dmsr"), ("results", "val", "restored"),
        ("results/real", "real", "restored"), ("results/dmsr/val", "val", "dmsr"),
    ],
)  # fmt: skip
def test_a_method_is_named_after_its_folder(folder: str, dataset: str, name: str) -> None:
    assert method_name(Path("/home/me/petrichor") / folder, dataset) == name


@pytest.mark.parametrize("is_rough", [False, True])
def test_clean_images_with_two_similar_halves_are_not_taken_for_pairs(
    tmp_path: Path, is_rough: bool
) -> None:
    """Such as a wall or a sea: only the size of the results shows that they are not pairs.

    One half may even be as rough as a rainy image.
    """
    for number in (1, 2):
        half = smooth_image(number, 24, 32)
        other = streaked(half, number) if is_rough else half[:, ::-1]
        write(tmp_path / "clean" / f"{number}.png", np.hstack([half, other]))
        write(tmp_path / "results" / f"{number}.png", np.hstack([half, other]) // 2)
    job = ScoringJob("m", "s", "rain13k", tmp_path / "results", tmp_path / "clean")
    (scored,) = score_jobs([pair_results(job)], ScoreCache(tmp_path / "scores.json"))
    assert not scored.problems and {image.rainy_half for image in scored.images} == {""}
    twice = cv2.imread(str(tmp_path / "clean/1.png"))
    assert scored.images[0].scores == score(*(x[..., ::-1] for x in (twice // 2, twice)))


@pytest.mark.parametrize(
    ("layout", "inside", "options"),
    [
        ("side_by_side", "", ["--half", "right"]),
        ("one_folder", "", []),
        pytest.param("samples", "rainysamples", ["--recursive"], marks=pytest.mark.slow),
        pytest.param("DDN-Data", "rainy_image", [], marks=pytest.mark.slow),
    ],
)
def test_results_of_test_py_are_paired(
    tmp_path: Path, layout: str, inside: str, options: list[str]
) -> None:
    data, results = tmp_path / "datasets", tmp_path / "results"
    expected = write_set(data / layout, tmp_path / "unused", layout, "test")
    done = run_script(
        "test.py", "--input", data / layout / "test" / inside,
        "--output", results / "ours" / layout, *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = run_script(
        "evaluate.py", "--results", results / "ours" / layout, "--target", data / layout / "test",
        "--input", data / layout / "test" / inside, "--output", tmp_path / "out",
        "--protocol", "rain13k",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "out" / "images.csv").read_text().splitlines()[1:]
    fields = [line.split(",") for line in lines]
    assert {(f[0], f[1]) for f in fields} == {("rainy input", layout), ("ours", layout)}
    psnr = [float(f[4]) for f in fields if f[0] == "rainy input"]
    np.testing.assert_allclose(psnr, [s[0] for s in expected["rainy input"]])
    assert sum(f[0] == "ours" for f in fields) == len(psnr)


def test_a_folder_of_rainy_photographs_is_not_a_set_of_pairs(tmp_path: Path) -> None:
    for number in range(1, 6):
        write(tmp_path / "datasets" / "real" / f"{number}.png", smooth_image(number, 48, 200))
        write(tmp_path / "results" / "good" / "real" / f"{number}.png", images(number)["good"])
    write_set(tmp_path / "datasets" / "x2", tmp_path / "results", "x2", "test")
    assert set_folders(tmp_path / "datasets" / "real") == (tmp_path / "datasets" / "real", None)
    assert set_folders(tmp_path / "results") == (None, None)
    roots = tmp_path / "results", [tmp_path / "datasets"]
    found = benchmark_jobs(*roots, None, set_folders)
    assert {job.dataset for job in found.jobs} == {"x2"}
    assert len(found.unmatched) == 1 and "real" in found.unmatched[0]
    jobs = benchmark_jobs(*roots, "niqe", set_folders, ["good"]).jobs
    results = {(job.dataset, job.is_input): pair_results(job) for job in jobs}
    assert set(results) == {("real", True), ("real", False), ("x2", True), ("x2", False)}
    assert not any(result.problems for result in results.values())
    assert [len(result.images) for result in results.values()] == [5, 5, 3, 3]


def test_a_linked_folder_is_named_after_the_link(tmp_path: Path) -> None:
    """Data sets are often links to another disk."""
    (tmp_path / "disk" / "set_7" / "target").mkdir(parents=True)
    (tmp_path / "datasets" / "Rain100H").mkdir(parents=True)
    link = tmp_path / "datasets" / "Rain100H" / "target"
    link.symlink_to(tmp_path / "disk" / "set_7" / "target")
    assert dataset_name(link) == "Rain100H"
    (tmp_path / "results" / "dmsr").mkdir(parents=True)
    results = tmp_path / "results" / "dmsr" / "Rain100H"
    results.symlink_to(tmp_path / "disk" / "set_7")
    assert method_name(results, "Rain100H") == "dmsr"
    assert (
        method_name(tmp_path / "results" / "dmsr" / "Rain100H" / ".." / "Rain100H", "Rain100H")
        == "dmsr"
    )
