"""Standard deviations, wins and paired intervals, compared with sums by hand and with theory."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.utils.evaluation.test_table import result
from utils.errors import UserError
from utils.evaluation.quality import PERCEPTUAL, PSNR, SSIM
from utils.evaluation.statistics import (
    bootstrap_interval,
    compare_methods,
    extremes,
    statistics_json,
    statistics_markdown,
)

METRICS = (PSNR, PERCEPTUAL["lpips"])


def three_methods() -> list:
    """Four images; "b" is the best by PSNR, "a" by LPIPS, where lower is better."""
    return [
        result("rainy input", "x", *[(10.0, 0.9)] * 4, metrics=METRICS, is_input=True),
        result("a", "x", (30.0, 0.1), (20.0, 0.2), (25.0, 0.1), (25.0, 0.1), metrics=METRICS),
        result("b", "x", (31.0, 0.3), (22.0, 0.2), (28.0, 0.3), (24.0, 0.3), metrics=METRICS),
    ]


def test_means_spread_wins_and_differences() -> None:
    psnr, lpips = compare_methods(three_methods())
    assert (psnr.reference, lpips.reference) == ("b", "a")
    rainy, a, b = psnr.methods
    assert (a.mean, b.mean) == (25.0, 26.25)
    assert a.std == pytest.approx(math.sqrt(50 / 3))  # squares 25, 25, 0, 0 over n - 1
    assert (rainy.wins, a.wins, b.wins) == (0, 1, 3)
    assert a.difference == pytest.approx(-1.25) and b.difference is None
    low, high = a.interval
    assert -3.0 <= low < -1.25 < high <= 1.0  # resampled means stay within the four differences
    assert [m.wins for m in lpips.methods] == [0, 4, 1]  # a tie counts for both
    assert lpips.methods[2].difference == pytest.approx(0.15)


def test_the_baseline_can_be_chosen() -> None:
    (psnr, _) = compare_methods(three_methods(), "a")
    assert psnr.reference == "a" and psnr.methods[2].difference == pytest.approx(1.25)
    with pytest.raises(
        UserError, match="no method c for --baseline; choose from rainy input, a, b"
    ):
        compare_methods(three_methods(), "c")


def test_the_interval_agrees_with_theory() -> None:
    """For many normal differences the interval is the mean plus or minus 1.96 standard errors."""
    differences = np.random.default_rng(1).normal(0.3, 2.0, 400)
    low, high = bootstrap_interval(differences)
    error = 1.96 * differences.std(ddof=1) / math.sqrt(400)
    assert low == pytest.approx(differences.mean() - error, abs=0.1 * error)
    assert high == pytest.approx(differences.mean() + error, abs=0.1 * error)
    assert bootstrap_interval(differences) == (low, high)  # the same in every run
    assert bootstrap_interval(differences[:1]) is None
    assert bootstrap_interval(np.array([1.0, np.inf])) is None


def test_methods_are_compared_on_the_images_that_both_have() -> None:
    whole = result("whole", "x", (30.0, 0.9), (10.0, 0.5), (20.0, 0.7))
    part = result("part", "x", (32.0, 0.9), (14.0, 0.5))
    psnr = compare_methods([whole, part], "whole")[0]
    assert psnr.methods[1].difference == pytest.approx(3.0) and psnr.methods[1].num_images == 2


def test_infinite_scores_have_no_interval() -> None:
    copies = result("copy", "x", (math.inf, 1.0), (math.inf, 1.0))
    other = result("other", "x", (30.0, 0.9), (31.0, 0.9))
    psnr = compare_methods([copies, other])[0]
    assert psnr.reference == "copy" and psnr.methods[1].interval is None
    assert math.isnan(psnr.methods[0].std)
    text = statistics_markdown(compare_methods([copies, other]), [copies, other], 1)
    assert "inf" in text and "nan" not in text
    assert statistics_json([psnr])[0]["methods"][1]["difference"] == "-inf"


def test_the_worst_and_the_best_images() -> None:
    a = result("a", "x", (30.0, 0.9), (20.0, 0.5), (25.0, 0.7))
    worst, best = extremes(a, 2)
    assert [i.stem for i in worst] == ["1", "2"] and [i.stem for i in best] == ["0", "2"]
    lower = result("a", "x", (0.3,), (0.1,), metrics=(PERCEPTUAL["lpips"],))
    assert [i.stem for i in extremes(lower, 1)[0]] == ["0"]
    text = statistics_markdown(compare_methods([a]), [a], 2)
    assert "**a on x, PSNR**: worst 1 (20.00), 2 (25.00); best 0 (30.00), 2 (25.00)" in text
    assert text.count("\n## ") + text.startswith("## ") == len((PSNR, SSIM))
