"""Score restored images and clips, and write the tables of a paper.

One folder against its clean images; names decide which pairs belong together:

    python evaluate.py --results results/dmsr/Rain100H --target datasets/Rain100H/test

All methods on all data sets (RESULTS/METHOD/SET/ and DATASETS/SET/), with the papers' rows:

    python evaluate.py --benchmark results --datasets datasets

Real rain without clean images, by NIQE and by other no-reference metrics:

    python evaluate.py --results results/dmsr/real --no-reference --input datasets/real
    python evaluate.py --results results/dmsr/real --no-reference --metrics niqe musiq maniqa

Clips: videos, whose frames are paired by time, or with --clips folders of frames, CLIP/0001.png.
The table then has a column for flicker; --flow adds motion compensation to it:

    python evaluate.py --results results/ours/clips --target datasets/clips --clips --flow

All runs below a folder in one table, including earlier ones (kept in history/ of each --output):

    python evaluate.py --leaderboard evaluation

--output receives table.md, table.csv, table.tex (with published.bib), table.json, images.csv with
the scores of every image (for clips also frames.csv), statistics.md, and report.html with all
pictures. The exit status is 1 if an image, clip or frame could not be scored.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from data.layouts.halves import RAINY_HALF
from data.leaks import overlap_sentence
from data.pairs import Pair
from data.results import are_clips, pair_clips, pair_results, set_folders
from utils.errors import UserError, run_main
from utils.evaluation import formats
from utils.evaluation.clips import score_clips
from utils.evaluation.columns import add_column_options, check_column_options, make_columns
from utils.evaluation.facts import read_facts
from utils.evaluation.flicker import flicker_caption
from utils.evaluation.folders import benchmark_jobs, single_jobs
from utils.evaluation.leaderboard import write_leaderboard
from utils.evaluation.outputs import TableOptions, write_evaluation
from utils.evaluation.published import published_scores, read_published
from utils.evaluation.quality import OF_FOLDERS, WITH_CLEAN
from utils.evaluation.score_cache import ScoreCache
from utils.evaluation.scoring import NIQE, JobResult
from utils.images import is_image
from utils.metrics import PROTOCOLS
from utils.wording import plural


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_arguments(arguments)
    if args.leaderboard:
        return show_leaderboard(args.leaderboard)
    # first, so that an --output that cannot be written is reported at once
    cache = ScoreCache(args.output / "score_cache.jsonl", fresh=args.fresh)
    protocol = NIQE if args.no_reference else args.protocol
    facts, weights = read_facts(args.facts) if args.facts else ({}, {})
    more_published = read_published(args.published) if args.published else []
    unmatched: list[str] = []
    find_sides = partial(set_folders, match=args.match)
    if args.benchmark:
        found = benchmark_jobs(
            args.benchmark,
            args.datasets,
            protocol,
            find_sides,
            args.methods,
            args.sets,
            published=not args.no_published,
        )
        jobs, unmatched = found.jobs, found.unmatched
        for note in found.notes:
            print(f"note: {note}", file=sys.stderr)
    else:
        jobs = single_jobs(args.results, args.target, args.input, protocol, find_sides)
    clips = are_clips(jobs, args.clips)
    check_clip_options(args, clips)
    sets = {job.dataset: job.set_folder for job in jobs}
    columns = make_columns(args, cache, sets, has_clean=not args.no_reference)
    pair = pair_clips if clips else pair_results
    paired = [pair(job, args.match, args.rainy_half) for job in jobs]
    how = {"workers": args.workers, "crop": args.crop}
    if clips:
        results = score_clips(paired, cache, **how, scorers=columns.scorers, flow=args.flow)
    else:
        results = columns.score(paired, **how)
    if not args.benchmark and not any(result.images for result in results):
        raise UserError(results[-1].problem)

    options = TableOptions(
        published=bool(args.benchmark) and not args.no_published,
        more_published=more_published,
        implementations=[
            *([flicker_caption(args.flow)] if clips and not args.no_reference else []),
            *columns.implementations,
        ],
        facts=facts,
        weights=weights,
        baseline=args.baseline,
        extremes=args.extremes,
        embed=args.embed,
        notes=training_leaks(results, weights),
    )
    table = write_evaluation(args.output, results, options, unmatched)
    if more_published and not any(
        published_scores(column.dataset, column.protocol, more_published, papers=False)
        for column in table.columns
    ):
        print(
            f"warning: {args.published} has no score for these data sets and protocols",
            file=sys.stderr,
        )
    return 1 if table.num_problems else 0


def check_clip_options(args: argparse.Namespace, clips: bool) -> None:
    """Raise UserError for options that do not apply to clips, or only to clips."""
    if args.flow and (args.no_reference or not clips):
        raise UserError(
            "--flow is for flicker, which needs clips (videos, or --clips) and their clean clips."
        )
    of_folders = sorted(set(args.metrics) & set(OF_FOLDERS)) + args.tasks
    if clips and of_folders:
        raise UserError(
            f"{of_folders[0]} is a figure of whole folders of images, not of clips; without "
            "--clips, frames are scored as images."
        )
    if clips and args.embed:
        raise UserError("--embed puts images into the page, not clips; leave it out.")


def training_leaks(results: Sequence[JobResult], weights: dict[str, dict[str, str]]) -> list[str]:
    """A sentence for each data set that shares scenes with a method's training set.

    ``weights`` are those of --facts; the files record the training scenes. A missing file, or one
    of another project, is skipped.
    """
    sentences = []
    for result in results:
        path = Path(weights.get(result.job.method, {}).get("weights", ""))
        if path.suffix != ".safetensors" or not path.is_file() or result.is_reference:
            continue
        from utils.checkpoints import ForeignFileError, read_weights  # imports torch

        try:
            packed = read_weights(path).info.get("training_scenes", "")
        except ForeignFileError:
            continue
        images = [image for one in result.scored for image in getattr(one, "frames", [one])]
        clean = {
            Pair(image.clean, image.clean, image.rainy_half): None
            for image in images
            if image.clean and is_image(image.clean)
        }
        job = result.job
        if sentence := overlap_sentence(job.method, packed, job.dataset, list(clean)):
            sentences.append(sentence)
    return sentences


def show_leaderboard(root: Path) -> int:
    """Print and write the table of all runs below a folder."""
    table, num_runs = write_leaderboard(root)
    print(formats.console(table, shutil.get_terminal_size().columns))
    print(f"\n{plural(num_runs, 'run')}; written to {root}/leaderboard.html, .md and .csv")
    return 0


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--results", type=Path, metavar="FOLDER", help="restored images, videos or frames"
    )
    what.add_argument("--benchmark", type=Path, metavar="ROOT", help="folders METHOD/SET/")
    what.add_argument(
        "--leaderboard", type=Path, metavar="ROOT", help="collect the --output folders of runs"
    )
    parser.add_argument("--target", type=Path, metavar="FOLDER", help="clean images, or a data set")
    parser.add_argument(
        "--input", type=Path, metavar="FOLDER", help="rainy images, which get their own row"
    )
    parser.add_argument(
        "--datasets",
        type=Path,
        nargs="+",
        metavar="ROOT",
        help="folders of data sets: ROOT/SET, ROOT/SET/test, ROOT/SET/val or ROOT/*/test/SET",
    )
    parser.add_argument(
        "--match",
        default="",
        metavar="PATTERN",
        help="regular expression whose groups capture what both names of a pair share; '(\\d+)' "
        "pairs by the first number (default: usual naming schemes are recognised)",
    )
    parser.add_argument(
        "--rainy-half",
        choices=RAINY_HALF,
        default="auto",
        help="which half of side-by-side files is rainy (default: found from the images)",
    )
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="only these, in this order")
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="only these, in this order")
    parser.add_argument(
        "--protocol",
        choices=list(PROTOCOLS),
        help="default: that of the data set; rain13k for an unknown one",
    )
    parser.add_argument(
        "--no-reference", action="store_true", help="score without clean images, by NIQE"
    )
    parser.add_argument("--no-published", action="store_true", help="leave out the papers' rows")
    parser.add_argument(
        "--published",
        type=Path,
        metavar="FILE.csv",
        help="further published rows: columns model, dataset, psnr, ssim ...",
    )
    parser.add_argument(
        "--facts",
        type=Path,
        metavar="FILE.csv",
        help="further columns: method, parameters, macs, seconds, training_data "
        "(tools/benchmark.py networks --facts writes such a file)",
    )
    parser.add_argument(
        "--baseline", metavar="METHOD", help="the method of statistics.md (default: the best)"
    )
    parser.add_argument(
        "--extremes",
        type=int,
        default=5,
        metavar="N",
        help="list the worst and the best N images of each method (default: %(default)s)",
    )
    parser.add_argument(
        "--crop", action="store_true", help="cut images of different sizes to their common size"
    )
    parser.add_argument(
        "--clips",
        action="store_true",
        help="score each folder of images, CLIP/0001.png, as a clip, like every video: means over "
        "the frames of a clip, then over clips, and flicker, the mean absolute change of the error "
        "(restored - clean; R, G and B in 0..255) from frame to frame, after the warping error of "
        "Lai et al., ECCV 2018",
    )
    parser.add_argument(
        "--flow",
        action="store_true",
        help="compensate flicker for motion: the previous frame's error is warped by OpenCV's DIS "
        "flow of the clean clip; occluded pixels and those that leave the frame are left out",
    )
    parser.add_argument("--output", type=Path, default=Path("evaluation"), metavar="FOLDER")
    parser.add_argument(
        "--embed",
        action="store_true",
        help="put the images into report.html, so that it can be sent as one file",
    )
    parser.add_argument("--fresh", action="store_true", help="score unchanged images again")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="images scored at a time (default: one per core)"
    )
    add_column_options(parser)
    parser.add_argument(
        "--device",
        default="cpu",
        help="where --tasks runs its networks: cpu, cuda ... (default: cpu)",
    )
    args = parser.parse_args(arguments)

    if args.benchmark and not args.datasets:
        parser.error("--benchmark needs --datasets ROOT with the folders SET/target/")
    if args.results and not args.target and not args.no_reference:
        parser.error("--results needs --target FOLDER, or --no-reference for real rain")
    if args.no_reference and (args.target or args.protocol):
        parser.error("--no-reference cannot be combined with --target or --protocol")
    if args.no_reference and (compared := set(args.metrics) & set(WITH_CLEAN)):
        parser.error(
            f"{min(compared)} compares with clean images; it cannot be used with --no-reference"
        )
    if args.results and (args.datasets or args.methods or args.sets):
        parser.error("--datasets, --methods and --sets belong to --benchmark")
    if args.benchmark and (args.target or args.input):
        parser.error("--target and --input belong to --results; --benchmark takes --datasets")
    for option in ("workers", "extremes"):
        value = getattr(args, option)
        if value is not None and value < 1:
            parser.error(f"--{option} is {value}; it must be at least 1")
    check_column_options(parser, args, niqe_by_default=args.no_reference)
    return args


if __name__ == "__main__":
    run_main(main)
