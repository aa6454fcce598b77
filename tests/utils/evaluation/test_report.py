"""report.html: its contents, and its pictures in a real browser with three screen sizes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import cv2
import numpy as np
import pytest

from tests.utils.evaluation.browser import (
    box,
    open_page,
    pixels,
    set_screen,
    swipe,
    wait_for_images,
    wait_until,
)
from tests.utils.evaluation.report_pages import (
    AWKWARD,
    CLEAN,
    COLOURS,
    click,
    colours_at,
    open_report,
    press,
    results_in,
    text,
    without,
    write_page,
)
from utils.errors import UserError
from utils.evaluation.report import ERROR_RANGE, report_page
from utils.evaluation.score_cache import Remark
from utils.evaluation.scoring import ImageResult, JobResult, ScoringJob
from utils.evaluation.table import build_table

extras = pytest.mark.extras


# --- contents of the page ------------------------------------------------------------------------


def test_the_page_needs_nothing_from_the_network(tmp_path: Path):
    page = write_page(tmp_path / "out", results_in(tmp_path, ["1"])).read_text(encoding="utf-8")
    assert "http" not in page and "//cdn" not in page and "@import" not in page
    assert len(page) < 150_000
    assert "<!--" not in page


def test_missing_results_are_shown_prominently(tmp_path: Path):
    results = results_in(tmp_path, [str(i) for i in range(1, 31)])
    for image in range(20):
        without(results, 1, image)
    for image in results[2].images[:14]:
        image.scores, image.problem = None, f"{image.restored} is unreadable"
    path = write_page(tmp_path / "out", results, unmatched=["extra: results/m/nowhere"])
    page = path.read_text(encoding="utf-8")
    above, _, folded = page.partition("<details>")
    assert "INCOMPLETE: 34 images not scored" in above
    names = ", ".join(str(i) for i in range(1, 21))
    assert f"first on wet: 20 images missing in {tmp_path / 'first'}: {names}<" in above
    assert "second/11.png is unreadable" in above and "second/12.png is unreadable" in folded
    assert "second/12.png is unreadable" not in above and "extra: results/m/nowhere" in folded
    assert "†: this mean is incomplete" in page


def test_remarks_and_facts_are_shown(tmp_path: Path):
    results = results_in(tmp_path, ["1", "2"])
    results[1].images[0].remarks.append(Remark("gray", "a <gray> result"))
    results[1].images.append(ImageResult("3", tmp_path / "3.png", problem="extra: 3.png"))
    facts = {"first": {"parameters": "2.5 & more"}}
    table = build_table(results, published=True, method_facts=facts)
    page = report_page(results, table, tmp_path)
    assert "1 remark on images" in page and "1.png: a &lt;gray&gt; result" in page
    assert "<h2>1 problem</h2>" in page and "INCOMPLETE" not in page  # the table is complete
    assert '<th scope="col">params (M)</th>' in page and "<td>2.5 &amp; more</td>" in page


def test_bold_and_underlined_scores_are_explained(tmp_path: Path):
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

    open_report(browser, tmp_path, results_in(tmp_path, ["1", "2", "10"]))
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
    split.send_keys("x")  # swaps the sides
    wait_for_images(browser)
    assert colours_at(browser, 0.1) == ["first"]
    press(browser, "nn")
    assert text(browser, "#name") == "10 (3 of 3)"


@extras
def test_the_tab_key_reaches_the_slider(browser: Any, tmp_path: Path):
    from selenium.webdriver import Keys

    open_report(browser, tmp_path, results_in(tmp_path, ["1"]))
    reached = []
    while "split" not in reached and len(reached) < 40:
        press(browser, Keys.TAB)
        reached.append(browser.switch_to.active_element.get_attribute("id"))
    assert reached[-1] == "split" and {"a", "b", "errors", "next"} <= set(reached)
    assert browser.find_element("id", "split").get_attribute("aria-label")


@extras
def test_space_blinks_between_two(browser: Any, tmp_path: Path):
    open_report(browser, tmp_path, results_in(tmp_path, ["1", "2"]))
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
    press(browser, " ")  # in a text field, it types a space
    assert colours_at(browser, 0.2) == ["rainy input"]


@extras
def test_error_maps_equal_those_of_numpy(browser: Any, tmp_path: Path):
    import matplotlib

    results = results_in(tmp_path, ["1"])
    rng = np.random.default_rng(3)
    clean, restored = rng.integers(0, 256, (2, 120, 320, 3), np.uint8)
    restored[:60] = clean[:60] // 4 * 4 + 3  # small errors above, large ones below
    restored[:10] = clean[:10]
    cv2.imwrite(str(tmp_path / "clean" / "1.png"), clean[..., ::-1])
    cv2.imwrite(str(tmp_path / "first" / "1.png"), restored[..., ::-1])
    words = {"a": "first", "b": "first", "mode": "blink", "errors": 1, "zoom": 1, "at": "160,60"}
    open_report(browser, tmp_path, results, **words)
    seen = pixels(browser, ".pane.a .window")
    top, left = (seen.shape[0] - 120) // 2, (seen.shape[1] - 320) // 2
    seen = seen[top : top + 120, left : left + 320].astype(int)

    error = np.abs(restored.astype(float) - clean).mean(axis=2)
    colours = matplotlib.colormaps["inferno"](np.minimum(error / ERROR_RANGE, 1))[..., :3] * 255
    assert np.abs(seen - colours).max() <= 8  # two colour tables of 256 entries each
    assert np.abs(seen - colours).mean() < 1.5
    assert text(browser, "#legend").startswith("|restored")


@extras
def test_unusual_file_names(browser: Any, tmp_path: Path):
    path = write_page(tmp_path / "out & <b>", results_in(tmp_path, [AWKWARD]))
    open_page(browser, path)
    assert colours_at(browser, 0.2, 0.8) == ["rainy input", "first"]
    assert text(browser, "#name").startswith(AWKWARD)


@extras
def test_a_page_with_embedded_images_needs_no_other_file(browser: Any, tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    path = write_page(tmp_path / "out", results_in(source, ["1", "2"]), embed=True)
    shutil.rmtree(source)
    open_page(browser, path)
    assert colours_at(browser, 0.2, 0.8) == ["rainy input", "first"]


# --- all methods, zoom and touch -----------------------------------------------------------------


@extras
def test_all_methods_move_together(any_screen: Any, tmp_path: Path):
    browser = any_screen
    results = results_in(tmp_path, ["1"])
    for folder in (*COLOURS, "clean"):  # colours encode the place: red is x, green is y
        y, x = np.mgrid[0:120, 0:320]
        image = np.stack([np.full_like(x, 80), 2 * y, x * 0.75], axis=2).astype(np.uint8)
        cv2.imwrite(str(tmp_path / folder / "1.png"), image)
    open_report(browser, tmp_path, results, mode="all", zoom=8, at="80,60")
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


@extras
def test_a_swipe_moves_the_enlarged_picture_and_its_handle_the_slider(started: Any, tmp_path: Path):
    browser = started
    set_screen(browser, 390, 844, touch=True)
    open_report(browser, tmp_path, results_in(tmp_path, ["1"]), zoom=4, at="160,60")
    browser.execute_script("document.getElementById('stage').scrollIntoView({block: 'center'})")
    area = box(browser, "#stage")
    state = "return [view.split, ...view.centre]"
    y = area["top"] + 0.3 * area["height"]
    split, x_before, y_before = browser.execute_script(state)
    swipe(browser, [(300 - 20 * i, y + 3 * i) for i in range(6)])  # 100 px left, 15 px down
    assert browser.execute_script(state) == pytest.approx(
        [split, x_before + 25, y_before - 15 / 4], abs=1.5
    )
    # the picture can be moved up to its very edge
    for _ in range(8):
        swipe(browser, [(370 - 60 * i, y) for i in range(6)])
    assert browser.execute_script(state)[1] == pytest.approx(320 - area["width"] / 8, abs=0.5)

    handle = box(browser, "#handle")
    assert handle["width"] >= 44
    start = handle["left"] + handle["width"] / 2
    swipe(browser, [(start - 15 * i, y) for i in range(6)])
    assert browser.execute_script(state)[0] < split - 15

    # not enlarged: a horizontal swipe moves the slider, a vertical one scrolls the page
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
    open_report(browser, tmp_path, results)
    # the page itself does not scroll sideways
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    for selector in ("#scores", "#images"):  # the first column stays in place
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


@extras
def test_the_view_keeps_its_size_if_an_image_is_missing(any_screen: Any, tmp_path: Path):
    browser = any_screen
    results = results_in(tmp_path, ["1", "2"])
    path = open_report(browser, tmp_path, results)
    whole = box(browser, "#stage")["height"]
    assert whole > 200
    without(results, 1, 0)
    without(results, 2, 1)
    (tmp_path / "rainy input" / "2.png").unlink()
    for words in ({"a": "rainy input", "b": "first"}, {"a": "first", "b": "rainy input"}):
        open_report(browser, tmp_path, results, **words)
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
    browser.get_log("browser")  # it contains the error of the missing file


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
        image = ImageResult("1", path, file, scores=(20.0, 0.5), rainy_half="right")
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
