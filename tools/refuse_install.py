"""The build backend of pyproject.toml: refuses ``pip install .`` and says what to do instead.

Installed, the packages models, data, losses and utils could collide with those of other projects.
"""

from __future__ import annotations

import sys
from typing import NoReturn

SENTENCE = (
    "Petrichor runs from its clone and is not installed, because its packages (models, data, "
    "losses, utils, configs) would take these names in your environment: run "
    "`pip install -r requirements.txt`, then the scripts in the clone, or load the networks with "
    'torch.hub.load("path/to/petrichor", ..., source="local").'
)


def refuse(*_: object, **__: object) -> NoReturn:
    sys.exit(SENTENCE)


# What pip and other front ends call first to build a wheel, an editable wheel or an sdist.
get_requires_for_build_wheel = build_wheel = refuse
get_requires_for_build_editable = build_editable = refuse
get_requires_for_build_sdist = build_sdist = refuse
