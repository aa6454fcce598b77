"""The leaderboard of evaluate.py's runs: none is lost; only comparable scores share a column."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.helpers import run_script, write_pairs
from utils.errors import UserError
from utils.evaluation.leaderboard import keep_in_history, read_runs, write_leaderboard

PSNR_SSIM = [
    {"key": "psnr", "name": "PSNR", "decimals": 2, "higher_is_better": True},
    {"key": "ssim", "name": "SSIM", "decimals": 4, "higher_is_better": True},
]


def content(day: int, scores: dict[str, float], *, images: int = 100, **column: str) -> dict:
    """A table.json of one data set as evaluate.py writes it."""
    name = column.get("dataset", "Rain100H")
    rows = [
        {
            "method": method,
            "kind": "published" if method == "Paper" else "measured",
            "source": "a paper" if method == "Paper" else "",
            "scores": {name: {"psnr": psnr, "ssim": 0.9, "num_images": images, "complete": True}},
        }
        for method, psnr in scores.items()
    ]
    return {
        "metrics": PSNR_SSIM,
        "columns": [{"dataset": name, "protocol": "rain13k", "num_images": images, **column}],
        "rows": rows,
        "provenance": {"date": f"2026-11-{day:02}T10:00:00+00:00", "commit": f"{day:08}abcdef"},
    }


def write_run(folder: Path, run: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.json").write_text(json.dumps(run), encoding="utf-8")
    keep_in_history(folder, run)


def rows_of(root: Path) -> list[dict[str, str]]:
    with open(root / "leaderboard.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_new_run_keeps_earlier_runs(tmp_path: Path):
    for day, score in ((1, 28.0), (2, 29.0), (8, 29.5), (9, 29.5)):
        write_run(tmp_path / "dmsr", content(day, {"dmsr": score, "Paper": 30.41}))
    write_run(tmp_path / "other" / "deep", content(2, {"nerd": 28.5, "Paper": 30.41}))
    assert len(list((tmp_path / "dmsr" / "history").iterdir())) == 3  # the 9th had nothing new
    table, num_runs = write_leaderboard(tmp_path)
    assert num_runs == 4
    rows = rows_of(tmp_path)
    psnr = "Rain100H PSNR (rain13k)"
    assert [(row["method"], row["date"], row["run"], row[psnr]) for row in rows] == [
        ("dmsr", "2026-11-09 10:00", "dmsr", "29.5"),
        ("dmsr", "2026-11-02 10:00", "dmsr", "29.0"),
        ("nerd", "2026-11-02 10:00", "other/deep", "28.5"),
        ("dmsr", "2026-11-01 10:00", "dmsr", "28.0"),
        ("Paper", "", "", "30.41"),
    ]
    assert [row.ranks.get((0, 0)) for row in table.rows] == [2, None, None, None, 1]
    assert table.rows[-1].cells[0].decimals == (2, 1)
    assert write_leaderboard(tmp_path)[1] == 4  # its own files are not runs


def test_equal_scores_have_the_date_and_the_report_of_the_newest_run(tmp_path: Path):
    for name, day in (("a", 3), ("b", 7), ("c", 5)):
        write_run(tmp_path / name, content(day, {"dmsr": 28.0}))
        (tmp_path / name / "report.html").touch()
    write_leaderboard(tmp_path)
    (row,) = rows_of(tmp_path)
    assert (row["date"], row["run"]) == ("2026-11-07 10:00", "b")
    assert 'href="b/report.html"' in (tmp_path / "leaderboard.html").read_text(encoding="utf-8")


def test_only_scores_of_the_same_images_and_protocol_share_a_column(tmp_path: Path):
    write_run(tmp_path / "a", content(1, {"one": 28.0, "Paper": 30.0}))
    write_run(tmp_path / "b", content(2, {"two": 29.0, "Paper": 30.0}, images=50))
    write_run(tmp_path / "c", content(3, {"three": 27.0}, protocol="did"))
    write_run(tmp_path / "d", content(4, {"four": 26.0}, unit="clip"))
    table, _ = write_leaderboard(tmp_path)
    assert table.headings[:-1] == [
        "Rain100H (did, 100 images)",
        "Rain100H (rain13k, 50 images)",
        "Rain100H (rain13k, 100 clips)",
        "Rain100H (rain13k, 100 images)",
    ]
    filled = {row.method: [cell is not None for cell in row.cells] for row in table.rows}
    assert filled == {
        "one": [False, False, False, True],
        "two": [False, True, False, False],
        "three": [True, False, False, False],
        "four": [False, False, True, False],
        "Paper": [False, False, False, True],  # papers score 100 images, under rain13k
    }


def test_the_page_leads_to_the_reports(tmp_path: Path):
    write_run(tmp_path / "a b", content(1, {"<one>": 27.0}))  # its report is missing
    write_run(tmp_path / "a b", content(2, {"<one>": 28.0}))
    write_run(tmp_path / "c", content(2, {"two": 29.0}))
    (tmp_path / "a b" / "report.html").touch()
    write_leaderboard(tmp_path)
    page = (tmp_path / "leaderboard.html").read_text(encoding="utf-8")
    assert re.findall(r'<a href="([^"]*)">([^<]*)</a>', page) == [
        ("a%20b/report.html", "&lt;one&gt;")
    ]
    assert "http" not in page and "<!--" not in page and "3 runs of evaluate.py" in page


def test_mistakes_are_one_sentence(tmp_path: Path):
    with pytest.raises(UserError, match="holds no table"):
        read_runs(tmp_path)
    with pytest.raises(UserError, match="There is no folder"):
        read_runs(tmp_path / "nowhere")
    (tmp_path / "table.json").write_text('{"rows": 1}', encoding="utf-8")
    with pytest.raises(UserError, match="is not a table of evaluate"):
        read_runs(tmp_path)
    (tmp_path / "table.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="is not a JSON file"):
        read_runs(tmp_path)


def test_from_real_runs(tmp_path: Path):
    data = write_pairs(tmp_path / "datasets" / "Rain100H", 2)
    shutil.copytree(data / "target", data / "copy")
    for method in ("input", "copy"):
        done = run_script(
            "evaluate.py", "--results", data / method, "--target", data / "target",
            "--output", tmp_path / "runs" / method,
        )  # fmt: skip
        assert (tmp_path / "runs" / method / "table.json").exists(), done.stderr
    done = run_script("evaluate.py", "--leaderboard", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert "2 runs; written to" in done.stdout and "inf" in done.stdout
    assert [row["run"] for row in rows_of(tmp_path / "runs")] == ["copy", "input"]
