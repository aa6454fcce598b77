"""What the values of the settings may be, beyond their types."""

from __future__ import annotations

from typing import Any

from yacs.config import CfgNode

from utils.errors import UserError

POSITIVE = 1e-300  # the least of what must be above zero
NO_LIMIT = float("inf")

# Setting -> the least and the largest value, of a number or of each element of a list.
RANGES: dict[str, tuple[float, float]] = {
    "RUN.SEED": (0, 2**32 - 1),
    "DATA.REPEAT": (1, NO_LIMIT),
    "DATA.WORKERS": (0, NO_LIMIT),
    "DATA.SYNTHESIS.HOLD_OUT": (0, NO_LIMIT),
    "DATA.SYNTHESIS.SHARE_LAYERS": (0, 1),
    "DATA.SYNTHESIS.SHARE_LIGHT": (0, 1),
    "DATA.SYNTHESIS.SHARE_DRY": (0, 1),
    "DATA.SYNTHESIS.SHARE_DOWNPOURS": (0, 1),
    "DATA.SYNTHESIS.SHARE_RELIT": (0, 1),
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
    "OPTIM.CLIP_NORM": (0, NO_LIMIT),
    "OPTIM.EMA": (0, 1 - 1e-12),
    "SCHEDULE.WARMUP_EPOCHS": (0, NO_LIMIT),
    "SCHEDULE.LR_MIN": (0, NO_LIMIT),
    "SCHEDULE.MILESTONES": (0, 1),
    "SCHEDULE.GAMMA": (POSITIVE, 1),
    "SCHEDULE.DECAY_STEPS": (1, NO_LIMIT),
    "VALIDATION.EVERY": (1, NO_LIMIT),
    "VALIDATION.PATIENCE": (0, NO_LIMIT),
    "VALIDATION.SAMPLES_EVERY": (0, NO_LIMIT),
    "CHECKPOINT.EVERY_STEPS": (0, NO_LIMIT),
}

# Lists of two numbers in ascending order; AUGMENT.CROP may be empty too.
ASCENDING = ("AUGMENT.SATURATION", "AUGMENT.CROP", "LOSS.RANGE")
TWO_NUMBERS = (*ASCENDING, "OPTIM.BETAS")


def check_values(config: CfgNode) -> None:
    """Raise UserError for the first setting whose value cannot be meant."""
    for name, (least, largest) in RANGES.items():
        value = _get(config, name)
        elements = value if isinstance(value, list) else [value]
        if not all(_is_number(x) and least <= x <= largest for x in elements):
            raise UserError(f"{name} is {value!r}; {_allowed(least, largest)}.")
    for name in TWO_NUMBERS:
        value = _get(config, name)
        if len(value) != 2 and not (name == "AUGMENT.CROP" and not value):
            raise UserError(f"{name} is {value!r}; it must hold two numbers.")
        if name in ASCENDING and value != sorted(value):
            raise UserError(f"{name} is {value!r}; the smaller number comes first.")
    for stage in config.AUGMENT.PROGRESSIVE:
        is_stage = isinstance(stage, (list, tuple)) and len(stage) == 3
        if not is_stage or not all(isinstance(x, int) and x >= 1 for x in stage):
            raise UserError(
                f"AUGMENT.PROGRESSIVE holds {stage!r}; each stage is [first epoch, patch, batch]."
            )
    if not config.RUN.NAME:
        raise UserError("RUN.NAME is empty; it names the run's folder.")


def _get(config: CfgNode, name: str) -> Any:
    node: Any = config
    for key in name.split("."):
        node = node[key]
    return node


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _allowed(least: float, largest: float) -> str:
    if least == POSITIVE:
        return "it must be above 0" + (f" and at most {largest}" if largest < NO_LIMIT else "")
    if largest == NO_LIMIT:
        return "it must hold numbers" if least == -NO_LIMIT else f"it must be at least {least:g}"
    if 0 < 1 - largest < 1e-6:
        return f"it must be at least {least:g} and below 1"
    return f"it must be from {least:g} to {largest:g}"
