"""Weights from files: this project's own, and the authors', TensorFlow 1 checkpoints too.

This is the only place where networks meet a disk. TensorFlow checkpoints, which MSPFN's authors
publish, need the package tensorflow-cpu; nothing else in the project imports it.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.network import DerainingNetwork
from models.registry import build_model
from utils.checkpoints import ForeignFileError, read_torch_file, read_weights, save_torch_file
from utils.errors import UserError
from utils.files import atomic_write

# Last parts of the names that training adds beside the weights: Adam's two moments of each
# variable, its powers, the step. A second optimiser gets the same names with a number.
_TRAINING_STATE = ("Adam", "beta1_power", "beta2_power", "global_step")


def load_weights(path: str | Path) -> DerainingNetwork:
    """The network that a file of this project holds, with its weights, in eval mode on the CPU.

    Takes ``.safetensors`` weights and training checkpoints (their EMA where they have one).
    """
    weights = read_weights(Path(path))
    network = build_model(weights.model, weights.options)
    _load_checked(network, weights.state, str(path))
    return network.eval()


def load_initial(
    network: DerainingNetwork,
    name: str,
    path: str | Path,
    is_partial: bool = False,
    options: Mapping[str, Any] | None = None,
) -> str:
    """Start a network from the weights of a file: this project's, or the official ones of ``name``.

    ``network`` was built with ``options``, and so is what an authors' file is read as. Raises
    UserError where the weights do not fit. With ``is_partial`` those that fit are taken, also of an
    authors' file of the released shape, and the result tells in words which entries of the network
    were not found; it is empty if all were.
    """
    path = Path(path)
    try:
        if is_tensorflow_checkpoint(path):
            raise ForeignFileError
        state = read_weights(path).state
    except ForeignFileError:
        state = _initial_published(name, path, is_partial, options)
    if not is_partial:
        _load_checked(network, state, f"MODEL.INIT {path}")
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
    name: str, path: str | Path, options: Mapping[str, Any] | None = None
) -> DerainingNetwork:
    """The network ``name`` with the weights of its authors' checkpoint, in eval mode on the CPU.

    ``path`` is a PyTorch file or, for MSPFN, a TensorFlow checkpoint's prefix (``.../epoch44``).
    ``options`` are those of ``build_model``. Raises UserError where names or shapes do not fit,
    telling all of them together.
    """
    network = build_model(name, options)
    published = read_published(network, Path(path))
    with torch.device("meta"):
        expected = build_model(name, options).to_published()
    _check_entries(f"{path}, read as the authors' {name},", expected, published)
    network.load_state_dict(network.from_published(published))
    return network.eval()


def read_published(network: DerainingNetwork, path: Path) -> dict[str, Tensor]:
    """The entries of an authors' checkpoint, by the names that ``network.to_published`` uses.

    They lie in a PyTorch file, under the network's ``published_key`` or at its top level, with or
    without the prefix of parallel training; or in a TensorFlow checkpoint.
    """
    entries: Any
    if is_tensorflow_checkpoint(path):
        entries = read_tensorflow_checkpoint(path)
    else:
        entries = read_torch_file(path)
        key = network.published_key
        if isinstance(entries, dict) and key in entries:
            entries = entries[key]
        if not isinstance(entries, dict) or not all(
            isinstance(name, str) and isinstance(value, Tensor) for name, value in entries.items()
        ):
            where = f"at its top level or under {key}" if key else "at its top level"
            raise UserError(
                f"{path} holds no named tensors {where}, where the authors of "
                f"{type(network).__name__} keep theirs."
            )
    return {network.name_from_file(name): value for name, value in entries.items()}


def write_published(network: DerainingNetwork, path: Path) -> None:
    """Write a network's weights as its authors' code reads them.

    ``path`` is a file or, for a network published in TensorFlow, a checkpoint's prefix.
    """
    entries = {network.name_in_file(name): x for name, x in network.to_published().items()}
    if network.published_in_tensorflow:
        write_tensorflow_checkpoint(path, entries)
        return
    key = network.published_key
    atomic_write(path, lambda file: save_torch_file({key: entries} if key else entries, file))


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


def is_tensorflow_checkpoint(prefix: Path) -> bool:
    """Whether ``prefix`` names a checkpoint: the files ``prefix.index`` and ``prefix.data-*``."""
    return _index_file(prefix).is_file()


def read_tensorflow_checkpoint(prefix: Path) -> dict[str, Tensor]:
    """The variables by their full names, such as ``generator/rnn1/weight``, in their own layout.

    ``prefix`` is the common part of the files' names (``epoch44`` of ``epoch44.index``). The
    optimiser's state and the step are left out. Raises UserError for a missing or damaged
    checkpoint, for values that are no numbers, and where tensorflow-cpu is not installed.
    """
    if not is_tensorflow_checkpoint(prefix):
        raise UserError(
            f"There is no file {_index_file(prefix)}; name a TensorFlow checkpoint by its prefix, "
            "without .index or .data."
        )
    try:
        with tempfile.TemporaryDirectory() as folder:
            _run_tensorflow(_READ, prefix, Path(folder, "variables.npz"))
            with np.load(Path(folder, "variables.npz")) as variables:
                return {
                    name: torch.from_numpy(variables[name])
                    for name in variables.files
                    if not _is_training_state(name)
                }
    except subprocess.CalledProcessError as error:
        raise UserError(f"{prefix} is damaged or no TensorFlow checkpoint.") from error
    except ValueError as error:  # objects, which this reader refuses
        raise UserError(f"{prefix} holds values that are no numbers.") from error


def write_tensorflow_checkpoint(prefix: Path, variables: Mapping[str, Tensor]) -> None:
    """The inverse of ``read_tensorflow_checkpoint``: ``prefix.index`` and ``prefix.data-*``."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=prefix.parent) as folder:
        written = Path(folder, "variables.npz")
        arrays: dict[str, Any] = {name: x.detach().cpu().numpy() for name, x in variables.items()}
        np.savez(written, **arrays)
        try:
            _run_tensorflow(_WRITE, Path(folder, prefix.name), written)
        except subprocess.CalledProcessError as error:
            reason = error.stderr.strip().splitlines()[-1:]
            raise UserError(f"TensorFlow cannot write {prefix}: {' '.join(reason)}") from error
        written.unlink()
        # The index makes it a checkpoint, so it comes last.
        for file in sorted(Path(folder).iterdir()):
            file.replace(prefix.parent / file.name)


# Programs for a process of their own: TensorFlow and PyTorch with CUDA each bring an LLVM, and
# two of them in one process end it.
_READ = """
import sys
import numpy, tensorflow
reader = tensorflow.train.load_checkpoint(sys.argv[1])
names = reader.get_variable_to_shape_map()
numpy.savez(sys.argv[2], **{name: reader.get_tensor(name) for name in names})
"""
_WRITE = """
import sys
import numpy, tensorflow
with numpy.load(sys.argv[2]) as file:
    variables = dict(file)
tensorflow.raw_ops.SaveV2(
    prefix=sys.argv[1],
    tensor_names=list(variables),
    shape_and_slices=[""] * len(variables),
    tensors=list(variables.values()),
)
"""


def _run_tensorflow(program: str, prefix: Path, variables: Path) -> None:
    """One of the programs above. Raises CalledProcessError where it fails."""
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            "TensorFlow checkpoints, as MSPFN's authors publish them, need a package of their "
            "own: pip install tensorflow-cpu"
        )
    subprocess.run(
        [sys.executable, "-c", program, str(prefix.resolve()), str(variables.resolve())],
        capture_output=True,
        text=True,
        check=True,
    )


def _index_file(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".index")


def _is_training_state(name: str) -> bool:
    last = name.rsplit("/", 1)[-1]
    return any(last == state or last.startswith(state + "_") for state in _TRAINING_STATE)
