"""report.html in a real browser: the slider, the sorting, thousands of images, no network."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from utils.errors import UserError
from utils.evaluation.report import report_page
from utils.evaluation.score_cache import ScoreCache
from utils.evaluation.scoring import ImageResult, JobResult, ScoringJob, score_jobs
from utils.evaluation.table import build_table

COLOURS = {"rainy input": (200, 0, 0), "first": (0, 160, 0), "second": (0, 0, 220)}
AWKWARD = 'a "b" <!--<script> #1 100%&amp; é'


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("Chromium or its driver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--window-size=1000,1600"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    yield started
    started.quit()


def results_in(folder: Path, stems: list[str]) -> list[JobResult]:
    """Three "methods" that are images of one colour each, against clean ones that are gray."""
    for name, colour in {**COLOURS, "clean": (90, 90, 90)}.items():
        (folder / name).mkdir()
        for number, stem in enumerate(stems):
            image = np.full((120, 320, 3), colour[::-1], np.uint8)
            image[: 5 * number] = 90  # each image has another score
            cv2.imwrite(str(folder / name / f"{stem}.png"), image)
    jobs = [
        ScoringJob(name, "wet", "rain13k", folder / name, folder / "clean", name == "rainy input")
        for name in COLOURS
    ]
    return score_jobs(jobs, ScoreCache(folder / "kept.json"))


def write_page(folder: Path, results: list[JobResult], **options) -> Path:
    folder.mkdir(exist_ok=True)
    page = report_page(results, build_table(results, published=True), folder, **options)
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def open_page(browser, path: Path) -> None:
    browser.get(path.as_uri())
    wait_for_images(browser)


def wait_for_images(browser) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    script = "return [...document.images].every(i => i.hidden || (i.complete && i.naturalWidth))"
    WebDriverWait(browser, 10).until(lambda b: b.execute_script(script))


def colours_at(browser, *shares: float) -> list[str]:
    """Which method is seen in the lower part of the viewer at these shares of its width."""
    png = browser.find_element("id", "stage").screenshot_as_png
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    y = round(0.95 * pixels.shape[0])
    row = [tuple(pixels[y, round(share * (pixels.shape[1] - 1))]) for share in shares]
    names = {colour: name for name, colour in COLOURS.items()}
    return [names.get(colour, f"nothing known: {colour}") for colour in row]


def no_complaints(browser) -> bool:
    return browser.get_log("browser") == []


def test_the_slider_follows_mouse_and_keys(browser, tmp_path: Path):
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.support.select import Select

    open_page(browser, write_page(tmp_path / "out", results_in(tmp_path, ["1", "2", "10"])))
    assert colours_at(browser, 0.2, 0.8) == ["rainy input", "first"]
    stage = browser.find_element("id", "stage")
    width = stage.size["width"]
    drag = ActionChains(browser).move_to_element(stage).click_and_hold()
    drag.move_by_offset(round(0.4 * width), 0).release().perform()
    assert colours_at(browser, 0.2, 0.8, 0.97) == ["rainy input", "rainy input", "first"]

    split = browser.find_element("id", "split")
    before = float(split.get_property("value"))
    split.send_keys(Keys.ARROW_LEFT)
    assert float(split.get_property("value")) == before - 1
    split.send_keys(Keys.HOME)
    assert colours_at(browser, 0.1, 0.9) == ["first", "first"]
    split.send_keys(Keys.END)
    assert colours_at(browser, 0.1, 0.9) == ["rainy input", "rainy input"]

    Select(browser.find_element("id", "left")).select_by_visible_text("second")
    wait_for_images(browser)
    assert colours_at(browser, 0.1) == ["second"]
    assert "second" in browser.find_element("id", "left-score").text
    split.send_keys("x")  # exchanges the sides
    wait_for_images(browser)
    assert colours_at(browser, 0.1) == ["first"]
    split.send_keys("nn")
    assert browser.find_element("id", "name").text == "10 (3 of 3)"
    assert no_complaints(browser)


def test_the_tab_key_reaches_the_slider(browser, tmp_path: Path):
    from selenium.webdriver import ActionChains, Keys

    open_page(browser, write_page(tmp_path / "out", results_in(tmp_path, ["1"])))
    reached = []
    for _ in range(30):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.append(browser.switch_to.active_element.get_attribute("id"))
        if reached[-1] == "split":
            break
    assert reached[-1] == "split" and "left" in reached and "next" in reached
    assert browser.find_element("id", "split").get_attribute("aria-label")


def test_the_tables_sort(browser, tmp_path: Path):
    results = results_in(tmp_path, ["1", "2", "10"])
    for number, image in enumerate(results[1].images):
        image.scores = (20.0 + number, 0.5)
    results[2].images[0].scores = (float("inf"), 1.0)
    open_page(browser, write_page(tmp_path / "out", results))

    def column(table: str, index: int) -> list[str]:
        rows = browser.find_elements("css selector", f"#{table} tbody tr")
        return [row.find_elements("css selector", "th, td")[index].text for row in rows]

    def click(table: str, index: int) -> str:
        heads = browser.find_elements("css selector", f"#{table} thead tr:last-child th")
        heads[index].find_element("tag name", "button").click()
        heads = browser.find_elements("css selector", f"#{table} thead tr:last-child th")
        return heads[index].get_attribute("aria-sort")

    assert column("scores", 0) == ["rainy input", "first", "second"]
    assert click("scores", 1) == "descending"
    assert column("scores", 0)[0] == "second" and column("scores", 1)[0] == "inf"
    assert click("scores", 1) == "ascending"
    assert column("scores", 0)[-1] == "second"

    assert column("images", 0) == ["1", "2", "10"]
    assert click("images", 3) == "descending"  # PSNR of the first method
    assert column("images", 3) == ["22.00", "21.00", "20.00"]
    assert click("images", 0) == "ascending"
    assert column("images", 0) == ["1", "2", "10"]  # 10 behind 2
    browser.find_elements("css selector", "#images tbody tr")[1].click()
    assert browser.find_element("id", "name").text.startswith("2 ")
    assert no_complaints(browser)


def test_any_file_name(browser, tmp_path: Path):
    path = write_page(tmp_path / "out & <b>", results_in(tmp_path, [AWKWARD]))
    open_page(browser, path)
    assert colours_at(browser, 0.2, 0.8) == ["rainy input", "first"]
    assert browser.find_element("id", "name").text.startswith(AWKWARD)
    assert no_complaints(browser)


def test_embedded_images_need_no_other_file(browser, tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    path = write_page(tmp_path / "out", results_in(source, ["1", "2"]), embed=True)
    shutil.rmtree(source)
    open_page(browser, path)
    assert colours_at(browser, 0.2, 0.8) == ["rainy input", "first"]
    assert no_complaints(browser)


def test_thousands_of_images_are_not_loaded_at_once(browser, tmp_path: Path):
    from selenium.webdriver import Keys

    (few,) = results_in(tmp_path, ["1"])[1:2]
    image = few.images[0]
    many = [
        ImageResult(f"night-{i}", image.restored, image.clean, (20 + i / 1000, 0.5))
        for i in range(5000)
    ]
    open_page(browser, write_page(tmp_path / "out", [JobResult(few.job, many, len(many))]))
    assert len(browser.find_elements("tag name", "img")) == 2
    loaded = "return performance.getEntriesByType('resource').length"
    assert browser.execute_script(loaded) <= 2
    assert len(browser.find_elements("css selector", "#images tbody tr")) == 50
    assert "page 1 of 100" in browser.find_element("id", "page").text
    find = browser.find_element("id", "find")
    find.send_keys("4321")
    assert browser.find_element("id", "page").text == "page 1 of 1, 1 images"
    browser.find_element("id", "next").click()
    assert browser.find_element("id", "name").text == "night-4321 (4322 of 5000)"
    find.send_keys(Keys.CONTROL, "a", Keys.DELETE)
    browser.find_element("id", "page-on").click()
    assert "page 2 of 100" in browser.find_element("id", "page").text
    assert no_complaints(browser)


def test_a_missing_image_is_said(browser, tmp_path: Path):
    results = results_in(tmp_path, ["1", "2"])
    results[1].images[0] = ImageResult("1", problem="missing: first has no result named 1")
    (tmp_path / "rainy input" / "2.png").unlink()
    browser.get(write_page(tmp_path / "out", results).as_uri())
    trouble = browser.find_element("id", "trouble")
    assert "first has no such image" in trouble.text
    assert "no score" in browser.find_element("id", "right-score").text
    browser.find_element("id", "next").click()
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, 10).until(lambda _: "Cannot show ../rainy input/2.png" in trouble.text)
    browser.get_log("browser")  # the missing file is in it


def test_the_page_asks_for_nothing_from_the_network(tmp_path: Path):
    page = write_page(tmp_path / "out", results_in(tmp_path, ["1"])).read_text(encoding="utf-8")
    assert "http" not in page and "//cdn" not in page and "@import" not in page


def test_too_many_images_to_embed_are_refused(tmp_path: Path):
    job = ScoringJob("m", "wet", "rain13k", tmp_path, tmp_path)
    images = [ImageResult(str(i), scores=(1.0, 1.0)) for i in range(3000)]
    with pytest.raises(UserError, match="3000 images"):
        write_page(tmp_path / "out", [JobResult(job, images, 3000)], embed=True)
