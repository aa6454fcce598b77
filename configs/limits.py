"""The limits of the settings' values."""

from __future__ import annotations

import math
from typing import Any

from yacs.config import CfgNode

from utils.devices import PRECISIONS
from utils.errors import UserError
from utils.inference.tiling import Tile
from utils.metrics import PROTOCOLS
from utils.training.optim import OPTIMIZERS
from utils.training.schedule import SCHEDULES

POSITIVE = 1e-300  # the least value of a setting that must be above zero
NO_LIMIT = float("inf")

# Setting -> the least and the largest value of a number or of every number in a list.
RANGES: dict[str, tuple[float, float]] = {
    "RUN.SEED": (0, 2**32 - 1),
    "RUN.TIMEOUT": (POSITIVE, 24 * 60),
    "DATA.REPEAT": (1, NO_LIMIT),
    "DATA.WORKERS": (0, NO_LIMIT),
    "DATA.SYNTHESIS.HOLD_OUT": (0, NO_LIMIT),
    "DATA.SYNTHESIS.SHARE_LAYERS": (0, 1),
    "DATA.SYNTHESIS.SHARE_LIGHT": (0, 1),
    "DATA.SYNTHESIS.SHARE_DRY": (0, 1),
    "DATA.SYNTHESIS.SHARE_DOWNPOURS": (0, 1),
    "DATA.SYNTHESIS.SHARE_FAINT": (0, 1),
    "DATA.SYNTHESIS.SHARE_HARVEST": (0, 1),
    "DATA.SYNTHESIS.SHARE_PROCESSED": (0, 1),
    "DATA.SYNTHESIS.SHARE_RELIT": (0, 1),
    "DATA.SYNTHESIS.SHARE_DIM": (0, 1),
    "DATA.SYNTHESIS.SHARE_PATTERNS": (0, 1),
    "AUGMENT.PATCH": (1, NO_LIMIT),
    "AUGMENT.SATURATION": (0, NO_LIMIT),
    "AUGMENT.SATURATION_PROBABILITY": (0, 1),
    "AUGMENT.CROP": (2, NO_LIMIT),
    "AUGMENT.ROTATION": (0, 90),
    "LOSS.SCALES": (1, NO_LIMIT),
    "LOSS.IMPLICIT": (0, NO_LIMIT),
    "LOSS.RANGE": (-NO_LIMIT, NO_LIMIT),
    "OPTIM.BATCH_SIZE": (1, NO_LIMIT),
    "OPTIM.ACCUMULATE": (1, NO_LIMIT),
    "OPTIM.EPOCHS": (1, NO_LIMIT),
    "OPTIM.LR": (POSITIVE, NO_LIMIT),
    "OPTIM.BETAS": (0, 1 - 1e-12),
    "OPTIM.EPS": (0, NO_LIMIT),
    "OPTIM.WEIGHT_DECAY": (0, NO_LIMIT),
    "OPTIM.CLIP_NORM": (0, NO_LIMIT),
    "OPTIM.EMA": (0, 1 - 1e-12),
    "SCHEDULE.WARMUP_EPOCHS": (0, NO_LIMIT),
    "SCHEDULE.LR_MIN": (0, NO_LIMIT),
    "SCHEDULE.MILESTONES": (0, 1),
    "SCHEDULE.GAMMA": (POSITIVE, 1),
    "SCHEDULE.DECAY_STEPS": (1, NO_LIMIT),
    "VALIDATION.EVERY": (1, NO_LIMIT),
    "VALIDATION.EVERY_STEPS": (0, NO_LIMIT),
    "VALIDATION.PATIENCE": (0, NO_LIMIT),
    "VALIDATION.SAMPLES_EVERY": (0, NO_LIMIT),
    "TEST.OVERLAP": (-1, NO_LIMIT),
    "CHECKPOINT.EVERY_STEPS": (0, NO_LIMIT),
    "CHECKPOINT.KEEP_BEST": (1, NO_LIMIT),
    "CHECKPOINT.SNAPSHOT_EVERY": (0, NO_LIMIT),
    "LOG.EVERY_STEPS": (1, NO_LIMIT),
}

# Setting -> its possible values.
CHOICES: dict[str, tuple[object, ...]] = {
    "RUN.BACKEND": ("auto", "gloo"),
    "DATA.RAINY_HALF": ("auto", "left", "right"),
    "DATA.LEAKS": ("warn", "refuse", "drop", "ignore"),
    "OPTIM.NAME": tuple(OPTIMIZERS),
    "OPTIM.PRECISION": tuple(PRECISIONS),
    "SCHEDULE.NAME": tuple(SCHEDULES),
    "VALIDATION.PROTOCOL": tuple(PROTOCOLS),
    "TEST.PROTOCOL": ("", *PROTOCOLS, "niqe"),
    "TEST.ENSEMBLE": (1, 8),
    "TEST.PRECISION": tuple(PRECISIONS),
}

# Lists of two numbers in ascending order; AUGMENT.CROP may also be empty.
ASCENDING = ("AUGMENT.SATURATION", "AUGMENT.CROP", "LOSS.RANGE")
TWO_NUMBERS = (*ASCENDING, "OPTIM.BETAS")


def check_values(cfg: CfgNode) -> None:
    """Raise UserError for the first setting whose value is out of its limits."""
    for name, choices in CHOICES.items():
        if _get(cfg, name) not in choices:
            raise UserError(
                f"{name} is {_get(cfg, name)!r}; it must be one of "
                f"{', '.join(str(choice) or 'nothing' for choice in choices)}."
            )
    terms = {f"LOSS.TERMS.{name}": (0.0, NO_LIMIT) for name in cfg.LOSS.TERMS}
    for name, (least, largest) in (RANGES | terms).items():
        value = _get(cfg, name)
        elements = value if isinstance(value, list) else [value]
        if not all(_is_number(x) and least <= x <= largest for x in elements):
            raise UserError(f"{name} is {value!r}; {_allowed(least, largest)}.")
    for name in TWO_NUMBERS:
        value = _get(cfg, name)
        if len(value) != 2 and not (name == "AUGMENT.CROP" and not value):
            raise UserError(f"{name} is {value!r}; it must hold two numbers.")
        if name in ASCENDING and value != sorted(value):
            raise UserError(f"{name} is {value!r}; the smaller number comes first.")
    for stage in cfg.AUGMENT.PROGRESSIVE:
        is_stage = isinstance(stage, (list, tuple)) and len(stage) == 3
        if not is_stage or not all(isinstance(x, int) and x >= 1 for x in stage):
            raise UserError(
                f"AUGMENT.PROGRESSIVE holds {stage!r}; each stage is [first epoch, patch, batch]."
            )
    if cfg.SCHEDULE.NAME == "warmup_cosine" and cfg.OPTIM.LR < cfg.SCHEDULE.LR_MIN:
        raise UserError(
            f"OPTIM.LR is {cfg.OPTIM.LR:g}, below SCHEDULE.LR_MIN, {cfg.SCHEDULE.LR_MIN:g}, "
            "the last rate of the cosine; raise OPTIM.LR or lower SCHEDULE.LR_MIN."
        )
    Tile.parse(cfg.TEST.TILE)
    if cfg.SCHEDULE.NAME == "warmup_cosine" and cfg.SCHEDULE.WARMUP_EPOCHS >= cfg.OPTIM.EPOCHS:
        raise UserError(
            f"SCHEDULE.WARMUP_EPOCHS is {cfg.SCHEDULE.WARMUP_EPOCHS}; it must be below "
            f"OPTIM.EPOCHS, {cfg.OPTIM.EPOCHS}."
        )
    if not cfg.RUN.NAME:
        raise UserError("RUN.NAME is empty; it names the run's folder.")


def _get(cfg: CfgNode, name: str) -> Any:
    value: Any = cfg
    for part in name.split("."):
        value = value[part]
    return value


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _allowed(least: float, largest: float) -> str:
    if least == POSITIVE:
        return "it must be above 0" + (f" and at most {largest}" if largest < NO_LIMIT else "")
    if largest == NO_LIMIT:
        return "it must hold numbers" if least == -NO_LIMIT else f"it must be at least {least:g}"
    if 0 < 1 - largest < 1e-6:
        return f"it must be at least {least:g} and below 1"
    return f"it must be from {least:g} to {largest:g}"
