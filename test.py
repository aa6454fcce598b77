"""Derain images and videos.

    python test.py --input photo.jpg
    python test.py --weights runs/dmsr/best.safetensors --input FOLDER --output results/dmsr
    python test.py --weights model_best.pth --model nerd_rain --input FOLDER --output results/nerd

Weights are a file of this project, which knows its own network, or the authors' checkpoint
together with --model; without --weights the network that ships with the project is taken. Every
image becomes a PNG of its own size, name, channels and depth; every video an MP4 without sound.
The exit status is 1 where a file could not be restored.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from natsort import natsorted, ns
from tqdm import tqdm

from models import load_published, load_weights
from models.network import DerainingNetwork
from utils import images
from utils.devices import add_device_option
from utils.errors import UserError, run_main
from utils.inference import video
from utils.inference.background import WriteBehind, read_ahead
from utils.inference.memory import keep_freed_memory
from utils.inference.restorer import Restorer
from utils.inference.tiling import DEFAULT_OVERLAP, RELEASED, WHOLE, Tile

SHIPPED_WEIGHTS = Path(__file__).parent / "weights" / "petrichor.safetensors"


@dataclass(frozen=True)
class Job:
    """One file to restore; ``target`` ends in .mp4 for a video and in .png for an image."""

    source: Path
    target: Path

    @property
    def is_video(self) -> bool:
        return self.target.suffix == ".mp4"


def main() -> int:
    args = parse_arguments()
    keep_freed_memory()
    jobs = plan_jobs(args.input, args.output, recursive=args.recursive)
    restorer = Restorer(
        load_network(args),
        device=args.device,
        tile=args.tile,
        overlap=args.overlap,
        ensemble=args.ensemble,
        precision=args.precision,
        memory=args.memory,
        notify=say,
        progress=TileBar(),
    )
    if args.skip_existing:
        num_found = len(jobs)
        jobs = [job for job in jobs if not job.target.exists()]
        say(f"{num_found - len(jobs)} of {num_found} are there already.")
    elif num_there := sum(job.target.exists() for job in jobs):
        say(f"{num_there} results in {args.output} are there already and will be replaced.")

    problems = restore_images([job for job in jobs if not job.is_video], restorer)
    for job in jobs:
        if job.is_video:
            problems += restore_video(job, restorer)
    if problems:
        say(f"{len(problems)} of {len(jobs)} could not be restored:", *problems)
    elif jobs:
        say(f"Look at {jobs[0].target if len(jobs) == 1 else args.output}.")
    return 1 if problems else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", type=Path, required=True, help="image, video or folder of them")
    parser.add_argument(
        "--output", type=Path, default=Path("results"), metavar="FOLDER", help="default: results"
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="default: the shipped network")
    parser.add_argument("--model", metavar="NAME", help="network of an authors' checkpoint")
    parser.add_argument(
        "--recursive", action="store_true", help="subfolders too; their structure is kept"
    )
    parser.add_argument(
        "--skip-existing", action="store_true", help="leave files alone whose result is there"
    )
    parser.add_argument(
        "--tile",
        default="auto",
        metavar="N",
        help="side of the tiles, or HEIGHTxWIDTH; auto: the fastest that fit into memory; whole: "
        "never cut; released: the windows that the authors test with (default: auto)",
    )
    parser.add_argument(
        "--overlap",
        type=int,
        metavar="M",
        help=f"pixels over which tiles are blended (default: {DEFAULT_OVERLAP})",
    )
    parser.add_argument(
        "--memory",
        type=float,
        metavar="GIB",
        help="what --tile auto may use (default: 4; on CUDA 90%% of what is free)",
    )
    parser.add_argument(
        "--ensemble",
        type=int,
        choices=(1, 8),
        default=1,
        help="8: average over flips and quarter turns, in eight times the time",
    )
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile; pays for many images of a size"
    )
    add_device_option(parser)
    args = parser.parse_args()

    if args.model and not args.weights:
        parser.error("--model names the network of an authors' checkpoint; it needs --weights FILE")
    args.tile = Tile.parse(args.tile)
    if args.overlap is not None and args.tile in (WHOLE, RELEASED):
        parser.error(f"--overlap has no meaning with --tile {args.tile.word}")
    if args.memory is not None:
        if not 0 < args.memory < math.inf:
            parser.error(f"--memory is {args.memory}; it must be a number of GiB above 0")
        args.memory = int(args.memory * 2**30)
    return args


def load_network(args: argparse.Namespace) -> DerainingNetwork:
    if args.model:
        network = load_published(args.model, args.weights)
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
    try:
        network.to(args.device)
    except torch.OutOfMemoryError as error:
        raise UserError(f"{args.device} has no memory left for the weights.") from error
    if args.compile:
        compilers = (os.environ.get("CXX", "c++"), "c++", "g++", "clang++", "cl")
        if not any(map(shutil.which, compilers)):
            raise UserError("--compile needs a C++ compiler such as g++, and there is none.")
        # Spectra are computed as before; nothing that a user could change.
        warnings.filterwarnings("ignore", message="Torchinductor does not support code generation")
        network.restore = torch.compile(network.restore)  # type: ignore[method-assign]
    return network


def plan_jobs(source: Path, output: Path, *, recursive: bool) -> list[Job]:
    """What to restore and where to.

    Raises UserError where there is nothing to restore, or where a result would replace an input.
    """
    if source.is_file():
        suffix = ".mp4" if video.is_video(source) else ".png"
        jobs = [Job(source, output / (source.stem + suffix))]
    elif source.is_dir():
        if source.resolve() == output.resolve():
            raise UserError(f"{output} is the input folder; take another --output folder.")
        jobs = [
            Job(folder / name, output / folder.relative_to(source) / target)
            for folder in ([source, *subfolders(source, output)] if recursive else [source])
            for name, target in target_names(folder).items()
        ]
        if not jobs:
            hint = "" if recursive else "; --recursive looks into its subfolders too"
            raise UserError(f"The folder {source} holds no image and no video{hint}.")
    else:
        raise UserError(f"There is no file or folder {source}.")
    sources = {job.source.resolve() for job in jobs}
    for job in jobs:
        if job.target.resolve() in sources:
            raise UserError(f"{job.target} would replace an input; take another --output folder.")
    return jobs


def subfolders(source: Path, output: Path) -> list[Path]:
    """All visible folders below ``source``, without those of an earlier run's results."""
    output = output.resolve()
    has_results = output.is_relative_to(source.resolve())
    folders = [
        path
        for path in source.rglob("*")
        if path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
        and not (has_results and path.resolve().is_relative_to(output))
    ]
    return natsorted(folders, alg=ns.PATH | ns.IGNORECASE)


def target_names(folder: Path) -> dict[str, str]:
    """The images and videos of a folder in natural order, with the names of their results.

    a.jpg becomes a.png; where another file's result has that name too, both keep their suffix:
    a.jpg.png and a.bmp.png.
    """
    files = [path for path in folder.iterdir() if images.is_image(path) or video.is_video(path)]
    endings = {path.name: ".mp4" if video.is_video(path) else ".png" for path in files}
    names = {path.name: path.stem + endings[path.name] for path in files}
    while True:
        # Some file systems know no difference between a.png and A.png.
        counts = Counter(name.casefold() for name in names.values())
        clashing = [
            source
            for source, name in names.items()
            if counts[name.casefold()] > 1 and name != source + endings[source]
        ]
        if not clashing:
            break
        names |= {source: source + endings[source] for source in clashing}
    return {name: names[name] for name in natsorted(names, alg=ns.IGNORECASE)}


def restore_images(jobs: list[Job], restorer: Restorer) -> list[str]:
    """Restore images; read the next and write the last one meanwhile. Returns the problems."""
    problems = []

    def write_or_note(path: Path, image: np.ndarray) -> None:
        try:
            images.write_png(path, image)
        except UserError as error:
            problems.append(str(error))

    bar = tqdm(total=len(jobs), unit="image", disable=not jobs)
    with WriteBehind() as writer, bar:
        for job, image in read_ahead((job, read_or_refuse(job.source)) for job in jobs):
            if isinstance(image, UserError):
                problems.append(str(image))
            else:
                writer.submit(write_or_note, job.target, restorer(image))
            bar.update()
    return problems


def read_or_refuse(path: Path) -> np.ndarray | UserError:
    """An image, or what is wrong with its file."""
    try:
        return images.read_image(path)
    except UserError as error:
        return error


def restore_video(job: Job, restorer: Restorer) -> list[str]:
    """Restore a video frame by frame. Returns the problems."""
    try:
        facts = video.read_facts(job.source)
        say(f"{job.source}: the sound is not kept, nor an odd last row or column.")
        num_frames = 0
        bar = tqdm(total=facts.num_frames or None, unit="frame")

        def fill(append: video.Append) -> None:
            nonlocal num_frames
            with WriteBehind() as writer, bar:
                for frame in read_ahead(video.read_frames(job.source)):
                    writer.submit(append, restorer(frame))
                    num_frames += 1
                    bar.update()

        video.write_video(job.target, facts.rate, fill)
    except UserError as error:
        return [str(error)]
    if num_frames < 0.95 * facts.num_frames:  # the announced number is an estimate in some formats
        return [f"{job.source} ends after {num_frames} of {facts.num_frames} frames."]
    return []


class TileBar:
    """A bar for the tiles of one image below that of the images; none for a single tile."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def __call__(self, done: int, total: int) -> None:
        if total == 1:
            return
        if self.bar is None or self.bar.total != total:
            self.bar = tqdm(total=total, unit="tile", leave=False)
        self.bar.update(done - self.bar.n)
        if done == total:
            self.bar.close()
            self.bar = None


def say(*lines: str) -> None:
    """Lines for the user, kept apart from the progress bars."""
    for line in lines:
        tqdm.write(line, file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
