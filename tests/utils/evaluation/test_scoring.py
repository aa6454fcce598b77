"""Scoring: pairs by name, reports of all problems, files as 8 bits, cached scores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.results import pair_results
from tests.helpers import ROOT, write_pairs
from utils.errors import UserError
from utils.evaluation import formats
from utils.evaluation.quality import Metric
from utils.evaluation.score_cache import CachedScore, Remark, ScoreCache
from utils.evaluation.scoring import ImageResult, JobResult, ScoringJob, read_8bit, score_jobs
from utils.evaluation.table import build_table
from utils.metrics import score


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "set", 3)


def run(pairs: Path, kept: ScoreCache | None = None, **options) -> JobResult:
    """Score the rainy images of a folder of pairs."""
    job = ScoringJob("rainy", "set", "rain13k", pairs / "input", pairs / "target")
    kept = kept or ScoreCache(pairs.parent / "unused.json")
    return score_jobs([pair_results(job)], kept, **options)[0]


@pytest.mark.parametrize("workers", [1, 3])
def test_pairs_go_by_name_not_by_suffix_or_order(pairs: Path, workers: int):
    # a suffix that changes the sorting must not change the pairs
    image = cv2.imread(str(pairs / "input" / "1.png"))
    (pairs / "input" / "1.png").unlink()
    cv2.imwrite(str(pairs / "input" / "1.tiff"), image)
    (pairs / "input" / "2.png").rename(pairs / "input" / "10.png")
    (pairs / "target" / "2.png").rename(pairs / "target" / "10.png")
    result = run(pairs, workers=workers)
    assert [image.stem for image in result.images] == ["1", "3", "10"]
    assert not result.problems
    for image in result.images:
        expected = score(read_8bit(image.restored), read_8bit(image.clean))
        assert image.restored.stem == image.clean.stem == image.stem
        assert image.scores == expected
    assert result.mean()[0] == pytest.approx(np.mean([i.scores[0] for i in result.images]))


def test_missing_and_extra_images_are_reported_and_the_rest_is_scored(pairs: Path):
    (pairs / "input" / "2.png").rename(pairs / "input" / "two.png")
    result = run(pairs)
    missing, extra = result.problems
    assert missing.startswith("missing") and "2.png" in missing and str(pairs / "input") in missing
    assert extra.startswith("extra") and "two.png" in extra
    assert [image.stem for image in result.scored] == ["1", "3"]
    assert result.num_expected == 3


def test_different_sizes_are_reported_or_cropped_at_right_and_bottom(pairs: Path):
    path = pairs / "input" / "3.png"
    whole = cv2.imread(str(path))
    cv2.imwrite(str(path), whole[:70, :80])
    (problem,) = run(pairs).problems
    assert "80x70" in problem and "88x72" in problem and str(path) in problem
    kept = ScoreCache(pairs / "kept.json")
    result = run(pairs, kept, crop=True)
    clean = read_8bit(pairs / "target" / "3.png")
    assert not result.problems
    (remark,) = result.images[2].remarks
    assert remark == ("cropped", "80x70 and 88x72 px cut to 80x70")
    assert result.images[2].scores == score(whole[:70, :80, ::-1], clean[:70, :80])
    # scores with --crop are not reused without it
    assert run(pairs, ScoreCache(pairs / "kept.json")).images[2].scores is None
    again = run(pairs, ScoreCache(pairs / "kept.json"), crop=True).images[2]
    assert again.reused and again.remarks == [remark]


def test_unreadable_files_are_reported(pairs: Path):
    path = pairs / "input" / "2.png"
    path.write_bytes(path.read_bytes()[:200])
    (pairs / "target" / "3.png").write_bytes(b"")
    problems = run(pairs).problems
    assert len(problems) == 2
    assert str(path) in problems[0] and str(pairs / "target" / "3.png") in problems[1]


def test_two_files_with_one_stem_and_an_empty_folder_are_reported(pairs: Path):
    (pairs / "input" / "1.jpg").write_bytes(b"")
    result = run(pairs)
    assert "1.jpg" in result.problem and not result.images
    for path in (pairs / "input").iterdir():
        path.unlink()
    assert "holds no image" in run(pairs).problem


def test_float_images(pairs: Path):
    clean = cv2.imread(str(pairs / "target" / "1.png"))
    result = pairs / "input" / "1.tiff"
    (pairs / "input" / "1.png").unlink()
    cv2.imwrite(str(result), (clean / 255).astype(np.float32))
    assert run(pairs).images[0].scores == (np.inf, 1.0)
    broken = (clean / 255).astype(np.float32)
    broken[3, 4, 1] = np.nan
    broken[5, 6, 0] = np.inf
    cv2.imwrite(str(result), broken)
    (problem,) = run(pairs).problems
    assert str(result) in problem and "2 pixel values" in problem
    cv2.imwrite(str(result), clean.astype(np.float32))
    assert "expected in [0, 1]" in run(pairs).problems[0]


def test_16_bit_files_are_rounded_to_8(tmp_path: Path):
    values = np.array([[0, 128, 129, 257 * 7 + 128, 257 * 7 + 129, 65535]], np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), values)
    assert read_8bit(tmp_path / "a.png").tolist() == [[0, 0, 1, 7, 8, 255]]


def test_unchanged_images_are_not_scored_again(pairs: Path):
    file = pairs / "kept.json"
    first = run(pairs, ScoreCache(file))
    assert not any(image.reused for image in first.images)
    again = run(pairs, ScoreCache(file))
    assert all(image.reused for image in again.images)
    assert [i.scores for i in again.images] == [i.scores for i in first.images]
    assert not any(i.reused for i in run(pairs, ScoreCache(file, fresh=True)).images)

    # a touched, moved or copied file keeps its score; a file with other content does not, even if
    # its size and time are the same
    os.utime(pairs / "input" / "1.png", ns=(0, 0))
    path = pairs / "input" / "2.png"
    before, content = path.stat(), bytearray(path.read_bytes())
    place = content.index(b"IDAT") - 4  # insert an empty text chunk
    changed = content[:place] + b"\0\0\0\0tEXt" + bytes(4) + content[place:]
    path.write_bytes(changed)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    moved = pairs.rename(pairs.with_name("moved"))
    again = run(moved, ScoreCache(moved / "kept.json")).images
    assert [image.reused for image in again] == [True, False, True]
    cv2.imwrite(str(moved / "input" / "3.png"), cv2.imread(str(moved / "target" / "3.png")))
    changed_image = run(moved, ScoreCache(moved / "kept.json")).images[2]
    assert not changed_image.reused and changed_image.scores == (np.inf, 1.0)
    # the infinite PSNR of identical images survives the cache file
    kept_image = run(moved, ScoreCache(moved / "kept.json")).images[2]
    assert kept_image.reused and kept_image.scores == (np.inf, 1.0)


def test_simultaneous_runs_keep_each_others_scores(pairs: Path):
    file = pairs / "kept.json"
    first, second = ScoreCache(file), ScoreCache(file)
    first.put("a", CachedScore((1.5, 0.25)))
    second.put("b", CachedScore((2.0,), (Remark("gray", "dün"),)))
    first.put("c", CachedScore((3.0,)))
    kept = ScoreCache(file)
    assert [kept.get(key).scores for key in "abc"] == [(1.5, 0.25), (2.0,), (3.0,)]
    assert kept.get("b").remarks == (Remark("gray", "dün"),)


def test_a_killed_process_keeps_every_whole_line(pairs: Path):
    file = pairs / "kept.json"
    code = (
        "import os, signal, sys; from pathlib import Path;"
        "from utils.evaluation.score_cache import *;"
        f"cache = ScoreCache(Path({str(file)!r})); cache.put('a', CachedScore((1.0,)));"
        "cache.put('b', CachedScore((2.0,))); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    content = file.read_bytes()
    file.write_bytes(content[:-3])  # as if killed within a line
    ScoreCache(file).put("c", CachedScore((3.0,)))
    kept = ScoreCache(file)
    assert kept.get("a").scores == (1.0,) and kept.get("b") is None
    assert kept.get("c").scores == (3.0,)


def test_cached_scores_depend_on_the_clean_image_too(pairs: Path):
    file = pairs / "kept.json"
    before = run(pairs, ScoreCache(file)).images[1].scores
    clean = pairs / "target" / "2.png"
    cv2.imwrite(str(clean), cv2.imread(str(clean)) // 2)
    again = run(pairs, ScoreCache(file)).images
    assert [image.reused for image in again] == [True, False, True]
    assert again[1].scores != before


def test_cached_scores_of_halves_are_not_those_of_whole_files(pairs: Path):
    """The same bytes as a whole image and as side-by-side images in both orders."""
    clean = pairs / "target" / "1.png"
    kept = ScoreCache(pairs / "kept.json")
    pixels = read_8bit(clean)
    left, right = np.split(pixels, 2, axis=1)
    halves = {"": (pixels, pixels), "right": (right, left), "left": (left, right)}
    for half, (rainy_part, clean_part) in halves.items():
        image = ImageResult("1", clean, clean, rainy_half=half)
        job = ScoringJob("rainy", "set", "rain13k", pairs / "input", pairs / "target")
        score_jobs([JobResult(job, [image], 1)], kept)
        assert image.scores == score(rainy_part, clean_part) and not image.reused, half


def test_cached_scores_depend_on_the_protocol(pairs: Path):
    file = pairs / "kept.json"
    run(pairs, ScoreCache(file))
    job = ScoringJob("rainy", "set", "did", pairs / "input", pairs / "target")
    (other,) = score_jobs([pair_results(job)], ScoreCache(file))
    assert not any(image.reused for image in other.images)


def test_files_that_are_not_a_cache_are_refused(tmp_path: Path):
    file = tmp_path / "kept.json"
    for content in ("{", "[]", '{"version": 1}', "PSNR 30"):
        file.write_text(content)
        with pytest.raises(UserError, match=r"kept\.json.*another --output"):
            ScoreCache(file)
    with pytest.raises(UserError, match="Cannot write"):
        ScoreCache(file / "below a file" / "kept.json")


class Brightness:
    """A simple metric of one image."""

    metric = Metric("light", "Light", 1)
    name = "brightness of the tests"

    def __init__(self, last: int = 1000) -> None:
        self.left = last

    def score(self, restored: np.ndarray, clean: np.ndarray | None) -> float:
        if restored.shape[1] < 50:
            raise UserError("too small")
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return float(restored.mean())


def without_clean(pairs: Path, kept: ScoreCache, scorer: Brightness) -> JobResult:
    job = ScoringJob("rainy", "set", "niqe", pairs / "input", None)
    return score_jobs([pair_results(job)], kept, workers=1, scorers=[scorer])[0]


def test_scores_without_clean_images(pairs: Path):
    cv2.imwrite(str(pairs / "input" / "3.png"), np.full((60, 40, 3), 9, np.uint8))
    (pairs / "target" / "3.png").unlink()
    result = without_clean(pairs, ScoreCache(pairs / "k.json"), Brightness())
    assert result.metrics == (Brightness.metric,)
    assert result.images[0].scores == (read_8bit(pairs / "input" / "1.png").mean(),)
    assert result.problems == [f"{pairs / 'input' / '3.png'}: too small"]


def test_further_metrics_follow_psnr_and_ssim(pairs: Path):
    file = pairs / "kept.json"
    plain = run(pairs, ScoreCache(file))
    both = run(pairs, ScoreCache(file), scorers=[Brightness()])
    assert [metric.name for metric in both.metrics] == ["PSNR", "SSIM", "Light"]
    for image, before in zip(both.images, plain.images, strict=True):
        assert image.scores == (*before.scores, read_8bit(image.restored).mean())
        assert not image.reused  # some of its metrics are missing
    # nothing is recomputed
    assert all(
        image.reused for image in run(pairs, ScoreCache(file), scorers=[Brightness(0)]).images
    )


class Spread:
    """A metric of a folder: the largest PSNR of its images minus the smallest."""

    metrics = (Metric("spread", "Spread", 3), Metric("count", "Count", 0))
    name = "spread of the tests"

    def score(self, result: JobResult) -> tuple[float, ...]:
        psnr = [image.scores[0] for image in result.scored if image.scores]
        if len(psnr) < 2:
            raise UserError("one image has no spread")
        return max(psnr) - min(psnr), float(len(psnr))


def test_metrics_of_a_whole_folder_follow_those_of_its_images(pairs: Path):
    result = run(pairs, set_scorers=[Spread()])
    psnr = [image.scores[0] for image in result.images]
    mean = (np.mean(psnr), np.mean([image.scores[1] for image in result.images]))
    assert result.mean() == pytest.approx((*mean, max(psnr) - min(psnr), 3.0))
    assert [metric.key for metric in result.all_metrics] == ["psnr", "ssim", "spread", "count"]
    assert all(len(image.scores) == 2 for image in result.images) and not result.problems
    table = build_table([result], published=False)
    cells = [cell.strip() for cell in formats.markdown(table).splitlines()[2].split("|")]
    assert cells[-3:-1] == [f"{max(psnr) - min(psnr):.3f}", "3"]
    for number in (2, 3):
        (pairs / "input" / f"{number}.png").unlink()
        (pairs / "target" / f"{number}.png").unlink()
    alone = run(pairs, set_scorers=[Spread()])
    assert alone.problems == [f"{pairs / 'input'}: one image has no spread"]
    assert np.isnan(alone.mean()[2:]).all() and alone.num_left_out == 0


def test_an_interrupted_run_keeps_its_scores(pairs: Path):
    file = pairs / "kept.json"
    with pytest.raises(KeyboardInterrupt):
        without_clean(pairs, ScoreCache(file), Brightness(2))
    result = without_clean(pairs, ScoreCache(file), Brightness())
    assert [image.reused for image in result.images] == [True, True, False]


def test_peculiarities_of_scored_images_are_reported(pairs: Path):
    gray = cv2.imread(str(pairs / "input" / "1.png"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(pairs / "input" / "1.png"), gray)
    clean = (pairs / "target" / "2.png").read_bytes()
    (pairs / "input" / "2.png").write_bytes(clean)
    (pairs / "input" / "3.png").unlink()
    image = cv2.imread(str(pairs / "target" / "3.png"))
    encoded = bytearray(cv2.imencode(".jpg", image)[1].tobytes())
    del encoded[-100:-2]  # all but the end marker
    (pairs / "input" / "3.jpg").write_bytes(encoded)
    kept = ScoreCache(pairs / "kept.json")
    for _ in range(2):  # computed, then cached
        result = run(pairs, kept)
        assert not result.problems
        remarks = [image.remarks for image in result.images]
        assert [[remark.kind for remark in r] for r in remarks] == [
            ["gray"], ["identical"], ["damaged"],
        ]  # fmt: skip
        assert remarks[0][0].text == "the result is gray, the clean image in colour"
        assert "3.jpg: Corrupt JPEG data" in remarks[2][0].text
        kept = ScoreCache(pairs / "kept.json")
    job = ScoringJob("rainy", "set", "rgb", pairs / "input", pairs / "target")
    (image,) = (i for i in score_jobs([pair_results(job)], kept)[0].images if i.stem == "2")
    assert image.scores == (100.0, 1.0) and image.remarks[0].kind == "identical"


def test_a_folder_is_not_scored_against_itself(pairs: Path):
    job = ScoringJob("m", "set", "rain13k", pairs / "target", pairs / "input" / ".." / "target")
    assert "against itself" in pair_results(job).problem
