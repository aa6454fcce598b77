"""A page on this machine that derains photographs: drop one, compare, download.

    pip install gradio
    python tools/web_page.py
    python tools/web_page.py --weights runs/dmsr/best.safetensors --official dcsfn=THEIRS.pth

opens http://127.0.0.1:7860, which only this machine reaches. The page loads nothing from elsewhere:
its examples are scikit-image's photographs in this project's synthetic rain, and the browser is
told to refuse other addresses. Visitors are served one after the other.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable
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
from utils.devices import add_device_option
from utils.errors import UserError, run_main
from utils.images import read_rgb, write_png
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
# What the browser may load: this server's files and what the page itself makes.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; frame-ancestors 'none'"
)


def main() -> None:
    args = parse_arguments()
    for path in (*args.weights, *(path for _, path in args.official)):
        if not path.is_file():  # told now, not to the first visitor
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
    with tempfile.TemporaryDirectory(prefix="petrichor-") as folder:
        serve(Deraining(weights, args.device, int(args.max_megapixels * 1e6)), Path(folder), args)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--weights", type=Path, nargs="+", default=[], metavar="FILE", help="of this project"
    )
    parser.add_argument(
        "--official",
        type=name_and_file,
        nargs="+",
        default=[],
        metavar="NAME=FILE",
        help="a network and its authors' checkpoint",
    )
    parser.add_argument("--port", type=port, default=7860, help="default: 7860; 0: any free one")
    parser.add_argument(
        "--max-megapixels",
        type=megapixels,
        default=25.0,
        metavar="N",
        help="larger photographs are refused (default: 25)",
    )
    parser.add_argument("--no-browser", action="store_true", help="opens no browser")
    add_device_option(parser)
    return parser.parse_args(arguments)


def name_and_file(text: str) -> tuple[str, Path]:
    name, equals, file = text.partition("=")
    if not (equals and file):
        raise argparse.ArgumentTypeError(f"{text} is not NAME=FILE, such as dcsfn=model.pth")
    if name not in NETWORKS:
        raise argparse.ArgumentTypeError(f"{name!r} is no network; known are {', '.join(NETWORKS)}")
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
    """What the page does, without the page; for several visitors one after the other.

    weights: what the visitor picks from -> a function that loads that network.
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

        Raises UserError for a file that is no photograph and for one that is too large.
        """
        # By the header alone: decoding is what a huge picture would kill this with.
        pixels = num_pixels(path)
        if pixels > self.max_pixels:
            raise UserError(
                f"{path.name} has {pixels / 1e6:.4g} megapixels; this page takes up to "
                f"{self.max_pixels / 1e6:g}, test.py any number."
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


def remove_old(folder: Path, seconds: float) -> None:
    """Remove the folders in ``folder`` that were made longer ago."""
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
    """Serve the page until Ctrl-C; all pictures lie in ``folder``."""
    # Before Gradio is imported: it would report to its makers, and keep pictures elsewhere.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "gradio")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import gradio as gr
        from starlette.middleware import Middleware
    except ImportError as error:
        raise UserError("The page is made with Gradio; run: pip install gradio") from error

    (folder / "examples").mkdir()
    page = build_page(gr, deraining, folder, make_examples(folder / "examples"))
    # Fonts of the system; Gradio's own themes load theirs from Google.
    theme = gr.themes.Default(
        primary_hue="blue",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    try:
        _, address, _ = page.queue(
            max_size=MOST_VISITORS, default_concurrency_limit=1, api_open=False
        ).launch(
            server_name="127.0.0.1",
            server_port=args.port or None,
            max_file_size=f"{max(deraining.max_pixels * 6 // 10**6, 1)}mb",  # 16-bit RGB
            theme=theme,
            footer_links=[],
            quiet=True,
            ssr_mode=False,
            prevent_thread_lock=True,
            app_kwargs={"middleware": [Middleware(OnlyOurs)]},
        )
    except OSError as error:
        raise UserError(
            f"Port {args.port} is taken; take another one with --port, or 0 for any."
        ) from error
    print(f"Open {address} in a browser; Ctrl-C ends it.", flush=True)
    if not args.no_browser:
        webbrowser.open(address)
    page.block_thread()


class OnlyOurs:
    """Tells the browser with every answer to load nothing from other addresses."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message["headers"] = [*message.get("headers", []), policy]
            await send(message)

        await self.app(scope, receive, send_with_policy)


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
        title="Petrichor", analytics_enabled=False, delete_cache=(600, KEPT_SECONDS)
    ) as page:
        gr.Markdown("# Petrichor\nTakes rain out of photographs, on this machine alone.")
        with gr.Row():
            with gr.Column(scale=1, min_width=370):
                photo = gr.File(
                    label="Photo", file_types=["image", *SUFFIXES], height=120, elem_id="photo"
                )
                gr.Markdown("or an example:")
                gallery = gr.Gallery(
                    [str(path) for path in examples],
                    show_label=False,
                    columns=len(examples),
                    height=125,
                    allow_preview=False,
                    interactive=False,
                    buttons=[],
                    elem_id="examples",
                )
                network = gr.Dropdown(names, value=names[0], label="Network", elem_id="network")
                strength = gr.Slider(0, 1, value=1, step=0.05, label="Strength")
                start = gr.Button("Derain", variant="primary", elem_id="derain")
                download = gr.DownloadButton("Download PNG", interactive=False, elem_id="download")
            with gr.Column(scale=2):
                slider = gr.ImageSlider(
                    label="Rainy | restored", interactive=False, max_height=640, elem_id="compare"
                )
                notes = gr.Markdown(elem_id="notes")
        gallery.select(choose, None, photo)
        start.click(derain, [photo, network, strength], [slider, download, notes])
    return page


if __name__ == "__main__":
    run_main(main)
