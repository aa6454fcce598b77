"""Derain images and videos, or restore and score whole test sets.

    python test.py --input photo.jpg
    python test.py --input photo.heic --output derained.jpg --quality 90
    python test.py --weights runs/dmsr/best.safetensors --input FOLDER --output results/dmsr
    python test.py --weights model_best.pth --model nerd_rain --input FOLDER --output results/nerd
    python test.py --config runs/dmsr/config.yml --config runs/nerd_rain/config.yml

Weights are a file of this project, which names its own network, or the authors' checkpoint
together with --model; --model spandrel reads those of many other networks. Without --weights the
network that ships with the project is used. Every image becomes a PNG of the same size, name,
channels and depth, with its colour profile and EXIF; every video becomes an MP4 with its sound.
The exit status is 1 if a file could not be restored.

With --config, the best weights of each run (or --weights, one for each --config) restore the sets
of its TEST.SETS into results/METHOD/SET/, and one table of methods and sets is printed and written
beside the published rows, with a page to look at. KEY VALUE pairs at the end change settings of all
of them. Results that are finished already are kept. torchrun shares the images among processes.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from models import SHIPPED_WEIGHTS, load_foreign, load_published, load_weights, local_weights
from models.foreign import ForeignNetwork
from models.network import DerainingNetwork
from models.registry import parse_options
from utils.devices import PRECISIONS, add_device_option
from utils.errors import UserError, run_main
from utils.files import remove_unfinished
from utils.inference.console import Problems, TileBar, library_lines_apart, say
from utils.inference.memory import keep_freed_memory
from utils.inference.options import RestoringOptions
from utils.inference.photo_output import DEFAULT_QUALITY, FORMATS
from utils.inference.plan import RestoringJob, check_output, names_a_file, plan_files
from utils.inference.precision import AUTO_PRECISION, faster_hint, fastest_precision
from utils.inference.restorer import Restorer
from utils.inference.restoring import restore_images
from utils.inference.tiling import DEFAULT_OVERLAP, RELEASED, WHOLE, Tile
from utils.inference.video import CODECS, DEFAULT_CRF, VideoOptions
from utils.training.distributed import Processes, destroy_distributed, init_distributed
from utils.wording import plural

# Options that go with --config too, and those that it takes as settings.
WITH_CONFIG = ("config", "settings", "weights", "device", "memory", "compile")
TEST_SETTINGS = ("output", "tile", "overlap", "ensemble", "precision")


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_arguments(arguments)
    options = restoring_options(args)  # wrong ones are refused before anything is loaded
    keep_freed_memory()
    args.weights = [local_weights(path) for path in args.weights]
    processes = init_distributed("gloo")  # whose messages are texts; GPUs may be shared
    if processes.world_size > 1 and options.device.type == "cuda" and options.device.index is None:
        options = replace(options, device=processes.device)
    try:
        if args.config:
            return restore_and_score(args, options, processes)
        return restore_files(args, options, processes)
    finally:
        destroy_distributed()


def restore_and_score(
    args: argparse.Namespace, options: RestoringOptions, processes: Processes
) -> int:
    """What --config asks for."""
    from utils.inference.benchmark import Method, run_benchmark  # a photograph needs none of it

    def make_restorer(network: DerainingNetwork, method: Method) -> Restorer:
        prepare_network(network, options.device, compiled=args.compile)
        return Restorer(
            network,
            options,
            tile=method.tile,
            overlap=method.overlap,
            ensemble=method.ensemble,
            precision=method.precision,
        )

    return run_benchmark(args.config, args.settings, args.weights, make_restorer, processes)


def restore_files(args: argparse.Namespace, options: RestoringOptions, processes: Processes) -> int:
    """What --input asks for; each process restores its share."""
    args.weights = args.weights[0] if args.weights else None
    plan = plan_files(args.input, args.output, suffix=args.suffix, recursive=args.recursive)
    if processes.is_main:
        say(*plan.notes)
    jobs = [replace(job, half=args.half) for job in plan.jobs]
    jobs = jobs[processes.rank :: processes.world_size]
    if args.skip_existing:
        jobs = leave_out_existing(jobs)
    check_output(jobs)
    if num_there := sum(job.target.exists() for job in jobs):
        say(f"{plural(num_there, 'result')} in {args.output} will be replaced.")
    remove_unfinished(*(job.target for job in jobs if not job.is_video))
    network = load_network(args)
    prepare_network(network, options.device, compiled=args.compile)
    images = [job for job in jobs if not job.is_video]
    videos = [job for job in jobs if job.is_video]
    # Photographs by the network that ships may be restored in bf16, videos when asked for.
    is_auto = args.precision == AUTO_PRECISION or not (args.precision or args.weights)
    image_options = options
    if is_auto and any(processes.gather(bool(images) or bool(args.precision))):
        image_options = replace(options, precision=try_precisions(network, options, processes))
    hint = faster_hint(options.device, image_options.precision)
    image_options = replace(image_options, progress=TileBar(hint))

    problems = Problems(plan.problems if processes.is_main else ())
    try:
        with library_lines_apart():
            restore_images(images, Restorer(network, image_options), problems, quality=args.quality)
            if videos:
                video_options = image_options if args.precision else options
                restore_videos(videos, Restorer(network, video_options), problems, args)
    finally:  # also after Ctrl-C
        problems.repeat(len(jobs) + len(plan.problems))
    if any(processes.gather(bool(problems.sentences))):
        return 1
    if plan.jobs and processes.is_main:
        say(f"Look at {plan.jobs[0].target if len(plan.jobs) == 1 else args.output}.")
    return 0


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    files = parser.add_argument_group("files")
    files.add_argument("--input", type=Path, nargs="+", help="images, videos, or folders of them")
    files.add_argument(
        "--output",
        type=Path,
        default=Path("results"),
        metavar="FOLDER",
        help="or, for one input, the FILE of its result (default: results)",
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
        metavar="NAME",
        help="network of an authors' checkpoint; spandrel: whatever that package recognises",
    )
    network.add_argument(
        "--options",
        nargs="+",
        default=[],
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
        "--temporal", action="store_true", help="remove residual flicker from static areas"
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
    args = parser.parse_args(arguments)

    if args.config:
        nothing = parser.parse_args([])
        for dest, value in vars(nothing).items():
            if getattr(args, dest) != value and dest not in WITH_CONFIG:
                setting = f"TEST.{dest.upper()}" if dest in TEST_SETTINGS else ""
                option = f"--{dest.replace('_', '-')}"
                hint = f"write {setting} VALUE at the end" if setting else "it is for --input"
                parser.error(f"{option} does not go with --config; {hint}")
    elif not args.input:
        parser.error("--input or --config is needed")
    elif args.settings:
        parser.error(f"{args.settings[0]} is a setting; settings belong to --config")
    if len(args.weights) > 1 and not args.config:
        parser.error("several --weights belong to several --config")
    if args.options and args.model in (None, "spandrel"):
        parser.error("--options are those of an authors' checkpoint; name its network by --model")
    if args.model and not args.weights:
        parser.error("--model names the network of an authors' checkpoint; it needs --weights FILE")
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


def load_network(args: argparse.Namespace) -> DerainingNetwork | ForeignNetwork:
    network: DerainingNetwork | ForeignNetwork
    if args.model == "spandrel":
        network = load_foreign(args.weights, notify=say)
    elif args.model:
        network = load_published(args.model, args.weights, parse_options(args.options), notify=say)
    elif args.weights:
        network = load_weights(args.weights)
    elif SHIPPED_WEIGHTS.is_file():
        network = load_weights(SHIPPED_WEIGHTS)
        say(f"No --weights: taking the network that ships with the project ({SHIPPED_WEIGHTS}).")
    else:
        raise UserError(
            f"There is no --weights, and the network that ships with the project is missing "
            f"({SHIPPED_WEIGHTS}); train one with train.py or name a file."
        )
    return network


def prepare_network(
    network: DerainingNetwork | ForeignNetwork, device: torch.device, *, compiled: bool
) -> None:
    """Put a network onto its device; ``compiled`` makes it faster there, after a slow start.

    Raises UserError where the device has no room and where there is no compiler.
    """
    try:
        network.to(device)
    except torch.OutOfMemoryError as error:
        raise UserError(f"{device} has no memory left for the weights.") from error
    if compiled:
        compilers = (os.environ.get("CXX", "c++"), "c++", "g++", "clang++", "cl")
        if not any(map(shutil.which, compilers)):
            raise UserError("--compile needs a C++ compiler such as g++, and there is none.")
        # Spectra are computed as before; nothing that a user could change.
        warnings.filterwarnings("ignore", message="Torchinductor does not support code generation")
        network.compile_restoring()


def try_precisions(
    network: DerainingNetwork | ForeignNetwork, options: RestoringOptions, processes: Processes
) -> str:
    """The fastest precision, the same for all processes: the first one decides."""
    notify = say if processes.is_main else lambda sentence: None
    return processes.gather(fastest_precision(network, options.device, notify))[0]


def leave_out_existing(jobs: list[RestoringJob]) -> list[RestoringJob]:
    """The jobs without those whose result is there."""
    left = [job for job in jobs if not os.path.isfile(job.target)]
    say(f"{len(jobs) - len(left)} of {len(jobs)} are there already.")
    return left


def restore_videos(
    jobs: list[RestoringJob], restorer: Restorer, problems: Problems, args: argparse.Namespace
) -> None:
    """Restore video files one after the other; a file that cannot be restored is a problem."""
    from utils.inference.video.restoring import restore_video  # FFmpeg is loaded for videos alone

    options = VideoOptions(args.video_codec, args.crf, args.temporal)
    for job in jobs:
        for sentence in restore_video(job.source, job.target, restorer, options):
            problems.add(sentence)


if __name__ == "__main__":
    run_main(main)
