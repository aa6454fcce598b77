"""The columns besides PSNR and SSIM: options shared by evaluate.py and ``test.py --config``.

``--metrics`` are in quality.py and niqe.py, ``--tasks`` in tasks/.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import UserError
from utils.evaluation.quality import (
    OF_FOLDERS,
    PERCEPTUAL,
    WITH_CLEAN,
    FolderScorer,
    PyiqaScorer,
    Scorer,
    SetScorer,
    SquaredErrorScorer,
)
from utils.evaluation.score_cache import ScoreCache
from utils.evaluation.scoring import JobResult, score_jobs
from utils.evaluation.tasks.options import (
    add_task_options,
    check_task_options,
    clean_rows,
    make_task_scorers,
)

if TYPE_CHECKING:  # imports torchvision, which few tables need
    from utils.evaluation.tasks.scorers import TaskScorer


FOR_NIQE = "--niqe-parameters and --niqe-gray belong to --metrics niqe"


@dataclass
class Columns:
    """The scorers of the columns: of single images, of folders, and of folders by ``--tasks``."""

    cache: ScoreCache
    scorers: list[Scorer] = field(default_factory=list)
    set_scorers: list[SetScorer] = field(default_factory=list)
    task_scorers: list[TaskScorer] = field(default_factory=list)

    def score(
        self, paired: list[JobResult], *, workers: int | None = None, crop: bool = False
    ) -> list[JobResult]:
        """As ``score_jobs``; with ``--tasks``, followed by rows of the clean images."""
        results = score_jobs(
            paired,
            self.cache,
            workers=workers,
            crop=crop,
            scorers=self.scorers,
            set_scorers=[*self.set_scorers, *self.task_scorers],
        )
        return results + clean_rows(results, self.task_scorers)

    @property
    def implementations(self) -> list[str]:
        """What computes each metric, for the caption; complete only after scoring."""
        of_folders: list[SetScorer] = [*self.set_scorers, *self.task_scorers]
        return [one.name for one in self.scorers] + [one.name for one in of_folders]


def add_column_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--metrics``, ``--tasks`` and the options that belong to them, except ``--device``."""
    group = parser.add_argument_group("columns besides PSNR and SSIM")
    group.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        metavar="NAME",
        help=f"further metrics: {', '.join(PERCEPTUAL)}, or any other metric of pyiqa",
    )
    group.add_argument("--niqe-parameters", type=Path, metavar="FILE", help="a .mat or .npz file")
    group.add_argument(
        "--niqe-gray",
        choices=["y", "rgb2gray"],
        default="y",
        help="NIQE's gray: Y of YCbCr (default), or MATLAB's rgb2gray as in the authors' code",
    )
    add_task_options(group)


def check_column_options(
    parser: argparse.ArgumentParser, args: argparse.Namespace, *, niqe_by_default: bool
) -> None:
    """Refuse options without the option that they belong to; drop repeated metrics."""
    by_default = niqe_by_default and not args.metrics
    if _is_for_niqe(args) and not (by_default or "niqe" in args.metrics):
        parser.error(FOR_NIQE)
    check_task_options(parser, args)
    args.metrics = list(dict.fromkeys(args.metrics))


def make_columns(
    args: argparse.Namespace, cache: ScoreCache, sets: Mapping[str, Path], *, has_clean: bool
) -> Columns:
    """The scorers of the columns that the options ask for.

    ``sets`` maps the name of each data set to the folder of its images, the clean ones if known.
    Without clean images, NIQE is the default. Raises UserError for an unknown metric or task, for
    one that needs clean images if they are missing, and for missing packages, weights and labels.
    """
    columns = Columns(cache)
    metrics = args.metrics or ([] if has_clean else ["niqe"])
    if _is_for_niqe(args) and "niqe" not in metrics:
        raise UserError(f"{FOR_NIQE}.")
    for key in metrics:
        if not has_clean and key in WITH_CLEAN:
            raise _without_clean(key)
        if key == "niqe":
            from utils.evaluation.niqe import Niqe  # imports torch, which few tables need

            columns.scorers.append(Niqe(args.niqe_parameters, args.niqe_gray))
        elif key == "mse":
            columns.scorers.append(SquaredErrorScorer())
        elif key in OF_FOLDERS:
            columns.set_scorers.append(FolderScorer(key, cache))
        else:
            scorer = PyiqaScorer(key)
            if not has_clean and scorer.needs_clean:
                raise _without_clean(key)
            columns.scorers.append(scorer)
    columns.task_scorers = make_task_scorers(args, cache, sets, has_clean=has_clean)
    return columns


def _is_for_niqe(args: argparse.Namespace) -> bool:
    return args.niqe_parameters is not None or args.niqe_gray != "y"


def _without_clean(key: str) -> UserError:
    return UserError(f"{key} compares with clean images, which are missing here.")
