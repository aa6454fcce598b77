"""What a training run needs to go on exactly where it was, and its way to disk and back."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

from utils.checkpoints import read_checkpoint, write_checkpoint
from utils.errors import UserError
from utils.training.distributed import Processes, random_states, set_random_states
from utils.training.ema import ModelEma
from utils.training.logs import Record


@dataclass
class Progress:
    """How far a run is; all that a checkpoint holds besides tensors."""

    epoch: int = 1  # the one under way, counted from 1
    step_in_epoch: int = 0  # steps of it that are done
    step: int = 0  # steps of the whole run that are done
    # Of the epoch under way: this process's share of each step's loss and its parts, summed.
    sums: dict[str, float] = field(default_factory=dict)
    best_psnr: float = -math.inf
    best_epoch: int = 0
    history: list[Record] = field(default_factory=list)

    def add(self, values: dict[str, float]) -> None:
        """Add to the sums of the epoch under way."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def total_sums(self, processes: Processes) -> dict[str, float]:
        """The sums over all processes."""
        names = sorted(self.sums)
        totals = processes.sum([self.sums[name] for name in names])
        return dict(zip(names, totals, strict=True))


@dataclass
class TrainingState:
    """The parts of a run that change while it trains."""

    network: nn.Module
    average: ModelEma
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    progress: Progress

    def save(self, folder: Path, config: CfgNode, processes: Processes) -> None:
        """Write latest.pth from process 0; the one before becomes previous.pth."""
        sums = self.progress.total_sums(processes)
        if not processes.is_main:
            return
        checkpoint: dict[str, Any] = {
            "model": config.MODEL.NAME,
            "options": dict(config.MODEL.OPTIONS),
            "network": self.network.state_dict(),
            "ema": self.average.network.state_dict() if self.average.decay else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": random_states(),
            "progress": dataclasses.asdict(self.progress) | {"sums": sums},
            "config": config.dump(),
        }
        write_checkpoint(folder / "latest.pth", checkpoint, keep=folder / "previous.pth")

    def load(self, path: Path, config: CfgNode, processes: Processes) -> CfgNode:
        """Take everything back from a checkpoint and return the settings it was saved with.

        Raises UserError where the checkpoint is missing, broken or of another network.
        """
        if not path.exists():
            raise UserError(f"There is no {path} to resume from; start the run without --resume.")
        try:
            checkpoint = read_checkpoint(path)
        except UserError as error:
            previous = path.with_name("previous.pth")
            hint = ""
            if path.name == "latest.pth" and previous.exists():
                hint = f" Take the one before it with --resume-from {previous}."
            raise UserError(f"{error}{hint}") from error
        model = (config.MODEL.NAME, dict(config.MODEL.OPTIONS))
        if model != (checkpoint["model"], checkpoint["options"]):
            raise UserError(
                f"{path} holds {checkpoint['model']} {checkpoint['options']}, not {model[0]} "
                f"{model[1]}; resume with the run's own settings."
            )
        self.network.load_state_dict(checkpoint["network"])
        if self.average.decay:
            self.average.network.load_state_dict(checkpoint["ema"] or checkpoint["network"])
        saved_groups = checkpoint["optimizer"]["param_groups"]
        for saved, own in zip(saved_groups, self.optimizer.param_groups, strict=True):
            # Settings are those of this run and device, not of the one that saved.
            saved.update({key: own[key] for key in own if key != "params"})
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        if self.scaler.is_enabled() and checkpoint["scaler"]:
            self.scaler.load_state_dict(checkpoint["scaler"])
        set_random_states(checkpoint["random"])
        self.progress = Progress(**checkpoint["progress"])
        if not processes.is_main:
            self.progress.sums = {}  # the saved sums are those of all processes
        return CfgNode.load_cfg(checkpoint["config"])
