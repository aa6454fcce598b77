"""examples/compare_methods.py: it runs as it is, and its figures are those of the formula."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from tests.helpers import run_script, smooth_image, streaked
from utils.images import read_rgb, write_png


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for i in (1, 2, 10):
        clean = smooth_image(i, 60, 80)
        write_png(tmp_path / "target" / f"{i}.png", clean)
        write_png(tmp_path / "streaked" / f"{i}.png", streaked(clean, i))
        write_png(tmp_path / "darker" / f"{i}.png", (clean * 0.9).astype(np.uint8))
    return tmp_path


def run(folders: Path, *methods: str) -> tuple[int, str]:
    done = run_script(
        "examples/compare_methods.py",
        *("--target", folders / "target", "--output", folders / "out", "--protocol", "rgb"),
        *("--results", *(folders / method for method in methods)),
    )
    return done.returncode, done.stdout + done.stderr


def test_two_folders_become_a_table_and_a_figure(folders: Path) -> None:
    status, printed = run(folders, "streaked", "darker")
    assert status == 0, printed
    with open(folders / "out" / "table.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["image"] for line in lines] == ["1", "2", "10"]
    for line in lines:
        clean = read_rgb(folders / "target" / f"{line['image']}.png")
        for method in ("streaked", "darker"):
            restored = read_rgb(folders / method / f"{line['image']}.png")
            expected = peak_signal_noise_ratio(clean, restored)
            assert float(line[f"{method} psnr"]) == pytest.approx(expected, abs=1e-3)
    figure = read_rgb(folders / "out" / "figure.png")
    assert figure.shape[0] > 300 and figure.std() > 20


def test_a_missing_result_is_a_sentence(folders: Path) -> None:
    (folders / "darker" / "2.png").unlink()
    status, printed = run(folders, "streaked", "darker")
    assert status == 1
    assert printed == f"error: {folders / 'darker'} has no result for 2.\n"
    assert not (folders / "out").exists()
