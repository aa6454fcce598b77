"""What a training run tells about itself: log.jsonl, TensorBoard, curves and sample pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from utils.files import atomic_write, write_text
from utils.images import write_png
from utils.training.tensorboard import SummaryWriter

matplotlib.use("Agg")  # pictures go to files; a training machine has no display
from matplotlib import pyplot as plt

Record = dict[str, Any]  # one epoch: epoch, step, rate, loss, its parts, psnr, ssim, seconds


class RunLog:
    """The log of a run in ``folder``; ``history`` holds one record for each finished epoch.

    The history belongs to the checkpoint, and the files are written anew from it: after a kill and
    a resume they hold each epoch once.
    """

    def __init__(self, folder: Path, history: list[Record]) -> None:
        self.folder = folder
        self.history = history
        # Events of epochs that a kill undid are hidden by purge_step.
        self.writer = SummaryWriter(
            str(folder / "tensorboard"), purge_step=history[-1]["epoch"] + 1 if history else None
        )

    def add(self, record: Record) -> None:
        """Append one epoch's record and write all files."""
        self.history.append(record)
        lines = "".join(json.dumps(line) + "\n" for line in self.history)
        write_text(self.folder / "log.jsonl", lines)
        for name, value in record.items():
            if name != "epoch":
                self.writer.add_scalar(name, value, record["epoch"])
        self.writer.flush()
        atomic_write(self.folder / "curves.png", lambda file: draw_curves(self.history, file))

    def add_sample(self, name: str, images: list[np.ndarray], epoch: int) -> None:
        """Keep a row of (H, W, 3) uint8 images as a PNG of its own and in TensorBoard."""
        row = np.hstack(images)
        write_png(self.folder / "samples" / f"epoch{epoch:04d}_{name}.png", row)
        self.writer.add_image(f"rainy, restored, clean: {name}", row, epoch, dataformats="HWC")

    def close(self) -> None:
        """Flush what is still to be written."""
        self.writer.close()


def draw_curves(history: list[Record], file: Path) -> None:
    """Loss, PSNR and learning rate over the epochs as one picture."""
    figure, axes = plt.subplots(3, 1, figsize=(7, 7), sharex=True, layout="constrained")
    rows = (("loss", "training loss"), ("psnr", "validation PSNR (dB)"), ("rate", "learning rate"))
    for axis, (key, label) in zip(axes, rows, strict=True):
        points = [(record["epoch"], record[key]) for record in history if key in record]
        if points:
            axis.plot(*zip(*points, strict=True), marker="." if len(points) < 40 else "")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("epoch")
    figure.savefig(file, dpi=120)
    plt.close(figure)


def epoch_line(record: Record, epochs: int, best_epoch: int) -> str:
    """One epoch in one line of at most 80 columns."""
    line = f"epoch {record['epoch']}/{epochs}  loss {record['loss']:.4f}"
    if "psnr" in record:
        line += f"  PSNR {record['psnr']:.2f} dB  SSIM {record['ssim']:.4f}"
        line += " (best)" if best_epoch == record["epoch"] else ""
    return f"{line}  rate {record['rate']:.1e}  {record['seconds']:.0f} s"
