"""Reading the weights of a TensorFlow 1 checkpoint, which MSPFN's authors publish.

Needs the package tensorflow-cpu, for this alone; nothing else in the project imports it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from utils.errors import UserError

# Last parts of the names that training adds beside the weights: Adam's two moments of each
# variable, its powers, the step. A second optimiser gets the same names with a number.
_TRAINING_STATE = ("Adam", "beta1_power", "beta2_power", "global_step")


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
        import tensorflow
    except ModuleNotFoundError as error:
        raise UserError(
            f"{prefix} is a TensorFlow checkpoint; install its reader with "
            "`pip install tensorflow-cpu`."
        ) from error
    try:
        reader = tensorflow.train.load_checkpoint(str(prefix))
        return {
            name: torch.from_numpy(reader.get_tensor(name))
            for name in reader.get_variable_to_shape_map()
            if not _is_training_state(name)
        }
    except (tensorflow.errors.OpError, IndexError) as error:  # IndexError: a file that is cut off
        raise UserError(f"{prefix} is damaged or no TensorFlow checkpoint.") from error
    except TypeError as error:
        raise UserError(f"{prefix} holds values that are no numbers: {error}.") from error


def _index_file(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".index")


def _is_training_state(name: str) -> bool:
    last = name.rsplit("/", 1)[-1]
    return any(last == state or last.startswith(state + "_") for state in _TRAINING_STATE)
