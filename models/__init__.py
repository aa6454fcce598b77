"""The networks by name, and their weights from files."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models import dcsfn, dmsr, mspfn, nerd_rain
from models.network import DerainingNetwork
from utils.checkpoints import read_torch_file, read_weights
from utils.errors import UserError
from utils.tensorflow_checkpoint import is_tensorflow_checkpoint, read_tensorflow_checkpoint

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


def load_weights(path: str | Path) -> DerainingNetwork:
    """The network that a file of this project holds, with its weights, in eval mode on the CPU.

    Takes ``.safetensors`` weights and training checkpoints (their EMA where they have one).
    """
    weights = read_weights(Path(path))
    network = build_model(weights.model, weights.options)
    _load_checked(network, weights.state, str(path))
    return network.eval()


def load_state(network: DerainingNetwork, path: str | Path) -> None:
    """Put the weights of a file of this project into a network of the same structure."""
    _load_checked(network, read_weights(Path(path)).state, str(path))


def load_published(name: str, path: str | Path) -> DerainingNetwork:
    """The network ``name`` with the weights of its authors' checkpoint, in eval mode on the CPU.

    ``path`` is a PyTorch file or, for MSPFN, a TensorFlow checkpoint's prefix (``.../epoch44``).
    Raises UserError where names or shapes do not fit, telling all of them together.
    """
    network = build_model(name)
    published = read_published(Path(path))
    with torch.device("meta"):
        expected = build_model(name).to_published()
    _check_entries(f"{path}, read as the authors' {name},", expected, published)
    network.load_state_dict(network.from_published(published))
    return network.eval()


def read_published(path: Path) -> dict[str, Tensor]:
    """The named tensors of an author's checkpoint.

    They lie at a PyTorch file's top level, under ``state_dict`` (DMSR, NeRD-Rain) or under ``net``
    (DCSFN), with or without the ``module.`` prefix of parallel training; or in a TensorFlow
    checkpoint of a test or training graph (MSPFN).
    """
    if is_tensorflow_checkpoint(path):
        variables = read_tensorflow_checkpoint(path)
        # A name that is none of MSPFN's stays, to be reported as unexpected.
        return {mspfn.canonical_name(name) or name: value for name, value in variables.items()}
    content = read_torch_file(path)
    if isinstance(content, dict):
        content = next((content[key] for key in ("state_dict", "net") if key in content), content)
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise UserError(
            f"{path} holds no named tensors at its top level, under state_dict or under net."
        )
    return {name.removeprefix("module."): value for name, value in content.items()}


def _load_checked(network: DerainingNetwork, state: dict[str, Tensor], what: str) -> None:
    _check_entries(what, network.state_dict(), state)
    network.load_state_dict(state)


def _check_entries(what: str, expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Refuse weights that do not fit the network, name by name."""
    problems = []
    for title, names in (
        ("missing", [name for name in expected if name not in given]),
        ("unexpected", [name for name in given if name not in expected]),
        (
            "of another shape",
            [
                f"{name} {tuple(given[name].shape)} instead of {tuple(expected[name].shape)}"
                for name in expected
                if name in given and given[name].shape != expected[name].shape
            ],
        ),
    ):
        if names:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            problems.append(f"{len(names)} {title} ({shown})")
    if problems:
        raise UserError(f"{what} does not fit the network: entries {'; '.join(problems)}.")


def _nearest(word: str, known: list[str]) -> str:
    matches = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {matches[0]}?" if matches else ""
