"""A page on this machine that derains photographs: drop one, compare, download.

    pip install gradio
    python tools/web_page.py
    python tools/web_page.py --weights runs/dmsr/best.safetensors --official dcsfn=THEIRS.pth

serves http://127.0.0.1:7860 on this machine only; tools/web_guard.py refuses requests of other
pages. The page loads nothing from elsewhere: its examples are scikit-image's photographs with
synthetic rain of this project. Visitors are served one after the other; their pictures are removed
after an hour and when the server ends.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import socket
import sys
import webbrowser
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the root holds our packages

from models import NETWORKS, SHIPPED_WEIGHTS, load_published, load_weights
from models.network import DerainingNetwork
from tools.web_deraining import Deraining, visitors_folder
from tools.web_guard import MAX_JSON, Guard, Limits
from utils.devices import add_device_option
from utils.errors import UserError, run_main
from utils.inference.memory import keep_freed_memory

SHIPPED = "Petrichor (ships with the project)"


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
    keep_freed_memory()  # as test.py does
    # By default both signals end the process at once, and the pictures would stay. uvicorn, once
    # it runs, handles SIGTERM itself and raises it again when it has ended.
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


def serve(deraining: Deraining, folder: Path, args: argparse.Namespace) -> None:
    """Serve the page until a signal ends it; all pictures are kept in ``folder``."""
    # Before Gradio is imported: it would report to its makers, and keep pictures elsewhere.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "gradio")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import uvicorn

        from tools.web_interface import build_application
    except ImportError as error:
        raise UserError("The page is made with Gradio; run: pip install gradio") from error

    max_megabytes = max(deraining.max_pixels * 6 // 10**6, 1)  # 16-bit RGB, uncompressed
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
        application = build_application(deraining, folder, number, max_megabytes)
        limits = Limits(request=max_megabytes * 10**6 + MAX_JSON)
        config = uvicorn.Config(
            Guard(application, folder, limits), log_level="warning", timeout_graceful_shutdown=1
        )
        address = f"http://127.0.0.1:{number}"
        print(f"Open {address} in a browser; Ctrl-C ends it.", flush=True)
        if not args.no_browser:
            webbrowser.open(address)
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    run_main(main)
