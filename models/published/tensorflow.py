"""Reading and writing TensorFlow 1 checkpoints, which MSPFN's authors publish.

Only this file needs the package tensorflow-cpu.
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

from utils.errors import UserError

# Last parts of the names of a training's state: Adam's two moments of each variable, the powers of
# its betas, the step. A second optimiser has the same names with a number.
_TRAINING_STATE = ("Adam", "beta1_power", "beta2_power", "global_step")


def is_tensorflow_checkpoint(prefix: Path) -> bool:
    """Whether ``prefix`` names a checkpoint, the files ``prefix.index`` and ``prefix.data-*``."""
    return _index_file(prefix).is_file()


def read_tensorflow_checkpoint(prefix: Path) -> dict[str, Tensor]:
    """The variables by their full names, such as ``generator/rnn1/weight``, in TensorFlow's layout.

    ``prefix`` is the common part of the files' names (``epoch44`` of ``epoch44.index``). The
    optimiser's state and the step are left out. Raises UserError for a missing or damaged
    checkpoint, for values that are not numbers, and if tensorflow-cpu is not installed.
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
        raise UserError(f"{prefix} is damaged or not a TensorFlow checkpoint.") from error
    except ValueError as error:  # objects, which this reader refuses
        raise UserError(f"{prefix} holds values that are not numbers.") from error


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
        # The index, which makes it a checkpoint, is moved last.
        for file in sorted(Path(folder).iterdir()):
            file.replace(prefix.parent / file.name)


# Programs for a process without PyTorch: its CUDA build and TensorFlow each bring an LLVM, and two
# of them crash a process.
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
    """Run one of the programs above. Raises CalledProcessError if it fails."""
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            "TensorFlow checkpoints, which MSPFN's authors publish, need another package: "
            "pip install tensorflow-cpu"
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
