"""The player of report.html: a browser shows clips frame by frame and while they play."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data.results import pair_clips
from tests.utils.evaluation.browser import box, open_page, pixels, wait_until
from tests.utils.evaluation.report_pages import click, open_report, press, text, write_page
from tests.utils.inference.video.videos import Kind, write
from utils.evaluation.clips import score_clips
from utils.evaluation.score_cache import ScoreCache
from utils.evaluation.scoring import JobResult, ScoringJob

pytestmark = pytest.mark.extras

COUNT, RATE = 9, 25
METHODS = ("rainy input", "ours", "clean")


def level(method: str, number: int) -> int:
    """The gray level of a frame; the levels of the rainy input and of ours add up to 250."""
    return {"rainy input": 35 + 20 * number, "ours": 215 - 20 * number, "clean": 120}[method]


def clip_results(folder: Path, kind: str, names: tuple[str, ...] = ("a",)) -> list[JobResult]:
    """Clips as .mp4 or other videos, or as folders of frames ("")."""
    for method in METHODS:
        for name in names:
            frames = [np.full((72, 128), level(method, n), np.uint8) for n in range(COUNT)]
            (folder / method / name).mkdir(parents=True)
            if not kind:
                for number, frame in enumerate(frames):
                    cv2.imwrite(str(folder / method / name / f"{number}.png"), frame)
                continue
            (folder / method / name).rmdir()
            # limited range, as the page shows gray: 16..235 becomes 0..255
            lumas = [np.rint(frame / 255 * 219 + 16).astype(np.uint8) for frame in frames]
            neutral = np.full((36, 64), 128, np.uint8)
            codec = {".mp4": "libx264", ".mkv": "ffv1"}[kind]
            planes = [[luma, neutral, neutral] for luma in lumas]
            write(folder / method / name, Kind(kind, codec, options=()), planes)
    jobs = [
        ScoringJob(name, "wet", "rgb", folder / name, folder / "clean", name == "rainy input")
        for name in METHODS[:2]
    ]
    return score_clips([pair_clips(job) for job in jobs], ScoreCache(folder / "kept.json"))


def levels(browser: Any) -> tuple[int, int]:
    """The gray levels visible on the left (rainy input) and on the right (ours)."""
    seen = pixels(browser, "#stage")
    row = seen[round(0.7 * seen.shape[0])]
    at = [round(share * row.shape[0]) for share in (0.25, 0.75)]
    return int(row[at[0]].mean()), int(row[at[1]].mean())


def wait_for_frame(browser: Any, number: int) -> None:
    """Wait until both sides show this frame, because decoding and drawing take time."""
    from selenium.webdriver.support.wait import WebDriverWait

    expected = level("rainy input", number), level("ours", number)
    wait = WebDriverWait(browser, 10, poll_frequency=0.02)
    wait.until(lambda b: np.abs(np.subtract(levels(b), expected)).max() <= 4, str(levels(browser)))
    assert text(browser, "#frame-text") == f"frame {number + 1} of {COUNT}, {number / RATE:.2f} s"


@pytest.mark.parametrize("kind", [".mp4", ""])
def test_both_methods_show_the_same_frame(browser: Any, tmp_path: Path, kind: str) -> None:
    from selenium.webdriver import Keys

    page = open_report(browser, tmp_path, clip_results(tmp_path, kind))
    wait_for_frame(browser, 0)
    press(browser, "..")
    wait_for_frame(browser, 2)
    click(browser, "#frame-on")
    wait_for_frame(browser, 3)
    press(browser, ",")
    wait_for_frame(browser, 2)
    slider = browser.find_element("id", "frame")
    slider.send_keys(Keys.END)
    wait_for_frame(browser, COUNT - 1)
    slider.send_keys(Keys.HOME, Keys.ARROW_RIGHT)
    wait_for_frame(browser, 1)
    link = browser.find_element("id", "link").get_attribute("href")
    assert "frame=2" in link
    open_page(browser, page, link[link.index("#") :])
    wait_for_frame(browser, 1)


@pytest.mark.parametrize("kind", [".mp4", ""])
def test_clips_play_in_step_and_stop_on_the_same_frame(
    browser: Any, tmp_path: Path, kind: str
) -> None:
    open_report(browser, tmp_path, clip_results(tmp_path, kind))
    wait_for_frame(browser, 0)
    press(browser, "lk")  # turns the loop off and plays
    assert text(browser, "#play") == "Pause"
    wait_until(browser, f"player.frame === {COUNT - 1} && !player.playing")
    wait_for_frame(browser, COUNT - 1)
    press(browser, "lk")  # turns the loop on and plays from the start
    wait_until(browser, "player.playing && player.frame > 1 && player.frame < 7")
    press(browser, "k")
    stopped = browser.execute_script("return player.frame")
    wait_for_frame(browser, stopped)
    click(browser, "#play")
    browser.execute_script("window.starts = 0; window.last = 0")
    browser.execute_script(
        "const count = () => { if (player.frame < last) starts += 1; last = player.frame;"
        "requestAnimationFrame(count); }; count()"
    )
    wait_until(browser, "starts >= 2")  # it loops
    click(browser, "[data-mode=all]")  # and continues in another view
    wait_until(browser, "player.playing && document.querySelectorAll('.pane').length === 3")


def test_a_missing_frame_is_reported(browser: Any, tmp_path: Path) -> None:
    results = clip_results(tmp_path, "", ("a", "b"))
    frame = results[1].images[0].frames[2]
    frame.restored, frame.scores, frame.problem = None, None, "missing: no result named a/2"
    page = write_page(tmp_path / "out", results)
    assert "INCOMPLETE: 1 clip not scored in full" in page.read_text(encoding="utf-8")
    open_page(browser, page)
    press(browser, "..")
    wait_until(browser, "document.querySelector('.pane.b .absent').textContent")
    assert text(browser, ".pane.b .absent") == "ours has no frame 3."
    press(browser, ".")
    wait_for_frame(browser, 3)
    assert text(browser, "#page") == "page 1 of 1, 2 clips"
    press(browser, "n")
    wait_for_frame(browser, 0)
    assert text(browser, "#name") == "b (2 of 2)"


def test_videos_that_the_browser_cannot_play_are_reported(browser: Any, tmp_path: Path) -> None:
    page = write_page(tmp_path / "out", clip_results(tmp_path, ".mkv"))
    browser.get(page.as_uri())
    wait_until(browser, "document.querySelector('.pane.b .absent').textContent")
    assert text(browser, ".pane.b .absent").startswith(
        "Cannot play ../ours/a.mkv: it was moved, or"
    )


def test_the_player_fits_every_screen(any_screen: Any, tmp_path: Path) -> None:
    browser = any_screen
    open_report(browser, tmp_path, clip_results(tmp_path, ""))
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    controls = [box(browser, f"#{name}") for name in ("frame-back", "play", "frame", "loop")]
    least = 44 if browser.execute_script("return matchMedia('(pointer: coarse)').matches") else 36
    assert min(control["height"] for control in controls) >= least - 0.5
    assert controls[2]["width"] > 150
