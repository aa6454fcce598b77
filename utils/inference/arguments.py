"""The command line of test.py: its options, which of them go together, what they ask for."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.devices import PRECISIONS, add_device_option
from utils.evaluation.columns import add_column_options, check_column_options
from utils.inference.console import TileBar, say
from utils.inference.methods import SPANDREL
from utils.inference.options import RestoringOptions
from utils.inference.photo_output import DEFAULT_QUALITY, FORMATS
from utils.inference.plan import names_a_file
from utils.inference.precision import AUTO_PRECISION
from utils.inference.tiling import DEFAULT_OVERLAP, RELEASED, WHOLE, Tile
from utils.inference.video import CODECS, DEFAULT_CRF

# Options that go with --config too, and those that it takes as settings.
WITH_CONFIG = ("config", "settings", "weights", "model", "options", "device", "memory", "compile")
TEST_SETTINGS = ("output", "tile", "overlap", "ensemble", "precision")


class OfConfig(argparse.Action):
    """Keeps each value by the place of the --config before it, from 0 on; 0 without one."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        place, known = max(len(namespace.config) - 1, 0), getattr(namespace, self.dest)
        if place in known:
            of = f" for {namespace.config[place]}" if namespace.config else ""
            parser.error(
                f"{option_string} is given twice{of}; it belongs to the --config before it"
            )
        setattr(namespace, self.dest, {**known, place: values})


def parse_arguments(
    description: str | None, arguments: Sequence[str] | None = None
) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    files = parser.add_argument_group("files")
    files.add_argument("--input", type=Path, nargs="+", help="images, videos, or folders of them")
    files.add_argument(
        "--output",
        type=Path,
        default=Path("results"),
        metavar="FOLDER",
        help="folder of the results, or the FILE for the result of one input (default: results)",
    )
    files.add_argument(
        "--format",
        choices=FORMATS,
        help="format of restored images (default: png); jpg and webp store 8 bits per channel, jpg "
        "drops alpha",
    )
    files.add_argument(
        "--quality",
        type=int,
        choices=range(1, 101),
        metavar="N",
        help=f"quality of jpg and webp, 1 to 100 (default: {DEFAULT_QUALITY})",
    )
    files.add_argument(
        "--recursive", action="store_true", help="include subfolders and keep their structure"
    )
    files.add_argument(
        "--half",
        choices=("left", "right"),
        default="",
        help="restore this half of each image; right: the rainy half of side-by-side pairs",
    )
    files.add_argument(
        "--skip-existing", action="store_true", help="skip files whose result exists"
    )

    benchmark = parser.add_argument_group("test sets")
    benchmark.add_argument(
        "--config",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.yml",
        help="restore and score the TEST.SETS of a recipe or a run's config.yml; may be repeated",
    )
    benchmark.add_argument(
        "settings",
        nargs="*",
        default=[],
        metavar="KEY VALUE",
        help="settings for all of them, such as TEST.SETS datasets/val (configs/__init__.py)",
    )

    network = parser.add_argument_group("network")
    network.add_argument(
        "--weights",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="default: the network that ships; with --config the best weights of its run",
    )
    network.add_argument(
        "--model",
        action=OfConfig,
        default={},
        metavar="NAME",
        help="network of an authors' checkpoint; spandrel: whatever that package recognises",
    )
    network.add_argument(
        "--options",
        action=OfConfig,
        nargs="+",
        default={},
        metavar="KEY=VALUE",
        help="options of that network if its size is not the published one, such as width=16",
    )
    network.add_argument(
        "--compile", action="store_true", help="torch.compile; pays off for many images of one size"
    )
    add_device_option(network)

    restoring = parser.add_argument_group("restoring")
    restoring.add_argument(
        "--tile",
        type=Tile.parse,
        default="auto",
        metavar="N",
        help="side of the tiles, or HEIGHTxWIDTH; auto: the fastest that fit into memory; whole: "
        "never cut; released: the windows that the authors test with (default: auto)",
    )
    restoring.add_argument(
        "--overlap",
        type=int,
        metavar="M",
        help=f"pixels over which tiles are blended (default: {DEFAULT_OVERLAP})",
    )
    restoring.add_argument(
        "--memory",
        type=float,
        metavar="GIB",
        help="memory limit for --tile auto (default: 4; on CUDA 90%% of what is free)",
    )
    restoring.add_argument(
        "--ensemble",
        type=int,
        choices=(1, 8),
        default=1,
        help="8: average over flips and quarter turns, which takes eight times as long",
    )
    restoring.add_argument(
        "--strength",
        type=float,
        default=1.0,
        metavar="S",
        help="0 to 1: blend the input (0) with the result (default: 1)",
    )
    restoring.add_argument(
        "--precision",
        choices=(AUTO_PRECISION, *PRECISIONS),
        help="auto: bf16 where the device computes it natively and a trial of a second is at least "
        "1.2 times as fast; fp16 is for GPUs without bf16 (default: auto for images with the "
        "network that ships, else float32)",
    )

    videos = parser.add_argument_group("videos")
    videos.add_argument(
        "--temporal",
        action="store_true",
        help="remove residual flicker from static areas, also while the camera moves",
    )
    videos.add_argument("--video-codec", choices=CODECS, default="h264", help="default: h264")
    videos.add_argument(
        "--crf",
        type=int,
        choices=range(52),
        default=DEFAULT_CRF,
        metavar="N",
        help=f"compression, 0 to 51; 6 more halve the file size (default: {DEFAULT_CRF})",
    )
    restoring_defaults = vars(parser.parse_args([]))
    add_column_options(parser)
    args = parser.parse_args(arguments)

    if args.config:
        for dest, value in restoring_defaults.items():
            if getattr(args, dest) != value and dest not in WITH_CONFIG:
                setting = f"TEST.{dest.upper()}" if dest in TEST_SETTINGS else ""
                option = f"--{dest.replace('_', '-')}"
                hint = f"write {setting} VALUE at the end" if setting else "it is for --input"
                parser.error(f"{option} does not go with --config; {hint}")
    elif not args.input:
        parser.error("--input or --config is needed")
    elif args.settings:
        parser.error(f"{args.settings[0]} is a setting; settings belong to --config")
    elif args.metrics or args.tasks:
        parser.error("--metrics and --tasks score test sets; they belong to --config")
    if len(args.weights) > 1 and not args.config:
        parser.error("several --weights belong to several --config")
    if any(args.model.get(place, SPANDREL) == SPANDREL for place in args.options):
        parser.error("--options are those of an authors' checkpoint; name its network by --model")
    if args.model and len(args.weights) != max(len(args.config), 1):
        each = " for each --config" if len(args.config) > 1 else ""
        parser.error(f"--model names the network of other weights; it needs --weights FILE{each}")
    check_column_options(parser, args, niqe_by_default=bool(args.config))
    if args.overlap is not None and args.tile in (WHOLE, RELEASED):
        parser.error(f"--overlap has no meaning with --tile {args.tile.word}")
    if args.format and names_a_file(args.output):
        parser.error("--format is for a folder of results; the suffix of a file decides its format")
    args.suffix = f".{args.format or 'png'}"
    ending = args.output.suffix.lower() if len(args.input or ()) == 1 else args.suffix
    if args.quality and not {args.suffix, ending} & {".jpg", ".jpeg", ".webp"}:
        parser.error("--quality is for --format jpg or webp")
    args.quality = args.quality or DEFAULT_QUALITY
    if args.memory is not None and not 0 < args.memory < math.inf:
        parser.error(f"--memory is {args.memory}; it must be a number of GiB above 0")
    return args


def restoring_options(args: argparse.Namespace) -> RestoringOptions:
    """Raises UserError for values that are not allowed."""
    return RestoringOptions(
        device=args.device,
        tile=args.tile,
        overlap=args.overlap,
        ensemble=args.ensemble,
        strength=args.strength,
        precision="float32" if args.precision in (None, AUTO_PRECISION) else args.precision,
        memory=None if args.memory is None else int(args.memory * 2**30),
        notify=say,
        progress=TileBar(),
    )
