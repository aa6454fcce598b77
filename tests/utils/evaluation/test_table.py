"""Ranks, published rows and means; the table as Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.evaluation import formats
from utils.evaluation.facts import read_facts
from utils.evaluation.latex import latex
from utils.evaluation.published import (
    CITATIONS,
    DATASETS,
    PUBLISHED_BIB,
    PUBLISHED_RESULTS,
    facts,
    known_name,
    published_scores,
    read_published,
)
from utils.evaluation.quality import PERCEPTUAL, PSNR, SSIM, Metric
from utils.evaluation.score_cache import Remark
from utils.evaluation.scoring import ImageResult, JobResult, ScoringJob
from utils.evaluation.table import Table, TableCell, TableRow, build_table, mean_cell, notes
from utils.metrics import PROTOCOLS

GOLDEN = Path(__file__).parents[2] / "golden"


def result(
    method: str,
    dataset: str,
    *scores: tuple[float, ...],
    protocol: str | None = None,
    metrics: tuple[Metric, ...] = (PSNR, SSIM),
    num_expected: int | None = None,
    is_input: bool = False,
    problem: str = "",
) -> JobResult:
    """The result of a job without files; ``num_expected`` is the number of images."""
    folder = Path(method) / dataset
    job = ScoringJob(method, dataset, protocol or facts(dataset).protocol, folder, folder, is_input)
    images = [ImageResult(str(i), scores=score) for i, score in enumerate(scores)]
    if problem:
        images.append(ImageResult("broken", problem=problem))
    return JobResult(job, images, num_expected or len(images), metrics=metrics)


def ranks(table: Table) -> dict[str, dict[tuple[int, int], int]]:
    return {row.method: row.ranks for row in table.rows}


def row_of(table: Table, method: str, source: str = "") -> TableRow:
    return next(r for r in table.rows if r.method == method and r.source.startswith(source))


def test_means_are_over_images_and_then_unweighted_over_data_sets():
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
        "a": {(0, 0): 1, (0, 1): 1},  # 30.11 like b, 0.9000 like c
        "b": {(0, 0): 1, (0, 1): 2},
        "c": {(0, 0): 2, (0, 1): 1},
        "d": {},
    }


def test_lower_is_better_for_niqe():
    niqe = (PERCEPTUAL["niqe"],)
    results = [
        result(m, "wet", (v,), protocol="niqe", metrics=niqe) for m, v in (("a", 4.0), ("b", 3.0))
    ]
    table = build_table(results, published=True, implementations=["NIQE of a test"])
    assert ranks(table) == {"a": {(0, 0): 2}, "b": {(0, 0): 1}}
    first, second, third = notes(table)
    assert first == "NIQE, lower is better; means over images."
    assert second == "Without clean images: wet (1 image)." and third == "NIQE of a test."


def test_metrics_of_both_directions_in_one_table():
    metrics = (PSNR, SSIM, PERCEPTUAL["lpips"])
    table = build_table(
        [
            result("a", "Rain100H", *[(31.8, 0.9, 0.2)] * 100, metrics=metrics),
            result("b", "Rain100H", *[(29.0, 0.8, 0.1)] * 100, metrics=metrics),
        ],
        published=True,
    )
    assert row_of(table, "b").ranks == {(0, 2): 1}
    assert row_of(table, "a").ranks == {(0, 0): 2, (0, 2): 2}  # SFNet has 31.90 / 0.908
    assert notes(table)[0].startswith(
        "PSNR (dB) and SSIM, higher is better; LPIPS, lower is better;"
    )
    # a score that a paper does not report is left empty
    line = next(li for li in formats.markdown(table).splitlines() if "Restormer" in li)
    assert line.split("|")[-2].strip() == "-"
    assert "lpips" not in formats.table_json(table)["rows"][-1]["scores"]["Rain100H"]


def test_scores_are_compared_by_the_digits_shown_for_both(tmp_path: Path):
    own = tmp_path / "own.csv"
    own.write_text("model,dataset,psnr,ssim\ntheirs,Rain100H,29.46,0.899\n")
    table = build_table(
        [result("ours", "Rain100H", *[(29.4599, 0.8989)] * 100)],
        published=False,
        more_published=read_published(own),
    )
    assert ranks(table) == {"ours": {(0, 0): 1, (0, 1): 1}, "theirs": {(0, 0): 1, (0, 1): 1}}
    own.write_text("model,dataset,psnr,ssim\ntheirs,Rain100H,29.5,0.898\n")
    table = build_table(
        [result("ours", "Rain100H", *[(29.4499, 0.8989)] * 100)],
        published=False,
        more_published=read_published(own),
    )
    assert ranks(table) == {"ours": {(0, 0): 2, (0, 1): 1}, "theirs": {(0, 0): 1, (0, 1): 2}}


def test_an_infinite_mean_is_reported_and_not_ranked():
    identical = result("copy", "x", (float("inf"), 1.0), (30.0, 0.9))
    identical.images[0].remarks.append(Remark("identical", ""))
    table = build_table([identical, result("b", "x", *[(20.0, 0.8)] * 2)], published=False)
    assert ranks(table) == {"copy": {(0, 1): 1}, "b": {(0, 1): 2}}
    (sentence,) = (note for note in notes(table) if "infinite" in note)
    assert sentence.startswith("1 result equals the clean image; a mean with an infinite")
    assert re.search(r"copy +\| +inf \|", formats.markdown(table))


def test_a_mean_is_complete_despite_an_extra_file():
    whole = result("a", "x", (30.0, 0.9), (31.0, 0.9), problem="extra: 3.png", num_expected=2)
    table = build_table([whole, result("b", "x", *[(20.0, 0.8)] * 2)], published=False)
    assert table.num_problems == 1 and table.num_left_out == 0
    assert table.rows[0].cells[0].complete and ranks(table)["a"][0, 0] == 1
    assert "INCOMPLETE" not in formats.markdown(table)


def test_a_mean_over_several_protocols_is_noted():
    same = [result("a", name, (30.0, 0.9)) for name in ("Rain100H", "Rain100L")]
    assert "The mean over data sets is unweighted." in notes(build_table(same, published=False))
    mixed = [*same, result("a", "DID-Data", (30.0, 0.9))]
    (said,) = (note for note in notes(build_table(mixed, published=False)) if "unweighted" in note)
    assert "mixes the protocols rain13k and did" in said


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
    assert "30.00†" in text and "INCOMPLETE: 1 image not scored" in text
    assert r"30.00$^\dagger$" in latex(table)
    assert "a,measured,,false,30.0,0.9" in formats.table_csv(table)
    assert formats.table_json(table)["complete"] is False


def test_a_row_with_one_incomplete_set_is_incomplete():
    table = build_table(
        [
            result("a", "x", (30.0, 0.9), problem="missing: 2.png", num_expected=2),
            result("a", "y", (20.0, 0.8)),
            result("b", "x", (20.0, 0.8), (20.0, 0.8)),
            result("b", "y", (10.0, 0.7)),
        ],
        published=False,
    )
    first, second = table.rows
    assert [cell.complete for cell in first.all_cells] == [False, True, False]
    assert (2, 0) not in first.ranks and second.mean.complete
    complete = [line.split(",")[3] for line in formats.table_csv(table).splitlines()[1:]]
    assert complete == ["false", "true"]
    assert "25.00†" in formats.markdown(table)


def test_a_mean_shows_the_most_digits_of_its_sets():
    more = [("Rain100H", "30.5"), ("Rain100L", "31.25")]
    cells = [TableCell((float(text), 0.9), (len(text) - 3, 3)) for _, text in more]
    assert mean_cell(cells) == TableCell((30.875, 0.9), (2, 3))


def test_only_published_rows_of_the_same_protocol_are_shown():
    scores = [(29.0, 0.9)] * 100
    table = build_table([result("ours", "Rain100H", *scores)], published=True)
    prenet = row_of(table, "PReNet")
    assert prenet.source == "PromptRestorer paper Table 1, trained on Rain13K"
    assert prenet.cells[0].scores == (26.77, 0.858)
    # the same network under the other protocol
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
    whole = build_table([result("ours", "Rain100H", *[(31.8, 0.88)] * 100)], published=True)
    assert row_of(whole, "SFNet").ranks == {(0, 0): 1, (0, 1): 1}
    assert row_of(whole, "ours").ranks == {(0, 0): 2}
    part = build_table(
        [result(m, "Rain100H", *[(p, 0.1)] * 99) for m, p in (("ours", 31.0), ("worse", 30.0))],
        published=True,
    )
    assert row_of(part, "SFNet").ranks == {}
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


def test_published_figures_equal_those_of_a_second_copy():
    """Detects accidental edits, but not mistakes in the list that both were made from."""
    with open(GOLDEN / "published_results.csv", encoding="utf-8", newline="") as file:
        expected = list(csv.DictReader(file))
    rows = read_published(PUBLISHED_RESULTS)
    assert len(rows) == 133
    shown = [
        {"model": row.model, "dataset": row.dataset, **row.scores, "protocol": row.protocol,
         "trained_on": row.trained_on, "source": row.source}
        for row in rows
    ]  # fmt: skip
    assert shown == expected
    assert {(row.model, row.dataset, row.note) for row in rows if row.note} == {
        ("MSPFN", "Rain100H", "the released weights score 28.23 dB")
    }


def test_every_data_set_has_the_protocol_and_the_number_of_images_of_its_papers():
    protocols = {
        "rain13k": {"Test100": 100, "Rain100H": 100, "Rain100L": 100, "Test2800": 2800,
                    "Test1200": 1200, "Rain200H": 200, "Rain200L": 200, "SPA-Data": 1000,
                    "GT-RAIN": 2100, "Outdoor-Rain": 750},
        "did": {"DID-Data": 1200, "DID-MDN": 1200, "DDN-Data": 1400, "Rain1400": 1400,
                "Rain12": 12},
        "rgb": {"Rain1200": 1200},
        "hq_rain": {"HQ-RAIN": 500, "4K-Rain13k": 500, "UAV-Rain1k": 220, "WeatherBench": 600},
        "raindrop": {"Raindrop-A": 58, "Raindrop-B": 249, "Raindrop": None},
    }  # fmt: skip
    expected = {name: (key, n) for key, sets in protocols.items() for name, n in sets.items()}
    assert {name: known[:2] for name, known in DATASETS.items()} == expected
    beside_rows = {n: k.published_protocol for n, k in DATASETS.items() if k.published_protocol}
    assert beside_rows == {"Raindrop-A": "rain13k", "Raindrop-B": "rain13k"}


def test_a_known_gap_is_noted_below_its_table():
    (note,) = (
        n
        for n in notes(build_table([result("o", "Rain100H", (30.0, 0.9))], published=True))
        if "MSPFN" in n
    )
    assert note == (
        "MSPFN on Rain100H (PromptRestorer paper Table 1): the released weights score 28.23 dB."
    )
    others = build_table([result("o", "Rain100L", (30.0, 0.9))], published=True)
    assert not any("MSPFN" in n for n in notes(others))


def test_every_published_score_belongs_to_a_known_data_set():
    for score in read_published(PUBLISHED_RESULTS):
        assert score.dataset in DATASETS and score.protocol in PROTOCOLS
        assert score in published_scores(score.dataset, score.protocol)
        assert 10 < float(score.scores["psnr"]) < 60 and 0.5 < float(score.scores["ssim"]) < 1
        assert score.trained_on
        # both the model and the source can be cited
        for key in (score.cite, CITATIONS[score.source]):
            assert f"{{{key}," in PUBLISHED_BIB.read_text()


def test_data_sets_are_known_in_any_spelling():
    assert known_name("rain100h") == "Rain100H"
    assert known_name("DID_Data") == known_name("did") == "DID-Data"
    assert facts("ddn-data").protocol == "did"
    assert known_name("holiday") is None and facts("holiday").protocol == "rain13k"


def test_one_set_of_images_with_two_names():
    # DCSFN's paper scores DID-Data as Rain1200 on R, G and B
    assert facts("Rain1200").protocol == "rgb" and published_scores("Rain1200", "rgb") == []
    assert published_scores("Rain1200", "did") == published_scores("DID-Data", "did") != []
    assert {s.source for s in published_scores("DDN-Data", "did")} == {
        "NeRD-Rain paper Table 1",
        "FADformer paper Table 1",
        "PReNet README",  # where it is called Rain1400
    }
    assert known_name("Rain14000") == "DDN-Data"


def test_the_users_own_rows(tmp_path: Path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "\ufeffmodel,dataset,psnr,ssim,lpips,source,cite,trained_on\n"
        'Nöw,rain200h,33.1,0.95,0.05,"Now et al., 2026",now2026,Rain200H\n',
        encoding="utf-8",
    )
    (score,) = read_published(path)
    assert score.protocol == "rain13k" and score.cite == "now2026"
    table = build_table(
        [result("ours", "Rain200H", *[(33.0, 0.96)] * 200)],
        published=False,
        more_published=[score],
    )
    row = row_of(table, "Nöw")
    assert row.source == "Now et al., 2026, trained on the training part of each data set"
    assert row.ranks == {(0, 0): 1, (0, 1): 2}
    for content, said in (
        ("model,psnr\na,3\n", "has the columns model, psnr;"),
        ("model,dataset,psnr,speed\n", "speed"),
        ("", "has the columns (none);"),
        ("model,dataset,psnr\na,x,30 dB\n", "line 2: psnr is '30 dB'"),
        ("model,dataset,psnr,protocol\na,x,30,matlab\n", "no protocol 'matlab'"),
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=re.escape(said)):
            read_published(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        read_published(path)


def test_further_columns(tmp_path: Path):
    path = tmp_path / "facts.csv"
    path.write_text(
        "method,parameters,macs,seconds,training_data,weights,sha256\n"
        "ours,35472543,307614065664,4.3,Rain13K,ours.safetensors,abc\n"
        "DMSR,35472543,307614065664,,,,\n"
    )
    columns, weights = read_facts(path)
    assert weights == {"ours": {"weights": "ours.safetensors", "sha256": "abc"}}
    table = build_table(
        [result("ours", "Rain100H", *[(30.0, 0.9)] * 100), result("else", "Rain100H", (1.0, 0.1))],
        published=True,
        method_facts=columns,
    )
    lines = [[c.strip() for c in line.split("|")] for line in formats.markdown(table).splitlines()]
    assert lines[0][1:6] == ["Method", "params (M)", "MACs (G)", "time (s)", "trained on"]
    assert lines[2][1:6] == ["ours", "35.47", "307.6", "4.30", "Rain13K"]
    assert lines[3][1:6] == ["else", "-", "-", "-", "-"]
    (dmsr,) = (line for line in lines if line[1:] and line[1].startswith("DMSR"))
    assert dmsr[2:6] == ["35.47", "307.6", "-", "Rain13K"]
    first = next(csv.DictReader(formats.table_csv(table).splitlines()))
    assert first["parameters"] == "35.47" and first["training_data"] == "Rain13K"
    assert formats.table_json(table)["rows"][0]["facts"]["macs"] == "307.6"
    path.write_text("method,colour\nours,blue\n")
    with pytest.raises(UserError, match="colour; a file of facts has method"):
        read_facts(path)
    path.write_text("method,macs\nours,many\n")
    with pytest.raises(UserError, match="macs is 'many'"):
        read_facts(path)


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
def test_the_console_table_is_not_wider_than_requested(width: int):
    sets = ("Rain100H", "Rain100L", "Test100")
    table = build_table([result("ours", s, *[(30.0, 0.9)] * 100) for s in sets], published=True)
    text = formats.console(table, width)
    assert max(map(len, text.splitlines())) <= width
    for name in (*sets, "Mean"):
        assert f"{name} PSNR" in text
    assert text.count("| ours ") == (1 if width == 200 else 4)


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
        "psnr": 1 / 3, "ssim": 2 / 3, "ssim_rank": 2, "num_images": 1,
        "complete": True,
    }  # fmt: skip
    assert second["scores"]["x"]["psnr"] == "inf"
    assert content["columns"] == [
        {"dataset": "x", "protocol": "rain13k", "num_images": 1, "unit": "image"}
    ]
