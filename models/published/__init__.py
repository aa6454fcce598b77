"""Weights from files: those of this project and, in any form, those of the networks' authors.

All reading of weights is in this package. ``reader.py`` and ``tensorflow.py`` read files;
``NAME.py`` maps the authors' names of one network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.dcsfn import DCSFN
from models.dmsr import DMSR
from models.hub import local_weights
from models.mspfn import MSPFN
from models.nerd_rain import NeRDRain
from models.network import DerainingNetwork
from models.published.dcsfn import DCSFNForm
from models.published.dmsr import DMSRForm
from models.published.form import PublishedForm
from models.published.mspfn import MSPFNForm
from models.published.nerd_rain import NeRDRainForm
from models.published.reader import read_state_dict
from models.published.tensorflow import (
    is_tensorflow_checkpoint,
    read_tensorflow_checkpoint,
    write_tensorflow_checkpoint,
)
from models.registry import build_model
from utils.checkpoints import ForeignFileError, read_weights, save_torch_file
from utils.errors import UserError
from utils.files import atomic_write

# The weights that ship with the project.
SHIPPED_WEIGHTS = Path(__file__).parents[2] / "weights" / "petrichor.safetensors"

# The networks whose authors publish weights, and the form of their files.
FORMS: dict[type[DerainingNetwork], PublishedForm[Any]] = {
    DMSR: DMSRForm(),
    NeRDRain: NeRDRainForm(),
    DCSFN: DCSFNForm(),
    MSPFN: MSPFNForm(),
}


def published_form(network: DerainingNetwork) -> PublishedForm[Any]:
    """The form of the authors' files; by default the network's own names."""
    return FORMS.get(type(network), PublishedForm())


def to_published(network: DerainingNetwork) -> dict[str, Tensor]:
    """The weights in the authors' names and layouts."""
    return published_form(network).to_published(network)


def from_published(network: DerainingNetwork, published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``to_published``: a state dict of ``network`` from all entries of theirs."""
    return published_form(network).from_published(network, published)


def load_weights(path: str | Path) -> DerainingNetwork:
    """The network in a file of this project, with its weights, in eval mode on the CPU.

    Takes ``.safetensors`` weights, training checkpoints (the averaged weights if there are any) and
    ``hf:user/name[@revision]`` for a Hugging Face repository. Raises UserError if it cannot be read
    or does not fit the network that it names.
    """
    weights = read_weights(local_weights(path))
    # First on the meta device, since a file may name a network that does not fit into memory.
    with torch.device("meta"):
        expected = build_model(weights.model, weights.options).state_dict()
    _check_entries(str(path), expected, weights.state)
    network = build_model(weights.model, weights.options)
    network.load_state_dict(weights.state)
    network.info = weights.info
    return network.eval()


def load_initial(
    network: DerainingNetwork,
    name: str,
    path: str | Path,
    is_partial: bool = False,
    options: Mapping[str, Any] | None = None,
) -> str:
    """Load initial weights for training from a file of this project or of the authors of ``name``.

    ``network`` was built with ``options``, and an authors' file is read with them too. Raises
    UserError if the weights do not fit. With ``is_partial`` those that fit are loaded, also from
    an authors' file without those options, and a sentence on the entries that are missing is
    returned. The result is empty if none is.
    """
    path = local_weights(path)
    try:
        if is_tensorflow_checkpoint(path):
            raise ForeignFileError
        state = read_weights(path).state
    except ForeignFileError:
        state = _initial_published(name, path, is_partial, options)
    if not is_partial:
        _check_entries(f"MODEL.INIT {path}", network.state_dict(), state)
        network.load_state_dict(state)
        return ""
    own = network.state_dict()
    fits = {key: x for key, x in state.items() if key in own and own[key].shape == x.shape}
    if not fits:
        raise UserError(f"MODEL.INIT {path} holds nothing that fits {name}.")
    network.load_state_dict(fits, strict=False)
    missing = [key for key in own if key not in fits]
    shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
    return f"{len(fits)} of {len(own)} entries from {path}, not {shown}" if missing else ""


def _initial_published(
    name: str, path: Path, is_partial: bool, options: Mapping[str, Any] | None
) -> dict[str, Tensor]:
    try:
        return load_published(name, path, options).state_dict()
    except UserError:
        if not (is_partial and options):
            raise
    return load_published(name, path).state_dict()


def load_published(
    name: str,
    path: str | Path,
    options: Mapping[str, Any] | None = None,
    notify: Callable[[str], None] = print,
) -> DerainingNetwork:
    """The network ``name`` with the weights of its authors' checkpoint, in eval mode on the CPU.

    ``path`` is a PyTorch or safetensors file or, for MSPFN, a TensorFlow checkpoint's prefix
    (``.../epoch44``). ``options`` are those of ``build_model``. ``notify`` gets a sentence if
    something in the file was left out or chosen. Raises UserError if names or shapes do not fit.
    """
    network = build_model(name, options)
    published = read_published(network, Path(path), notify)
    with torch.device("meta"):
        expected = to_published(build_model(name, options))
    _check_entries(f"{path}, read as the authors' {name},", expected, published)
    network.load_state_dict(from_published(network, published))
    return network.eval()


def read_published(
    network: DerainingNetwork, path: Path, notify: Callable[[str], None] = print
) -> dict[str, Tensor]:
    """The entries of an authors' checkpoint under the names that ``to_published`` uses."""
    form = published_form(network)
    if is_tensorflow_checkpoint(path):
        entries = read_tensorflow_checkpoint(path)
    else:
        found = read_state_dict(path, form.key)
        if found.note:
            notify(found.note)
        entries = found.entries
    return {form.name_from_file(name): value for name, value in entries.items()}


def write_published(network: DerainingNetwork, path: Path) -> None:
    """Write a network's weights in the form that its authors' code reads.

    ``path`` is a file or, for a network published in TensorFlow, a checkpoint's prefix.
    """
    form = published_form(network)
    published = form.to_published(network)
    entries = {form.name_in_file(network, name): value for name, value in published.items()}
    if form.is_tensorflow:
        write_tensorflow_checkpoint(path, entries)
        return
    content = {form.key: entries} if form.key else entries
    atomic_write(path, lambda file: save_torch_file(content, file))


def _check_entries(what: str, expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raise UserError if weights do not fit the network, with the first names of each kind."""
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
