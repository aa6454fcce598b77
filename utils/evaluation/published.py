"""What the papers report, and under which protocol each data set is scored."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

PUBLISHED_RESULTS = Path(__file__).with_name("published_results.csv")
DEFAULT_PROTOCOL = "rain13k"


class DatasetFacts(NamedTuple):
    """The protocol that papers score a data set under, and its number of test images."""

    protocol: str
    num_images: int | None = None


# Known data sets, as the papers spell them. Counts are the papers' own.
DATASETS = {
    "Test100": DatasetFacts("rain13k", 100),
    "Rain100H": DatasetFacts("rain13k", 100),
    "Rain100L": DatasetFacts("rain13k", 100),
    "Test2800": DatasetFacts("rain13k", 2800),
    "Test1200": DatasetFacts("rain13k", 1200),
    "Rain200H": DatasetFacts("rain13k", 200),
    "Rain200L": DatasetFacts("rain13k", 200),
    "SPA-Data": DatasetFacts("rain13k", 1000),
    "Raindrop-A": DatasetFacts("rain13k", 58),
    "Raindrop-B": DatasetFacts("rain13k", 249),
    "DID-Data": DatasetFacts("did", 1200),
    "DDN-Data": DatasetFacts("did", 1400),
    "Rain1200": DatasetFacts("did", 1200),
    "Rain1400": DatasetFacts("did", 1400),
    "Rain12": DatasetFacts("did", 12),
}


@dataclass(frozen=True)
class PublishedScore:
    """One number pair of a paper. The scores are texts: their digits are those printed there."""

    model: str
    dataset: str
    psnr: str
    ssim: str
    protocol: str
    trained_on: str
    source: str


def known_name(dataset: str) -> str | None:
    """The papers' spelling of a data set, found from ``rain100h``, ``DID_Data`` or ``did``."""
    return _BY_PLAIN_NAME.get(_plain(dataset))


def facts(dataset: str) -> DatasetFacts:
    """What is known of a data set; one that is not known is scored under ``rain13k``."""
    return DATASETS.get(known_name(dataset) or "", DatasetFacts(DEFAULT_PROTOCOL))


def published_scores(dataset: str, protocol: str) -> list[PublishedScore]:
    """Scores that papers report for this data set under this very protocol."""
    name = known_name(dataset)
    if name is None:
        return []
    with open(PUBLISHED_RESULTS, encoding="utf-8", newline="") as file:
        scores = [PublishedScore(**row) for row in csv.DictReader(file)]
    return [score for score in scores if (score.dataset, score.protocol) == (name, protocol)]


def _plain(dataset: str) -> str:
    return re.sub(r"[^a-z0-9]", "", dataset.lower()).removesuffix("data")


_BY_PLAIN_NAME = {_plain(name): name for name in DATASETS}
