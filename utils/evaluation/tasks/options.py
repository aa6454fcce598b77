"""``--tasks``: its options, its scorers, and the row of the clean images."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import UserError
from utils.evaluation.score_cache import ScoreCache
from utils.evaluation.scoring import JobResult

if TYPE_CHECKING:  # imports torchvision, which few tables need
    from utils.evaluation.tasks.scorers import TaskScorer

TASKS = ("detection", "segmentation")
DETECTORS = ("fasterrcnn_resnet50_fpn_v2", "ssdlite320_mobilenet_v3_large")
SEGMENTERS = ("deeplabv3_mobilenet_v3_large",)
CLEAN_IMAGES = "clean images"  # the row's name


def add_task_options(group: argparse._ActionsContainer) -> None:
    """Add ``--tasks`` and the options that belong to it, except ``--device``."""
    group.add_argument(
        "--tasks",
        nargs="+",
        choices=TASKS,
        default=[],
        metavar="TASK",
        help=f"how well torchvision's networks work on the images: {' or '.join(TASKS)} (needs "
        "pycocotools)",
    )
    group.add_argument("--detector", choices=DETECTORS, default=DETECTORS[0], metavar="NAME",
                       help=f"{' or '.join(DETECTORS)} (default: the first)")  # fmt: skip
    group.add_argument(
        "--labels",
        type=Path,
        metavar="PATH",
        help="true objects: COCO JSON, a folder of VOC or YOLO files, or of PNG masks (default: "
        "those in the data set, else what the network finds in the clean images)",
    )
    group.add_argument(
        "--detector-weights", type=Path, metavar="FILE", help="torchvision's weights"
    )
    group.add_argument(
        "--segmenter-weights", type=Path, metavar="FILE", help="torchvision's weights"
    )
    group.add_argument(
        "--batch", type=int, default=1, metavar="N", help="images per pass of the detector"
    )


def check_task_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options of ``--tasks`` without it, and a ``--batch`` below 1."""
    for name in ("labels", "detector_weights", "segmenter_weights"):
        if getattr(args, name) is not None and not args.tasks:
            parser.error(f"--{name.replace('_', '-')} belongs to --tasks")
    if args.batch < 1:
        parser.error(f"--batch is {args.batch}; it must be at least 1")


def make_task_scorers(
    args: argparse.Namespace, cache: ScoreCache, sets: Mapping[str, Path], *, has_clean: bool
) -> list[TaskScorer]:
    """The scorers of ``--tasks``; ``sets`` maps the name of each data set to its images' folder.

    Raises UserError for missing packages, weights and labels, and for ``--labels`` with several
    data sets. Without clean images, also if only some of the sets have labels, or if a set has no
    masks for segmentation.
    """
    if not args.tasks:
        return []
    if args.labels and not args.labels.exists():
        raise UserError(f"--labels names {args.labels}, which does not exist.")
    if args.labels and len(sets) > 1:
        raise UserError(
            f"--labels are those of one data set, and there are {len(sets)}: {', '.join(sets)}. "
            "Put each set's labels next to its images, or choose one set."
        )
    try:
        from utils.evaluation.tasks.labels import labels_beside
        from utils.evaluation.tasks.networks import Detector, Segmenter
        from utils.evaluation.tasks.scorers import DetectionScorer, SegmentationScorer
    except ImportError as error:
        raise UserError(
            f"--tasks needs the package {error.name}: pip install {error.name}."
        ) from error
    from utils.devices import find_device

    def has_labels(masks: bool) -> bool:
        if has_clean or args.labels:
            return True
        without = [name for name, folder in sets.items() if not labels_beside(folder, masks)]
        if without and (masks or len(without) < len(sets)):
            truth = "masks" if masks else "labels"
            raise UserError(
                f"There are neither clean images nor {truth} for {', '.join(without)}; put {truth} "
                "next to its images, or score only the other sets."
            )
        return not without

    device = find_device(args.device)
    scorers: list[TaskScorer] = []
    if "detection" in args.tasks:
        has_truth = has_labels(masks=False)
        detector = Detector(args.detector, args.detector_weights, device, args.batch)
        scorers.append(DetectionScorer(detector, cache, truth=has_truth, labels=args.labels))
    if "segmentation" in args.tasks:
        has_labels(masks=True)
        segmenter = Segmenter(SEGMENTERS[0], args.segmenter_weights, device)
        scorers.append(SegmentationScorer(segmenter, cache, labels=args.labels))
    return scorers


def clean_rows(results: Sequence[JobResult], scorers: Sequence[TaskScorer]) -> list[JobResult]:
    """Rows of the clean images of each data set: the best that restoration can reach."""
    rows: list[JobResult] = []
    for dataset in dict.fromkeys(result.job.dataset for result in results):
        best = max(
            (result for result in results if result.job.dataset == dataset),
            key=lambda result: len(result.scored),
        )
        if not scorers or best.job.clean is None or not best.scored:
            continue
        scores: list[float] = []
        for metric_set in scorers:
            scores += _of_clean(metric_set, best)
        # Other metrics of folders, such as FID, say nothing about the clean images themselves.
        names = [metric.key for metric_set in scorers for metric in metric_set.metrics]
        by_name = dict(zip(names, scores, strict=True))
        rows.append(
            JobResult(
                replace(best.job, method=CLEAN_IMAGES, results=best.job.clean, is_input=True),
                num_expected=len(best.scored),
                metrics=best.metrics,
                set_metrics=best.set_metrics,
                set_scores=tuple(by_name.get(m.key, float("nan")) for m in best.set_metrics),
                is_reference=True,
            )
        )
    return rows


def _of_clean(scorer: TaskScorer, result: JobResult) -> tuple[float, ...]:
    """The metrics of a job's clean images; NaN if they are not defined, as for its results."""
    try:
        return scorer.score(result, of_clean=True)
    except UserError:  # reported for the results
        return (float("nan"),) * len(scorer.metrics)
