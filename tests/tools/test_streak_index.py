"""Figures of rain without clean images, on drawn rain, for which the truth is known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.rain import Rain, lay_over, streak_layer
from tests.helpers import smooth_image
from tools import streak_index
from tools.streak_index import HEADINGS, compare_photos, main
from tools.streaks import rain_angle, step_filter, to_gray
from utils.errors import UserError
from utils.images import write_png

FINE = Rain(density=0.5, length=14, width=1.4, brightness=0.25, num_layers=2, depth=1.3, spread=1)


def scene(seed: int, height: int = 220, width: int = 260) -> np.ndarray:
    """A smooth scene with a texture that has no direction."""
    texture = np.random.default_rng(seed).normal(0, 12, (height, width, 1))
    smooth = cv2.GaussianBlur(texture, (0, 0), 1)[..., None]
    return np.clip(smooth_image(seed, height, width) // 2 + 40 + smooth, 0, 255).astype(np.uint8)


def layer_of(angle: float, seed: int = 0) -> np.ndarray:
    rain = Rain(**{**vars(FINE), "angle": angle})
    return streak_layer(220, 260, rain, np.random.default_rng(seed))


@pytest.mark.parametrize("angle", [-30.0, 0.0, 20.0])
def test_the_direction_of_the_rain_is_found(angle: float) -> None:
    assert rain_angle(to_gray(lay_over(scene(1), layer_of(angle)))) == pytest.approx(angle, abs=5)


@pytest.mark.parametrize("angle", [0.0, 25.0])
def test_streaks_fall_with_the_rain_and_hardly_with_blur(angle: float) -> None:
    clean, layer = scene(2), layer_of(angle)
    rainy = lay_over(clean, layer)
    mean = HEADINGS.index("mean")

    def streaks(image: np.ndarray) -> float:
        return compare_photos(rainy, image, angle)[mean]

    left = [streaks(lay_over(clean, np.float32(share) * layer)) for share in (1, 0.5, 0.25, 0)]
    assert left[0] > 15
    assert left == sorted(left, reverse=True)
    assert abs(left[-1]) < 0.25 * left[0]
    blurred = streaks(cv2.GaussianBlur(rainy, (0, 0), 0.5))
    assert blurred > 0.85 * left[0]


def test_texture_falls_with_blur_and_colour_with_a_stain() -> None:
    clean = scene(3)
    texture, colour = HEADINGS.index("texture"), HEADINGS.index("colour")
    same = compare_photos(clean, clean, 0)
    assert same[texture] == pytest.approx(1) and same[colour] == 0
    blurred = compare_photos(clean, cv2.GaussianBlur(clean, (0, 0), 3), 0)
    assert blurred[texture] < 0.8 and blurred[colour] < 1
    # gray stays gray where all channels change alike; 20 levels of blue are chroma
    brighter, bluer = clean.copy(), clean.copy()
    brighter += 20
    bluer[..., 2] += 20
    assert compare_photos(clean, brighter, 0)[colour] < 0.1
    # Cb = 0.564 (B - Y) and Cr = 0.713 (R - Y), where Y gains 0.114 * 20
    expected = 20 * (0.564 * 0.886 + 0.713 * 0.114) / 2
    assert compare_photos(clean, bluer, 0)[colour] == pytest.approx(expected, abs=0.1)


def test_poles_and_walls_belong_to_the_scene() -> None:
    """Upright edges from top to bottom are not streaks, and level ones do not hide any."""
    clean = scene(4)
    mean = HEADINGS.index("mean")
    built = clean.copy()
    built[:, ::26] = np.minimum(built[:, ::26].astype(int) + 70, 255)
    assert abs(compare_photos(clean, built, 0)[mean] - compare_photos(clean, clean, 0)[mean]) < 4


@pytest.mark.parametrize("scale", [0.7, 2.8])
def test_a_step_of_one_level_gives_one(scale: float) -> None:
    image = np.zeros((80, 80), np.float32)
    image[:, 40:] = 1
    response = cv2.filter2D(image, -1, step_filter(scale, 0.0, 3.0))
    assert abs(response[40]).max() == pytest.approx(1, abs=0.01) or scale < 1
    assert abs(cv2.filter2D(image, -1, step_filter(scale, 90.0, 3.0))[40]).max() < 1e-5


def test_tables_have_a_row_for_each_folder_and_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("b", "a"):
        clean = scene(5)
        write_png(tmp_path / "clean" / f"{name}.png", clean)
        write_png(tmp_path / "rainy" / f"{name}.png", lay_over(clean, layer_of(0)))
    rainy, clean_folder = str(tmp_path / "rainy"), str(tmp_path / "clean")
    main(["--input", rainy, "--results", rainy, clean_folder])
    rows = [line.strip("|").split("|") for line in capsys.readouterr().out.splitlines()]
    assert [cell.strip() for cell in rows[0][1:]] == list(HEADINGS)
    first, same, dry = (list(map(float, row[1:])) for row in rows[2:])
    assert rows[2][0].strip() == "rainy (2 photographs)" and first == same
    assert dry[3] < 0.3 * first[3] and same[4:] == [1, 0]

    main(["--calibrate", clean_folder])
    names = [line.strip("|").split("|")[0].strip() for line in capsys.readouterr().out.splitlines()]
    assert names[2:] == [
        *(f"{share}% of the rain left" for share in (100, 75, 50, 25, 0)),
        *(f"rainy, blurred by {sigma} pixels" for sigma in ("0.5", "1", "2")),
    ]


def test_the_table_of_removed_streaks_knows_what_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """30% of the way to the clean photograph is 30% of any streaks; other edges do not count."""
    monkeypatch.setattr(streak_index, "REMOVAL_SIDE", 96)
    clean = np.full((96, 128, 3), 70, np.uint8)
    write_png(tmp_path / "clean" / "a.png", clean)
    for index in range(3):
        gray = np.rint(255 * np.minimum(layer_of(0, index), 1)).astype(np.uint8)
        write_png(tmp_path / "layers" / f"{index}.png", gray)

    def partly(rainy: np.ndarray) -> np.ndarray:
        assert rainy.shape == (96, 96, 3)
        restored = 70 + (rainy.astype(float) - 70) * 0.7
        restored[:, ::2] -= 3
        return np.rint(restored).astype(np.uint8)

    table = streak_index.removal_table(partly, tmp_path / "clean", tmp_path / "layers")
    rows = [line.strip("|").split("|") for line in table.splitlines()]
    assert [row[0].strip() for row in rows[2:]] == [
        "1, 0", "1, 1.5", "2, 0", "2, 1.5", "3, 0", "3, 1.5",
    ]  # fmt: skip
    for row in rows[2:]:
        assert [int(cell.strip(" %")) for cell in row[1:]] == pytest.approx([30] * 3, abs=6)
    for path in (tmp_path / "layers").iterdir():
        write_png(path, np.zeros((96, 128), np.uint8))
    with pytest.raises(UserError, match="layers show no streaks"):
        streak_index.removal_table(partly, tmp_path / "clean", tmp_path / "layers")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--input", "x"], "Give --input and --results"),
        (["--calibrate", "x", "--input", "x"], "--calibrate alone"),
        (["--weights", "x", "--clean", "x"], "--weights, --clean and --layers"),
        (["--input", "/nowhere", "--results", "/nowhere"], "no folder /nowhere"),
    ],
)
def test_mistakes_get_one_sentence(arguments: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        main(arguments)


def test_a_missing_or_resized_result_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_png(tmp_path / "rainy" / f"{name}.png", scene(6))
    write_png(tmp_path / "results" / "a.png", scene(6))
    arguments = ["--input", str(tmp_path / "rainy"), "--results", str(tmp_path / "results")]
    with pytest.raises(UserError, match="has no image b"):
        main(arguments)
    write_png(tmp_path / "results" / "b.png", scene(6, 100, 100))
    with pytest.raises(UserError, match="b has different sizes"):
        main(arguments)
