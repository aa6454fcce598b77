"""evaluate.py as a user runs it: tables in every format, mistakes in one sentence."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers import ROOT, run_script, start_script, write_pairs
from utils.metrics import score

GOLDEN = ROOT / "tests" / "golden" / "metrics"


@pytest.fixture
def benchmark(tmp_path: Path) -> tuple[Path, Path]:
    """Results of two methods on Rain100H and DID-Data, two images each, and the data."""
    results, data = tmp_path / "results", tmp_path / "data"
    for dataset in ("Rain100H", "DID-Data"):
        write_pairs(data / dataset, 2)
        for method, share in (("good", 0.2), ("poor", 0.6)):
            (results / method / dataset).mkdir(parents=True)
            for path in (data / dataset / "input").iterdir():
                rainy, clean = (
                    cv2.imread(str(path)),
                    cv2.imread(str(data / dataset / "target" / path.name)),
                )
                mixed = cv2.addWeighted(rainy, share, clean, 1 - share, 0)
                cv2.imwrite(str(results / method / dataset / path.name), mixed)
    return results, data


def evaluate(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_script("evaluate.py", *arguments)


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("protocol", ["rain13k", "did", "rgb"])
def test_one_folder_gives_the_reference_figures(tmp_path: Path, protocol: str):
    expected = json.loads((GOLDEN / "expected.json").read_text())["pairs"]
    names = ("a_h48_w64", "b_h47_w65_odd", "e_h700_w520_f2")
    for name in names:
        for side, folder in (("result", "results"), ("gt", "clean")):
            (tmp_path / folder).mkdir(exist_ok=True)
            shutil.copy(GOLDEN / f"{name}_{side}.png", tmp_path / folder / f"{name}.png")
    output = tmp_path / "scores"
    done = evaluate(
        "--results", tmp_path / "results", "--target", tmp_path / "clean",
        "--protocol", protocol, "--output", output,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = [
        expected[name]["expected"]["dcsfn_rgb" if protocol == "rgb" else protocol] for name in names
    ]
    ssim_tolerance = 1e-4 if protocol == "rgb" else 1e-8
    rows = read_csv(output / "images.csv")
    assert [row["image"] for row in rows] == list(names)
    for row, figure in zip(rows, figures, strict=True):
        assert row["protocol"] == protocol and row["problem"] == ""
        assert float(row["psnr"]) == pytest.approx(figure["psnr"], rel=0, abs=1e-6)
        assert float(row["ssim"]) == pytest.approx(figure["ssim"], rel=0, abs=ssim_tolerance)
    # as many decimals as in papers, for one set and for many
    psnr, ssim = (np.mean([figure[key] for figure in figures]) for key in ("psnr", "ssim"))
    line = f"| restored | {psnr:.2f} | {ssim:.4f} |"
    assert line in " ".join(done.stdout.split()) and f"Protocol {protocol}" in done.stdout
    assert line in " ".join((output / "table.md").read_text(encoding="utf-8").split())


def test_benchmark_in_every_format_with_published_rows(
    benchmark: tuple[Path, Path], tmp_path: Path
):
    results, data = benchmark
    output = tmp_path / "out"
    arguments = ("--benchmark", results, "--datasets", data, "--output", output)
    done = evaluate(*arguments)
    assert done.returncode == 0, done.stderr
    *shown, written = done.stdout.splitlines()
    assert max(map(len, shown)) <= 80 and written.endswith(f"written to {output}/")
    for name in ("table.md", "table.tex", "published.bib", "table.csv", "images.csv",
                 "statistics.md", "report.html"):  # fmt: skip
        assert (output / name).stat().st_size > 100, name

    content = json.loads((output / "table.json").read_text(encoding="utf-8"))
    assert {c["dataset"]: c["protocol"] for c in content["columns"]} == {
        "DID-Data": "did",
        "Rain100H": "rain13k",
    }
    by_method = {row["method"]: row for row in content["rows"] if row["kind"] != "published"}
    assert list(by_method) == ["rainy input", "good", "poor"]
    for dataset, protocol in (("DID-Data", "did"), ("Rain100H", "rain13k")):
        expected = np.mean(
            [
                score(
                    cv2.imread(str(results / "poor" / dataset / f"{i}.png"))[..., ::-1],
                    cv2.imread(str(data / dataset / "target" / f"{i}.png"))[..., ::-1],
                    protocol,
                )
                for i in (1, 2)
            ],
            axis=0,
        )
        cell = by_method["poor"]["scores"][dataset]
        assert (cell["psnr"], cell["ssim"]) == pytest.approx(tuple(expected), abs=1e-9)
        assert cell["psnr_rank"] == 2 and by_method["good"]["scores"][dataset]["psnr_rank"] == 1
    made = content["provenance"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:]+\+00:00", made["date"])
    assert made["versions"]["numpy"] == np.__version__ and "--benchmark" in made["command"]
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    assert (made["commit"] or "").rstrip("+") == head

    sources = {row["source"] for row in content["rows"] if row["kind"] == "published"}
    assert "DMSR paper Table 1, trained on Rain13K" in sources
    assert not any("README" in source for source in sources)  # it uses the other protocol

    # a second run reuses the cached scores, --fresh does not
    assert "12 images (12 kept from before)" in evaluate(*arguments).stdout
    assert "12 images (0 kept from before)" in evaluate(*arguments, "--fresh").stdout


def test_methods_sets_and_protocol_can_be_chosen(benchmark: tuple[Path, Path], tmp_path: Path):
    results, data = benchmark
    done = evaluate(
        "--benchmark", results, "--datasets", data, "--methods", "poor", "--sets", "Rain100H",
        "--protocol", "rgb", "--output", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0
    rows = read_csv(tmp_path / "out" / "images.csv")
    assert {(r["method"], r["dataset"], r["protocol"]) for r in rows} == {
        ("rainy input", "Rain100H", "rgb"),
        ("poor", "Rain100H", "rgb"),
    }
    done = evaluate("--benchmark", results, "--datasets", data, "--methods", "best")
    assert done.returncode == 1 and "good, poor" in done.stderr and "Traceback" not in done.stderr


def test_problems_are_named_and_the_rest_is_scored(benchmark: tuple[Path, Path], tmp_path: Path):
    results, data = benchmark
    (results / "good" / "Rain100H" / "2.png").write_bytes(b"no image")
    shutil.rmtree(results / "poor" / "DID-Data")
    (results / "poor" / "Rain200H").mkdir()
    done = evaluate("--benchmark", results, "--datasets", data, "--output", tmp_path / "out")
    assert done.returncode == 1
    assert str(results / "good" / "Rain100H" / "2.png") in done.stderr
    assert str(results / "poor" / "DID-Data") in done.stderr
    assert str(results / "poor" / "Rain200H") in done.stderr
    assert "3 problems" in done.stderr and "Traceback" not in done.stderr
    content = json.loads((tmp_path / "out" / "table.json").read_text(encoding="utf-8"))
    by_method = {row["method"]: row["scores"] for row in content["rows"][:3]}
    assert by_method["good"]["Rain100H"]["complete"] is False
    assert by_method["good"]["DID-Data"]["complete"] is True
    assert by_method["poor"]["DID-Data"] is None and by_method["poor"]["Mean"] is None
    assert "INCOMPLETE: 3 images not scored" in (tmp_path / "out" / "table.md").read_text(
        encoding="utf-8"
    )
    rows = read_csv(tmp_path / "out" / "images.csv")
    (broken,) = (
        r for r in rows if (r["method"], r["image"], r["dataset"]) == ("good", "2", "Rain100H")
    )
    assert broken["psnr"] == "" and "2.png" in broken["problem"]


def test_only_the_first_of_many_problems_are_printed(tmp_path: Path):
    pairs = write_pairs(tmp_path / "set", 15, 16, 16)
    for i in range(2, 16):
        (pairs / "input" / f"{i}.png").unlink()
    done = evaluate(
        "--results", pairs / "input", "--target", pairs / "target", "--output", tmp_path / "out"
    )
    assert done.returncode == 1
    assert done.stderr.count("error: missing") == 10 and "and 4 more" in done.stderr
    assert "14 problems" in done.stderr
    assert len(read_csv(tmp_path / "out" / "images.csv")) == 15


def test_mistakes_are_one_sentence(tmp_path: Path):
    pairs = write_pairs(tmp_path / "set", 1, 16, 16)
    (tmp_path / "empty").mkdir()
    output = ("--output", tmp_path / "out")
    for arguments, said in (
        (("--results", tmp_path / "no", "--target", pairs / "target"), f"no folder {tmp_path}/no"),
        (("--results", tmp_path / "empty", "--target", pairs / "target"), "holds no image"),
        (("--benchmark", pairs, "--datasets", pairs), "holds no data set"),
        (("--benchmark", tmp_path / "empty", "--datasets", tmp_path), "holds no folder of results"),
    ):
        done = evaluate(*arguments, *output)
        assert done.returncode == 1 and said in done.stderr, done.stderr
        assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    for arguments, said in (
        (("--results", pairs), "--target"),
        (("--benchmark", pairs), "--datasets"),
        (("--results", pairs, "--target", pairs, "--protocol", "matlab"), "rain13k"),
        (("--results", pairs, "--no-reference", "--protocol", "did"), "--no-reference"),
        (("--results", pairs, "--target", pairs, "--niqe-gray", "rgb2gray"), "--metrics niqe"),
        (("--results", pairs, "--target", pairs, "--workers", "0"), "--workers"),
    ):
        done = evaluate(*arguments)
        assert done.returncode == 2 and said in done.stderr, done.stderr


def test_evaluation_imports_neither_networks_nor_torch():
    code = "import sys, evaluate; print([m for m in sys.modules if m.split('.')[0] in " \
        "('torch', 'models', 'losses', 'skimage')])"  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_one_problem_and_one_remark_are_reported_in_the_singular(tmp_path: Path):
    pairs = write_pairs(tmp_path / "set", 1, 40, 40)
    shutil.copy(pairs / "target" / "1.png", pairs / "input" / "1.png")
    shutil.copy(pairs / "target" / "1.png", pairs / "input" / "extra.png")
    done = evaluate(
        "--results", pairs / "input", "--target", pairs / "target", "--output", tmp_path / "out"
    )
    assert done.returncode == 1  # because of the extra file
    assert done.stdout.count("1 image (0 kept") == 1 and "INCOMPLETE" not in done.stdout
    lines = done.stderr.splitlines()
    assert "warning: " in lines[0] and "equals the clean image under" in lines[0]
    assert lines[1].startswith("error: extra") and lines[2] == "1 problem" and len(lines) == 3
    row = read_csv(tmp_path / "out" / "images.csv")[0]
    assert row["psnr"] == "inf" and row["remarks"].startswith("equals the clean image")


def test_published_rows_and_facts_can_come_from_files(tmp_path: Path):
    pairs = write_pairs(tmp_path / "Rain12", 1, 40, 40)
    own, facts = tmp_path / "own.csv", tmp_path / "facts.csv"
    own.write_text("model,dataset,psnr,ssim\ntheirs,Rain12,36.7,0.961\n")
    facts.write_text("method,parameters,weights,sha256\ninput,1200000,a.pth,abc\n")
    arguments = (
        "--results", pairs / "input", "--target", pairs / "target", "--protocol", "did",
        "--published", own, "--facts", facts, "--output", tmp_path / "out",
    )  # fmt: skip
    done = evaluate(*arguments)
    assert done.returncode == 0 and done.stderr == ""
    content = json.loads((tmp_path / "out" / "table.json").read_text(encoding="utf-8"))
    ours, theirs = content["rows"]
    assert ours["facts"] == {"parameters": "1.20"} and theirs["source"] == "own.csv"
    assert content["provenance"]["weights"] == {"input": {"weights": "a.pth", "sha256": "abc"}}
    own.write_text("model,dataset,psnr,ssim\ntheirs,Rain100H,36.7,0.961\n")
    assert "own.csv has no score for these" in evaluate(*arguments).stderr


def test_an_output_that_cannot_be_written_is_refused_before_the_scoring(tmp_path: Path):
    pairs = write_pairs(tmp_path / "set", 1, 16, 16)
    (pairs / "target" / "1.png").write_bytes(b"would be named if it were read")
    (tmp_path / "file").write_text("")
    done = evaluate(
        "--results", pairs / "input", "--target", pairs / "target",
        "--output", tmp_path / "file" / "out",
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.startswith("error: Cannot write")
    assert len(done.stderr.splitlines()) == 1


def test_a_killed_run_continues_where_it_stopped(tmp_path: Path):
    pairs = write_pairs(tmp_path / "set", 60, 400, 600)
    cache = tmp_path / "out" / "score_cache.jsonl"
    arguments = (
        "--results", pairs / "input", "--target", pairs / "target", "--output", tmp_path / "out",
        "--workers", "1",
    )  # fmt: skip
    process = start_script("evaluate.py", *arguments)
    end = time.monotonic() + 60
    while not (cache.is_file() and cache.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None and time.monotonic() < end
    process.kill()
    process.wait()
    kept = cache.read_bytes().count(b"\n")
    assert 3 <= kept < 60
    assert f"60 images ({kept} kept from before)" in evaluate(*arguments).stdout


def test_files_with_names_that_are_not_utf_8_are_scored(tmp_path: Path):
    """Old archives contain such names; Python stores their bytes as lone surrogates."""
    pairs = write_pairs(tmp_path / "set", 2, 24, 24)
    odd = os.fsdecode(b"b\xf6e")  # Latin-1
    for side in ("input", "target"):
        (pairs / side / "2.png").rename(pairs / side / f"{odd}.png")
    (pairs / "input" / f"{odd}2.png").write_bytes(b"no image")
    for options in ((), ("--embed",)):
        done = evaluate(
            "--results", pairs / "input", "--target", pairs / "target", "--output",
            tmp_path / "out", *options,
        )  # fmt: skip
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert "b\\udcf6e2.png has no partner" in done.stderr and "1 problem" in done.stderr
        assert {r["image"] for r in read_csv(tmp_path / "out" / "images.csv") if r["psnr"]} == {
            "1", "b\\udcf6e",
        }  # fmt: skip
        page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        assert options or "set/input/b%F6e.png" in page
    assert "2 images (2 kept" in done.stdout


def test_spreadsheets_and_markdown_show_names_as_text(tmp_path: Path):
    pairs = write_pairs(tmp_path / "datasets" / "wet|dry", 1, 24, 24)
    shutil.copytree(pairs / "input", tmp_path / "results" / "=1+1" / "wet|dry")
    (tmp_path / "results" / "=1+1" / "wet|dry" / "1.png").rename(
        tmp_path / "results" / "=1+1" / "wet|dry" / "@a.png"
    )
    (pairs / "input" / "1.png").rename(pairs / "input" / "@a.png")
    (pairs / "target" / "1.png").rename(pairs / "target" / "@a.png")
    done = evaluate(
        "--benchmark", tmp_path / "results", "--datasets", tmp_path / "datasets",
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    images = read_csv(tmp_path / "out" / "images.csv")
    assert [(row["method"], row["image"]) for row in images] == [
        ("rainy input", "'@a"), ("'=1+1", "'@a"),
    ]  # fmt: skip
    assert [row["method"] for row in read_csv(tmp_path / "out" / "table.csv")][1] == "'=1+1"
    assert float(images[0]["psnr"]) > 0  # numbers remain numbers
    for line in (tmp_path / "out" / "statistics.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            assert line.replace("\\|", "").count("|") == 8, line


def test_a_list_of_pairs_can_be_the_target(tmp_path: Path):
    """As in SPA-Data; the results are named after the rainy images."""
    pairs = write_pairs(tmp_path / "SPA-Data" / "test", 3, 24, 24)
    listed = pairs / "real_test.txt"
    listed.write_text("".join(f"/input/{n}.png target/{4 - n}.png\n" for n in (1, 2, 3)))
    for n in (1, 2, 3):
        write_to = tmp_path / "results" / "input" / f"{n}.png"
        write_to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pairs / "input" / f"{n}.png", write_to)
    done = evaluate("--results", tmp_path / "results", "--target", listed, "--output",
                    tmp_path / "out")  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = read_csv(tmp_path / "out" / "images.csv")
    assert {row["dataset"] for row in rows} == {"SPA-Data"}
    for row, n in zip(rows, (1, 2, 3), strict=True):
        images = (pairs / "input" / f"{n}.png", pairs / "target" / f"{4 - n}.png")
        expected = score(*(cv2.imread(str(path))[..., ::-1] for path in images), "rain13k")
        assert (float(row["psnr"]), float(row["ssim"])) == pytest.approx(tuple(expected))


def test_a_dead_link_is_reported(tmp_path: Path):
    pairs = write_pairs(tmp_path / "set", 2, 24, 24)
    for side in ("input", "target"):
        (pairs / side / "2.png").unlink()
        (pairs / side / "2.png").symlink_to(tmp_path / "gone.png")
    done = evaluate(
        "--results", pairs / "input", "--target", pairs / "target", "--output", tmp_path / "out"
    )
    assert done.returncode == 1 and "gone.png, which does not exist" in done.stderr


def test_a_pattern_finds_rainy_and_clean_files_with_unfamiliar_names(tmp_path: Path):
    pairs = write_pairs(tmp_path / "pairs", 2, 24, 24)
    for side, name in (("input", "wet"), ("target", "dry")):
        shutil.copytree(pairs / side, tmp_path / "datasets" / "set" / name)
    shutil.copytree(pairs / "input", tmp_path / "results" / "copy" / "set")
    done = evaluate(
        *("--benchmark", tmp_path / "results", "--datasets", tmp_path / "datasets"),
        *("--match", r"(?:wet/|(?P<clean>dry)/)?(\d+)", "--output", tmp_path / "out"),
    )
    assert done.returncode == 0, done.stderr
    rows = [row for row in read_csv(tmp_path / "out" / "images.csv") if row["method"] == "copy"]
    assert len(rows) == 2
    for row in rows:
        images = (pairs / side / f"{row['image'][-1]}.png" for side in ("input", "target"))
        expected = score(*(cv2.imread(str(path))[..., ::-1] for path in images), "rain13k")
        assert (float(row["psnr"]), float(row["ssim"])) == pytest.approx(tuple(expected))
