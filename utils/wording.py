"""Text helpers that all messages share: plurals, times, image sizes, names."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np


def plural(number: int, noun: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""


def duration(seconds: float) -> str:
    """A time to wait, rounded for people: ``40 s``, ``3 min``, ``2 h 5 min``."""
    if seconds < 59.5:
        return f"{round(seconds)} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def size_text(image: np.ndarray) -> str:
    """Width and height of an image, (H, W) or (H, W, C): ``481x321``."""
    return f"{image.shape[1]}x{image.shape[0]}"


def composed(name: str) -> str:
    """A name in Unicode's composed form, NFC, in which names are compared."""
    return unicodedata.normalize("NFC", name)


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A sentence that proposes the known name most similar to ``name``, with a space before it.

    Case does not matter. "" if no name's similarity (0 to 1) reaches ``cutoff``.
    """
    by_folded = {candidate.casefold(): candidate for candidate in known}
    nearest = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=cutoff)
    return f" Did you mean {by_folded[nearest[0]]}?" if nearest else ""
