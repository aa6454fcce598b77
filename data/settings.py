"""The DATA and AUGMENT settings of a configuration: read and checked once, before any folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from data.synthesis import Mixture, SceneVariety
from data.transforms import Augmentation
from utils.errors import UserError
from utils.set_names import named_folders, two_elements


@dataclass(frozen=True)
class SynthesisSettings:
    """Photographs on which rain is drawn, and the folders of rain layers, which may be ""."""

    clean: str
    hold_out: int
    layers: str
    skip_layers: list[str]
    harvest: str
    mixture: Mixture
    variety: SceneVariety


@dataclass(frozen=True)
class DataSettings:
    """All that the loaders need of a configuration."""

    seed: int
    training: list[tuple[str, float]]
    """Folders with their weights; empty if ``synthesis`` takes their place."""
    synthesis: SynthesisSettings | None
    validation: dict[str, str]
    """Folders by the sets' names."""
    protocol: str
    """The protocol that scores ``validation``."""
    tests: dict[str, str]
    """As ``validation``."""
    layout: str
    match: str
    half: str
    repeat: int
    cache: Path | None
    num_workers: int
    leaks: str
    augmentation: Augmentation
    accumulate: int
    batch_sizes: list[tuple[str, int]]
    """Every batch size of the run, after the name of its setting."""


def read_settings(cfg: CfgNode, world_size: int = 1) -> DataSettings:
    """The settings of a run on ``world_size`` processes. Raises UserError for impossible ones."""
    data = cfg.DATA
    check_batches(cfg, world_size)
    return DataSettings(
        seed=cfg.RUN.SEED,
        training=[] if data.SYNTHESIS.CLEAN else training_folders(data.TRAIN),
        synthesis=_synthesis(data.SYNTHESIS) if data.SYNTHESIS.CLEAN else None,
        validation=named_folders(data.VAL, "DATA.VAL"),
        protocol=cfg.VALIDATION.PROTOCOL,
        tests=named_folders(cfg.TEST.SETS, "TEST.SETS"),
        layout=data.LAYOUT,
        match=data.MATCH,
        half=data.RAINY_HALF,
        repeat=data.REPEAT,
        cache=Path(data.CACHE) if data.CACHE else None,
        num_workers=data.WORKERS,
        leaks=data.LEAKS,
        augmentation=build_augmentation(cfg.AUGMENT),
        accumulate=cfg.OPTIM.ACCUMULATE,
        batch_sizes=batch_sizes(cfg),
    )


def training_folders(setting: str | Sequence[Any]) -> list[tuple[str, float]]:
    """The folders of DATA.TRAIN with their weights: FOLDER, or a list of FOLDER, [FOLDER, WEIGHT].

    Raises UserError for anything else.
    """
    found = []
    for entry in [setting] if isinstance(setting, str) else setting:
        folder, weight = (entry, 1.0) if isinstance(entry, str) else two_elements(entry)
        is_weight = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not isinstance(folder, str) or not is_weight or not 0 < weight < float("inf"):
            raise UserError(
                f"DATA.TRAIN holds {entry!r}; each entry is a folder or [folder, weight], where a "
                "weight of 2 shows each of its pairs twice per epoch and 0.5 half of them."
            )
        found.append((folder, float(weight)))
    if not found:
        raise UserError("DATA.TRAIN is an empty list; name a folder of pairs.")
    return found


def build_augmentation(node: CfgNode) -> Augmentation:
    """The augmentation that the AUGMENT settings describe. Raises UserError for impossible ones."""
    try:
        return Augmentation(
            geometry=node.GEOMETRY,
            saturation=tuple(node.SATURATION),
            saturation_probability=node.SATURATION_PROBABILITY,
            crop=tuple(node.CROP) or None,
            rotation=node.ROTATION,
            black_corners=node.BLACK_CORNERS,
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def _synthesis(node: CfgNode) -> SynthesisSettings:
    """The DATA.SYNTHESIS settings. Raises UserError for a share of layers without their folder."""
    for name in ("LAYERS", "HARVEST"):
        if bool(node[name]) != (node[f"SHARE_{name}"] > 0):
            raise UserError(
                f"DATA.SYNTHESIS.{name} and a SHARE_{name} above 0 go together; give both or "
                "neither."
            )
    return SynthesisSettings(
        clean=node.CLEAN,
        hold_out=node.HOLD_OUT,
        layers=node.LAYERS,
        skip_layers=node.SKIP_LAYERS,
        harvest=node.HARVEST,
        mixture=Mixture(
            layers=node.SHARE_LAYERS,
            light=node.SHARE_LIGHT,
            dry=node.SHARE_DRY,
            downpours=node.SHARE_DOWNPOURS,
            harvested=node.SHARE_HARVEST,
            faint=node.SHARE_FAINT,
        ),
        variety=SceneVariety(
            relit=node.SHARE_RELIT,
            dim=node.SHARE_DIM,
            patterns=node.SHARE_PATTERNS,
            processed=node.SHARE_PROCESSED,
        ),
    )


def check_batches(cfg: CfgNode, world_size: int) -> None:
    """Refuse batches that the processes cannot share. Needs no data."""
    parts = world_size * cfg.OPTIM.ACCUMULATE
    for name, batch_size in batch_sizes(cfg):
        if batch_size % parts:
            raise UserError(
                f"{name} asks for batches of {batch_size}; a batch must be a multiple of {parts}, "
                "the number of processes times OPTIM.ACCUMULATE."
            )


def batch_sizes(cfg: CfgNode) -> list[tuple[str, int]]:
    """Every batch size of a run, after the name of its setting."""
    later = [("AUGMENT.PROGRESSIVE", stage[2]) for stage in cfg.AUGMENT.PROGRESSIVE]
    return [("OPTIM.BATCH_SIZE", cfg.OPTIM.BATCH_SIZE), *later]
