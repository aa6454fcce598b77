"""A page on this machine that derains photographs: drop one, compare, download.

    pip install gradio
    python tools/web_page.py
    python tools/web_page.py --weights runs/dmsr/best.safetensors --official dcsfn=THEIRS.pth

serves http://127.0.0.1:7860 on this machine only; tools/web_guard.py refuses requests of other
pages. The page loads nothing from elsewhere: its examples are scikit-image's photographs in this
project's synthetic rain. Visitors are served one after the other; their pictures are removed after
an hour and when the server ends.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the root holds our packages

from data.rain import Rain, add_rain
from models import NETWORKS, SHIPPED_WEIGHTS, load_published, load_weights
from models.network import DerainingNetwork
from tools.make_rain import skimage_photos
from tools.web_guard import MAX_JSON, Guard, Limits
from utils.devices import add_device_option
from utils.errors import UserError, run_main
from utils.files import FileLock
from utils.images import read_rgb, write_png
from utils.inference import video
from utils.inference.memory import keep_freed_memory
from utils.inference.photo_output import write_photo
from utils.inference.photos import SUFFIXES, num_pixels, read_photo
from utils.inference.restorer import Restorer

SHIPPED = "Petrichor (ships with the project)"
EXAMPLES = {
    "astronaut": Rain(density=0.12, length=40, width=1.6, brightness=0.5),
    "chelsea": Rain(density=0.1, length=30, angle=15, brightness=0.45),
    "coffee": Rain(density=0.2, length=50, angle=-8, brightness=0.5),
}
EXAMPLE_SIDE = 480  # pixels; a network takes a second or two for it
MOST_VISITORS = 20  # waiting
KEPT_SECONDS = 3600  # pictures of visitors
FOLDER, LOCK = "petrichor-", "web_page.lock"  # of visitors' pictures, among temporary files
STYLE = Path(__file__).with_suffix(".css")
SCRIPT = Path(__file__).with_suffix(".js")


def main() -> None:
    args = parse_arguments()
    for path in (*args.weights, *(path for _, path in args.official)):
        if not path.is_file():  # reported now, not to the first visitor
            raise UserError(f"There is no file {path}.")
    weights: dict[str, Callable[[], DerainingNetwork]] = {}
    if SHIPPED_WEIGHTS.is_file():
        weights[SHIPPED] = partial(load_weights, SHIPPED_WEIGHTS)
    weights |= {str(path): partial(load_weights, path) for path in args.weights}
    for name, path in args.official:
        weights[f"{name}, official: {path}"] = partial(load_published, name, path)
    if not weights:
        raise UserError(f"{SHIPPED_WEIGHTS} is missing; name a file with --weights.")
    keep_freed_memory()
    # Both end the process at once by default, and would leave the pictures. uvicorn, once it runs,
    # waits for SIGTERM itself and raises it again when it has ended.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + signal.SIGTERM))
    signal.signal(signal.SIGHUP, lambda number, frame: signal.raise_signal(signal.SIGTERM))
    with visitors_folder() as folder:
        serve(Deraining(weights, args.device, int(args.max_megapixels * 1e6)), folder, args)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--weights", type=Path, nargs="+", default=[], metavar="FILE", help="this project's own"
    )
    parser.add_argument(
        "--official",
        type=name_and_file,
        nargs="+",
        default=[],
        metavar="NAME=FILE",
        help="a network and its authors' checkpoint",
    )
    parser.add_argument("--port", type=port, default=7860, help="0: any free one (default: 7860)")
    parser.add_argument(
        "--max-megapixels",
        type=megapixels,
        default=25.0,
        metavar="N",
        help="refuse larger photographs (default: 25)",
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    add_device_option(parser)
    return parser.parse_args(arguments)


def name_and_file(text: str) -> tuple[str, Path]:
    name, equals, file = text.partition("=")
    if not (equals and file):
        raise argparse.ArgumentTypeError(f"{text} is not NAME=FILE, such as dcsfn=model.pth")
    if name not in NETWORKS:
        raise argparse.ArgumentTypeError(
            f"{name!r} is not a network; known are {', '.join(NETWORKS)}"
        )
    return name, Path(file)


def port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**16:
        raise ValueError
    return number


def megapixels(text: str) -> float:
    number = float(text)
    if not 1e-6 <= number < math.inf:
        raise ValueError
    return number


class Deraining:
    """What the page does, without the page; serves several visitors one after the other.

    weights: name that the visitor chooses -> a function that loads that network.
    """

    def __init__(
        self, weights: dict[str, Callable[[], DerainingNetwork]], device: str, max_pixels: int
    ) -> None:
        self.weights, self.device, self.max_pixels = weights, device, max_pixels
        self._restorer = lru_cache(maxsize=1)(self._load)  # one network's memory at a time
        self._turn = threading.Lock()

    def _load(self, name: str) -> Restorer:
        network = self.weights[name]().to(self.device)
        return Restorer(network, device=self.device)

    def __call__(
        self,
        path: Path,
        name: str,
        strength: float,
        folder: Path,
        progress: Callable[[int, int], None],
    ) -> tuple[Path, Path, list[str]]:
        """Derain a photograph; PNG files of it before and after, in ``folder``, and notes on it.

        Raises UserError for a file that is not a photograph and for one that is too large.
        """
        if path.suffix.lower() in video.SUFFIXES:
            raise UserError(
                f"{path.name} is a video; this page takes photographs. For videos: "
                f"python test.py --input {shlex.quote(path.name)}"
            )
        # From the header alone: decoding a huge picture would exhaust the memory.
        pixels = num_pixels(path)
        if pixels > self.max_pixels:
            raise UserError(
                f"{path.name} has {pixels / 1e6:.4g} megapixels; this page takes up to "
                f"{self.max_pixels / 1e6:g}, test.py takes any number."
            )
        with self._turn:
            photo = read_photo(path)
            notes = list(photo.notes)
            restorer = self._restorer(name)
            restorer.options = replace(
                restorer.options, strength=strength, progress=progress, notify=notes.append
            )
            stem = path.stem[:100]  # what is added must not make a name too long
            before, after = folder / f"{stem}.png", folder / f"{stem}_derained.png"
            write_photo(before, photo)
            write_photo(after, photo.with_pixels(restorer(photo.pixels)))
        return before, after, notes


@contextlib.contextmanager
def visitors_folder() -> Iterator[Path]:
    """A temporary folder that is removed in the end, as are those of servers that were killed."""
    remove_left_over()
    while True:
        with tempfile.TemporaryDirectory(prefix=FOLDER, ignore_cleanup_errors=True) as name:
            lock = FileLock(Path(name, LOCK))
            # Another server that starts now may take an unlocked folder for a left-over one.
            if lock.acquire() and lock.is_held:
                try:
                    yield Path(name)
                finally:
                    lock.release()
                return
            lock.release()


def remove_left_over() -> None:
    """Remove the folders of this user's servers that were killed; living ones hold their lock."""
    for path in Path(tempfile.gettempdir()).glob(f"{FOLDER}*/{LOCK}"):
        folder = path.parent
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            continue
        lock = FileLock(path)
        if lock.acquire():
            shutil.rmtree(folder, ignore_errors=True)
            lock.release()


def remove_old(folder: Path, seconds: float) -> None:
    """Remove the folders of results in ``folder`` that were made longer ago."""
    for old in folder.glob("results-*"):
        if time.time() - old.stat().st_mtime > seconds:
            shutil.rmtree(old)


def make_examples(folder: Path) -> list[Path]:
    """Rainy photographs, the same every time."""
    files = []
    for number, (name, rain) in enumerate(EXAMPLES.items()):
        clean = read_rgb(skimage_photos()[name])[:EXAMPLE_SIDE, :EXAMPLE_SIDE]
        files.append(folder / f"{name}.png")
        write_png(files[-1], add_rain(clean, rain, np.random.default_rng(number)))
    return files


def serve(deraining: Deraining, folder: Path, args: argparse.Namespace) -> None:
    """Serve the page until a signal ends it; all pictures lie in ``folder``."""
    # Before Gradio is imported: it would report to its makers, and keep pictures elsewhere.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "gradio")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import fastapi
        import gradio as gr
        import uvicorn
    except ImportError as error:
        raise UserError("The page is made with Gradio; run: pip install gradio") from error

    (folder / "examples").mkdir()
    page = build_page(gr, deraining, folder, make_examples(folder / "examples"))
    page.queue(max_size=MOST_VISITORS, default_concurrency_limit=1, api_open=False)
    megabytes = max(deraining.max_pixels * 6 // 10**6, 1)  # 16-bit RGB, not compressed
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", args.port))
        except OSError as error:
            raise UserError(
                f"Port {args.port} is in use; choose another --port, or 0 for any free one."
            ) from error
        listener.listen()
        number = listener.getsockname()[1]
        application = gr.mount_gradio_app(
            fastapi.FastAPI(openapi_url=None),
            page,
            path="/",
            server_name="127.0.0.1",
            server_port=number,
            footer_links=[],
            run_history=False,  # which would be kept in the browser
            max_file_size=f"{megabytes}mb",
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            # Fonts of the system; Gradio's own themes load theirs from Google.
            theme=gr.themes.Default(
                primary_hue="blue",
                font=["system-ui", "sans-serif"],
                font_mono=["ui-monospace", "monospace"],
            ),
            css_paths=STYLE,
            head=f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>",
        )
        limits = Limits(request=megabytes * 10**6 + MAX_JSON)
        config = uvicorn.Config(
            Guard(application, folder, limits), log_level="warning", timeout_graceful_shutdown=1
        )
        address = f"http://127.0.0.1:{number}"
        print(f"Open {address} in a browser; Ctrl-C ends it.", flush=True)
        if not args.no_browser:
            webbrowser.open(address)
        uvicorn.Server(config).run(sockets=[listener])


def build_page(gr: Any, deraining: Deraining, folder: Path, examples: list[Path]) -> Any:
    """The page as Gradio's Blocks."""

    def derain(
        photo: str | None, name: str, strength: float, progress: Any = None
    ) -> tuple[tuple[str, str], Any, str]:
        if photo is None:
            raise gr.Error("Drop a photo first, or choose an example.", print_exception=False)
        remove_old(folder, KEPT_SECONDS)  # Gradio has copies of its own, of the same age
        results = Path(tempfile.mkdtemp(prefix="results-", dir=folder))

        def for_visitor(sentence: str) -> str:
            return sentence.replace(photo, Path(photo).name)

        def show(done: int, total: int) -> None:
            progress((done, total), desc="Deraining", unit="tiles")

        progress(0, desc="Reading")
        try:
            before, after, sentences = deraining(Path(photo), name, strength, results, show)
        except UserError as error:
            raise gr.Error(for_visitor(str(error)), print_exception=False) from None
        button = gr.DownloadButton(value=str(after), interactive=True)
        return (str(before), str(after)), button, "\n\n".join(map(for_visitor, sentences))

    derain.__defaults__ = (gr.Progress(),)  # by which Gradio knows that it shows progress

    def choose(event: gr.SelectData) -> str:
        return str(examples[event.index])

    choose.__annotations__["event"] = (
        gr.SelectData
    )  # Gradio looks there, where a name is not enough

    names = list(deraining.weights)
    with gr.Blocks(
        title="Petrichor",
        analytics_enabled=False,
        delete_cache=(600, KEPT_SECONDS),
        fill_width=True,
    ) as page:
        gr.Markdown("# Petrichor\nRemoves rain from photographs, on this machine only.")
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=1, min_width=300):
                photo = gr.File(
                    label="Photo", file_types=["image", *SUFFIXES], height=120, elem_id="photo"
                )
                # For what web_page.js says about videos.
                gr.HTML('<p id="refused" role="status"></p>', elem_id="refused-block")
                gr.Markdown("or an example:")
                gallery = gr.Gallery(
                    [str(path) for path in examples],
                    show_label=False,
                    columns=len(examples),
                    allow_preview=False,
                    interactive=False,
                    buttons=[],
                    elem_id="examples",
                )
                network = gr.Dropdown(names, value=names[0], label="Network", elem_id="network")
                strength = gr.Slider(0, 1, value=1, step=0.05, label="Strength")
                start = gr.Button("Derain", variant="primary", elem_id="derain")
                download = gr.DownloadButton("Download PNG", interactive=False, elem_id="download")
            with gr.Column(scale=2, min_width=300):
                slider = gr.ImageSlider(
                    label="Rainy | restored (the wheel zooms)",
                    interactive=False,
                    max_height=640,
                    buttons=["fullscreen"],
                    elem_id="compare",
                )
                notes = gr.Markdown(elem_id="notes")
        gallery.select(choose, None, photo)
        start.click(derain, [photo, network, strength], [slider, download, notes])
    return page


if __name__ == "__main__":
    run_main(main)
