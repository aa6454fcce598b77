"""Leaks: training images whose scene is in a validation or test set."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data.pairs import Pair
from data.scene_hashes import MOST_BITS, Rows, nearest, overlap, read_clean, scene_hashes
from utils.errors import UserError
from utils.files import write_text
from utils.images import stack_rows, write_png
from utils.wording import plural

MOST_SHOWN = 12  # pairs in the picture


@dataclass(frozen=True)
class Leak:
    """A training pair that shows the scene of a pair of the set called ``dataset``."""

    training: Pair
    other: Pair
    dataset: str
    bits: int
    """The number of the 144 bits in which the two hashes differ."""


def find_leaks(
    training: Sequence[Pair],
    sets: Mapping[str, Sequence[Pair]],
    index: Path | None = None,
    *,
    rows: Rows | None = None,
    quiet: bool = True,
) -> list[Leak]:
    """The training pairs whose scene is in one of ``sets``, in their order, each once.

    ``rows`` are the hashes of ``training`` if they are known; further arguments as in
    ``scene_hashes``.
    """
    others = [(name, pair) for name, pairs in sets.items() for pair in pairs]
    if not training or not others:
        return []
    if rows is None:
        rows = scene_hashes(training, index, quiet=quiet)
    turned = scene_hashes([pair for _, pair in others], index, turned=True, quiet=quiet)
    numbers, distances = nearest(rows, turned)
    return [
        Leak(pair, others[number][1], others[number][0], int(bits))
        for pair, number, bits in zip(training, numbers, distances, strict=True)
        if bits <= MOST_BITS
    ]


def leaks_sentence(leaks: Sequence[Leak], num_training: int, policy: str = "warn") -> str:
    """What was found and what follows, in one sentence; empty without leaks.

    ``policy`` is DATA.LEAKS. Raises UserError with the sentence if it is ``refuse``.
    """
    if not leaks:
        return ""
    sets = Counter(leak.dataset for leak in leaks)
    where = ", ".join(f"{count} in {name}" for name, count in sets.items())
    first = leaks[0]
    verb = "shows" if len(leaks) == 1 else "show"
    found = (
        f"{plural(len(leaks), 'training pair')} of {num_training} {verb} a scene of a validation "
        f"or test set ({where}), such as {first.training.clean}, which is {first.other.clean}"
    )
    if policy == "refuse":
        raise UserError(
            f"{found}; DATA.LEAKS drop leaves them out, warn trains on them nevertheless."
        )
    if policy == "drop":
        return f"{found}; they are left out, which leaves {num_training - len(leaks)}"
    return f"{found}; scores on these sets are too good. DATA.LEAKS drop leaves them out"


def write_leaks(folder: Path, leaks: Sequence[Leak]) -> list[Path]:
    """Write leaks.csv with all leaks and leaks.png with up to twelve; nothing without leaks."""
    if not leaks:
        return []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("training", "other", "set", "bits"))
    for leak in leaks:
        writer.writerow((leak.training.clean, leak.other.clean, leak.dataset, leak.bits))
    table, picture = folder / "leaks.csv", folder / "leaks.png"
    write_text(table, text.getvalue())
    some = leaks[:: -(-len(leaks) // MOST_SHOWN)]
    write_png(picture, pairs_picture([(leak.training, leak.other) for leak in some]))
    return [table, picture]


def pairs_picture(pairs: Iterable[tuple[Pair, Pair]], height: int = 120) -> np.ndarray:
    """A row for each two pairs, their clean images side by side, as (H, W) uint8 gray."""
    rows = []
    for both in pairs:
        images = []
        for pair in both:
            gray = read_clean(pair.clean, pair.half)
            width = max(1, min(round(gray.shape[1] * height / gray.shape[0]), 3 * height))
            small = cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA)
            images.append(np.pad(small, 2, constant_values=255))
        rows.append(np.hstack(images))
    return stack_rows(rows)


def overlap_sentence(method: str, packed: str, dataset: str, pairs: Sequence[Pair]) -> str:
    """What a table must say if ``method`` was trained on scenes of ``dataset``; else empty.

    ``packed`` are the scenes that its weights record, empty if they record none.
    """
    shared = overlap(packed, pairs) if packed else []
    if not shared:
        return ""
    return (
        f"{method} was trained on {len(shared)} of the {len(pairs)} scenes of {dataset}, such as "
        f"{shared[0].clean.name}"
    )
