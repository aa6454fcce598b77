"""Measure speed, memory and size on this machine: python tools/benchmark.py WHAT [--help].

    python tools/benchmark.py networks --threads 1       restoring: parameters, time, memory
    python tools/benchmark.py training --patch 64 --batch 2       steps as train.py takes them
    python tools/benchmark.py options --weights W --input FOLDER --target FOLDER
    python tools/benchmark.py cuda --output report.md    everything about a GPU

Times are the shortest of several runs, because other work on the machine only ever adds time. On
one CPU thread they are processor time, which does not count waiting for a core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the root holds our packages

from tools.benchmarks import cuda, data, networks, options, scores, tiles, training
from utils.errors import run_main
from utils.files import write_text

SUBCOMMANDS = {
    "networks": networks,
    "training": training,
    "data": data,
    "scores": scores,
    "tiles": tiles,
    "options": options,
    "cuda": cuda,
}


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_arguments(arguments)
    text = SUBCOMMANDS[args.what].run(args)
    print(text)
    if args.output:
        write_text(args.output, text + "\n")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subparsers = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, module in SUBCOMMANDS.items():
        text = str(module.__doc__)
        subparser = subparsers.add_parser(
            name,
            help=text.splitlines()[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
        subparser.add_argument(
            "--output", type=Path, metavar="FILE", help="also write the tables to a file"
        )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_main(main)
