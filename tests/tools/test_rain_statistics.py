"""The statistics of layers whose rain is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.rain import Rain, streak_layer
from tests.helpers import write_pairs
from tools.rain_statistics import MEANINGS, main, statistics
from utils.errors import UserError
from utils.images import read_gray_or_rgb, write_png

PLAIN = Rain(density=0.1, num_layers=1, depth=1, spread=0, taper=0, blur=0, unevenness=0)


def layer(**changes: float) -> np.ndarray:
    rain = Rain(**{**vars(PLAIN), **changes})
    return streak_layer(321, 481, rain, np.random.default_rng(0))


@pytest.mark.parametrize("angle", [-30.0, 0.0, 20.0])
def test_angle(angle: float) -> None:
    assert statistics(layer(angle=angle))["angle"] == pytest.approx(angle, abs=2)


def test_width_and_spacing_of_bars() -> None:
    """Bars of 4 pixels at distances of 16: the autocorrelation of a pulse falls linearly."""
    bars = np.zeros((320, 480), np.float32)
    for left in range(0, 480, 16):
        bars[:, left : left + 4] = 0.5
    found = statistics(bars)
    # duty d = 1/4: (1 - x / 4 - d) / (1 - d) = 1/2 at x = 1.5
    assert found["width"] == pytest.approx(3.0, rel=0.15)
    assert found["spacing"] == pytest.approx(16, rel=0.1)
    assert found["mean"] == pytest.approx(0.125, rel=0.01)
    assert found["wet"] == pytest.approx(0.25, abs=0.01)
    assert found["bright"] == pytest.approx(0.5, rel=0.1)
    assert found["crossing"] < 0.01


def test_more_of_a_quantity_reads_as_more() -> None:
    def of(name: str, **changes: float) -> float:
        return statistics(layer(**changes))[name]

    assert of("length", length=80) > 2 * of("length", length=20)
    assert of("width", width=3) > 1.5 * of("width", width=1)
    assert of("sharp", blur=1.5) < 0.8 * of("sharp")
    assert of("crossing", spread=25.0, num_layers=5) > 1.5 * of("crossing")
    assert of("wet", density=0.4) > 2 * of("wet")


def test_the_table_has_a_row_for_each_quantity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.rain_statistics.NUM_DRAWN", 3)
    pairs = write_pairs(tmp_path / "pairs", 3)
    main(["--layers", str(pairs), "--skip-layers", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"2 layers of {pairs}, 3 drawn")
    assert [line.split()[0] for line in lines[2:] if line] == 2 * list(MEANINGS)
    with pytest.raises(UserError, match="--skip-layers names 9"):
        main(["--layers", str(pairs), "--skip-layers", "9"])


def test_the_sheet_shows_layers_above_drawn_rain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.rain_statistics.NUM_DRAWN", 3)
    for index, size in enumerate((96, 64)):
        gray = np.full((size, size), 20 + index, np.uint8)
        gray[::2, ::3] = 60  # an even layer has no direction
        write_png(tmp_path / "crops" / f"{index}.png", gray)
    sheet = tmp_path / "sheet.png"
    arguments = ["--layers", str(tmp_path / "crops"), "--sheet", str(sheet)]
    main([*arguments, "--share-downpours", "0", "--share-faint", "1"])
    shown = read_gray_or_rgb(sheet)
    assert shown.shape == (2 * 68, 2 * 68)
    # three times as bright, both cut to the smaller size, a black frame of 2 pixels
    assert (shown[3, 3], shown[3, 68 + 3], shown[2, 2], shown[1, 1]) == (60, 63, 180, 0)
    assert shown[70:-2].std() > 1
    with pytest.raises(UserError, match="already exists"):
        main(arguments)
