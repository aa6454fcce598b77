"""Reports of results in distinct colours, and what a browser shows of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import cv2
import numpy as np

from data.results import pair_results
from tests.utils.evaluation.browser import open_page, pixels
from utils.evaluation.report import report_page
from utils.evaluation.score_cache import ScoreCache
from utils.evaluation.scoring import ImageResult, JobResult, ScoringJob, score_jobs
from utils.evaluation.table import build_table

COLOURS = {"rainy input": (200, 0, 0), "first": (0, 160, 0), "second": (0, 0, 220)}
CLEAN = (90, 90, 90)
AWKWARD = 'a "b" <!--<script> #1 100%&amp; é'


def results_in(folder: Path, stems: list[str]) -> list[JobResult]:
    """Three "methods" whose results have one colour each, with gray clean images."""
    for name, colour in {**COLOURS, "clean": CLEAN}.items():
        (folder / name).mkdir()
        for number, stem in enumerate(stems):
            image = np.full((120, 320, 3), colour[::-1], np.uint8)
            image[: 5 * number] = 90  # each image has a different score
            cv2.imwrite(str(folder / name / f"{stem}.png"), image)
    jobs = [
        ScoringJob(name, "wet", "rain13k", folder / name, folder / "clean", name == "rainy input")
        for name in COLOURS
    ]
    return score_jobs([pair_results(job) for job in jobs], ScoreCache(folder / "kept.json"))


def write_page(folder: Path, results: list[JobResult], **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    page = report_page(results, build_table(results, published=True), folder, **options)
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def open_report(browser: Any, folder: Path, results: list[JobResult], **view: object) -> Path:
    """Write a page with these results and open it in the given view."""
    page = write_page(folder / "out", results)
    open_page(browser, page, f"#{urlencode(view)}")
    return page


def without(results: list[JobResult], method: int, image: int) -> None:
    """Remove an image from a method."""
    stem = results[method].images[image].stem
    name = results[method].job.method
    problem = f"missing: {name} has no result named {stem}"
    results[method].images[image] = ImageResult(stem, problem=problem)


def colours_at(browser: Any, *shares: float, of: str = "#stage") -> list[str]:
    """The methods visible just below the middle of an element, at these fractions of its width."""
    seen = pixels(browser, of)
    y = round(0.6 * seen.shape[0])
    row = [tuple(seen[y, round(share * (seen.shape[1] - 1))].tolist()) for share in shares]
    names = {colour: name for name, colour in {**COLOURS, "clean": CLEAN}.items()}
    return [names.get(colour, f"nothing known: {colour}") for colour in row]


def click(browser: Any, selector: str) -> None:
    browser.find_element("css selector", selector).click()


def text(browser: Any, selector: str) -> str:
    return browser.find_element("css selector", selector).text


def press(browser: Any, keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(keys).perform()
