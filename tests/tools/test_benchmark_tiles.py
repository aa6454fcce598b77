"""tools/benchmark_tiles.py: its arithmetic on grids that test.py really cuts."""

from __future__ import annotations

from models import build_model
from tools.benchmark_tiles import SQUARES, grid_of, table_row


def test_an_image_takes_the_time_of_all_its_tiles_and_meets_the_best_square() -> None:
    network = build_model("dcsfn_t").eval()
    size = (512, 1000)
    grids = {tile: grid_of(network, size, tile) for tile in ("auto", *SQUARES)}
    # by hand: stride 224 of 256, 352 of 384; 512 and 640 fit the height and take two columns of
    # 1000 rounded up to 1024
    assert [grids[tile].num_tiles for tile in SQUARES] == [15, 6, 3, 2]
    assert (grids[640].tile_height, grids[640].tile_width) == (512, 640)
    seconds = {(g.tile_height, g.tile_width): g.tile_pixels / 1e5 for g in grids.values()}
    seconds[512, 640] = 1.5  # two of them: 3 seconds, the best
    auto = grids["auto"]
    expected = auto.num_tiles * seconds[auto.tile_height, auto.tile_width]
    cells = [c.strip() for c in table_row("n", size, grids, seconds).split("|")[1:-1]]
    assert cells[:2] == ["n", "1000 x 512"]
    assert cells[5:8] == ["640", "2", "3"]
    assert cells[4] == f"{expected:.0f}" and cells[8] == f"{expected / 3:.2f}"
