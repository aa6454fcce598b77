"""The networks by name. A new one takes a file in this folder and two lines here."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from models import dcsfn, dmsr, mspfn, nerd_rain
from models.network import DerainingNetwork
from utils.errors import UserError
from utils.wording import did_you_mean

# A larger width or count is a mistake: the network would take hours and all memory to build.
LARGEST_OPTION = 4096

# name -> (class, configuration)
NETWORKS: dict[str, tuple[type[DerainingNetwork], Any]] = {}


def register(network_class: type[DerainingNetwork], variants: Mapping[str, Any]) -> None:
    """Register a network under the names of its variants.

    Raises ValueError, and registers none, if another network has one of the names.
    """
    for name in variants:
        if name in NETWORKS:
            raise ValueError(
                f"{name!r} is the name of two networks, {NETWORKS[name][0].__name__} and "
                f"{network_class.__name__}; rename one of them in its VARIANTS."
            )
    NETWORKS.update({name: (network_class, config) for name, config in variants.items()})


register(dmsr.DMSR, dmsr.VARIANTS)
register(nerd_rain.NeRDRain, nerd_rain.VARIANTS)
register(dcsfn.DCSFN, dcsfn.VARIANTS)
register(mspfn.MSPFN, mspfn.VARIANTS)


def build_model(name: str, options: Mapping[str, Any] | None = None) -> DerainingNetwork:
    """A newly initialised network.

    ``options`` override fields of the variant's configuration, for example ``{"width": 32}``.
    Raises UserError for an unknown name, an unknown field or an impossible value.
    """
    if name not in NETWORKS:
        raise UserError(
            f"There is no network {name!r}.{did_you_mean(name, NETWORKS)} Known are "
            f"{', '.join(NETWORKS)}; a new one is added in models/registry.py."
        )
    network_class, config = NETWORKS[name]
    options = dict(options or {})
    fields = {field.name: type(getattr(config, field.name)) for field in dataclasses.fields(config)}
    for key, value in options.items():
        if key not in fields:
            raise UserError(
                f"{name} has no option {key!r}; its options are {', '.join(fields)}."
                + did_you_mean(key, fields)
            )
        if fields[key] is tuple and isinstance(value, list):
            options[key] = value = tuple(value)
        if type(value) is not fields[key]:
            raise UserError(
                f"{name}'s option {key} is {value!r}; it must be of type {fields[key].__name__}."
            )
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int) and number > LARGEST_OPTION:
                raise UserError(
                    f"{name}'s option {key} is {value}; it must be at most {LARGEST_OPTION}."
                )
    try:
        network = network_class(dataclasses.replace(config, **options))
    except ValueError as error:  # from the configuration, in one sentence
        raise UserError(str(error)) from error
    network.registry_name, network.options, network.info = name, options, {}
    return network


def parse_options(settings: Iterable[str]) -> dict[str, Any]:
    """The options of a command line, such as ``width=16 num_blocks=1,1,2``, for ``build_model``.

    Several numbers are a tuple, with or without brackets. Raises UserError for anything that is not
    KEY=VALUE and for a key that occurs twice.
    """
    options: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not (key and equals and value):
            raise UserError(f"{setting!r} is not KEY=VALUE; write for example width=16.")
        if key in options:
            raise UserError(f"The options name {key} twice; leave one of them out.")
        try:
            options[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[key] = value  # a word
    return options
