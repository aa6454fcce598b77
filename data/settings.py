"""What the DATA and AUGMENT settings of a configuration mean, and which values are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from yacs.config import CfgNode

from data.synthesis import Mixture, SceneVariety
from data.transforms import Augmentation
from utils.errors import UserError


def training_folders(setting: str | Sequence[Any]) -> list[tuple[str, float]]:
    """The folders of DATA.TRAIN with their weights: FOLDER, or a list of FOLDER, [FOLDER, WEIGHT].

    Raises UserError for anything else.
    """
    found = []
    for entry in [setting] if isinstance(setting, str) else setting:
        folder, weight = (entry, 1.0) if isinstance(entry, str) else _two(entry)
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


def _two(entry: Any) -> tuple[Any, Any]:
    """The two elements of a list; anything else gives values that are refused."""
    return tuple(entry) if isinstance(entry, (list, tuple)) and len(entry) == 2 else (None, None)


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


def build_mixture(node: CfgNode) -> Mixture:
    """The shares of the kinds of rain in DATA.SYNTHESIS. Raises UserError for impossible ones."""
    for name in ("LAYERS", "HARVEST"):
        if bool(node[name]) != (node[f"SHARE_{name}"] > 0):
            raise UserError(
                f"DATA.SYNTHESIS.{name} and a SHARE_{name} above 0 go together; give both or "
                "neither."
            )
    return Mixture(
        layers=node.SHARE_LAYERS,
        light=node.SHARE_LIGHT,
        dry=node.SHARE_DRY,
        downpours=node.SHARE_DOWNPOURS,
        harvested=node.SHARE_HARVEST,
        faint=node.SHARE_FAINT,
    )


def build_variety(node: CfgNode) -> SceneVariety:
    """The shares of the scenes and pairs that DATA.SYNTHESIS varies beside the rain."""
    return SceneVariety(
        relit=node.SHARE_RELIT,
        dim=node.SHARE_DIM,
        patterns=node.SHARE_PATTERNS,
        processed=node.SHARE_PROCESSED,
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
    """Every batch size of a run, behind the setting that asks for it."""
    later = [("AUGMENT.PROGRESSIVE", stage[2]) for stage in cfg.AUGMENT.PROGRESSIVE]
    return [("OPTIM.BATCH_SIZE", cfg.OPTIM.BATCH_SIZE), *later]
