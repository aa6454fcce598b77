"""What all processes of a run must have in common: code, PyTorch, settings, data."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from yacs.config import CfgNode

from utils.training.data_identity import FileStamps

ROOT = Path(__file__).parents[2]
PACKAGES = ("configs", "data", "losses", "models", "utils")

# Settings that may differ: each machine may have its cache on its own disk.
OWN = ("DATA.CACHE",)


def program_facts(cfg: CfgNode) -> dict[str, object]:
    """The code, PyTorch's version and every setting, for ``Processes.check_same``."""
    return {"the code": _code(), "PyTorch": torch.__version__} | _settings(cfg)


def data_facts(num_samples: int, files: dict[str, FileStamps]) -> dict[str, object]:
    """The number of samples per epoch, and a digest of each set's names and sizes.

    Times are left out: copies of one data set on several machines may differ in them.
    """
    facts: dict[str, object] = {"the number of samples per epoch": num_samples}
    for name, stamps in files.items():
        names = sorted((file, size) for file, (size, _) in stamps.items())
        digest = hashlib.sha256(repr(names).encode(errors="surrogateescape")).hexdigest()[:12]
        facts[f"the data of {name}"] = f"{len(stamps)} files (digest {digest})"
    return facts


def _code() -> str:
    """A digest of the project's Python files; also works in a copy without git."""
    digest = hashlib.sha256()
    paths = [path for package in PACKAGES for path in ROOT.glob(f"{package}/**/*.py")]
    for path in sorted([ROOT / "train.py", *paths]):
        digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _settings(node: CfgNode, prefix: str = "") -> dict[str, object]:
    facts: dict[str, object] = {}
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, CfgNode):
            facts |= _settings(value, f"{name}.")
        elif name not in OWN:
            facts[name] = value
    return facts
