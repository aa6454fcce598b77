"""Ranks, published rows and means; the table as Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from utils.evaluation import formats
from utils.evaluation.published import DATASETS, facts, known_name, published_scores
from utils.evaluation.scoring import ImageResult, JobResult, ScoringJob
from utils.evaluation.table import Table, TableRow, build_table, notes
from utils.metrics import PROTOCOLS


def result(
    method: str,
    dataset: str,
    *scores: tuple[float, ...],
    protocol: str | None = None,
    num_expected: int | None = None,
    is_input: bool = False,
    problem: str = "",
) -> JobResult:
    """A job's result without any files; ``num_expected`` images exist."""
    folder = Path(method) / dataset
    job = ScoringJob(method, dataset, protocol or facts(dataset).protocol, folder, folder, is_input)
    images = [ImageResult(str(i), scores=score) for i, score in enumerate(scores)]
    if problem:
        images.append(ImageResult("broken", problem=problem))
    return JobResult(job, images, num_expected or len(images))


def ranks(table: Table) -> dict[str, dict[tuple[int, int], int]]:
    return {row.method: row.ranks for row in table.rows}


def row_of(table: Table, method: str, source: str = "") -> TableRow:
    return next(r for r in table.rows if r.method == method and r.source.startswith(source))


def test_means_are_over_images_then_unweighted_over_data_sets():
    table = build_table(
        [
            result("a", "x", (20.0, 0.5), (30.0, 0.7)),
            result("a", "y", (40.0, 0.9), (40.0, 0.9), (46.0, 0.96)),
            result("b", "x", (10.0, 0.1)),
        ],
        published=False,
    )
    row = row_of(table, "a")
    assert [cell.scores[0] for cell in row.cells] == [25.0, 42.0]
    assert row.mean.scores == (33.5, pytest.approx((0.6 + 0.92) / 2))
    assert row_of(table, "b").mean is None


def test_best_and_second_best_by_the_digits_shown():
    table = build_table(
        [
            result("rainy input", "x", (99.0, 0.99), is_input=True),
            result("a", "x", (30.111, 0.90001)),
            result("b", "x", (30.114, 0.8)),
            result("c", "x", (29.0, 0.90004)),
            result("d", "x", (28.0, 0.7)),
        ],
        published=False,
    )
    assert ranks(table) == {
        "rainy input": {},
        "a": {(0, 0): 1, (0, 1): 1},  # 30.11 as b, 0.9000 as c
        "b": {(0, 0): 1, (0, 1): 2},
        "c": {(0, 0): 2, (0, 1): 1},
        "d": {},
    }


def test_lower_is_better_for_niqe():
    results = [result(m, "wet", (v,), protocol="niqe") for m, v in (("a", 4.0), ("b", 3.0))]
    table = build_table(results, published=True, no_reference="NIQE of somebody")
    assert ranks(table) == {"a": {(0, 0): 2}, "b": {(0, 0): 1}}
    assert "lower is better" in notes(table)[0] and "NIQE of somebody" in notes(table)[1]


def test_an_incomplete_mean_is_marked_and_not_ranked():
    table = build_table(
        [
            result("a", "x", (30.0, 0.9), problem="missing: 2.png", num_expected=2),
            result("b", "x", (20.0, 0.8), (20.0, 0.8)),
            result("c", "x", (10.0, 0.7), (10.0, 0.7)),
        ],
        published=False,
    )
    assert ranks(table) == {"a": {}, "b": {(0, 0): 1, (0, 1): 1}, "c": {(0, 0): 2, (0, 1): 2}}
    text = formats.markdown(table)
    assert "30.00†" in text and "INCOMPLETE: 1 problem" in text
    assert r"30.00$^\dagger$" in formats.latex(table)
    assert "a,measured,,false,30.0,0.9" in formats.table_csv(table)
    assert formats.table_json(table)["complete"] is False


def test_published_rows_of_the_same_protocol_only():
    scores = [(29.0, 0.9)] * 100
    table = build_table([result("ours", "Rain100H", *scores)], published=True)
    prenet = row_of(table, "PReNet")
    assert prenet.source == "PromptRestorer paper Table 1, trained on Rain13K"
    assert prenet.cells[0].scores == (26.77, 0.858)
    # the same network by the other protocol
    table = build_table([result("ours", "Rain100H", *scores, protocol="did")], published=True)
    (prenet,) = (row for row in table.rows if row.kind == "published")
    assert prenet.source == "PReNet README, trained on RainTrainH (1254)"
    assert prenet.cells[0].scores == (29.46, 0.899)
    assert not any(
        row.kind == "published"
        for row in build_table(
            [result("ours", "Rain100H", *scores, protocol="rgb")], published=True
        ).rows
    )


def test_published_rows_are_ranked_only_beside_the_same_number_of_images():
    whole = build_table([result("ours", "Rain100H", *[(31.0, 0.88)] * 100)], published=True)
    assert row_of(whole, "Restormer").ranks == {(0, 0): 1, (0, 1): 1}
    assert row_of(whole, "ours").ranks == {(0, 0): 2}
    part = build_table(
        [result(m, "Rain100H", *[(p, 0.1)] * 99) for m, p in (("ours", 31.0), ("worse", 30.0))],
        published=True,
    )
    assert row_of(part, "Restormer").ranks == {}
    assert row_of(part, "ours").ranks[0, 0] == 1
    assert "Rain100H (99 images; papers score 100)" in " ".join(notes(part))


def test_a_published_row_needs_all_data_sets_for_a_mean():
    both = ("Rain100H", "Rain100L")
    table = build_table([result("o", s, *[(30.0, 0.9)] * 100) for s in both], published=True)
    assert row_of(table, "DMSR").mean.scores == pytest.approx(((29.41 + 35.19) / 2, 0.915))
    table = build_table(
        [result("o", s, *[(30.0, 0.9)] * 100) for s in (*both, "mine")], published=True
    )
    assert row_of(table, "DMSR").mean is None


def test_every_published_score_belongs_to_a_known_data_set():
    found = 0
    for dataset in DATASETS:
        for protocol in PROTOCOLS:
            for score in published_scores(dataset, protocol):
                found += 1
                assert 10 < float(score.psnr) < 60 and 0.5 < float(score.ssim) < 1
                assert score.source and score.trained_on
    assert found == 89


def test_data_sets_are_known_in_any_spelling():
    assert known_name("rain100h") == "Rain100H"
    assert known_name("DID_Data") == known_name("did") == "DID-Data"
    assert facts("ddn-data").protocol == "did"
    assert known_name("holiday") is None and facts("holiday").protocol == "rain13k"


def test_markdown_names_protocol_and_source():
    table = build_table(
        [
            result("a|b", "Rain100L", *[(35.5, 0.95)] * 100),
            result("a|b", "DID-Data", *[(33.0, 0.9)] * 1200),
        ],
        published=True,
    )
    text = formats.markdown(table)
    lines = text.splitlines()
    assert [head.strip() for head in lines[0].split("|")[1:-1]] == [
        "Method",
        *("Rain100L PSNR", "Rain100L SSIM", "DID-Data PSNR", "DID-Data SSIM"),
        *("Mean PSNR", "Mean SSIM"),
    ]
    assert lines[2].startswith(r"| a\|b ")
    assert {len(line) for line in lines if line.startswith("|")} == {len(lines[0])}
    assert "Protocol rain13k" in text and "Rain100L (100 images)" in text
    assert "Protocol did" in text and "DID-Data (1200 images)" in text
    (source,) = (line for line in lines if line[4:] == "DMSR paper Table 1, trained on Rain13K")
    (dmsr,) = (line for line in lines if line.startswith("| DMSR (published)"))
    assert source[:3] in dmsr and "35.19 |" in dmsr and "0.957 |" in dmsr
    (nerd,) = (
        line for line in lines if line.startswith("| NeRD-Rain (published)") and "35.53" in line
    )
    assert "**35.53**" in nerd and "**0.9659**" in nerd


@pytest.mark.parametrize("width", [70, 80, 200])
def test_the_console_is_not_wider_than_asked(width: int):
    sets = ("Rain100H", "Rain100L", "Test100")
    table = build_table([result("ours", s, *[(30.0, 0.9)] * 100) for s in sets], published=True)
    text = formats.console(table, width)
    assert max(map(len, text.splitlines())) <= width
    for name in (*sets, "Mean"):
        assert f"{name} PSNR" in text
    assert text.count("| ours ") == (1 if width == 200 else 4)


def test_latex_is_complete_and_escaped():
    table = build_table(
        [
            result("rainy input", "my_set", (10.0, 0.5), is_input=True),
            result("a_b & 50%", "my_set", (30.0, 0.9)),
            result("c", "my_set", (31.0, 0.8)),
        ],
        published=False,
    )
    text = formats.latex(table)
    for part in (
        r"\begin{tabular}{lcc}",
        r"\multicolumn{2}{c}{my\_set} \\",
        r"\cmidrule(lr){2-3}",
        r"a\_b \& 50\% & \underline{30.00} & \textbf{0.9000} \\",
        "rainy input & 10.00 & 0.5000 \\\\\n\\midrule\na",
        "Protocol rain13k",
    ):
        assert part in text
    assert text.count("\\toprule") == text.count("\\bottomrule") == 1
    assert text.count("{") == text.count("}")


def test_csv_and_json_hold_every_digit_and_infinity():
    table = build_table(
        [result("a", "x", (1 / 3, 2 / 3)), result("b", "x", (float("inf"), 1.0))], published=False
    )
    lines = list(csv.DictReader(formats.table_csv(table).splitlines()))
    assert float(lines[0]["x PSNR (rain13k)"]) == 1 / 3
    assert float(lines[1]["x PSNR (rain13k)"]) == float("inf")
    content = json.loads(formats.dump_json(formats.table_json(table)))
    first, second = content["rows"]
    assert first["scores"]["x"] == {
        "psnr": 1 / 3, "ssim": 2 / 3, "psnr_rank": 2, "ssim_rank": 2, "num_images": 1,
        "complete": True,
    }  # fmt: skip
    assert second["scores"]["x"]["psnr"] == "inf"
    assert content["columns"] == [{"dataset": "x", "protocol": "rain13k", "num_images": 1}]
