"""What the local page does with photographs, without the page: restore them, keep and remove files.

All files of visitors are in one temporary folder. It is removed when the server ends; folders left
behind by servers that were killed are removed at the next start.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from data.rain import Rain, add_rain
from models.network import DerainingNetwork
from tools.make_rain import skimage_photos
from utils.errors import UserError
from utils.files import FileLock
from utils.images import read_rgb, write_png
from utils.inference import video
from utils.inference.photo_output import write_photo
from utils.inference.photos import num_pixels, read_photo
from utils.inference.restorer import Restorer

EXAMPLES = {
    "astronaut": Rain(density=0.12, length=40, width=1.6, brightness=0.5),
    "chelsea": Rain(density=0.1, length=30, angle=15, brightness=0.45),
    "coffee": Rain(density=0.2, length=50, angle=-8, brightness=0.5),
}
EXAMPLE_SIDE = 480  # pixels; a network needs a second or two for it
KEPT_SECONDS = 3600  # how long visitors' pictures are kept
FOLDER, LOCK = "petrichor-", "web_page.lock"  # names of the temporary folder and its lock


class Deraining:
    """Restores photographs; serves several visitors one after the other.

    weights: name of a network that visitors can choose -> a function that loads it.
    """

    def __init__(
        self, weights: dict[str, Callable[[], DerainingNetwork]], device: str, max_pixels: int
    ) -> None:
        self.weights, self.device, self.max_pixels = weights, device, max_pixels
        self._restorer = lru_cache(maxsize=1)(self._load)  # one network in memory at a time
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
        """Derain a photograph: PNG files of it before and after, in ``folder``, and notes.

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
            stem = path.stem[:100]  # the suffixes must not make a name too long
            before, after = folder / f"{stem}.png", folder / f"{stem}_derained.png"
            write_photo(before, photo)
            write_photo(after, photo.with_pixels(restorer(photo.pixels)))
        return before, after, notes


@contextlib.contextmanager
def visitors_folder() -> Iterator[Path]:
    """A temporary folder that is removed at the end, as are those of servers that were killed."""
    remove_left_over()
    while True:
        with tempfile.TemporaryDirectory(prefix=FOLDER, ignore_cleanup_errors=True) as name:
            lock = FileLock(Path(name, LOCK))
            # Another server that starts now may take a folder without a lock for a left-over one.
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
    """Remove the folders of results in ``folder`` that are older than that."""
    for old in folder.glob("results-*"):
        if time.time() - old.stat().st_mtime > seconds:
            shutil.rmtree(old)


def make_examples(folder: Path) -> list[Path]:
    """Write rainy photographs, the same every time, to a new folder; returns their files."""
    folder.mkdir()
    files = []
    for number, (name, rain) in enumerate(EXAMPLES.items()):
        clean = read_rgb(skimage_photos()[name])[:EXAMPLE_SIDE, :EXAMPLE_SIDE]
        files.append(folder / f"{name}.png")
        write_png(files[-1], add_rain(clean, rain, np.random.default_rng(number)))
    return files
