"""Every published set is read from its authors' archive as it is, to train and to score."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.layouts.recognise import find_sides
from data.pairs import find_pairs
from data.results import pair_results, set_folders
from tests.data.archives import ARCHIVES, REFUSED, WIDTH, Archive, numbered
from utils.errors import UserError
from utils.evaluation.folders import single_jobs
from utils.evaluation.score_cache import ScoreCache
from utils.evaluation.scoring import score_jobs
from utils.metrics import score


def expected_pairs(archive: Archive, folder: Path) -> set[tuple[Path, Path, str]]:
    """The pairs below the folder that is named."""
    root = (folder / archive.root).resolve()
    return {
        (folder / rainy, folder / clean, archive.half)
        for rainy, clean in archive.pairs
        if root in (folder / rainy).resolve().parents
    }


@pytest.mark.parametrize("name", ARCHIVES)
def test_pairs_as_the_authors_name_them(name: str, tmp_path: Path) -> None:
    archive = ARCHIVES[name]
    found = find_pairs(archive.write(tmp_path))
    assert found.layout == archive.layout
    pairs = {(pair.rainy, pair.clean, pair.half) for pair in found.pairs}
    assert pairs == expected_pairs(archive, tmp_path) and len(pairs) == len(found.pairs)
    if archive.layout != "list":
        assert find_pairs(tmp_path / archive.root, archive.layout).pairs == found.pairs


def read(path: Path, half: str = "") -> np.ndarray:
    image = cv2.imread(str(path))
    cut = {"": slice(None), "left": slice(None, WIDTH), "right": slice(WIDTH, None)}[half]
    return image[:, cut, ::-1]


@pytest.mark.parametrize("name", ARCHIVES)
def test_scores_are_those_of_the_authors_pairs(name: str, tmp_path: Path) -> None:
    """The rainy images themselves, and results of a method that halves the rain."""
    archive = ARCHIVES[name]
    root = archive.write(tmp_path / "set")
    other = {"": "", "left": "right", "right": "left"}[archive.half]
    images = {
        (rainy, clean): (read(rainy, half), read(clean, other))
        for rainy, clean, half in expected_pairs(archive, tmp_path / "set")
    }
    results = tmp_path / "results"
    for result, path in find_sides(root).rainy.items():
        rainy, clean = next(both for pair, both in images.items() if pair[0] == path)
        halved = cv2.addWeighted(rainy, 0.5, clean, 0.5, 0)
        (results / result).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(results / f"{result}.png"), halved[..., ::-1])
    jobs = single_jobs(results, root, None, "rain13k", set_folders)
    if len(jobs) == 1:  # one folder holds both: the rainy ones are a row when they are asked for
        jobs = single_jobs(results, root, root, "rain13k", set_folders)
    scored = score_jobs([pair_results(job) for job in jobs], ScoreCache(tmp_path / "scores.json"))
    assert not [problem for result in scored for problem in result.problems]
    for result, share in zip(scored, (1.0, 0.5), strict=True):
        expected = sorted(
            score(cv2.addWeighted(rainy, share, clean, 1 - share, 0), clean, "rain13k")
            for rainy, clean in images.values()
        )
        np.testing.assert_allclose(sorted(image.scores for image in result.images), expected)


@pytest.mark.parametrize("name", REFUSED)
def test_several_sets_and_single_sides_are_refused_by_name(name: str, tmp_path: Path) -> None:
    root, words = REFUSED[name]
    ARCHIVES[name].write(tmp_path)
    with pytest.raises(UserError, match=words):
        find_pairs(tmp_path / root)


def test_what_is_neither_rainy_nor_clean_is_counted(tmp_path: Path) -> None:
    for name, notes in (
        (
            "RainTrainL",
            ["left out: 3 images called rainregion-N", "left out: 3 images called rainstreak-N"],
        ),
        ("Raindrop Clarity", [f"left out: {tmp_path}/Raindrop Clarity/Blur (4 images)"]),
        ("HQ-RAIN", []),
    ):
        assert find_pairs(ARCHIVES[name].write(tmp_path / name)).notes == notes


def test_several_rainy_kinds_of_one_clean_image_are_named(tmp_path: Path) -> None:
    (note,) = find_pairs(ARCHIVES["RainDS"].write(tmp_path / "a")).notes
    assert note.startswith("3 kinds of rainy images belong to one clean image: raindrop/pie-rd-N, ")
    assert "rainstreak/pie-rain-1" in note and "DATA.MATCH" in note
    one = find_pairs(tmp_path / "a", match=r"^(?:rainstreak/)?pie-(?:no)?rain-(\d+)$")
    assert [pair.rainy.parent.name for pair in one.pairs] == ["rainstreak"] * 3
    assert one.notes == [
        "left out: 6 rainy images that the pattern '^(?:rainstreak/)?pie-(?:no)?rain-(\\d+)$' does "
        f"not match, such as {tmp_path}/a/raindrop/pie-rd-1.png"
    ]
    many = Archive(
        [*numbered("rain-{}.png", "norain-{}.png"), *numbered("fog-{}.png", "norain-{}.png")]
    )
    (note,) = find_pairs(many.write(tmp_path / "b"), match=r"(\d+)$").notes
    assert "rain-N, fog-N" in note or "fog-N, rain-N" in note


def test_rainy_photographs_with_labels_have_no_clean_side(tmp_path: Path) -> None:
    """BDD350, COCO350 and BDD150: images and labels."""
    archive = Archive(
        [], extras=["images/a.jpg", "images/b.jpg"], texts={"labels/a.txt": "car 0 0 9 9"}
    )
    folder = archive.write(tmp_path / "BDD350")
    assert set_folders(folder) == (folder / "images", None)
    with pytest.raises(UserError, match="holds no pairs"):
        find_pairs(folder)
