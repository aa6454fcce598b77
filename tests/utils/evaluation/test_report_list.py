"""report.html in a real browser: the list of images, the distribution, links to images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.utils.evaluation.browser import (
    open_page,
    wait_for_images,
)
from tests.utils.evaluation.report_pages import (
    AWKWARD,
    click,
    colours_at,
    open_report,
    press,
    results_in,
    text,
    without,
)
from utils.evaluation.scoring import ImageResult, JobResult, ScoringJob

extras = pytest.mark.extras


def column(browser: Any, table: str, index: int) -> list[str]:
    rows = browser.find_elements("css selector", f"#{table} tbody tr")
    return [row.find_elements("css selector", "th, td")[index].text for row in rows]


def sort(browser: Any, table: str, index: int) -> str | None:
    """Click a column's heading; returns how the table is sorted then."""
    heads = browser.find_elements("css selector", f"#{table} thead tr:last-child th")
    heads[index].find_element("tag name", "button").click()
    heads = browser.find_elements("css selector", f"#{table} thead tr:last-child th")
    return heads[index].get_attribute("aria-sort")


@extras
def test_the_tables_sort(browser: Any, tmp_path: Path):
    results = results_in(tmp_path, ["1", "2", "10"])
    for number, image in enumerate(results[1].images):
        image.scores = (20.0 + number, 0.5)
    results[2].images[0].scores = (float("inf"), 1.0)
    open_report(browser, tmp_path, results)

    assert column(browser, "scores", 0) == ["rainy input", "first", "second"]
    assert sort(browser, "scores", 1) == "descending"
    assert column(browser, "scores", 0)[0] == "second"
    assert column(browser, "scores", 1)[0] == "inf"
    assert sort(browser, "scores", 1) == "ascending"
    assert column(browser, "scores", 0)[-1] == "second"

    assert column(browser, "images", 0) == ["1", "2", "10"]
    assert sort(browser, "images", 5) == "descending"  # PSNR of the first method
    assert column(browser, "images", 5) == ["22.00", "21.00", "20.00"]
    strip = [
        b.get_attribute("title") for b in browser.find_elements("css selector", "#strip button")
    ]
    assert strip == column(browser, "images", 0) == ["10", "2", "1"]
    assert sort(browser, "images", 0) == "ascending"
    assert column(browser, "images", 0) == ["1", "2", "10"]  # 10 after 2, not after 1
    browser.find_elements("css selector", "#images tbody tr")[1].click()
    assert text(browser, "#name").startswith("2 ")


@extras
def test_the_worst_ten_by_the_difference_of_two(browser: Any, tmp_path: Path):
    from selenium.webdriver.support.select import Select

    stems = [str(i) for i in range(1, 31)]
    results = results_in(tmp_path, stems)
    rng = np.random.default_rng(5)
    scores = rng.uniform(10, 40, (3, 30))
    for result, row in zip(results, scores, strict=True):
        for image, value in zip(result.images, row, strict=True):
            image.scores = (float(value), 0.5)
    open_report(browser, tmp_path, results, a="first", b="second")
    gains = scores[2] - scores[1]
    expected = [stems[i] for i in np.argsort(gains)[:10]]
    click(browser, "#worst")
    assert column(browser, "images", 0) == expected
    shown = [f"{gain:+.2f}".replace("-", "\u2212") for gain in np.sort(gains)[:10]]
    assert column(browser, "images", 1) == shown
    assert text(browser, "#name").startswith(f"{expected[0]} (")
    assert text(browser, "#difference") == f"{shown[0]} dB"

    Select(browser.find_element("id", "order")).select_by_visible_text("first, PSNR")
    assert column(browser, "images", 0) == [stems[i] for i in np.argsort(scores[1])[:10]]
    click(browser, "#direction")
    assert column(browser, "images", 0) == [stems[i] for i in np.argsort(-scores[1])[:10]]
    click(browser, "#worst")
    assert column(browser, "images", 0) == stems


@extras
def test_the_distribution_has_a_dot_for_each_image(browser: Any, tmp_path: Path):
    from selenium.webdriver import ActionChains

    results = results_in(tmp_path, [str(i) for i in range(40)])
    rng = np.random.default_rng(7)
    scores = rng.normal(25, 4, 40)
    for result in results:
        for image, value in zip(result.images, scores, strict=True):
            image.scores = (float(value), 0.5)
    results[1].images[0].scores = (float("inf"), 1.0)
    without(results, 1, 1)
    open_report(browser, tmp_path, results, image=5, a="first", b="second")
    labels = "return [...document.querySelectorAll('#plot .method')].map(t => t.firstChild.data)"
    assert browser.execute_script(labels) == [
        "rainy input", "A  first (1 infinite)", "B  second",
    ]  # fmt: skip
    path = browser.find_element("css selector", "#plot .row.a .dots").get_attribute("d")
    dots = np.array([part.rstrip("h0").split() for part in path.split("M")[1:]], float)
    assert len(dots) == 38
    # the dots are on the line through two ticks
    ticks = browser.find_elements("css selector", "#plot .tick")
    known = [(float(t.text), float(t.get_attribute("x"))) for t in (ticks[0], ticks[-1])]
    slope = (known[1][1] - known[0][1]) / (known[1][0] - known[0][0])
    np.testing.assert_allclose(
        dots[:, 0], known[0][1] + slope * (scores[2:] - known[0][0]), atol=0.2
    )
    assert len({tuple(dot) for dot in dots.tolist()}) == 38
    median = browser.find_element("css selector", "#plot .row.a .median").get_attribute("x1")
    assert float(median) == pytest.approx(
        known[0][1] + slope * (np.median(scores[2:]) - known[0][0]), abs=0.1
    )
    quartiles = browser.execute_script(
        "return [0.25, 0.75].map((share) => quantile(arguments[0], share))", sorted(scores.tolist())
    )
    assert quartiles == pytest.approx(np.quantile(scores, [0.25, 0.75]).tolist())
    ring = browser.find_element("css selector", "#plot .row.a .ring")
    assert [float(ring.get_attribute(k)) for k in ("cx", "cy")] == pytest.approx(
        dots[3].tolist(), abs=0.1
    )
    # a click on a dot opens its image: the farthest to the right
    farthest = int(np.argmax(scores[2:]))
    plot = browser.find_element("css selector", "#plot svg")
    size = plot.size
    offset = dots[farthest] - [size["width"] / 2, size["height"] / 2]
    ActionChains(browser).move_to_element_with_offset(plot, *map(round, offset)).click().perform()
    assert text(browser, "#name").startswith(f"{farthest + 2} (")
    click(browser, "#plotted button:last-child")
    assert (
        browser.find_element("css selector", "#plot svg")
        .get_attribute("aria-label")
        .startswith("Distribution of SSIM")
    )


@extras
def test_a_link_opens_one_image_of_one_pair_of_methods(browser: Any, tmp_path: Path):
    words = {"set": "wet", "image": AWKWARD, "a": "second", "b": "first"}
    path = open_report(browser, tmp_path, results_in(tmp_path, ["1", "2", AWKWARD]), **words)
    assert colours_at(browser, 0.2, 0.8) == ["second", "first"]
    assert text(browser, "#name").startswith(AWKWARD)
    click(browser, "#next")  # on the last image, this does nothing
    press(browser, "px+++")
    click(browser, "#errors")
    click(browser, "[data-mode=all]")
    link = browser.find_element("id", "link").get_attribute("href")
    assert browser.current_url == link
    state = (
        "return JSON.stringify([view.image, view.a, view.b, view.mode, view.errors, view.scale])"
    )
    left = browser.execute_script(state)
    browser.get("about:blank")
    browser.get(link)
    wait_for_images(browser)
    assert browser.execute_script(state) == left and '[1,1,2,"all",true,' in left

    open_page(browser, path, "#image=3&b=other")
    assert text(browser, "#trouble") == (
        "The link asks for image 3, b other, which this page does not have."
    )
    assert colours_at(browser, 0.2, 0.8) == ["rainy input", "first"]


@extras
def test_each_data_set_has_its_own_methods(browser: Any, tmp_path: Path):
    results = results_in(tmp_path, ["1", "2"])
    jobs = [
        ScoringJob(r.job.method, "night", "rain13k", r.job.results, r.job.clean, r.job.is_input)
        for r in results[:2]
    ]
    more = [
        JobResult(job, result.images[:1], 1) for job, result in zip(jobs, results[:2], strict=True)
    ]
    open_report(browser, tmp_path, [*results, *more], b="second", image=2)
    browser.find_elements("css selector", "#sets button")[1].click()
    wait_for_images(browser)
    assert text(browser, "#name") == "1 (1 of 1)" and "set=night" in browser.current_url
    assert len(browser.find_elements("css selector", "#plot .row")) == 2
    assert colours_at(browser, 0.2, 0.8) == ["rainy input", "first"]


@extras
def test_thousands_of_images_are_not_loaded_at_once(browser: Any, tmp_path: Path):
    from selenium.webdriver import Keys

    (few,) = results_in(tmp_path, ["1"])[1:2]
    image = few.images[0]
    many = [
        ImageResult(f"night-{i}", image.restored, image.clean, (20 + i / 1000, 0.5))
        for i in range(5000)
    ]
    open_report(browser, tmp_path, [JobResult(few.job, many, len(many))])
    assert len(browser.find_elements("tag name", "img")) == 4 + 50
    assert len(browser.find_elements("css selector", "#images tbody tr")) == 50
    assert text(browser, "#page") == "page 1 of 100, 5000 images"
    find = browser.find_element("id", "find")
    find.send_keys("4321")
    assert text(browser, "#page") == "page 1 of 1, 1 image"
    click(browser, "#next")
    assert text(browser, "#name") == "night-4321 (4322 of 5000)"
    find.send_keys(Keys.CONTROL, "a", Keys.DELETE)
    click(browser, "#page-on")
    assert "page 2 of 100" in text(browser, "#page")
