"""The reader of other projects' weights: any file of PyTorch or safetensors to a state dict.

Nothing in a file is executed: pickles may hold tensors, plain values and NumPy's scalars only, and
TorchScript archives, which are programs, are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from utils.checkpoints import read_safetensors, read_torch_file
from utils.errors import UserError
from utils.wording import plural

# Keys that may hold a state dict, preferred ones first: averaged weights before those in training.
WRAPPERS = (
    *("params_ema", "ema_state_dict", "params", "state_dict", "model_state_dict"),
    *("model", "net", "net_g", "network", "generator", "weights"),
)
# Counters that the package thop adds to a network when it profiles it.
_THOP = ("total_ops", "total_params")


@dataclass(frozen=True)
class StateDict:
    """Named tensors on the CPU.

    ``note`` is a sentence on what was chosen, left out or renamed in the file, or empty.
    """

    entries: dict[str, Tensor]
    note: str


def read_state_dict(path: Path, key: str | None = None) -> StateDict:
    """The weights in a .safetensors file, or in a file of ``torch.save`` with any suffix.

    They may be at the top level, under ``key`` or under one of ``WRAPPERS``. The prefixes
    ``module.`` of parallel training and ``_orig_mod.`` of torch.compile and the counters of thop
    are removed. Raises UserError for a missing or damaged file, for a TorchScript archive or
    anything else that would execute code, and if no named tensors are found.
    """
    if path.suffix.lower() == ".safetensors":
        return _cleaned(path, read_safetensors(path)[1], [])
    content = read_torch_file(path)
    wrappers = (key, *WRAPPERS) if key else WRAPPERS
    found = _unwrapped(content, wrappers, [])
    if found is None:
        where = f"at its top level or under {', '.join(dict.fromkeys(wrappers))}"
        raise UserError(f"{path} holds no named tensors {where}.")
    entries, keys, others = found
    notes = []
    if keys and keys != [key]:
        instead = f", not under {', '.join(others)}" if others else ""
        notes.append(f"the weights under {'.'.join(keys)} taken{instead}")
    return _cleaned(path, entries, notes)


def _unwrapped(
    content: Any, wrappers: tuple[str, ...], keys: list[str]
) -> tuple[dict[str, Tensor], list[str], list[str]] | None:
    """Named tensors, the keys that lead to them, and the wrappers beside those keys."""
    if not isinstance(content, Mapping):
        return None
    if content and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        return dict(content), keys, []
    candidates = [name for name in dict.fromkeys(wrappers) if name in content]
    for i, name in enumerate(candidates):
        found = _unwrapped(content[name], wrappers, [*keys, name])
        if found is not None:
            entries, path, others = found
            return entries, path, others + candidates[i + 1 :]
    return None


def _cleaned(path: Path, entries: dict[str, Tensor], notes: list[str]) -> StateDict:
    """The entries without what profiling, compiling and parallel training add to names."""
    counters = [name for name in entries if name.rsplit(".", 1)[-1] in _THOP]
    if counters:
        notes.append(f"{plural(len(counters), 'counter')} of thop left out")
    names = {name: name.replace("_orig_mod.", "") for name in entries if name not in counters}
    if any(old != new for old, new in names.items()):
        notes.append("the prefix _orig_mod. of torch.compile removed")
    while names and all(name.startswith("module.") for name in names.values()):
        names = {old: new.removeprefix("module.") for old, new in names.items()}
    if len(set(names.values())) < len(names):
        raise UserError(f"{path} holds two entries of one name, with and without _orig_mod.")
    note = f"{path.name}: {'; '.join(notes)}." if notes else ""
    return StateDict({new: entries[old] for old, new in names.items()}, note)
