"""report.html: what stands in it, and what it does in a real browser of three sizes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import cv2
import numpy as np
import pytest

from data.results import pair_results
from tests.utils.evaluation.browser import (
    box,
    chromium,
    open_page,
    pixels,
    set_screen,
    swipe,
    wait_for_images,
    wait_until,
)
from utils.errors import UserError
from utils.evaluation.report import ERROR_RANGE, report_page
from utils.evaluation.score_cache import Remark, ScoreCache
from utils.evaluation.scoring import ImageResult, JobResult, ScoringJob, score_jobs
from utils.evaluation.table import build_table

COLOURS = {"rainy input": (200, 0, 0), "first": (0, 160, 0), "second": (0, 0, 220)}
CLEAN = (90, 90, 90)
AWKWARD = 'a "b" <!--<script> #1 100%&amp; é'
SCREENS = {1440: (1440, 900, False), 1024: (1024, 768, False), 390: (390, 844, True)}

extras = pytest.mark.extras


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(started: Any) -> Any:
    set_screen(started, 1000, 900)
    started.get_log("browser")
    return started


@pytest.fixture(params=SCREENS)
def any_screen(started: Any, request: pytest.FixtureRequest) -> Any:
    width, height, touch = SCREENS[request.param]
    set_screen(started, width, height, touch=touch)
    started.get_log("browser")
    return started


def results_in(folder: Path, stems: list[str]) -> list[JobResult]:
    """Three "methods" that are images of one colour each, against clean ones that are gray."""
    for name, colour in {**COLOURS, "clean": CLEAN}.items():
        (folder / name).mkdir()
        for number, stem in enumerate(stems):
            image = np.full((120, 320, 3), colour[::-1], np.uint8)
            image[: 5 * number] = 90  # each image has another score
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


def without(results: list[JobResult], method: int, image: int) -> None:
    """Take an image away from a method."""
    stem = results[method].images[image].stem
    name = results[method].job.method
    problem = f"missing: {name} has no result named {stem}"
    results[method].images[image] = ImageResult(stem, problem=problem)


def colours_at(browser: Any, *shares: float, of: str = "#stage") -> list[str]:
    """Which method is seen below the middle of an element at these shares of its width."""
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


def no_complaints(browser: Any) -> bool:
    return browser.get_log("browser") == []


# --- what stands in the page ---------------------------------------------------------------------


def test_the_page_asks_for_nothing_from_the_network(tmp_path: Path):
    page = write_page(tmp_path / "out", results_in(tmp_path, ["1"])).read_text(encoding="utf-8")
    assert "http" not in page and "//cdn" not in page and "@import" not in page
    assert len(page) < 150_000
    assert "<!--" not in page


def test_what_is_missing_stands_in_plain_sight(tmp_path: Path):
    results = results_in(tmp_path, [str(i) for i in range(1, 31)])
    for image in range(20):
        without(results, 1, image)
    for image in results[2].images[:14]:
        image.scores, image.problem = None, f"{image.restored} is no image"
    path = write_page(tmp_path / "out", results, unmatched=["extra: results/m/nowhere"])
    page = path.read_text(encoding="utf-8")
    above, _, folded = page.partition("<details>")
    assert "INCOMPLETE: 34 images not scored" in above
    names = ", ".join(str(i) for i in range(1, 21))
    assert f"first on wet: 20 images missing in {tmp_path / 'first'}: {names}<" in above
    assert "second/11.png is no image" in above and "second/12.png is no image" in folded
    assert "second/12.png is no image" not in above and "extra: results/m/nowhere" in folded
    assert "†: this mean leaves images out" in page


def test_what_is_told_of_scored_images_and_methods(tmp_path: Path):
    results = results_in(tmp_path, ["1", "2"])
    results[1].images[0].remarks.append(Remark("gray", "a <gray> result"))
    results[1].images.append(ImageResult("3", tmp_path / "3.png", problem="extra: 3.png"))
    facts = {"first": {"parameters": "2.5 & more"}}
    table = build_table(results, published=True, method_facts=facts)
    page = report_page(results, table, tmp_path)
    assert "1 remark on images" in page and "1.png: a &lt;gray&gt; result" in page
    assert "<h2>1 problem</h2>" in page and "INCOMPLETE" not in page  # nothing is left out
    assert '<th scope="col">params (M)</th>' in page and "<td>2.5 &amp; more</td>" in page


def test_bold_and_underlined_are_explained(tmp_path: Path):
    page = write_page(tmp_path / "out", results_in(tmp_path, ["1"])).read_text(encoding="utf-8")
    assert "<b>Bold</b>: the best of a column; <u>underlined</u>: the second best." in page
    assert "INCOMPLETE" not in page


def test_too_many_images_to_embed_are_refused(tmp_path: Path):
    job = ScoringJob("m", "wet", "rain13k", tmp_path, tmp_path)
    images = [ImageResult(str(i), scores=(1.0, 1.0)) for i in range(3000)]
    with pytest.raises(UserError, match="3000 images"):
        write_page(tmp_path / "out", [JobResult(job, images, 3000)], embed=True)


# --- comparing two -------------------------------------------------------------------------------


@extras
def test_the_slider_follows_mouse_and_keys(browser: Any, tmp_path: Path):
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.support.select import Select

    open_page(browser, write_page(tmp_path / "out", results_in(tmp_path, ["1", "2", "10"])))
    best = text(browser, "#b-score")
    assert colours_at(browser, 0.2, 0.8) == ["rainy input", "first"] and "PSNR" in best
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

    Select(browser.find_element("id", "a")).select_by_visible_text("second")
    wait_for_images(browser)
    assert colours_at(browser, 0.1) == ["second"]
    split.send_keys("x")  # exchanges the sides
    wait_for_images(browser)
    assert colours_at(browser, 0.1) == ["first"]
    press(browser, "nn")
    assert text(browser, "#name") == "10 (3 of 3)"
    assert no_complaints(browser)


@extras
def test_the_tab_key_reaches_the_slider(browser: Any, tmp_path: Path):
    from selenium.webdriver import Keys

    open_page(browser, write_page(tmp_path / "out", results_in(tmp_path, ["1"])))
    reached = []
    while "split" not in reached and len(reached) < 40:
        press(browser, Keys.TAB)
        reached.append(browser.switch_to.active_element.get_attribute("id"))
    assert reached[-1] == "split" and {"a", "b", "errors", "next"} <= set(reached)
    assert browser.find_element("id", "split").get_attribute("aria-label")


@extras
def test_space_blinks_between_two(browser: Any, tmp_path: Path):
    open_page(browser, write_page(tmp_path / "out", results_in(tmp_path, ["1", "2"])))
    for seen in ("rainy input", "first", "rainy input"):
        press(browser, " ")
        assert colours_at(browser, 0.2, 0.8) == [seen, seen]
    click(browser, "#next")  # the space bar still blinks after a click on a button
    wait_for_images(browser)
    press(browser, " ")
    assert text(browser, "#name").startswith("2 ") and colours_at(browser, 0.2) == ["first"]
    click(browser, "#stage")
    assert colours_at(browser, 0.2) == ["rainy input"]
    click(browser, "#find")
    press(browser, " ")  # a letter like any other there
    assert colours_at(browser, 0.2) == ["rainy input"]


@extras
def test_error_maps_show_what_numpy_computes(browser: Any, tmp_path: Path):
    import matplotlib

    results = results_in(tmp_path, ["1"])
    rng = np.random.default_rng(3)
    clean, restored = rng.integers(0, 256, (2, 120, 320, 3), np.uint8)
    restored[:60] = clean[:60] // 4 * 4 + 3  # small errors above, large ones below
    restored[:10] = clean[:10]
    cv2.imwrite(str(tmp_path / "clean" / "1.png"), clean[..., ::-1])
    cv2.imwrite(str(tmp_path / "first" / "1.png"), restored[..., ::-1])
    words = urlencode(
        {"a": "first", "b": "first", "mode": "blink", "errors": 1, "zoom": 1, "at": "160,60"}
    )
    open_page(browser, write_page(tmp_path / "out", results), f"#{words}")
    seen = pixels(browser, ".pane.a .window")
    top, left = (seen.shape[0] - 120) // 2, (seen.shape[1] - 320) // 2
    seen = seen[top : top + 120, left : left + 320].astype(int)

    error = np.abs(restored.astype(float) - clean).mean(axis=2)
    colours = matplotlib.colormaps["inferno"](np.minimum(error / ERROR_RANGE, 1))[..., :3] * 255
    assert np.abs(seen - colours).max() <= 8  # two colour tables of 256 entries
    assert np.abs(seen - colours).mean() < 1.5
    assert text(browser, "#legend").startswith("|restored")


@extras
def test_any_file_name(browser: Any, tmp_path: Path):
    path = write_page(tmp_path / "out & <b>", results_in(tmp_path, [AWKWARD]))
    open_page(browser, path)
    assert colours_at(browser, 0.2, 0.8) == ["rainy input", "first"]
    assert text(browser, "#name").startswith(AWKWARD)
    assert no_complaints(browser)


@extras
def test_embedded_images_need_no_other_file(browser: Any, tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    path = write_page(tmp_path / "out", results_in(source, ["1", "2"]), embed=True)
    shutil.rmtree(source)
    open_page(browser, path)
    assert colours_at(browser, 0.2, 0.8) == ["rainy input", "first"]
    assert no_complaints(browser)


# --- all methods, zoom and touch -----------------------------------------------------------------


@extras
def test_all_methods_move_together(any_screen: Any, tmp_path: Path):
    browser = any_screen
    results = results_in(tmp_path, ["1"])
    for folder in (*COLOURS, "clean"):  # colours that tell the place: red is x, green is y
        y, x = np.mgrid[0:120, 0:320]
        image = np.stack([np.full_like(x, 80), 2 * y, x * 0.75], axis=2).astype(np.uint8)
        cv2.imwrite(str(tmp_path / folder / "1.png"), image)
    words = urlencode({"mode": "all", "zoom": 8, "at": "80,60"})
    open_page(browser, write_page(tmp_path / "out", results), f"#{words}")
    names = [f.get_attribute("data-method") for f in browser.find_elements("class name", "pane")]
    assert names == [*COLOURS, "clean"]

    def centres() -> list[list[int]]:
        seen = [pixels(browser, f"[data-method='{name}'] .window") for name in names]
        return [s[s.shape[0] // 2, s.shape[1] // 2].tolist() for s in seen]

    before = centres()
    assert before == [before[0]] * 4 and abs(before[0][0] - 60) <= 2
    browser.execute_script("document.getElementById('stage').scrollIntoView({block: 'center'})")
    area = box(browser, "[data-method='first'] .window")
    middle = (area["left"] + area["width"] / 2, area["top"] + area["height"] / 2)
    if area["width"] < 300:
        swipe(browser, [(middle[0] - 8 * i, middle[1]) for i in range(6)])
    else:
        from selenium.webdriver import ActionChains

        window = browser.find_element("css selector", "[data-method='first'] .window")
        drag = ActionChains(browser).move_to_element(window).click_and_hold()
        drag.move_by_offset(-20, 0).move_by_offset(-20, 0).release().perform()
    after = centres()
    assert after == [after[0]] * 4
    assert after[0][0] - before[0][0] == pytest.approx(0.75 * 40 / 8, abs=1.1)  # 5 px to the left
    assert no_complaints(browser)


@extras
def test_a_swipe_moves_the_enlarged_picture_and_its_handle_the_slider(started: Any, tmp_path: Path):
    browser = started
    set_screen(browser, 390, 844, touch=True)
    path = write_page(tmp_path / "out", results_in(tmp_path, ["1"]))
    open_page(browser, path, "#" + urlencode({"zoom": 4, "at": "160,60"}))
    browser.execute_script("document.getElementById('stage').scrollIntoView({block: 'center'})")
    area = box(browser, "#stage")
    state = "return [view.split, ...view.centre]"
    y = area["top"] + 0.3 * area["height"]
    split, x_before, y_before = browser.execute_script(state)
    swipe(browser, [(300 - 20 * i, y + 3 * i) for i in range(6)])  # 100 px left, 15 px down
    assert browser.execute_script(state) == pytest.approx(
        [split, x_before + 25, y_before - 15 / 4], abs=1.5
    )
    # to the very edge: nothing of the picture is out of reach
    for _ in range(8):
        swipe(browser, [(370 - 60 * i, y) for i in range(6)])
    assert browser.execute_script(state)[1] == pytest.approx(320 - area["width"] / 8, abs=0.5)

    handle = box(browser, "#handle")
    assert handle["width"] >= 44
    start = handle["left"] + handle["width"] / 2
    swipe(browser, [(start - 15 * i, y) for i in range(6)])
    assert browser.execute_script(state)[0] < split - 15

    # the whole picture: across moves the slider, down scrolls the page
    click(browser, "#fit")
    browser.execute_script("document.getElementById('stage').scrollIntoView({block: 'center'})")
    area = box(browser, "#stage")
    y = area["top"] + 0.6 * area["height"]
    swipe(browser, [(60 + 20 * i, y) for i in range(11)])
    assert browser.execute_script(state)[0] > 60
    scrolled = browser.execute_script("return scrollY")
    swipe(browser, [(60, y - 20 * i) for i in range(8)])
    wait_until(browser, f"scrollY > {scrolled + 50}")


@extras
def test_every_size_of_screen(any_screen: Any, tmp_path: Path):
    browser = any_screen
    results = results_in(tmp_path, [f"night {i}" for i in range(12)])
    without(results, 1, 0)
    open_page(browser, write_page(tmp_path / "out", results))
    # the page itself does not move sideways
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    for selector in ("#scores", "#images"):  # the first column stays
        browser.execute_script(
            "document.querySelector(arguments[0]).parentElement.scrollLeft = 200", selector
        )
        frame = box(browser, f".wide:has({selector})")["left"]
        assert box(browser, f"{selector} tbody th")["left"] == pytest.approx(frame + 1, abs=1)
    if browser.execute_script("return matchMedia('(pointer: coarse)').matches"):
        small = browser.execute_script(
            "return [...document.querySelectorAll('button, select, [type=search], summary, #link')]"
            ".filter(e => e.offsetParent && e.getBoundingClientRect().height < 43.5)"
            ".map(e => e.id + e.textContent)"
        )
        assert small == []
    assert no_complaints(browser)


@extras
def test_a_missing_image_leaves_the_view_its_size(any_screen: Any, tmp_path: Path):
    browser = any_screen
    results = results_in(tmp_path, ["1", "2"])
    path = write_page(tmp_path / "out", results)
    open_page(browser, path)
    whole = box(browser, "#stage")["height"]
    assert whole > 200
    without(results, 1, 0)
    without(results, 2, 1)
    (tmp_path / "rainy input" / "2.png").unlink()
    for words in ({"a": "rainy input", "b": "first"}, {"a": "first", "b": "rainy input"}):
        open_page(browser, write_page(tmp_path / "out", results), "#" + urlencode(words))
        assert box(browser, "#stage")["height"] == whole
        side = "ab"[words["b"] == "first"]
        assert text(browser, f".pane.{side} .absent") == "first has no image 1."
        assert "no score" in text(browser, f"#{side}-score")
    assert "missing: first has no result named 1" in text(browser, ".problems")
    assert text(browser, "#images tbody tr:first-child .absent-score") == "missing"

    browser.get("about:blank")
    browser.get(path.as_uri() + "#" + urlencode({"image": "2", "b": "second"}))
    wait_until(browser, "document.querySelector('.pane.a .absent').textContent")
    assert "Cannot show ../rainy input/2.png" in text(browser, ".pane.a .absent")
    assert text(browser, ".pane.b .absent") == "second has no image 2."
    browser.get_log("browser")  # the file that is gone is in it


@extras
@pytest.mark.parametrize("embed", [False, True])
def test_files_with_rainy_and_clean_side_by_side(browser: Any, tmp_path: Path, embed: bool):
    (tmp_path / "pairs").mkdir()
    (tmp_path / "first").mkdir()
    pair = np.zeros((120, 640, 3), np.uint8)
    pair[:, :320], pair[:, 320:] = CLEAN, COLOURS["rainy input"]
    file, restored = tmp_path / "pairs" / "1.png", tmp_path / "first" / "1.png"
    cv2.imwrite(str(file), pair[..., ::-1])
    cv2.imwrite(str(restored), np.full((120, 320, 3), COLOURS["first"][::-1], np.uint8))
    results = []
    for name, path in (("rainy input", file), ("first", restored)):
        job = ScoringJob(name, "wet", "rain13k", path.parent, file.parent, name == "rainy input")
        image = ImageResult("1", path, file, scores=(20.0, 0.5), side_by_side=True)
        results.append(JobResult(job, [image], 1))
    page = write_page(tmp_path / "out", results, embed=embed)
    open_page(browser, page, "#mode=all")
    for name in ("rainy input", "first", "clean"):
        assert colours_at(browser, 0.3, 0.7, of=f"[data-method='{name}'] .window") == [name] * 2
    click(browser, "#errors")
    wait_for_images(browser)
    dark = pixels(browser, "[data-method='clean'] .window")
    middle = dark.shape[1] // 2
    assert dark[5:-5, middle - 140 : middle + 140].max() <= 4
    open_page(browser, page, "#a=rainy+input&b=clean")
    assert colours_at(browser, 0.1, 0.9) == ["rainy input", "clean"]
    assert no_complaints(browser)


# --- the list, the distribution, the link --------------------------------------------------------


def column(browser: Any, table: str, index: int) -> list[str]:
    rows = browser.find_elements("css selector", f"#{table} tbody tr")
    return [row.find_elements("css selector", "th, td")[index].text for row in rows]


def sort(browser: Any, table: str, index: int) -> str | None:
    """Click a column's heading; how it is sorted then."""
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
    open_page(browser, write_page(tmp_path / "out", results))

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
    assert column(browser, "images", 0) == ["1", "2", "10"]  # 10 behind 2
    browser.find_elements("css selector", "#images tbody tr")[1].click()
    assert text(browser, "#name").startswith("2 ")
    assert no_complaints(browser)


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
    words = urlencode({"a": "first", "b": "second"})
    open_page(browser, write_page(tmp_path / "out", results), f"#{words}")
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
    assert no_complaints(browser)


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
    open_page(browser, write_page(tmp_path / "out", results), "#image=5&a=first&b=second")
    labels = "return [...document.querySelectorAll('#plot .method')].map(t => t.firstChild.data)"
    assert browser.execute_script(labels) == [
        "rainy input", "A  first (1 infinite)", "B  second",
    ]  # fmt: skip
    path = browser.find_element("css selector", "#plot .row.a .dots").get_attribute("d")
    dots = np.array([part.rstrip("h0").split() for part in path.split("M")[1:]], float)
    assert len(dots) == 38
    # the dots lie on the line through two ticks
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
    assert no_complaints(browser)


@extras
def test_a_link_opens_one_image_of_one_pair_of_methods(browser: Any, tmp_path: Path):
    path = write_page(tmp_path / "out", results_in(tmp_path, ["1", "2", AWKWARD]))
    words = {"set": "wet", "image": AWKWARD, "a": "second", "b": "first"}
    open_page(browser, path, "#" + urlencode(words))
    assert colours_at(browser, 0.2, 0.8) == ["second", "first"]
    assert text(browser, "#name").startswith(AWKWARD)
    click(browser, "#next")  # the last: nothing happens
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

    open_page(browser, path, "#image=3&b=nobody")
    assert text(browser, "#trouble") == (
        "The link asks for image 3, b nobody, which this page does not have."
    )
    assert colours_at(browser, 0.2, 0.8) == ["rainy input", "first"]
    assert no_complaints(browser)


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
    open_page(browser, write_page(tmp_path / "out", [*results, *more]), "#b=second&image=2")
    browser.find_elements("css selector", "#sets button")[1].click()
    wait_for_images(browser)
    assert text(browser, "#name") == "1 (1 of 1)" and "set=night" in browser.current_url
    assert len(browser.find_elements("css selector", "#plot .row")) == 2
    assert colours_at(browser, 0.2, 0.8) == ["rainy input", "first"]
    assert no_complaints(browser)


@extras
def test_thousands_of_images_are_not_loaded_at_once(browser: Any, tmp_path: Path):
    from selenium.webdriver import Keys

    (few,) = results_in(tmp_path, ["1"])[1:2]
    image = few.images[0]
    many = [
        ImageResult(f"night-{i}", image.restored, image.clean, (20 + i / 1000, 0.5))
        for i in range(5000)
    ]
    open_page(browser, write_page(tmp_path / "out", [JobResult(few.job, many, len(many))]))
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
    assert no_complaints(browser)
