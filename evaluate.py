"""Score restored images: from folders of PNGs to the paper's tables.

One folder against its clean images; names decide which pairs belong together:

    python evaluate.py --results results/dmsr/Rain100H --target datasets/Rain100H/test

All methods on all data sets (RESULTS/METHOD/SET/ and DATASETS/SET/), beside the papers' rows:

    python evaluate.py --benchmark results --datasets datasets

Real rain without clean images, by NIQE:

    python evaluate.py --results results/dmsr/real --no-reference --input datasets/real

Everything lands in --output: table.md, table.csv, table.tex, table.json, images.csv with every
image, and report.html to look at. The exit status is 1 where an image could not be scored.
"""

from __future__ import annotations

import argparse
import csv
import io
import shutil
import sys
from pathlib import Path

from data.results import pair_results, set_folders
from utils.errors import UserError, run_main
from utils.evaluation import formats
from utils.evaluation.folders import benchmark_jobs, single_jobs
from utils.evaluation.report import report_page
from utils.evaluation.score_cache import ScoreCache
from utils.evaluation.scoring import NIQE, JobResult, score_jobs
from utils.evaluation.table import Table, build_table, metrics_of
from utils.files import write_text
from utils.metrics import PROTOCOLS

PROBLEMS_SHOWN = 10  # of each folder; images.csv has all


def main() -> int:
    args = parse_arguments()
    protocol = NIQE if args.no_reference else args.protocol
    unmatched: list[str] = []
    if args.benchmark:
        jobs, unmatched = benchmark_jobs(
            args.benchmark, args.datasets, protocol, set_folders, args.methods, args.sets
        )
    else:
        jobs = single_jobs(args.results, args.target, args.input, protocol, set_folders)
    niqe = None
    if args.no_reference:
        from utils.evaluation.niqe import Niqe  # imports torch, which nothing else here needs

        niqe = Niqe(args.niqe_parameters)

    kept = ScoreCache(args.output / "score_cache.json", fresh=args.fresh)
    paired = [pair_results(job, args.match) for job in jobs]
    results = score_jobs(paired, kept, workers=args.workers, crop=args.crop, no_reference=niqe)
    if not args.benchmark and not any(result.images for result in results):
        raise UserError(results[-1].problem)

    table = build_table(
        results,
        published=bool(args.benchmark) and not args.no_published,
        extra_decimals=0 if args.benchmark else 2,
        no_reference=niqe.name if niqe else "",
        num_unmatched=len(unmatched),
    )
    write_outputs(args.output, results, table, unmatched, embed=args.embed)
    print(formats.console(table, shutil.get_terminal_size().columns))
    num_scored = sum(len(result.scored) for result in results)
    num_reused = sum(image.reused for result in results for image in result.images)
    print(f"\n{num_scored} images ({num_reused} kept from before); written to {args.output}/")
    show_problems(results, unmatched)
    return 1 if table.num_problems else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--results", type=Path, metavar="FOLDER", help="restored images")
    what.add_argument("--benchmark", type=Path, metavar="ROOT", help="folders METHOD/SET/")
    parser.add_argument("--target", type=Path, metavar="FOLDER", help="clean images, or a data set")
    parser.add_argument("--input", type=Path, metavar="FOLDER", help="rainy images, one more row")
    parser.add_argument(
        "--datasets", type=Path, metavar="ROOT", help="folders SET/, as for training"
    )
    parser.add_argument(
        "--match",
        default="",
        metavar="PATTERN",
        help="regular expression: what its groups hold is what the names of a pair share; "
        "'(\\d+)' pairs by the first number (default: recognised)",
    )
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="only these, in this order")
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="only these, in this order")
    parser.add_argument(
        "--protocol",
        choices=list(PROTOCOLS),
        help="default: the data set's own, rain13k for an unknown one",
    )
    parser.add_argument(
        "--no-reference", action="store_true", help="score without clean images, by NIQE"
    )
    parser.add_argument("--niqe-parameters", type=Path, metavar="FILE", help="a local .mat file")
    parser.add_argument("--no-published", action="store_true", help="leave out the papers' rows")
    parser.add_argument(
        "--crop", action="store_true", help="cut images of different sizes to the common one"
    )
    parser.add_argument("--output", type=Path, default=Path("evaluation"), metavar="FOLDER")
    parser.add_argument(
        "--embed", action="store_true", help="put the images into report.html, to send it alone"
    )
    parser.add_argument("--fresh", action="store_true", help="score unchanged images again")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="images at a time (default: one a core)"
    )
    args = parser.parse_args()

    if args.benchmark and not args.datasets:
        parser.error("--benchmark needs --datasets ROOT with the folders SET/target/")
    if args.results and not args.target and not args.no_reference:
        parser.error("--results needs --target FOLDER, or --no-reference for real rain")
    if args.no_reference and (args.target or args.protocol):
        parser.error("--no-reference scores by NIQE: it takes no --target and no --protocol")
    if args.results and (args.datasets or args.methods or args.sets):
        parser.error("--datasets, --methods and --sets belong to --benchmark")
    if args.benchmark and (args.target or args.input):
        parser.error("--target and --input belong to --results; a benchmark has --datasets")
    if args.workers is not None and args.workers < 1:
        parser.error(f"--workers is {args.workers}; it must be at least 1")
    return args


def write_outputs(
    folder: Path, results: list[JobResult], table: Table, unmatched: list[str], *, embed: bool
) -> None:
    """Write the table in four formats, the scores of every image and the report page."""
    write_text(folder / "table.md", formats.markdown(table))
    write_text(folder / "table.csv", formats.table_csv(table))
    write_text(folder / "table.tex", formats.latex(table))
    write_text(folder / "table.json", formats.dump_json(formats.table_json(table)))
    write_text(folder / "images.csv", images_csv(results))
    page = report_page(results, table, folder, embed=embed, unmatched=unmatched)
    write_text(folder / "report.html", page)


def images_csv(results: list[JobResult]) -> str:
    """One line for each image: its scores with every digit, or what was wrong with it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    metrics = metrics_of(results[0].job.protocol)
    writer.writerow(
        ["method", "dataset", "image", "protocol", *(metric.key for metric in metrics), "problem"]
    )
    for result in results:
        job = result.job
        head = [job.method, job.dataset]
        if result.problem:
            writer.writerow([*head, "", job.protocol, *([""] * len(metrics)), result.problem])
        for image in result.images:
            scores = [""] * len(metrics) if image.scores is None else map(repr, image.scores)
            writer.writerow([*head, image.stem, job.protocol, *scores, image.problem])
    return text.getvalue()


def show_problems(results: list[JobResult], unmatched: list[str]) -> None:
    """Name on standard error what could not be scored, and count it."""
    for result in results:
        problems = result.problems
        for problem in problems[:PROBLEMS_SHOWN]:
            print(f"error: {problem}", file=sys.stderr)
        if len(problems) > PROBLEMS_SHOWN:
            more = len(problems) - PROBLEMS_SHOWN
            print(f"error: ... and {more} more in {result.job.results}", file=sys.stderr)
    for problem in unmatched:
        print(f"error: {problem}", file=sys.stderr)
    count = sum(len(result.problems) for result in results) + len(unmatched)
    if count:
        print(f"{count} problems; the table is incomplete", file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
