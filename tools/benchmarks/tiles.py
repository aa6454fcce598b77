"""What automatic tiles cost in seconds, compared with fixed squares.

    python tools/benchmark.py tiles --networks nerd_rain_s weights/petrichor.safetensors

For every image size, one tile of each shape is timed, the shapes in turn, the shortest of several
rounds. An image takes that time its number of tiles; reading, blending and writing are not
included. If auto / best is above 1, a fixed square is faster.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch

from models import SHIPPED_WEIGHTS
from models.network import DerainingNetwork
from tools.benchmarks.networks import find_subject
from tools.benchmarks.timing import CPU, least_seconds, positive
from utils.inference.memory import keep_freed_memory
from utils.inference.restorer import Restorer
from utils.inference.tiling import Grid
from utils.markdown import markdown_table

SIZES = ((1080, 1920), (2160, 3840), (3024, 4032))  # height, width: full HD, 4K, a phone's 12 MP
SQUARES = (256, 384, 512, 640)

HEADS = ["network", "image", "auto", "tiles", "seconds", "best square", "tiles", "seconds",
         "auto / best"]  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--networks",
        nargs="+",
        default=[str(SHIPPED_WEIGHTS)],
        metavar="NETWORK",
        help="names, recipes or files of weights (default: the shipped network)",
    )
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads (default: 1)")
    parser.add_argument(
        "--rounds", type=positive, default=2, help="runs of each shape (default: 2)"
    )


def run(args: argparse.Namespace) -> str:
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # as test.py does
    rows = []
    for what in args.networks:
        subject = find_subject(what, {})
        rows += measure(subject.label, subject.build(), args.rounds, args.threads)
    return markdown_table(HEADS, rows, num_left=3)


def measure(name: str, network: DerainingNetwork, rounds: int, threads: int) -> list[list[str]]:
    """A network's rows, one for each size."""
    grids = {
        size: {tile: grid_of(network, size, tile) for tile in ("auto", *SQUARES)} for size in SIZES
    }
    shapes = {(g.tile_height, g.tile_width) for row in grids.values() for g in row.values()}
    seconds = dict.fromkeys(sorted(shapes), float("inf"))
    for _ in range(rounds):
        for shape in seconds:
            rainy = torch.rand(1, 3, *shape)
            with torch.inference_mode():
                found = least_seconds(partial(network.restore, rainy), CPU, threads)
            seconds[shape] = min(seconds[shape], found.seconds)
    return [table_row(name, size, row, seconds) for size, row in grids.items()]


def grid_of(network: DerainingNetwork, size: tuple[int, int], tile: int | str) -> Grid:
    """How test.py cuts an image of (height, width)."""
    restorer = Restorer(network, tile=tile, notify=lambda text: None)
    with torch.inference_mode():  # as in restoring: gradients would take memory
        return restorer.choose_grid(np.zeros((*size, 3), np.uint8))


def table_row(
    name: str,
    size: tuple[int, int],
    grids: dict[int | str, Grid],
    seconds: dict[tuple[int, int], float],
) -> list[str]:
    """The cells of one line; ``seconds`` is the time of one tile by its shape."""
    whole = {
        tile: grid.num_tiles * seconds[grid.tile_height, grid.tile_width]
        for tile, grid in grids.items()
    }
    auto, best = grids["auto"], min(SQUARES, key=lambda tile: whole[tile])
    return [
        name,
        f"{size[1]} x {size[0]}",
        f"{auto.tile_width} x {auto.tile_height}",
        str(auto.num_tiles),
        f"{whole['auto']:.0f}",
        str(best),
        str(grids[best].num_tiles),
        f"{whole[best]:.0f}",
        f"{whole['auto'] / whole[best]:.2f}",
    ]
