"""The methods that ``test.py --config`` compares: one for each file of settings."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from utils.errors import UserError
from utils.evaluation.scoring import NIQE
from utils.inference.tiling import Tile
from utils.set_names import named_folders

SPANDREL = "spandrel"  # instead of a network of ours: whatever that package recognises
BEST_WEIGHTS = "best.safetensors"  # in a run's folder


@dataclass(frozen=True)
class Method:
    """A network with its weights, how it restores, and the sets that it restores.

    ``model`` and ``model_options`` are the network of the settings. Results go to
    ``output``/SET/, the table and the page to ``scores``; ``sets`` holds the folder of each set by
    its name. ``protocol`` is "" if each set has its own; ``match`` and ``rainy_half`` are
    DATA.MATCH and DATA.RAINY_HALF.
    """

    name: str
    model: str
    model_options: dict[str, Any]
    weights: Path
    output: Path
    scores: Path
    sets: dict[str, Path]
    protocol: str
    tile: Tile
    overlap: int | None
    ensemble: int
    precision: str
    match: str
    rainy_half: str

    def fingerprint(self) -> str:
        """A text that differs where the content of the weights or any option differs."""
        options = (self.model, sorted(self.model_options.items()), self.tile, self.overlap)
        return f"{_digest(self.weights)} {(*options, self.ensemble, self.precision)!r}"


def read_methods(
    paths: Sequence[Path], settings: Sequence[CfgNode], weights: Sequence[Path]
) -> list[Method]:
    """The methods of some files of settings, in their order.

    ``weights`` belong to the files in the same order; without any, each method has the best
    weights of its run. Raises UserError if weights are missing, if a file names no set, if two
    methods would write into one folder or mean different sets by one name, and if only some of them
    score without clean images.
    """
    if weights and len(weights) != len(paths):
        raise UserError(
            f"There are {len(paths)} --config and {len(weights)} --weights; give one --weights for "
            "each --config, in the same order, or none to take each run's best weights."
        )
    given: Sequence[Path | None] = weights or [None] * len(paths)
    methods = [
        _read_method(path, cfg, own) for path, cfg, own in zip(paths, settings, given, strict=True)
    ]
    protocols = dict.fromkeys(method.protocol or "each set's own" for method in methods)
    if NIQE in protocols and len(protocols) > 1:
        raise UserError(
            f"TEST.PROTOCOL is {' and '.join(protocols)}; {NIQE}, which scores without clean "
            "images, needs a separate table."
        )
    folders: dict[Path, Path] = {}
    sets: dict[str, tuple[Path, str]] = {}
    for path, method in zip(paths, methods, strict=True):
        for name, folder in method.sets.items():
            target = (method.output / name).resolve()
            if target in folders:
                raise UserError(
                    f"{folders[target]} and {path} would both write into {method.output / name}; "
                    "give one of them another RUN.NAME or TEST.METHOD, or with --model another "
                    "name of its weights file."
                )
            folders[target] = path
            same = sets.setdefault(name, (folder, method.protocol))
            if same[0].resolve() != folder.resolve():
                raise UserError(
                    f"Two sets are called {name}, {same[0]} and {folder}; give one of them another "
                    "name by [folder, name] in TEST.SETS."
                )
            if same[1] != method.protocol:
                raise UserError(
                    f"{name} has two protocols, {same[1] or 'its own'} and "
                    f"{method.protocol or 'its own'}; a column of a table has one (TEST.PROTOCOL)."
                )
    return methods


def _read_method(path: Path, cfg: CfgNode, weights: Path | None) -> Method:
    node = cfg.TEST
    key, setting = ("TEST.SETS", node.SETS) if node.SETS else ("DATA.VAL", cfg.DATA.VAL)
    sets = {name: Path(folder) for name, folder in named_folders(setting, key).items()}
    if not sets:
        raise UserError(f"{path} names no set to test on; add TEST.SETS FOLDER.")
    for name in sets:
        if Path(name).name != name:
            raise UserError(f"{key} calls a set {name!r}; a name of a set holds no slash.")
    name = node.METHOD or cfg.RUN.NAME
    return Method(
        name=name,
        model=cfg.MODEL.NAME,
        model_options=dict(cfg.MODEL.OPTIONS),
        weights=weights or _best_weights(path, cfg),
        output=Path(node.OUTPUT) / name,
        scores=Path(node.SCORES),
        sets=sets,
        protocol=node.PROTOCOL,
        tile=Tile.parse(node.TILE),
        overlap=None if node.OVERLAP < 0 else node.OVERLAP,
        ensemble=node.ENSEMBLE,
        precision=node.PRECISION,
        match=cfg.DATA.MATCH,
        rainy_half=cfg.DATA.RAINY_HALF,
    )


def _best_weights(path: Path, cfg: CfgNode) -> Path:
    """The best weights of the run of some settings: beside its config.yml, or in its folder."""
    candidates = [Path(cfg.RUN.FOLDER) / cfg.RUN.NAME / BEST_WEIGHTS]
    if path.name == "config.yml":  # a run's folder may have been moved or renamed
        candidates.insert(0, path.parent / BEST_WEIGHTS)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UserError(
        f"{path} has no trained weights: there is no {candidates[0]}. Train it by python train.py "
        f"--config {path}, or name a file with --weights."
    )


def _digest(weights: Path) -> str:
    """The SHA-256 of a file, or of the files of a TensorFlow checkpoint of this prefix."""
    files = [weights] if weights.is_file() else sorted(weights.parent.glob(f"{weights.name}.*"))
    if not files:
        raise UserError(f"There is no file {weights}.")
    found = hashlib.sha256()
    try:
        for path in files:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    found.update(block)
    except OSError as error:
        raise UserError(f"Cannot read {weights}: {error.strerror or error}.") from error
    return found.hexdigest()
