"""Pairs by name, every problem named, files as 8 bits, kept scores."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.results import pair_results
from tests.helpers import write_pairs
from utils.errors import UserError
from utils.evaluation.score_cache import ScoreCache
from utils.evaluation.scoring import JobResult, ScoringJob, read_8bit, score_jobs
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
def test_pairs_by_name_whatever_suffix_and_order(pairs: Path, workers: int):
    # a suffix that sorts elsewhere must not move the pair
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


def test_missing_and_extra_images_are_named_and_the_rest_is_scored(pairs: Path):
    (pairs / "input" / "2.png").rename(pairs / "input" / "two.png")
    result = run(pairs)
    missing, extra = result.problems
    assert missing.startswith("missing") and "2.png" in missing and str(pairs / "input") in missing
    assert extra.startswith("extra") and "two.png" in extra
    assert [image.stem for image in result.scored] == ["1", "3"]
    assert result.num_expected == 3


def test_different_sizes_are_reported_or_cut_at_right_and_bottom(pairs: Path):
    path = pairs / "input" / "3.png"
    whole = cv2.imread(str(path))
    cv2.imwrite(str(path), whole[:70, :80])
    (problem,) = run(pairs).problems
    assert "80x70" in problem and "88x72" in problem and str(path) in problem
    kept = ScoreCache(pairs / "kept.json")
    result = run(pairs, kept, crop=True)
    clean = read_8bit(pairs / "target" / "3.png")
    assert result.images[2].cropped and not result.problems
    assert result.images[2].scores == score(whole[:70, :80, ::-1], clean[:70, :80])
    # what --crop let pass is not kept for a run without it
    assert run(pairs, ScoreCache(pairs / "kept.json")).images[2].scores is None
    assert run(pairs, ScoreCache(pairs / "kept.json"), crop=True).images[2].reused


def test_unreadable_files_are_named(pairs: Path):
    path = pairs / "input" / "2.png"
    path.write_bytes(path.read_bytes()[:200])
    (pairs / "target" / "3.png").write_bytes(b"")
    problems = run(pairs).problems
    assert len(problems) == 2
    assert str(path) in problems[0] and str(pairs / "target" / "3.png") in problems[1]


def test_two_files_of_one_stem_and_an_empty_folder_are_problems_of_the_folder(pairs: Path):
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

    # another time, another size, another content: scored again
    for name in ("input/1.png", "target/2.png"):
        status = (pairs / name).stat()
        os.utime(pairs / name, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert [i.reused for i in run(pairs, ScoreCache(file)).images] == [False, False, True]
    path = pairs / "input" / "3.png"
    status = path.stat()
    cv2.imwrite(str(path), cv2.imread(str(pairs / "target" / "3.png")))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    changed = run(pairs, ScoreCache(file)).images[2]
    assert not changed.reused and changed.scores == (np.inf, 1.0)
    # the infinite PSNR of identical images survives the file
    assert run(pairs, ScoreCache(file)).images[2].scores == (np.inf, 1.0)


def test_kept_scores_belong_to_their_protocol(pairs: Path):
    file = pairs / "kept.json"
    run(pairs, ScoreCache(file))
    job = ScoringJob("rainy", "set", "did", pairs / "input", pairs / "target")
    (other,) = score_jobs([pair_results(job)], ScoreCache(file))
    assert not any(image.reused for image in other.images)


def test_a_broken_file_of_kept_scores_is_one_sentence(tmp_path: Path):
    file = tmp_path / "kept.json"
    for content in ("{", "[]", '{"version": 1}', '{"version": 1, "scores": {"a": 3}}'):
        file.write_text(content)
        with pytest.raises(UserError, match=r"kept\.json.*--fresh"):
            ScoreCache(file)
        ScoreCache(file, fresh=True)


def test_scores_without_clean_images(pairs: Path):
    class Brightness:
        name = "brightness"

        def score(self, image: np.ndarray) -> float:
            if image.shape[1] < 50:
                raise UserError("too small")
            return float(image.mean())

    cv2.imwrite(str(pairs / "input" / "3.png"), np.full((60, 40, 3), 9, np.uint8))
    (pairs / "target" / "3.png").unlink()
    job = ScoringJob("rainy", "set", "niqe", pairs / "input", None)
    (result,) = score_jobs(
        [pair_results(job)], ScoreCache(pairs / "k.json"), no_reference=Brightness()
    )
    assert result.images[0].scores == (read_8bit(pairs / "input" / "1.png").mean(),)
    assert result.problems == [f"{pairs / 'input' / '3.png'}: too small"]


def test_an_interrupted_run_keeps_what_it_has_scored(pairs: Path):
    class Interrupted:
        name = "interrupted"
        num_scored = 0

        def score(self, image: np.ndarray) -> float:
            if self.num_scored == 2:
                raise KeyboardInterrupt
            self.num_scored += 1
            return 4.0

    job = ScoringJob("rainy", "set", "niqe", pairs / "input", None)
    file = pairs / "kept.json"
    scorer = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        score_jobs([pair_results(job)], ScoreCache(file), workers=1, no_reference=scorer)
    scorer.num_scored = 0
    (result,) = score_jobs([pair_results(job)], ScoreCache(file), workers=1, no_reference=scorer)
    assert [image.reused for image in result.images] == [True, True, False]
