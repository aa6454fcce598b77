"""Whether differences are significant: spread, wins per image, paired bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.evaluation.formats import finite
from utils.evaluation.quality import Metric
from utils.evaluation.scoring import ImageResult, JobResult
from utils.markdown import markdown_table

RESAMPLES = 5000
CONFIDENCE = 0.95
# Resampled images at a time: 32 MB of indices
_BATCH = 4_000_000


@dataclass(frozen=True)
class MethodStatistics:
    """One method on one data set by one metric.

    ``std`` is the sample standard deviation over images, NaN for one image. ``wins`` counts the
    images on which no other method is better. ``difference`` is the mean of the method's score
    minus the reference's over the images that both have, ``interval`` its bootstrap interval. Both
    are None for the reference itself and without shared images; ``interval`` is also None for a
    single image or infinite scores.
    """

    method: str
    num_images: int
    mean: float
    std: float
    wins: int
    difference: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Comparison:
    """All methods on one data set by one metric, and the method that they are compared with."""

    dataset: str
    metric: Metric
    reference: str
    methods: list[MethodStatistics]


def compare_methods(results: list[JobResult], baseline: str | None = None) -> list[Comparison]:
    """The statistics of every data set and metric.

    ``baseline`` is the method that others are compared with; None takes the best of each data set
    and metric. Raises UserError if no method has that name.
    """
    names = list(dict.fromkeys(result.job.method for result in results))
    if baseline is not None and baseline not in names:
        raise UserError(
            f"There is no method {baseline} for --baseline; choose from {_list(names)}."
        )
    comparisons = []
    for dataset in dict.fromkeys(result.job.dataset for result in results):
        of_set = [r for r in results if r.job.dataset == dataset and r.scored]
        for index, metric in enumerate(of_set[0].metrics if of_set else ()):
            # by method, then by image
            scores = {
                result.job.method: {i.stem: i.scores[index] for i in result.scored if i.scores}
                for result in of_set
            }
            methods = [r.job.method for r in of_set if not r.job.is_input] or list(scores)
            reference = baseline if baseline in scores else _best(scores, methods, metric)
            comparisons.append(
                Comparison(
                    dataset,
                    metric,
                    reference,
                    [
                        _statistics(name, scores, reference, methods, metric.higher_is_better)
                        for name in scores
                    ],
                )
            )
    return comparisons


def extremes(result: JobResult, count: int) -> tuple[list[ImageResult], list[ImageResult]]:
    """The worst and the best images of a method by the first metric, worst and best first."""
    sign = 1 if result.metrics[0].higher_is_better else -1
    ordered = sorted(result.scored, key=lambda image: sign * (image.scores or (0.0,))[0])
    return ordered[:count], ordered[::-1][:count]


def bootstrap_interval(differences: np.ndarray) -> tuple[float, float] | None:
    """The 95% interval of the mean of paired differences, by bootstrap percentiles.

    None for fewer than two differences, or infinite ones.
    """
    from scipy.stats import bootstrap  # its import takes half a second

    if len(differences) < 2 or not np.all(np.isfinite(differences)):
        return None
    interval = bootstrap(
        (differences,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, _BATCH // len(differences)),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),  # the same table each time
    ).confidence_interval
    return float(interval.low), float(interval.high)


def statistics_markdown(comparisons: list[Comparison], results: list[JobResult], count: int) -> str:
    """statistics.md: a table for each data set and metric, then the worst and best images."""
    blocks = []
    unit = results[0].unit
    for comparison in comparisons:
        metric = comparison.metric
        places = metric.decimals + 1
        lines = [
            [
                s.method,
                str(s.num_images),
                _number(s.mean, places),
                _number(s.std, places),
                str(s.wins),
                "-" if s.difference is None else f"{s.difference:+.{places}f}",
                "-"
                if s.interval is None
                else f"{s.interval[0]:+.{places}f} to {s.interval[1]:+.{places}f}",
            ]
            for s in comparison.methods
        ]
        heads = [
            "method",
            f"{unit}s",
            "mean",
            "std",
            "wins",
            f"minus {comparison.reference}",
            "95%",
        ]
        blocks += [
            f"## {comparison.dataset}, {metric.name}",
            markdown_table(heads, lines),
        ]
    blocks.append(
        f"std: over {unit}s. wins: {unit}s on which no other method is better. 95%: paired "
        f"bootstrap interval of the mean difference ({RESAMPLES} resamples of the {unit}s, "
        "percentiles); one that contains 0 shows no significant difference."
    )
    for result in results:
        worst, best = extremes(result, count)
        if worst:
            metric = result.metrics[0]
            title = f"{result.job.method} on {result.job.dataset}, {metric.name}"
            blocks.append(
                f"**{title}**: worst {_images(worst, metric)}; best {_images(best, metric)}"
            )
    return "\n\n".join(blocks) + "\n"


def statistics_json(comparisons: list[Comparison]) -> list[dict[str, Any]]:
    """The same figures as plain values for ``json.dump``, with all digits."""
    return [
        {
            "dataset": comparison.dataset,
            "metric": comparison.metric.key,
            "reference": comparison.reference,
            "methods": [
                {
                    "method": s.method,
                    "num_images": s.num_images,
                    "mean": finite(s.mean),
                    "std": finite(s.std),
                    "wins": s.wins,
                    "difference": None if s.difference is None else finite(s.difference),
                    "interval": s.interval,
                }
                for s in comparison.methods
            ],
        }
        for comparison in comparisons
    ]


def _best(scores: dict[str, dict[str, float]], methods: list[str], metric: Metric) -> str:
    """The method with the best mean."""
    sign = 1 if metric.higher_is_better else -1
    return max(methods, key=lambda name: sign * float(np.mean(list(scores[name].values()))))


def _statistics(
    name: str,
    scores: dict[str, dict[str, float]],
    reference: str,
    methods: list[str],
    higher_is_better: bool,
) -> MethodStatistics:
    own = scores[name]
    values = np.array(list(own.values()))
    sign = 1 if higher_is_better else -1
    others = [scores[other] for other in methods if other != name]
    wins = sum(
        all(sign * value >= sign * other[stem] for other in others if stem in other)
        for stem, value in own.items()
    )
    difference, interval = None, None
    shared = [stem for stem in own if stem in scores[reference]]
    if name != reference and shared:
        with np.errstate(invalid="ignore"):  # infinite minus infinite
            differences = np.array([own[stem] - scores[reference][stem] for stem in shared])
        difference, interval = float(np.mean(differences)), bootstrap_interval(differences)
    finite_values = bool(np.all(np.isfinite(values)))
    std = float(np.std(values, ddof=1)) if len(values) > 1 and finite_values else float("nan")
    return MethodStatistics(
        name, len(values), float(np.mean(values)), std, wins, difference, interval
    )


def _images(images: Sequence[ImageResult], metric: Metric) -> str:
    return ", ".join(
        f"{image.stem} ({_number(image.scores[0], metric.decimals)})"
        for image in images
        if image.scores
    )


def _number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}" if np.isfinite(value) else ("-" if np.isnan(value) else "inf")


def _list(names: list[str]) -> str:
    return ", ".join(names)
