"""Everything a run needs to continue exactly where it stopped, written to and read from disk."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from yacs.config import CfgNode

from utils.checkpoints import Weights, read_checkpoint, write_checkpoint
from utils.errors import UserError
from utils.training.data_identity import FileStamps, digest
from utils.training.ema import ModelEma
from utils.training.optim import match_layout
from utils.training.plan import RunPlan

# One line of log.jsonl: "kind" (step, validation, epoch), epoch, step, and the values of that kind.
Record = dict[str, Any]

ORDER = "the order or the weights of DATA.TRAIN"
PARTS = (
    *("model", "options", "network", "ema", "optimizer", "scaler", "random", "progress"),
    *("epoch_plan", "data", "config"),
)


@dataclass
class Progress:
    """How far a run has got; equal on all processes."""

    epoch: int = 1  # the current one, counted from 1
    step_in_epoch: int = 0  # finished steps of the current epoch
    step: int = 0  # finished steps of the whole run
    validated_step: int = 0  # the step of the last finished validation
    # Sums over the current epoch's steps: the loss, its parts, the gradient norm.
    sums: dict[str, float] = field(default_factory=dict)
    # Steps that fp16's scaler skipped because their gradients overflowed.
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    best_psnr: float = -math.inf
    best_epoch: int = 0
    history: list[Record] = field(default_factory=list)  # finished epochs and validations
    # PSNR and name of the best files, known to the main process.
    kept: list[tuple[float, str]] = field(default_factory=list)

    def count_step(self) -> None:
        """Count a step of the current epoch."""
        self.step += 1
        self.step_in_epoch += 1

    def add_values(self, values: dict[str, float]) -> None:
        """Add a step's values to the sums; count it if fp16 skipped it."""
        is_skipped = not math.isfinite(values["grad_norm"])
        self.skipped_steps += is_skipped
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if is_skipped else 0
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """The mean values of the current epoch's steps."""
        return {name: total / self.step_in_epoch for name, total in self.sums.items()}

    def note_validation(self, psnr: float) -> bool:
        """Note a validation after the last step; returns whether its PSNR is the best so far."""
        self.validated_step = self.step
        is_best = psnr > self.best_psnr
        if is_best:
            self.best_psnr, self.best_epoch = psnr, self.epoch
        return is_best

    def should_stop(self, patience: int) -> bool:
        """Whether ``patience`` epochs (0: no limit) have passed without a better PSNR."""
        validated = [record["epoch"] for record in self.history if "psnr" in record]
        return bool(patience and validated) and validated[-1] - self.best_epoch >= patience

    def end_epoch(self) -> None:
        """Move to the next epoch."""
        self.epoch, self.step_in_epoch, self.sums = self.epoch + 1, 0, {}


@dataclass
class TrainingState:
    """The parts of a run that change while it trains, to and from checkpoints."""

    cfg: CfgNode
    network: nn.Module
    ema: ModelEma[Any]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    plan: RunPlan
    files: dict[str, FileStamps]  # by TRAIN, LAYERS and the validation sets' names
    order: str  # a digest of which sample shows which pair
    scenes: str  # the training set's scenes, as weights remember them; may be empty
    progress: Progress = field(default_factory=Progress)

    def save(self, path: Path) -> None:
        """Write the checkpoint ``path``, latest.pth; its predecessor becomes previous.pth.

        One process calls this; the others have the same state.
        """
        checkpoint: dict[str, Any] = {
            "model": self.cfg.MODEL.NAME,
            "options": dict(self.cfg.MODEL.OPTIONS),
            "network": self.network.state_dict(),
            "ema": self.ema.network.state_dict() if self.ema.decay else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": random_states(),
            "progress": dataclasses.asdict(self.progress),
            "epoch_plan": self._epoch_plan(),
            "data": {name: digest(stamps) for name, stamps in self.files.items()},
            "config": self.cfg.dump(),
        }
        write_checkpoint(path, checkpoint, keep=path.with_name("previous.pth"))

    def load(self, checkpoint: dict[str, Any], path: Path) -> None:
        """Restore everything from the checkpoint that was read from ``path``.

        Raises UserError if it belongs to another network or version.
        """
        own = (self.cfg.MODEL.NAME, _plain(self.cfg.MODEL.OPTIONS))
        theirs = (checkpoint["model"], _plain(checkpoint["options"]))
        if own != theirs:
            raise UserError(
                f"{path} holds {theirs[0]} {theirs[1]}, not {own[0]} {own[1]}; resume with the "
                "run's own settings."
            )
        try:
            self._load_parts(checkpoint, path)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{path} does not fit this version of the project or of PyTorch: {reason[:300]}."
            ) from error

    def _load_parts(self, checkpoint: dict[str, Any], path: Path) -> None:
        progress = Progress(**checkpoint["progress"])
        progress.kept = [(psnr, name) for psnr, name in progress.kept]
        self.network.load_state_dict(checkpoint["network"])
        if self.ema.decay:
            self.ema.network.load_state_dict(checkpoint["ema"] or checkpoint["network"])
        saved_groups = checkpoint["optimizer"]["param_groups"]
        if len(saved_groups) != len(self.optimizer.param_groups):
            raise UserError(
                f"{path} was trained with other groups of parameters; OPTIM.WEIGHT_DECAY cannot be "
                "turned on or off in the middle of a run."
            )
        for saved, own_group in zip(saved_groups, self.optimizer.param_groups, strict=True):
            # This run's settings, not those it was saved with.
            saved.update({key: own_group[key] for key in own_group if key != "params"})
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        match_layout(self.optimizer)
        if self.scaler.is_enabled() and checkpoint["scaler"]:
            self.scaler.load_state_dict(checkpoint["scaler"])
        set_random_states(checkpoint["random"])
        self.progress = progress

    def skipped_steps(self) -> Record:
        """For a record: how many steps of the run fp16's scaler has skipped, if it is used."""
        return {"skipped_steps": self.progress.skipped_steps} if self.scaler.is_enabled() else {}

    def check_same_epoch(self, checkpoint: dict[str, Any], path: Path, same_files: bool) -> None:
        """Refuse to continue in the middle of an epoch if its remaining steps would differ.

        If files have changed (not ``same_files``), another number of samples is accepted.
        """
        before, now = checkpoint["epoch_plan"], self._epoch_plan()
        checked = list(now) if same_files else ["the batch size", "RUN.SEED"]
        changes = [
            key if key == ORDER else f"{key} from {before[key]} to {now[key]}"
            for key in checked
            if before.get(key, now[key]) != now[key]  # an older checkpoint may lack one
        ]
        if self.progress.step_in_epoch and changes:
            raise UserError(
                f"{path} is in the middle of epoch {self.progress.epoch}, after step "
                f"{self.progress.step_in_epoch}, where {' and '.join(changes)} cannot change. "
                "Finish the epoch with the old settings first: --resume --stop-after-epoch."
            )

    def weights(self, scores: dict[str, float]) -> Weights:
        """The (averaged) weights to use, and where they come from."""
        return Weights(
            model=self.cfg.MODEL.NAME,
            options=dict(self.cfg.MODEL.OPTIONS),
            state=self.ema.network.state_dict(),
            info={"epoch": self.progress.epoch, "step": self.progress.step}
            | scores
            | ({"training_scenes": self.scenes} if self.scenes else {})
            | {"config": self.cfg.dump()},
        )

    def _epoch_plan(self) -> dict[str, Any]:
        """What decides which images the current epoch's steps see."""
        stage = self.plan.stage(self.progress.epoch)
        return {
            "the batch size": stage.batch_size,
            "the number of samples per epoch": self.plan.num_samples,
            "RUN.SEED": self.cfg.RUN.SEED,
            ORDER: self.order,
        }


def read_state(path: Path) -> dict[str, Any]:
    """Read the checkpoint to continue from. Raises UserError, with advice, if it is broken."""
    try:
        checkpoint = read_checkpoint(path)
    except UserError as error:
        previous = path.with_name("previous.pth")
        if path.name == "latest.pth" and previous.exists():
            hint = f" Continue from the one before it with --resume-from {previous}."
            raise UserError(f"{error}{hint}") from error
        raise
    missing = [part for part in PARTS if part not in checkpoint]
    if missing:
        raise UserError(
            f"{path} lacks {', '.join(missing)}, which a resume needs: another version of this "
            "project wrote it. Start from its weights with MODEL.INIT instead."
        )
    return checkpoint


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as YAML stores them: tuples become lists."""
    return json.loads(json.dumps(dict(options)))


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and PyTorch; PyTorch's draws the weights."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (libraries may use the global generator)
    torch.manual_seed(seed)


def random_states() -> dict[str, Any]:
    """The states of all global random generators, as plain values and tensors."""
    state: Any = np.random.get_state()  # noqa: NPY002
    name, keys, position, has_gauss, gauss = state
    return {
        "python": random.getstate(),
        "numpy": [name, keys.tolist(), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Restore what ``random_states`` returned."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
