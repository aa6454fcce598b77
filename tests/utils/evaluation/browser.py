"""A real Chromium for the tests of pages, driven by selenium, with mouse, keyboard and touch."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser; the test is skipped if none is installed."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("Chromium or its driver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield started
    finally:
        started.quit()


def set_screen(browser: Any, width: int, height: int, *, touch: bool = False) -> None:
    """Set the size of the viewport in CSS pixels; ``touch`` emulates a phone."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd(
        "Emulation.setTouchEmulationEnabled",
        {"enabled": touch, "maxTouchPoints": 5 if touch else 1},
    )


def open_page(browser: Any, path: Path, fragment: str = "") -> None:
    browser.get("about:blank")  # or a change of the fragment would not reload the page
    browser.get(path.as_uri() + fragment)
    wait_for_images(browser)


def wait_until(browser: Any, script: str) -> None:
    """Wait until a JavaScript expression is true."""
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, 10).until(lambda b: b.execute_script(f"return {script}"))


def wait_for_images(browser: Any) -> None:
    wait_until(
        browser,
        "[...document.querySelectorAll('#panes img')]"
        ".every(i => i.hidden || (i.complete && i.naturalWidth))",
    )


def swipe(browser: Any, places: Sequence[tuple[float, float]]) -> None:
    """Touch the window at the first place, move over the others, and lift the finger."""

    def touch(kind: str, points: Sequence[tuple[float, float]]) -> None:
        browser.execute_cdp_cmd(
            "Input.dispatchTouchEvent",
            {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]},
        )

    touch("touchStart", places[:1])
    for place in places[1:]:
        touch("touchMove", [place])
    touch("touchEnd", [])


def box(browser: Any, selector: str) -> dict[str, float]:
    """Left, top, width and height of an element in the window."""
    script = "return document.querySelector(arguments[0]).getBoundingClientRect().toJSON()"
    return browser.execute_script(script, selector)


def pixels(browser: Any, selector: str) -> np.ndarray:
    """A screenshot of an element, uint8 RGB (H, W, 3)."""
    browser.execute_script(
        "document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector
    )
    area = box(browser, selector)
    scroll = browser.execute_script("return [scrollX, scrollY]")
    clip = {
        "x": area["left"] + scroll[0],
        "y": area["top"] + scroll[1],
        "width": area["width"],
        "height": area["height"],
        "scale": 1,
    }
    shot = browser.execute_cdp_cmd(
        "Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True}
    )
    png = base64.b64decode(shot["data"])
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
