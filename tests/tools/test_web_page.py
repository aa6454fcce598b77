"""The local page: what it does to a photograph, and the page itself in Chromium."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from models import load_weights
from tests.helpers import (
    ROOT,
    read_until,
    smooth_image,
    start_script,
    write_random_weights,
)
from tests.utils.evaluation.browser import chromium, set_screen
from tools import web_deraining, web_page
from utils import images
from utils.errors import UserError
from utils.inference.restorer import Restorer


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_weights(tmp_path_factory.mktemp("weights") / "small.safetensors")


@pytest.fixture
def deraining(weights: Path) -> web_deraining.Deraining:
    return web_deraining.Deraining({"small": lambda: load_weights(weights)}, "cpu", 10_000)


def test_a_photograph_before_and_after(
    deraining: web_deraining.Deraining, weights: Path, tmp_path: Path
) -> None:
    photo = smooth_image(1, 70, 90)
    images.write_png(tmp_path / "photo.png", photo)
    (tmp_path / "results").mkdir()
    steps: list[tuple[int, int]] = []
    for strength in (1.0, 0.0):
        before, after, notes = deraining(
            tmp_path / "photo.png",
            "small",
            strength,
            tmp_path / "results",
            lambda *s: steps.append(s),
        )
        assert (before.name, after.name, notes) == ("photo.png", "photo_derained.png", [])
        np.testing.assert_array_equal(images.read_rgb(before), photo)
        expected = Restorer(load_weights(weights))(photo) if strength else photo
        np.testing.assert_array_equal(images.read_rgb(after), expected)
    assert steps[-1][0] == steps[-1][1]


def test_what_cannot_be_derained_is_a_sentence(
    deraining: web_deraining.Deraining, tmp_path: Path
) -> None:
    images.write_png(tmp_path / "large.png", smooth_image(1, 101, 100))
    # A header that announces 40,000 x 40,000 pixels, refused before anything is decoded.
    huge = bytearray((tmp_path / "large.png").read_bytes())
    huge[16:24] = (40_000).to_bytes(4, "big") * 2
    huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4, "big")
    (tmp_path / "huge.png").write_bytes(huge)
    (tmp_path / "text.png").write_text("no photograph")
    for name, sentence in (
        (
            "large",
            r"has 0\.0101 megapixels; this page takes up to 0\.01, test\.py takes any number",
        ),
        ("huge", "has 1600 megapixels"),
        ("text", "not a readable image"),
        ("a film", r"is a video; .* python test\.py --input 'a film\.mp4'"),
    ):
        path = tmp_path / (f"{name}.mp4" if "film" in name else f"{name}.png")
        with pytest.raises(UserError, match=sentence):
            deraining(path, "small", 1.0, tmp_path, lambda done, total: None)


@pytest.mark.parametrize("kind", ["heic", "float tiff", "16-bit tiff"])
def test_the_limit_holds_for_every_format(
    deraining: web_deraining.Deraining, tmp_path: Path, kind: str
) -> None:
    """Including those that Pillow alone cannot read."""
    image = smooth_image(1, 200, 100)
    path = tmp_path / "large"
    if kind == "heic":
        pillow_heif = pytest.importorskip("pillow_heif")
        pillow_heif.encode("RGB", (100, 200), image.tobytes(), str(path))
    else:
        pixels = image.astype(np.uint16 if kind == "16-bit tiff" else np.float32)
        tifffile.imwrite(path, pixels, photometric="rgb")
    with pytest.raises(UserError, match=r"large has 0\.02 megapixels"):
        deraining(path, "small", 1.0, tmp_path, lambda done, total: None)


def test_notes_reach_the_visitor(deraining: web_deraining.Deraining, tmp_path: Path) -> None:
    pages = [Image.new("RGB", (70, 70), colour) for colour in ("red", "blue")]
    pages[0].save(tmp_path / "two.tif", save_all=True, append_images=pages[1:])
    tifffile.imwrite(tmp_path / "bright.tif", np.full((70, 70), 3, np.float32))
    for name, note in (("two", "holds 2 pages"), ("bright", "outside 0 to 1 are clipped")):
        arguments = (tmp_path / f"{name}.tif", "small", 1.0, tmp_path, lambda done, total: None)
        (sentence,) = deraining(*arguments)[2]
        assert note in sentence


def test_visitors_at_the_same_time_do_not_change_each_others_strength(
    deraining: web_deraining.Deraining, weights: Path, tmp_path: Path
) -> None:
    image = smooth_image(1, 70, 90)
    images.write_png(tmp_path / "a.png", image)
    restorer = Restorer(load_weights(weights))
    results: dict[float, np.ndarray] = {}

    def visit(strength: float, progress: Callable[[int, int], None]) -> None:
        folder = tmp_path / str(strength)
        folder.mkdir()
        after = deraining(tmp_path / "a.png", "small", strength, folder, progress)[1]
        results[strength] = images.read_rgb(after)

    second = threading.Thread(target=visit, args=(0.0, lambda done, total: None), daemon=True)

    def come_meanwhile(done: int, total: int) -> None:
        if second.ident is not None:  # it came at the first call
            return
        second.start()
        second.join(0.5)  # it would end within that time if it did not have to wait
        assert second.is_alive()

    visit(1.0, come_meanwhile)
    second.join(60)
    np.testing.assert_array_equal(results[0.0], image)
    np.testing.assert_array_equal(results[1.0], restorer(image))


def test_results_of_former_visitors_are_removed(tmp_path: Path) -> None:
    for name in ("results-old", "results-new", "examples"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").touch()
    for name in ("results-old", "examples"):
        os.utime(tmp_path / name, (0, 0))
    web_deraining.remove_old(tmp_path, 3600)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["examples", "results-new"]


def test_left_over_folders_of_dead_servers_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of living servers and folders with a similar name stay."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("petrichor-dead", "petrichor-living", "petrichor-other"):
        (tmp_path / name / "results-1").mkdir(parents=True)
        (tmp_path / name / "results-1" / "photo.png").touch()
    (tmp_path / "petrichor-dead" / "web_page.lock").touch()
    code = (
        "import sys; from pathlib import Path; from utils.files import FileLock\n"
        "lock = FileLock(Path(sys.argv[1])); lock.acquire(); print(flush=True); sys.stdin.read()"
    )
    lock = tmp_path / "petrichor-living" / "web_page.lock"
    command = [sys.executable, "-c", code, str(lock)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as living:
        assert living.stdout.readline() == "\n"
        with web_deraining.visitors_folder() as folder:
            names = {path.name for path in tmp_path.iterdir()}
            assert names == {"petrichor-living", "petrichor-other", folder.name}
            assert (tmp_path / "petrichor-living" / "results-1" / "photo.png").exists()
        living.communicate("")
    assert {path.name for path in tmp_path.iterdir()} == {"petrichor-living", "petrichor-other"}


def test_a_long_name_is_cut(deraining: web_deraining.Deraining, tmp_path: Path) -> None:
    path = tmp_path / ("n" * 250 + ".png")
    images.write_png(path, smooth_image(1, 64, 64))
    (tmp_path / "results").mkdir()
    before, after, _ = deraining(path, "small", 1, tmp_path / "results", lambda done, total: None)
    assert before.is_file() and after.name.endswith("_derained.png")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "65536"],
        ["--port", "-1"],
        ["--max-megapixels", "nan"],
        ["--max-megapixels", "inf"],
        ["--max-megapixels", "0"],
        ["--official", "dcsfn="],
        ["--official", "unknown=model.pth"],
    ],
)
def test_impossible_arguments_end_with_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        web_page.parse_arguments(arguments)
    assert ending.value.code == 2


@pytest.mark.parametrize(
    "arguments", [["--weights", "absent.pth"], ["--official", "dcsfn=absent.pth"]]
)
def test_missing_weights_are_reported_at_the_start(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["web_page.py", "--no-browser", *arguments])
    with pytest.raises(UserError, match=r"There is no file absent\.pth"):
        web_page.main()


def test_examples_are_rainy_photographs(tmp_path: Path) -> None:
    one, two = (web_deraining.make_examples(tmp_path / folder) for folder in ("one", "two"))
    assert [path.stem for path in one] == list(web_deraining.EXAMPLES)
    for first, second in zip(one, two, strict=True):
        assert first.read_bytes() == second.read_bytes()
        clean = images.read_rgb(web_deraining.skimage_photos()[first.stem])
        rainy = images.read_rgb(first)
        error = rainy.astype(float) - clean[: rainy.shape[0], : rainy.shape[1]]
        assert 5 < np.sqrt((error**2).mean()) < 60


def test_without_gradio_it_says_what_to_install(
    deraining: web_deraining.Deraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


@pytest.mark.extras
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_no_signal_leaves_photographs(
    number: int, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gradio", reason="Gradio is not installed")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    arguments = ("--weights", weights, "--port", 0, "--no-browser")
    server = start_script("tools/web_page.py", *arguments)
    read_until(server, "Open http://")
    (folder,) = tmp_path.glob("petrichor-*")
    assert (folder / "examples" / "coffee.png").is_file()
    server.send_signal(number)
    assert server.wait(60) == {signal.SIGINT: 130}.get(number, 143)
    assert list(tmp_path.glob("petrichor-*")) == []


@pytest.mark.extras
def test_strangers_and_aborted_uploads(address: str) -> None:
    """Over the network; test_web_guard.py has the details."""
    place = urlsplit(address)
    for headers in (
        {"Host": "evil.example", "Origin": "http://evil.example"},
        {"Origin": "http://evil.example"},
    ):
        for method, path in (("GET", "/"), ("OPTIONS", "/"), ("POST", "/gradio_api/upload")):
            connection = HTTPConnection(place.hostname, place.port, timeout=60)
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            assert answer.status == 403
            assert answer.getheader("Access-Control-Allow-Origin") is None
    folders = Path(tempfile.gettempdir()).glob("petrichor-*/gradio")
    before = {path for folder in folders for path in folder.rglob("*")}
    with socket.create_connection((place.hostname, place.port)) as visitor:
        visitor.sendall(
            f"POST /gradio_api/upload HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: 90000\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\nContent-Disposition: "
            'form-data; name="files"; filename="a.png"\r\n\r\nhalf'.encode()
        )
    folders = Path(tempfile.gettempdir()).glob("petrichor-*/gradio")
    assert {path for folder in folders for path in folder.rglob("*")} == before
    body = json.dumps(
        {"data": [{"path": "http://127.0.0.1:1/a", "meta": {"_type": "gradio.FileData"}}]}
    )
    connection = HTTPConnection(place.hostname, place.port, timeout=60)
    kind = {"Content-Type": "application/json"}
    connection.request("POST", "/gradio_api/call/derain", body, kind)
    answer = connection.getresponse()
    assert answer.status == 403 and b"addresses are not fetched" in answer.read()


@pytest.mark.extras
def test_visitors_get_their_own_results_and_notes(
    address: str, weights: Path, tmp_path: Path
) -> None:
    """Through the page's queue, without a browser."""
    gradio_client = pytest.importorskip("gradio_client")
    photos = {strength: smooth_image(seed, 64, 80) for seed, strength in enumerate((0.0, 1.0, 0.5))}
    visits = []
    for strength, photo in photos.items():
        path = tmp_path / f"{strength}.tif"
        Image.fromarray(photo).save(path, save_all=True, append_images=[Image.new("L", (8, 8))])
        visitor = gradio_client.Client(address, verbose=False, download_files=tmp_path)
        given = (gradio_client.handle_file(path), str(weights), strength)
        visits.append(visitor.submit(*given, api_name="/derain"))
    network = load_weights(weights)
    for visit, (strength, photo) in zip(visits, photos.items(), strict=True):
        pictures, download, notes = visit.result(timeout=60)
        before, after = (images.read_rgb(Path(picture)) for picture in pictures)
        np.testing.assert_array_equal(before, photo)
        np.testing.assert_array_equal(after, Restorer(network, strength=strength)(photo))
        assert notes == f"{strength}.tif holds 2 pages; only the first was taken."
        assert "derained" in str(download)
    images.write_png(tmp_path / "large.png", smooth_image(3, 600, 700))
    with pytest.raises(
        Exception, match=r"large\.png has 0\.42 megapixels; this page takes up to 0\.3"
    ):
        visitor.predict(
            gradio_client.handle_file(tmp_path / "large.png"), str(weights), 1, api_name="/derain"
        )


PICTURES = "[...document.querySelectorAll('#compare img')]"


@pytest.mark.extras
def test_the_page_in_a_browser(address: str, weights: Path, tmp_path: Path) -> None:
    with chromium() as browser:  # skips without it
        from selenium.webdriver import ActionChains

        set_screen(browser, 1200, 900)
        browser.get(address)
        wait(browser, "document.querySelectorAll('#examples img').length == 3")
        choose_small_network(browser)

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

        # The visitor's own photograph by the file dialogue; one that is too large; none at all.
        images.write_png(tmp_path / "mine.png", smooth_image(3, 60, 80))
        images.write_png(tmp_path / "large.png", smooth_image(3, 600, 700))
        browser.find_element("css selector", "#photo button[aria-label=Clear]").click()
        upload(browser, tmp_path / "mine.png")
        derain(browser, 80)
        browser.find_element("css selector", "#photo button[aria-label=Clear]").click()
        upload(browser, tmp_path / "large.png")
        browser.find_element("id", "derain").click()
        wait(browser, "document.body.innerText.includes('takes up to 0.3,')")
        browser.find_element("css selector", "#photo button[aria-label=Clear]").click()
        browser.find_element("id", "derain").click()
        wait(browser, "document.body.innerText.includes('Drop a photo first')")

        # A video is not uploaded.
        (tmp_path / "film.mp4").write_bytes(b"film")
        wait(browser, "document.querySelector('#photo input[type=file]')")
        chooser = browser.find_element("css selector", "#photo input[type=file]")
        browser.execute_script("arguments[0].removeAttribute('accept')", chooser)
        chooser.send_keys(str(tmp_path / "film.mp4"))
        wait(browser, "document.body.innerText.includes(\"python test.py --input 'film.mp4'\")")
        assert "MB" not in browser.find_element("id", "photo").text

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
    """Wait until a JavaScript expression is true; a busy machine may need long."""
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, 60).until(lambda b: b.execute_script(f"return {script}"))


def choose_small_network(browser: Any) -> None:
    """Instead of the shipped network, which is slow on a busy machine."""
    browser.find_element("css selector", "#network input").click()
    wait(browser, "document.querySelectorAll('[role=option]').length == 2")
    browser.find_elements("css selector", "[role=option]")[1].click()
    chosen = "document.querySelector('#network input').value"
    wait(browser, f"{chosen}.includes('small.safetensors')")


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


@pytest.mark.extras
def test_the_page_at_the_widths_of_screens(address: str) -> None:
    """The result is beside the photo if there is room, examples are whole, the wheel zooms."""
    with chromium() as browser:
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

        boxes = """return Object.fromEntries(["#photo", "#compare", "#examples", "#derain"].map(
            x => [x, document.querySelector(x).getBoundingClientRect().toJSON()]))"""
        pictures = """return [...document.querySelectorAll("#examples img")].map(
            x => x.getBoundingClientRect().toJSON())"""
        for width, height in ((400, 800), (1000, 800), (1280, 800)):
            set_screen(browser, width, height)
            browser.get(address)
            loaded = "[...document.querySelectorAll('#examples img')].every(x => x.naturalWidth)"
            wait(browser, f"document.querySelectorAll('#examples img').length == 3 && {loaded}")
            places = browser.execute_script(boxes)
            photo, compare, examples = (places[x] for x in ("#photo", "#compare", "#examples"))
            for picture in browser.execute_script(pictures):
                assert examples["left"] < picture["left"] and picture["right"] < examples["right"]
                assert examples["top"] < picture["top"] and picture["bottom"] < examples["bottom"]
                assert picture["width"] == pytest.approx(picture["height"], abs=1) and (
                    picture["width"] > 80
                )
            if width == 400:
                assert compare["left"] == photo["left"]
                assert places["#derain"]["bottom"] < height
            else:
                assert compare["left"] > photo["right"] and compare["top"] == photo["top"]
                assert compare["width"] > 1.5 * photo["width"]
            assert browser.execute_script("return document.documentElement.scrollWidth") == width
        choose_small_network(browser)
        browser.find_element("css selector", "#examples button").click()
        wait(browser, "document.querySelector('#photo').innerText.includes('astronaut')")
        derain(browser, 480)
        wait(browser, "!document.querySelector('#download').disabled")
        size = f"{PICTURES}[0].getBoundingClientRect().width"
        before = browser.execute_script(f"return {size}")
        picture = browser.find_element("css selector", "#compare img")
        beside = ScrollOrigin.from_element(picture, 100, -100)  # the handle is in the middle
        for _ in range(8):  # each makes it larger by a twentieth
            ActionChains(browser).scroll_from_origin(beside, 0, -100).perform()
        wait(browser, f"{size} > {1.3 * before}")
