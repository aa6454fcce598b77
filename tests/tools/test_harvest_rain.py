"""Crops of rain: they show the drawn rain, and black where there is something else."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.rain import Rain, lay_over, streak_layer
from tests.helpers import smooth_image
from tools.harvest_rain import find_windows, harvest, main
from tools.streaks import to_gray
from utils.errors import UserError
from utils.images import read_gray_or_rgb, read_rgb, write_png

HEIGHT, WIDTH = 320, 384


def rain_of(angle: float) -> np.ndarray:
    rain = Rain(
        density=0.15, length=16, width=1.5, brightness=0.3, num_layers=2, depth=1.2, spread=1,
        unevenness=0, angle=angle,
    )  # fmt: skip
    return streak_layer(HEIGHT, WIDTH, rain, np.random.default_rng(2))


def scene() -> np.ndarray:
    return smooth_image(0, HEIGHT, WIDTH) // 3 + 20


def test_crops_show_the_rain_in_front_of_a_smooth_scene() -> None:
    layer = rain_of(0)
    found = harvest(to_gray(lay_over(scene(), layer, screen=1.0)))
    assert found is not None and found.angle == 0
    assert found.windows[0][2] == 128
    top, left, side = found.windows[0]
    crop = found.layer[top : top + side, left : left + side]
    true = layer[top : top + side, left : left + side]
    assert np.corrcoef(crop.ravel(), true.ravel())[0, 1] > 0.78
    # the median across the rain counts as scene, and with it some of the rain's strength
    assert 0.5 < crop.mean() / true.mean() < 1.05


@pytest.mark.parametrize("angle", [-15.0, 20.0])
def test_slanting_rain_becomes_vertical(angle: float) -> None:
    found = harvest(to_gray(lay_over(scene(), rain_of(angle))))
    assert found is not None and found.angle == pytest.approx(angle, abs=5)
    assert found.windows
    for top, left, side in found.windows:
        crop = found.layer[top : top + side, left : left + side]
        across, along = (np.abs(np.diff(crop, axis=axis)).mean() for axis in (1, 0))
        assert across > 1.6 * along


def test_dry_photographs_and_horizontal_lines_give_no_crops() -> None:
    assert harvest(to_gray(scene())) is None
    lying = np.ascontiguousarray(
        streak_layer(WIDTH, HEIGHT, Rain(spread=0), np.random.default_rng(0)).T
    )
    assert harvest(to_gray(lay_over(scene(), lying))) is None


def test_squares_with_bits_of_the_scene_are_black() -> None:
    """A bright lamp with a round edge and a striped cloth, in the middle of the rain."""
    photo = lay_over(scene(), rain_of(0))
    cv2.circle(photo, (96, 96), 9, (255, 250, 240), -1)
    photo[160:208, 192:240] = (np.arange(48) // 4 % 2 * 120).astype(np.uint8)[:, None, None]
    found = harvest(to_gray(photo))
    assert found is not None and found.angle == 0 and found.windows
    assert found.layer[85:107, 85:107].max() < 0.1  # the lamp itself is 0.8
    assert found.layer[168:200, 200:232].max() < 0.05
    assert found.layer[40:70, 150:300].max() > 0.15  # rain is still there


def test_windows_are_large_first_do_not_overlap_and_hold_enough_rain() -> None:
    cells = np.zeros((10, 14), bool)
    cells[:8, :8] = True
    cells[:6, 8:] = True
    cells[2, 3] = cells[5, 9] = False
    found = find_windows(cells)
    assert found == [(0, 0, 128), (0, 128, 96)]
    assert find_windows(np.zeros((10, 14), bool)) == []
    assert find_windows(np.ones((3, 20), bool)) == []  # lower than the smallest crop


def test_crops_and_sheet_are_written_and_photographs_without_rain_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_png(tmp_path / "photos" / "rainy.png", lay_over(scene(), rain_of(0)))
    write_png(tmp_path / "photos" / "dry.png", scene())
    output, sheet = tmp_path / "crops", tmp_path / "sheet.png"
    main(["--input", str(tmp_path / "photos"), "--output", str(output), "--sheet", str(sheet)])
    crops = sorted(output.iterdir())
    assert [path.name for path in crops][:2] == ["rainy_0.png", "rainy_1.png"]
    first = read_gray_or_rgb(crops[0])
    assert first.shape == (96, 96) and first.dtype == np.uint8 and first.max() > 40
    assert read_rgb(sheet).shape == (HEIGHT + 4, 2 * WIDTH, 3)
    out = capsys.readouterr().out
    assert "dry.png: no crop, since no rain is in front of a smooth scene" in out
    assert f"wrote {len(crops)} crops from 2 photographs to {output}" in out

    with pytest.raises(UserError, match="crops already exists"):
        main(["--input", str(tmp_path / "photos"), "--output", str(output)])
    (tmp_path / "photos" / "rainy.png").unlink()
    with pytest.raises(UserError, match="No crop was found in the 1 photograph of"):
        main(["--input", str(tmp_path / "photos"), "--output", str(tmp_path / "none")])
