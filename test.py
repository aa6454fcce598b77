"""Derain images and videos, or restore and score whole test sets.

    python test.py --input photo.jpg
    python test.py --input photo.heic --output derained.jpg --quality 90
    python test.py --weights runs/dmsr/best.safetensors --input FOLDER --output results/dmsr
    python test.py --weights model_best.pth --model nerd_rain --input FOLDER --output results/nerd
    python test.py --config runs/dmsr/config.yml --config runs/nerd_rain/config.yml
    python test.py --config configs/nerd_rain_rain200h.yml --weights nerd_rain.pth \
        --config configs/nerd_rain_rain200h.yml --weights restormer.pth --model spandrel

--weights takes a file of this project, which names its network, or an authors' checkpoint together
with --model; --model spandrel reads the checkpoints of many other networks. Without --weights the
network that ships with the project is used. Every image becomes a PNG of the same size, name,
channels and depth, with its colour profile and EXIF; every video becomes an MP4 with its sound.
The exit status is 1 if a file could not be restored.

With --config, the best weights of each run (or --weights, one for each --config) restore the sets
of its TEST.SETS into results/METHOD/SET/, and one table of methods and sets is printed and written
beside the published rows, with a page to look at. --model and --options belong to the --config
before them: its sets and TEST settings then hold for another network, which is named after its
weights file. --metrics and --tasks add columns to the table. KEY VALUE pairs at the end change
settings of all of them. Finished results are kept. torchrun shares the images among processes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from models import (
    SHIPPED_WEIGHTS,
    AnyNetwork,
    load_foreign,
    load_published,
    load_weights,
    local_weights,
)
from models.registry import parse_options
from utils.errors import UserError, run_main
from utils.evaluation.columns import make_columns
from utils.files import remove_unfinished
from utils.inference.arguments import parse_arguments, restoring_options
from utils.inference.console import Problems, TileBar, library_lines_apart, say
from utils.inference.memory import keep_freed_memory
from utils.inference.methods import SPANDREL
from utils.inference.options import RestoringOptions, no_progress
from utils.inference.plan import RestoringJob, check_output, plan_files
from utils.inference.precision import AUTO_PRECISION, faster_hint, fastest_precision
from utils.inference.restorer import Restorer
from utils.inference.restoring import restore_images
from utils.inference.video import VideoOptions
from utils.training.distributed import Processes, destroy_distributed, init_distributed
from utils.wording import plural


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_arguments(__doc__, arguments)
    options = restoring_options(args)  # wrong ones are refused before anything is loaded
    keep_freed_memory()
    args.weights = [local_weights(path) for path in args.weights]
    processes = init_distributed("gloo")  # its messages are text, and GPUs may be shared
    if processes.world_size > 1 and options.device.type == "cuda" and options.device.index is None:
        options = replace(options, device=processes.device)
    if not processes.is_main:  # one process shows bars
        options = replace(options, progress=no_progress)
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
    from utils.inference.benchmark import Method, run_benchmark  # photographs need none of it

    def make_restorer(network: AnyNetwork, method: Method) -> Restorer:
        prepare_network(network, options.device, compiled=args.compile)
        return Restorer(
            network,
            options,
            tile=method.tile,
            overlap=method.overlap,
            ensemble=method.ensemble,
            precision=method.precision,
        )

    settings = [
        [*settings_of_model(args, place), *args.settings] for place in range(len(args.config))
    ]
    columns = partial(make_columns, args)
    return run_benchmark(args.config, settings, args.weights, make_restorer, columns, processes)


def settings_of_model(args: argparse.Namespace, place: int) -> list[str]:
    """What --model and --options say of one --config, as settings; the name is the file's."""
    if place not in args.model:
        return []
    file_name = args.weights[place].name.removesuffix(".tar")
    # The empty name drops the MODEL.OPTIONS of a recipe for a network of the same name.
    settings = ["MODEL.NAME", "", "MODEL.NAME", args.model[place]]
    settings += ["TEST.METHOD", Path(file_name).stem]
    for key, value in parse_options(args.options.get(place, ())).items():
        settings += [f"MODEL.OPTIONS.{key}", str(value)]
    return settings


def restore_files(args: argparse.Namespace, options: RestoringOptions, processes: Processes) -> int:
    """What --input asks for; each process restores its share."""
    args.weights = args.weights[0] if args.weights else None
    plan = plan_files(args.input, args.output, suffix=args.suffix, recursive=args.recursive)
    if args.temporal and not any(job.is_video for job in plan.jobs):
        raise UserError("--temporal is for videos, and the inputs hold only images.")
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
    # With the network that ships, photographs may be restored in bf16; videos only on request.
    is_auto = args.precision == AUTO_PRECISION or not (args.precision or args.weights)
    image_options = options
    if is_auto and any(processes.gather(bool(images) or bool(args.precision))):
        image_options = replace(options, precision=try_precisions(network, options, processes))
    if processes.is_main:
        hint = faster_hint(options.device, image_options.precision)
        image_options = replace(image_options, progress=TileBar(hint))

    problems = Problems(plan.problems if processes.is_main else ())
    try:
        with library_lines_apart():
            restore_images(
                images,
                Restorer(network, image_options),
                problems,
                quality=args.quality,
                is_shown=processes.is_main,
            )
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


def load_network(args: argparse.Namespace) -> AnyNetwork:
    network: AnyNetwork
    model, options = args.model.get(0), args.options.get(0, ())
    if model == SPANDREL:
        network = load_foreign(args.weights, notify=say)
    elif model:
        network = load_published(model, args.weights, parse_options(options), notify=say)
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


def prepare_network(network: AnyNetwork, device: torch.device, *, compiled: bool) -> None:
    """Move a network to its device; ``compiled`` compiles it, which pays off after a slow start.

    Raises UserError if the device has no room and if no compiler is found.
    """
    try:
        network.to(device)
    except torch.OutOfMemoryError as error:
        raise UserError(f"{device} has no memory left for the weights.") from error
    if compiled:
        compilers = (os.environ.get("CXX", "c++"), "c++", "g++", "clang++", "cl")
        if not any(map(shutil.which, compilers)):
            raise UserError("--compile needs a C++ compiler such as g++; none was found.")
        # Spectra are not compiled, which users cannot change.
        warnings.filterwarnings("ignore", message="Torchinductor does not support code generation")
        network.compile_restoring()


def try_precisions(network: AnyNetwork, options: RestoringOptions, processes: Processes) -> str:
    """The fastest precision; the first process decides for all."""
    notify = say if processes.is_main else lambda sentence: None
    return processes.gather(fastest_precision(network, options.device, notify))[0]


def leave_out_existing(jobs: list[RestoringJob]) -> list[RestoringJob]:
    """The jobs that have no result yet."""
    left = [job for job in jobs if not os.path.isfile(job.target)]
    say(f"{len(jobs) - len(left)} of {len(jobs)} exist already and are skipped.")
    return left


def restore_videos(
    jobs: list[RestoringJob], restorer: Restorer, problems: Problems, args: argparse.Namespace
) -> None:
    """Restore video files one after the other; a file that cannot be restored is a problem."""
    from utils.inference.video.restoring import restore_video  # only videos need FFmpeg

    options = VideoOptions(args.video_codec, args.crf, args.temporal)
    for job in jobs:
        for sentence in restore_video(job.source, job.target, restorer, options):
            problems.add(sentence)


if __name__ == "__main__":
    run_main(main)
