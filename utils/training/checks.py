"""What a run refuses: patches, losses and steps that cannot train the network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NoReturn, Protocol

import torch
from torch import nn
from yacs.config import CfgNode

from utils.errors import UserError
from utils.training.state import Progress, TrainingState
from utils.training.steps import TakenStep

# fp16's scaler starts at 2**16 and halves the scale at each overflow.
MAX_SKIPPED = 25


class Sizes(Protocol):
    """A network's requirements on the size of its inputs."""

    size_multiple: ClassVar[int]
    min_size: ClassVar[int]


def check_patches(cfg: CfgNode, network: Sizes) -> None:
    """Refuse patches that the network cannot take, those of later epochs included."""
    for patch in (cfg.AUGMENT.PATCH, *(stage[1] for stage in cfg.AUGMENT.PROGRESSIVE)):
        if patch < network.min_size or patch % network.size_multiple:
            raise UserError(
                f"{cfg.MODEL.NAME} cannot train on patches of {patch} pixels; it takes "
                f"multiples of {network.size_multiple} from {network.min_size} on."
            )


def check_deterministic(cfg: CfgNode, device: torch.device, network: nn.Module) -> None:
    """Refuse RUN.DETERMINISTIC where PyTorch has no deterministic gradient on CUDA."""
    modes = {getattr(module, "padding_mode", "zeros") for module in network.modules()}
    if cfg.RUN.DETERMINISTIC and device.type == "cuda" and "reflect" in modes:
        raise UserError(
            f"{cfg.MODEL.NAME} pads by reflection, whose gradient PyTorch cannot compute "
            "deterministically on CUDA; leave RUN.DETERMINISTIC False."
        )


def check_best(cfg: CfgNode, names: list[str]) -> None:
    """Refuse a VALIDATION.BEST that is not a validation set; ``names`` are the existing ones."""
    decides = cfg.VALIDATION.BEST
    if decides != "mean" and decides not in names:
        raise UserError(
            f"VALIDATION.BEST is {decides!r}; it must be mean or the name of a set of DATA.VAL "
            f"({', '.join(names) or 'which has none'})."
        )


def check_is_unfinished(state: TrainingState, checkpoint: Path, changed: Sequence[str]) -> None:
    """Refuse ``changed`` settings when no epoch is left that would use them."""
    progress, cfg = state.progress, state.cfg
    is_early = progress.should_stop(cfg.VALIDATION.PATIENCE)
    if changed and (is_early or progress.epoch > cfg.OPTIM.EPOCHS):
        more = "VALIDATION.PATIENCE" if is_early else "OPTIM.EPOCHS"
        raise UserError(
            f"{checkpoint} belongs to a finished run, after epoch {progress.epoch - 1}; nothing "
            f"would be trained with the changed settings ({'; '.join(changed)}). Raise {more} to "
            "continue."
        )


def check_all_are_trained(network: nn.Module) -> None:
    """Refuse a loss that leaves parameters without a gradient."""
    unused = [name for name, p in network.named_parameters() if p.grad is None]
    if unused:
        raise UserError(
            f"The loss does not reach {len(unused)} parameters such as {unused[0]}, which several "
            "processes cannot train; set LOSS.SCALES to the network's number of outputs."
        )


def refuse_step(
    taken: TakenStep, images: Sequence[Path], optim: CfgNode, resume_hint: str
) -> NoReturn:
    """Stop at a step whose loss or gradient norm is not finite; ``images`` are all processes'."""
    values = taken.read().values
    norms = {name: norm.item() for name, norm in taken.gradient_norms.items()}
    advice = ["a lower OPTIM.LR"]
    advice += ["a lower OPTIM.CLIP_NORM" if optim.CLIP_NORM else "OPTIM.CLIP_NORM 1"]
    advice += ["OPTIM.PRECISION float32"] if optim.PRECISION != "float32" else []
    raise UserError(
        f"In {taken.name} the loss is {values['loss']:g} and the gradient norm "
        f"{values['grad_norm']:g}; {gradient_report(norms)}. The images are "
        f"{', '.join(map(str, images))}. Try {' or '.join(advice)}. {resume_hint}"
    )


def check_skipped_steps(taken: TakenStep, progress: Progress, resume_hint: str) -> None:
    """Stop when fp16's scaler has skipped MAX_SKIPPED steps in a row: nothing is trained.

    Each skipped step halves the scale, which by then is far below 1.
    """
    if progress.skipped_in_a_row >= MAX_SKIPPED:
        raise UserError(
            f"fp16 has skipped {MAX_SKIPPED} steps in a row, up to {taken.name}: their gradients "
            "were not finite at any scale of the loss. Try OPTIM.PRECISION bf16 or float32, or a "
            f"lower OPTIM.LR. {resume_hint}"
        )


def gradient_report(norms: dict[str, float]) -> str:
    """Which gradient norms are not finite, or else which is the largest, in words."""
    bad = [name for name, norm in norms.items() if not math.isfinite(norm)]
    if len(bad) == len(norms):
        return "no gradient norm is finite, so they do not show where it began"
    if bad:
        return f"{len(bad)} of {len(norms)} gradient norms are not finite, first in {bad[0]}"
    worst = max(norms, key=norms.__getitem__)
    return f"the largest gradient norm, {norms[worst]:.3g}, is in {worst}"
