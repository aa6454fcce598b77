"""What train.py prints: its progress bar, a line per record, and the summary at the end."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Protocol

from tqdm import tqdm
from yacs.config import CfgNode

from utils.training.run_folder import RunFolder
from utils.training.state import Progress, Record
from utils.wording import plural


class StepsBar(tqdm):
    """The progress bar of an epoch's steps; only on a terminal, and only if it ``is_shown``."""

    def __init__(self, progress: Progress, epochs: int, steps: int, *, is_shown: bool) -> None:
        super().__init__(
            total=steps,
            initial=progress.step_in_epoch,
            desc=f"epoch {progress.epoch}/{epochs}",
            bar_format="{desc} {n_fmt}/{total_fmt} |{bar}| {rate_fmt}{postfix}",  # in 80 columns
            unit="step",
            leave=False,
            disable=None if is_shown else True,  # None: unless the output is a terminal
        )

    def advance(self, values: dict[str, float], hours_left: float) -> None:
        """Count a step; show the last loss, if one was read, and the time left."""
        if values:
            text = f"loss {values['loss']:.4f}, {time_left(hours_left)}"
            self.set_postfix_str(text, refresh=False)
        self.update()


def console_line(record: Record, epochs: int) -> str:
    """A record in one line, short enough for 80 columns with the time in front."""
    words = [f"epoch {record['epoch']}/{epochs}"]
    if record["kind"] != "epoch":
        words.append(f"step {record['step']}")
    if "loss" in record:
        words.append(f"loss {record['loss']:.4f}")
    if "lr" in record:
        words.append(f"lr {short_rate(record['lr'])}")
    if "psnr" in record:
        words.append(f"PSNR {record['psnr']:.2f} SSIM {record['ssim']:.4f}")
        words += ["(best)"] if record["is_best"] else []
    if "seconds" in record:
        words.append(f"{record['seconds']:.0f} s")
    if "hours_left" in record:
        words.append(f"{record['images_per_second']:.3g} images/s")
        words.append(time_left(record["hours_left"]))
    return " ".join(words)


def short_rate(lr: float) -> str:
    """A learning rate with two digits, ``1.2e-4``."""
    digits, _, exponent = f"{lr:.1e}".partition("e")
    return f"{digits}e{int(exponent)}"


def time_left(hours: float) -> str:
    """``1.5 h left``; below an hour ``42 min left``."""
    minutes = round(60 * hours)
    return f"{minutes} min left" if minutes < 60 else f"{hours:.1f} h left"


def summary(progress: Progress, cfg: CfgNode, folder: RunFolder, example: Pair) -> str:
    """A finished run's best epoch, and the command that restores the data set of ``example``."""
    epochs = progress.epoch - 1
    lines = [f"{plural(epochs, 'epoch')}, {progress.step:,} steps: {folder.path}"]
    if progress.should_stop(cfg.VALIDATION.PATIENCE) and epochs < cfg.OPTIM.EPOCHS:
        lines.append(f"stopped early: no better PSNR in {cfg.VALIDATION.PATIENCE} epochs")
    if progress.best_epoch:
        lines.append(f"best epoch {progress.best_epoch}: {progress.best_psnr:.2f} dB")
    weights = folder.best if folder.best.exists() else folder.latest
    command = ["python", "test.py", "--weights", str(weights), *rainy_input(example)]
    lines.append(f"test it: {shlex.join([*command, '--output', 'results'])}")
    return "\n".join(lines)


def rainy_input(example: Pair) -> list[str]:
    """The options with which test.py restores a data set's rainy images but not its clean ones."""
    folder = example.rainy.parent
    if example.half:  # side by side with the clean one
        return ["--input", str(folder), "--half", example.half]
    is_alone = example.rainy == example.clean or folder != example.clean.parent
    return ["--input", str(folder if is_alone else example.rainy)]


class Pair(Protocol):
    """The part of ``data.pairs.Pair`` that ``rainy_input`` needs."""

    @property
    def rainy(self) -> Path: ...

    @property
    def clean(self) -> Path: ...

    @property
    def half(self) -> str: ...
