"""The networks by name."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from models import dcsfn, dmsr, mspfn, nerd_rain
from models.network import DerainingNetwork
from utils.errors import UserError

# name -> (class, configuration); a name that two files claim is an error of ours.
NETWORKS: dict[str, tuple[type[DerainingNetwork], Any]] = {}
for network_class, variants in (
    (dmsr.DMSR, dmsr.VARIANTS),
    (nerd_rain.NeRDRain, nerd_rain.VARIANTS),
    (dcsfn.DCSFN, dcsfn.VARIANTS),
    (mspfn.MSPFN, mspfn.VARIANTS),
):
    for variant_name, variant_config in variants.items():
        assert variant_name not in NETWORKS, variant_name
        NETWORKS[variant_name] = (network_class, variant_config)


def build_model(name: str, options: Mapping[str, Any] | None = None) -> DerainingNetwork:
    """A freshly initialised network.

    ``options`` overrides fields of the variant's configuration, for example ``{"width": 32}``.
    Raises UserError for an unknown name, field or impossible value.
    """
    if name not in NETWORKS:
        raise UserError(f"There is no network {name!r}; known are {', '.join(NETWORKS)}.")
    network_class, config = NETWORKS[name]
    options = dict(options or {})
    fields = {field.name: type(getattr(config, field.name)) for field in dataclasses.fields(config)}
    for key, value in options.items():
        if key not in fields:
            raise UserError(
                f"{name} has no option {key!r}; its options are {', '.join(fields)}."
                + _nearest(key, list(fields))
            )
        if fields[key] is tuple and isinstance(value, list):
            options[key] = value = tuple(value)
        if type(value) is not fields[key]:
            raise UserError(
                f"{name}'s option {key} is {value!r}; it must be of type {fields[key].__name__}."
            )
    try:
        return network_class(dataclasses.replace(config, **options))
    except ValueError as error:  # a configuration refuses its values in one sentence
        raise UserError(str(error)) from error


def _nearest(word: str, known: list[str]) -> str:
    matches = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {matches[0]}?" if matches else ""
