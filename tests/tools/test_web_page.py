"""The local page: what it does to a photograph, and the page itself in a real Chromium."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import cv2
import numpy as np
import pytest
import torch

from models import build_model, load_weights
from tests.helpers import read_until, smooth_image, start_script
from tests.utils.evaluation.browser import chromium, set_screen
from tools import web_page
from utils import images
from utils.checkpoints import Weights, write_weights
from utils.errors import UserError
from utils.inference.restorer import Restorer

OPTIONS = {"width": 4, "num_blocks": 1}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = build_model("dmsr_s", OPTIONS)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    write_weights(path, Weights("dmsr_s", OPTIONS, network.state_dict(), {}))
    return path


@pytest.fixture
def deraining(weights: Path) -> web_page.Deraining:
    return web_page.Deraining({"small": lambda: load_weights(weights)}, "cpu", 10_000)


def test_a_photograph_before_and_after(
    deraining: web_page.Deraining, weights: Path, tmp_path: Path
) -> None:
    photo = smooth_image(1, 70, 90)
    images.write_png(tmp_path / "photo.png", photo)
    (tmp_path / "results").mkdir()
    steps: list[tuple[int, int]] = []
    for strength in (1.0, 0.0):
        before, after = deraining(
            tmp_path / "photo.png",
            "small",
            strength,
            tmp_path / "results",
            lambda *s: steps.append(s),
        )
        assert (before.name, after.name) == ("photo.png", "photo_derained.png")
        np.testing.assert_array_equal(images.read_rgb(before), photo)
        expected = Restorer(load_weights(weights))(photo) if strength else photo
        np.testing.assert_array_equal(images.read_rgb(after), expected)
    assert steps[-1][0] == steps[-1][1]


def test_what_cannot_be_derained_is_a_sentence(
    deraining: web_page.Deraining, tmp_path: Path
) -> None:
    images.write_png(tmp_path / "large.png", smooth_image(1, 101, 100))
    # A header that promises a picture of 40,000 x 40,000, refused before anything is decoded.
    huge = bytearray((tmp_path / "large.png").read_bytes())
    huge[16:24] = (40_000).to_bytes(4, "big") * 2
    (tmp_path / "huge.png").write_bytes(huge)
    (tmp_path / "text.png").write_text("no photograph")
    for name, sentence in (
        ("large", r"100 x 101 pixels; this page takes up to 0\.01 megapixels"),
        ("huge", "megapixels|not a readable image"),
        ("text", "not a readable image"),
    ):
        with pytest.raises(UserError, match=sentence):
            deraining(tmp_path / f"{name}.png", "small", 1.0, tmp_path, lambda done, total: None)


def test_examples_are_rainy_photographs(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    one, two = (web_page.make_examples(tmp_path / folder) for folder in ("one", "two"))
    assert [path.stem for path in one] == list(web_page.EXAMPLES)
    for first, second in zip(one, two, strict=True):
        assert first.read_bytes() == second.read_bytes()
        clean = images.read_rgb(web_page.skimage_photos()[first.stem])
        rainy = images.read_rgb(first)
        error = rainy.astype(float) - clean[: rainy.shape[0], : rainy.shape[1]]
        assert 5 < np.sqrt((error**2).mean()) < 60


def test_without_gradio_it_says_what_to_install(
    deraining: web_page.Deraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match="pip install gradio"):
        web_page.serve(deraining, tmp_path, web_page.parse_arguments(["--no-browser"]))


@pytest.fixture(scope="module")
def address(weights: Path) -> Iterator[str]:
    pytest.importorskip("gradio", reason="Gradio is not installed")
    server = start_script(
        "tools/web_page.py", "--weights", weights, "--port", 0, "--no-browser",
        "--max-megapixels", 0.3,
    )  # fmt: skip
    try:
        yield read_until(server, "Open http://").split()[1]
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


PICTURES = "[...document.querySelectorAll('#compare img')]"


@pytest.mark.extras
def test_the_page_in_a_browser(address: str, weights: Path, tmp_path: Path) -> None:
    from selenium.webdriver import ActionChains

    with chromium() as browser:
        set_screen(browser, 1200, 900)
        browser.get(address)
        wait(browser, "document.querySelectorAll('#examples img').length == 3")
        browser.find_element("css selector", "#network input").click()
        wait(browser, "document.querySelectorAll('[role=option]').length == 2")
        browser.find_elements("css selector", "[role=option]")[1].click()
        chosen = "document.querySelector('#network input').value"
        wait(browser, f"{chosen}.includes('small.safetensors')")

        # An example, restored as test.py would.
        browser.find_element("css selector", "#examples button").click()
        wait(browser, "document.querySelector('#photo').innerText.includes('astronaut')")
        derain(browser, 480)
        addresses = browser.execute_script(f"return {PICTURES}.map(picture => picture.src)")
        before, after = map(fetch, addresses)
        np.testing.assert_array_equal(after, Restorer(load_weights(weights))(before))
        wait(browser, "!document.querySelector('#download').disabled")

        # The slider uncovers the other picture.
        handle = browser.find_element("css selector", "#compare .outer")
        place = handle.rect["x"]
        ActionChains(browser).drag_and_drop_by_offset(handle, -150, 0).perform()
        assert handle.rect["x"] == pytest.approx(place - 150, abs=5)

        # A photograph of one's own, by the file dialogue; one that is too large; none at all.
        images.write_png(tmp_path / "mine.png", smooth_image(3, 60, 80))
        images.write_png(tmp_path / "large.png", smooth_image(3, 600, 700))
        browser.find_element("css selector", "#photo button[aria-label=Clear]").click()
        upload(browser, tmp_path / "mine.png")
        derain(browser, 80)
        browser.find_element("css selector", "#photo button[aria-label=Clear]").click()
        upload(browser, tmp_path / "large.png")
        browser.find_element("id", "derain").click()
        wait(browser, "document.body.innerText.includes('takes up to 0.3 megapixels')")
        browser.find_element("css selector", "#photo button[aria-label=Clear]").click()
        browser.find_element("id", "derain").click()
        wait(browser, "document.body.innerText.includes('Drop a photo first')")

        # Nothing from other addresses, and nothing that the browser had to refuse.
        hosts = set()
        for entry in browser.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = urlsplit(message["params"]["request"]["url"])
                if url.scheme in ("http", "https", "ws", "wss"):
                    hosts.add(url.hostname)
        assert hosts == {"127.0.0.1"}
        refused = [entry["message"] for entry in browser.get_log("browser")]
        assert not [line for line in refused if "Content Security" in line]


def wait(browser: Any, script: str) -> None:
    """Wait until a JavaScript expression is true; a busy machine takes its time."""
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, 60).until(lambda b: b.execute_script(f"return {script}"))


def derain(browser: Any, width: int) -> None:
    """Press the button; wait for the two pictures of this width."""
    browser.find_element("id", "derain").click()
    wait(browser, f"{PICTURES}.length == 2 && {PICTURES}.every(x => x.naturalWidth == {width})")


def upload(browser: Any, path: Path) -> None:
    wait(browser, "document.querySelector('#photo input[type=file]')")
    browser.find_element("css selector", "#photo input[type=file]").send_keys(str(path))
    wait(browser, f"document.querySelector('#photo').innerText.includes('{path.stem}')")


def fetch(url: str) -> np.ndarray:
    """A PNG of the server as RGB."""
    with urlopen(url) as answer:
        return cv2.imdecode(np.frombuffer(answer.read(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
