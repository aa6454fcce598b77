"""What automatic tiles cost in seconds, beside fixed squares, as a table.

    python tools/benchmark_tiles.py --networks nerd_rain_s dcsfn
    python tools/benchmark_tiles.py --weights weights/petrichor.safetensors

For every image size the time of one tile of each shape is measured on one thread of a CPU, the
shapes in turns, the least of some rounds; a whole image takes that times the number of its tiles
(reading, blending and writing not counted). auto / best: above 1, a fixed square is faster.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the root holds our packages

from models import build_model, load_weights
from models.network import DerainingNetwork
from tools.complexity import add_networks_option
from tools.measuring import least_seconds
from utils.errors import run_main
from utils.inference.memory import keep_freed_memory
from utils.inference.restorer import Restorer
from utils.inference.tiling import Grid

SIZES = ((1080, 1920), (2160, 3840), (3024, 4032))  # height, width: full HD, 4K, a phone's 12 MP
SQUARES = (256, 384, 512, 640)

HEADS = "| network | image | auto | tiles | seconds | best square | tiles | seconds | auto / best |"


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    keep_freed_memory()  # as test.py does
    print(f"{HEADS}\n|---|---|---|---:|---:|---|---:|---:|---:|", flush=True)
    if args.weights:
        measure(args.weights.stem, load_weights(args.weights), args.rounds)
        return
    for name in args.networks:
        measure(name, build_model(name).eval(), args.rounds)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    chosen = parser.add_mutually_exclusive_group()
    add_networks_option(chosen)
    chosen.add_argument("--weights", type=Path, help="of a network to measure instead")
    parser.add_argument("--rounds", type=int, default=2, help="times each shape (default: 2)")
    return parser.parse_args()


def measure(name: str, network: DerainingNetwork, rounds: int) -> None:
    """Print a network's rows, one for each size."""
    grids = {
        size: {tile: grid_of(network, size, tile) for tile in ("auto", *SQUARES)} for size in SIZES
    }
    shapes = {(g.tile_height, g.tile_width) for row in grids.values() for g in row.values()}
    seconds = dict.fromkeys(sorted(shapes), float("inf"))
    for _ in range(rounds):
        for shape in seconds:
            seconds[shape] = min(seconds[shape], tile_seconds(network, shape))
    for size, row in grids.items():
        print(table_row(name, size, row, seconds), flush=True)


def grid_of(network: DerainingNetwork, size: tuple[int, int], tile: int | str) -> Grid:
    """How test.py cuts an image of ``size``, (height, width)."""
    restorer = Restorer(network, tile=tile, notify=lambda text: None)
    with torch.inference_mode():  # as restoring itself: gradients would take memory
        return restorer.choose_grid(np.zeros((*size, 3), np.uint8))


def tile_seconds(network: DerainingNetwork, shape: tuple[int, int]) -> float:
    rainy = torch.rand(1, 3, *shape)
    with torch.inference_mode():
        return least_seconds(
            lambda: network.restore(rainy), torch.device("cpu"), threads=1, at_least=1
        ).seconds


def table_row(
    name: str,
    size: tuple[int, int],
    grids: dict[int | str, Grid],
    seconds: dict[tuple[int, int], float],
) -> str:
    """One line of the table; ``seconds`` are those of one tile of a shape."""
    whole = {
        tile: grid.num_tiles * seconds[grid.tile_height, grid.tile_width]
        for tile, grid in grids.items()
    }
    auto, best = grids["auto"], min(SQUARES, key=lambda tile: whole[tile])
    return (
        f"| {name} | {size[1]} x {size[0]} | {auto.tile_width} x {auto.tile_height} "
        f"| {auto.num_tiles} | {whole['auto']:.0f} | {best} | {grids[best].num_tiles} "
        f"| {whole[best]:.0f} | {whole['auto'] / whole[best]:.2f} |"
    )


if __name__ == "__main__":
    run_main(main)
