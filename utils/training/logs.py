"""What a training run tells about itself: log.jsonl, TensorBoard, W&B, curves, sample pictures."""

from __future__ import annotations

import json
import math
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from yacs.config import CfgNode

from utils.console import say
from utils.errors import UserError
from utils.files import atomic_write, write_text
from utils.images import write_png
from utils.training.run_folder import RunFolder
from utils.training.state import Progress, Record
from utils.training.tensorboard import SummaryWriter

matplotlib.use("Agg")  # pictures go to files; a training machine has no display
from matplotlib import pyplot as plt


class RunLog:
    """The log of a run in ``folder``.

    A resumed run hands over ``history``, its checkpoint's records of finished epochs and
    validations, and the ``step`` it stands at: lines of what a kill undid are dropped, so that the
    files hold everything once.
    """

    def __init__(
        self, folder: Path, cfg: CfgNode, history: Sequence[Record] = (), step: int = 0
    ) -> None:
        self.folder = folder
        self._epochs = cfg.OPTIM.EPOCHS
        self._path = folder / "log.jsonl"
        steps = [line for line in read_log(self._path) if line["kind"] == "step"]
        lines = sorted(
            [*history, *(line for line in steps if line["step"] <= step)],
            key=lambda line: (line["step"], line["kind"] != "step"),
        )
        if lines or self._path.exists():
            write_text(self._path, "".join(map(json_line, lines)))
        # Events of steps that a kill undid are hidden by purge_step.
        self._tensorboard = SummaryWriter(
            str(folder / "tensorboard"), purge_step=step + 1 if step else None
        )
        self._wandb = start_wandb(folder, cfg) if cfg.LOG.WANDB else None

    def add(self, record: Record) -> None:
        """Append one record to log.jsonl, TensorBoard and W&B, and print its line.

        Steps are printed only where no progress bar shows them.
        """
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json_line(record))
        except OSError as error:
            raise UserError(f"Cannot write {self._path}: {error.strerror}.") from error
        kind = record["kind"]
        other = ("kind", "step", "at", "is_best")
        values = {f"{kind}/{k}": v for k, v in record.items() if k not in other}
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, record["step"])
        self._tensorboard.flush()
        if self._wandb:
            self._wandb.log({**values, "step": record["step"]})
        if kind != "step" or not sys.stderr.isatty():
            say(console_line(record, self._epochs))

    def draw(self, history: Sequence[Record], title: str) -> None:
        """Write curves.png anew."""
        atomic_write(self.folder / "curves.png", lambda file: draw_curves(history, title, file))

    def add_sample(self, name: str, images: list[np.ndarray], epoch: int) -> None:
        """Keep a row of (H, W, 3) uint8 images as a PNG of its own and in TensorBoard."""
        row = np.hstack(images)
        write_png(self.folder / "samples" / f"epoch{epoch:04d}_{name}.png", row)
        self._tensorboard.add_image(
            f"rainy, restored, clean: {name}", row, epoch, dataformats="HWC"
        )

    def close(self) -> None:
        """Flush what is still to be written."""
        self._tensorboard.close()
        if self._wandb:
            self._wandb.finish()


def json_line(record: Record) -> str:
    """A record as a line of log.jsonl. JSON has no infinity and no nan; these become null.

    In fp16 the norm of gradients that overflowed, in a step that the scaler left out, is one.
    """
    is_null = {k: isinstance(v, float) and not math.isfinite(v) for k, v in record.items()}
    values = {key: None if is_null[key] else value for key, value in record.items()}
    return json.dumps(values, allow_nan=False) + "\n"


def read_log(path: Path) -> list[Record]:
    """The complete lines of a log.jsonl; a line that a kill cut off is left out."""
    records: list[Record] = []
    if not path.exists():
        return records
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "kind" in record and isinstance(record.get("step"), int):
            records.append(record)
    return records


def start_wandb(folder: Path, cfg: CfgNode) -> Any:
    """A run of Weights & Biases that a resumed training takes up again; offline as WANDB_MODE says.

    Raises UserError where the package is not installed.
    """
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise UserError(
            "LOG.WANDB needs the package wandb; install it with `pip install wandb`, or set "
            "LOG.WANDB False."
        ) from error
    id_file = folder / "wandb-id.txt"
    if not id_file.exists():
        write_text(id_file, uuid.uuid4().hex)
    run = wandb.init(
        project=cfg.LOG.WANDB_PROJECT,
        name=cfg.RUN.NAME,
        id=id_file.read_text().strip(),
        dir=str(folder),
        resume="allow",
        config=json.loads(json.dumps(cfg)),  # plain dictionaries
    )
    # The step is a value of its own: a resumed run may repeat some, which W&B's counter refuses.
    run.define_metric("*", step_metric="step")
    return run


def draw_curves(history: Sequence[Record], title: str, file: Path) -> None:
    """Loss, PSNR, SSIM and learning rate over the epochs as one picture; the best epoch marked."""
    figure, axes = plt.subplots(4, 1, figsize=(7, 9), sharex=True)
    # A layout that finds these by itself takes most of the time of drawing.
    figure.subplots_adjust(left=0.13, right=0.98, bottom=0.06, top=0.95, hspace=0.08)
    figure.suptitle(title)
    rows = (
        ("loss", "training loss"),
        ("psnr", "validation PSNR (dB)"),
        ("ssim", "validation SSIM"),
        ("lr", "learning rate"),
    )
    scored = [record for record in history if "psnr" in record]
    best = max(scored, key=lambda record: record["psnr"]) if scored else None
    for axis, (key, label) in zip(axes, rows, strict=True):
        points = [(record["at"], record[key]) for record in history if key in record]
        if points:
            axis.plot(*zip(*points, strict=True), marker="." if len(points) < 40 else "")
        if best and key in ("psnr", "ssim"):
            axis.axvline(best["at"], color="gray", linestyle=":")
            axis.plot(best["at"], best[key], "o", color="tab:red", label=f"{best[key]:.4g}")
            axis.legend(title=f"best, epoch {best['epoch']}", loc="lower right")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("epoch")
    figure.savefig(file, dpi=120)
    plt.close(figure)


def console_line(record: Record, epochs: int) -> str:
    """A record in one line of at most 80 columns."""
    line = f"epoch {record['epoch']}/{epochs}"
    if record["kind"] != "epoch":
        line += f" step {record['step']}"
    if "loss" in record:
        line += f"  loss {record['loss']:.4f}"
    if "psnr" in record:
        line += f"  PSNR {record['psnr']:.2f} dB  SSIM {record['ssim']:.4f}"
        line += " (best)" if record["is_best"] else ""
    if "seconds" in record:
        line += f"  {record['seconds']:.0f} s"
    if "hours_left" in record:
        line += f"  {record['images_per_second']:.1f} images/s  {record['hours_left']:.1f} h left"
    return line


def summary(progress: Progress, cfg: CfgNode, folder: RunFolder, example: Path) -> str:
    """The last words of a run: its best epoch and the command to test it on ``example``."""
    epochs = progress.epoch - 1
    lines = [f"{epochs} epochs, {progress.step:,} steps: {folder.path}"]
    if progress.should_stop(cfg.VALIDATION.PATIENCE) and epochs < cfg.OPTIM.EPOCHS:
        lines.append(f"stopped early: no better PSNR in {cfg.VALIDATION.PATIENCE} epochs")
    if progress.best_epoch:
        lines.append(f"best epoch {progress.best_epoch}: {progress.best_psnr:.2f} dB")
    weights = folder.best if folder.best.exists() else folder.latest
    lines.append(f"test it: python test.py --weights {weights} --input {example} --output results")
    return "\n".join(lines)
