"""The HTML pages: templates, style and scripts of this folder, rendered into one file."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from utils.evaluation.formats import FACT_HEADINGS, INCOMPLETE, number_text
from utils.evaluation.table import notes, sources
from utils.wording import plural

HERE = Path(__file__).parent
RANK_CLASSES = {0: "", 1: "best", 2: "second"}


def render(template: str, **values: object) -> str:
    """A page of this folder with ``values`` filled in; texts are escaped, ``Markup`` is not."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        file=lambda name: Markup((HERE / name).read_text(encoding="utf-8")),
        fact_headings=FACT_HEADINGS,
        incomplete=INCOMPLETE,
        isnan=math.isnan,
        number_text=number_text,
        plural=plural,
        rank_classes=RANK_CLASSES,
        sources=sources,
        table_notes=notes,
    )
    return environment
