"""Published scores, and the protocol that each data set is scored under."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from utils.errors import UserError
from utils.evaluation.quality import PERCEPTUAL, PSNR, SSIM
from utils.metrics import PROTOCOLS

PUBLISHED_RESULTS = Path(__file__).with_name("published_results.csv")
PUBLISHED_BIB = Path(__file__).with_name("published.bib")
DEFAULT_PROTOCOL = "rain13k"


class DatasetFacts(NamedTuple):
    """The protocol of a data set in papers, its number of test images, and an equal set."""

    protocol: str
    num_images: int | None = None
    also: str = ""  # another name for the same images in papers
    # The protocol of the published rows if most papers use another one.
    published_protocol: str = ""


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
    # DeRaindrop's own protocol, which most papers use; the published rows are from DMSR's paper.
    "Raindrop-A": DatasetFacts("raindrop", 58, published_protocol="rain13k"),
    "Raindrop-B": DatasetFacts("raindrop", 249, published_protocol="rain13k"),
    "Raindrop": DatasetFacts("raindrop"),
    "HQ-RAIN": DatasetFacts("hq_rain", 500),
    "4K-Rain13k": DatasetFacts("hq_rain", 500),
    "UAV-Rain1k": DatasetFacts("hq_rain", 220),
    "WeatherBench": DatasetFacts("hq_rain", 600),
    "GT-RAIN": DatasetFacts("rain13k", 2100),
    "Outdoor-Rain": DatasetFacts("rain13k", 750),
    "DID-Data": DatasetFacts("did", 1200, also="Rain1200"),
    "DID-MDN": DatasetFacts("did", 1200, also="DID-Data"),  # the name of its authors' archive
    "DDN-Data": DatasetFacts("did", 1400, also="Rain1400"),
    # DID-Data under the name and the protocol of DCSFN's paper
    "Rain1200": DatasetFacts("rgb", 1200, also="DID-Data"),
    "Rain1400": DatasetFacts("did", 1400, also="DDN-Data"),
    "Rain12": DatasetFacts("did", 12),
}

# Keys of published.bib: of the models, and of the sources of their numbers.
CITATIONS = {
    "DMSR": "dmsr",
    "NeRD-Rain": "nerdrain",
    "NeRD-Rain-S": "nerdrain",
    "DCSFN": "dcsfn",
    "MSPFN": "mspfn",
    "PReNet": "prenet",
    "MPRNet": "mprnet",
    "Restormer": "restormer",
    "DRSformer": "drsformer",
    "ChaIR": "chair",
    "FADformer": "fadformer",
    "RCDNet": "rcdnet",
    "DualGCN": "dualgcn",
    "SPDNet": "spdnet",
    "Uformer": "uformer",
    "IDT": "idt",
    "PromptRestorer": "promptrestorer",
    "SFNet": "sfnet",
    "DMSR paper Table 1": "dmsr",
    "NeRD-Rain paper Table 1": "nerdrain",
    "PromptRestorer paper Table 1": "promptrestorer",
    "PReNet README": "prenet",
    "FADformer paper Table 1": "fadformer",
    "DMSR supplement": "dmsr",
}


@dataclass(frozen=True)
class PublishedScore:
    """Scores of a paper, as text with the digits that are printed there.

    ``scores`` maps the metrics' keys to them. ``cite`` is the model's BibTeX key; ``note`` is what
    readers of these scores must know, or "".
    """

    model: str
    dataset: str
    protocol: str
    scores: dict[str, str]
    trained_on: str
    source: str
    cite: str
    note: str = ""


def known_name(dataset: str) -> str | None:
    """The papers' spelling of a data set, also for ``rain100h``, ``DID_Data`` or ``did``."""
    return _BY_PLAIN_NAME.get(_plain(dataset))


def facts(dataset: str) -> DatasetFacts:
    """The facts about a data set; an unknown one is scored under ``rain13k``."""
    return DATASETS.get(known_name(dataset) or "", DatasetFacts(DEFAULT_PROTOCOL))


def own_protocol(dataset: str, *, published: bool) -> str:
    """The protocol of a data set: the usual one, or with ``published`` that of the papers' rows."""
    known = facts(dataset)
    return (published and known.published_protocol) or known.protocol


def published_scores(
    dataset: str, protocol: str, more: Sequence[PublishedScore] = (), *, papers: bool = True
) -> list[PublishedScore]:
    """Scores reported for this data set under exactly this protocol: the papers' and ``more``."""
    names = {known_name(dataset) or dataset, facts(dataset).also}
    return [
        score
        for score in [*(read_published(PUBLISHED_RESULTS) if papers else []), *more]
        if score.protocol == protocol and (known_name(score.dataset) or score.dataset) in names
    ]


def read_csv(path: Path) -> tuple[list[dict[str, str]], Sequence[str]]:
    """The rows of a CSV file with a header, each by column, and the names of the columns.

    Raises UserError for a file that cannot be read or is not CSV.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            return list(reader), reader.fieldnames or []
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8 ({error}).") from error


def read_published(path: Path) -> list[PublishedScore]:
    """The scores in a CSV file with a header.

    Columns: model, dataset and at least one metric (psnr, ssim, lpips ...); optional: protocol
    (default: the data set's), trained_on, source (default: the file's name), cite and note. Raises
    UserError for any other file.
    """
    metrics = (PSNR.key, SSIM.key, *PERCEPTUAL)
    texts = ("model", "dataset", "protocol", "trained_on", "source", "cite", "note")
    lines, columns = read_csv(path)
    wrong = [column for column in columns if column not in (*texts, *metrics)]
    missing = [column for column in ("model", "dataset") if column not in columns]
    if wrong or missing or not set(columns) & set(metrics):
        raise UserError(
            f"{path} has the columns {', '.join(columns) or '(none)'}; a file of published "
            f"scores has model, dataset, any of {', '.join(metrics)}, and optionally "
            f"{', '.join(texts[2:])}."
        )
    scores = []
    for number, line in enumerate(lines, start=2):
        figures = {key: line[key].strip() for key in metrics if line.get(key)}
        for key, figure in figures.items():
            if not re.fullmatch(r"-?\d+(\.\d+)?", figure):
                raise UserError(f"{path}, line {number}: {key} is {figure!r}, not a number.")
        protocol = line.get("protocol") or own_protocol(line["dataset"], published=True)
        if protocol not in (*PROTOCOLS, "niqe"):
            raise UserError(
                f"{path}, line {number}: there is no protocol {protocol!r}; choose from "
                f"{', '.join(PROTOCOLS)}, or niqe for scores without clean images."
            )
        scores.append(
            PublishedScore(
                line["model"],
                line["dataset"],
                protocol,
                figures,
                line.get("trained_on") or "",
                line.get("source") or path.name,
                line.get("cite") or CITATIONS.get(line["model"], ""),
                line.get("note") or "",
            )
        )
    return scores


def _plain(dataset: str) -> str:
    return re.sub(r"[^a-z0-9]", "", dataset.lower()).removesuffix("data")


_BY_PLAIN_NAME = {_plain(name): name for name in DATASETS} | {
    "rain14000": "DDN-Data",
    "raindroptesta": "Raindrop-A",  # the folders test_a and test_b of DeRaindrop's archive
    "raindroptestb": "Raindrop-B",
}
