"""The records of a run: log.jsonl, TensorBoard, Weights & Biases, curves, samples, its starts."""

from __future__ import annotations

import contextlib
import json
import math
import platform
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from yacs.config import CfgNode

from utils.console import say
from utils.errors import UserError
from utils.files import atomic_write, write_text
from utils.images import read_rgb, write_png
from utils.provenance import provenance
from utils.training.console import console_line
from utils.training.state import Record
from utils.training.tensorboard import SummaryWriter

matplotlib.use("Agg")  # to files; a training machine has no display
from matplotlib import pyplot as plt


class RunLog:
    """The log of a run in ``folder``.

    A resumed run passes ``history``, its checkpoint's records of finished epochs and validations,
    and the ``step`` at which it continues: later lines, which a kill undid, are dropped, so that
    the files hold every record once.
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
        self._tensorboard = self._start_tensorboard(lines)
        self._wandb = start_wandb(folder, cfg) if cfg.LOG.WANDB else None

    def _start_tensorboard(self, lines: Sequence[Record]) -> SummaryWriter:
        """Rewrite TensorBoard's events from the log and the samples.

        Appending to the old files would show a validation that is repeated after a kill twice,
        because both have the checkpoint's step.
        """
        events = self.folder / "tensorboard"
        for old in events.glob("events.out.tfevents.*"):
            old.unlink(missing_ok=True)
        with written(events):
            # A TensorBoard that is open forgets what it has read.
            writer = SummaryWriter(str(events), purge_step=0 if lines else None)
            for line in lines:
                add_scalars(writer, line)
            step_of = {line["epoch"]: line["step"] for line in lines if line["kind"] == "epoch"}
            for picture in sorted((self.folder / "samples").glob("epoch*_*.png")):
                epoch, _, name = picture.stem.removeprefix("epoch").partition("_")
                if epoch.isdecimal() and int(epoch) in step_of:
                    add_picture(writer, name, read_rgb(picture), step_of[int(epoch)])
        return writer

    def add(self, record: Record) -> None:
        """Append one record to log.jsonl, TensorBoard and W&B, and print its line.

        Steps are printed only if no progress bar shows them.
        """
        with written(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json_line(record))
        with written(self.folder / "tensorboard"):
            add_scalars(self._tensorboard, record)
            self._tensorboard.flush()
        if self._wandb:
            self._wandb.log({**scalars(record), "step": record["step"]})
        if record["kind"] != "step" or not sys.stderr.isatty():
            say(f"{time.strftime('%H:%M')} {console_line(record, self._epochs)}")

    def draw(self, history: Sequence[Record], title: str) -> None:
        """Rewrite curves.png."""
        atomic_write(self.folder / "curves.png", lambda file: draw_curves(history, title, file))

    def add_sample(self, name: str, images: list[np.ndarray], epoch: int, step: int) -> None:
        """Write (H, W, 3) uint8 images side by side as one PNG and to TensorBoard.

        A name that is not UTF-8, or too long with the epoch, is changed as far as necessary.
        """
        row, name = np.hstack(images), sample_name(name)
        write_png(self.folder / "samples" / f"epoch{epoch:04d}_{name}.png", row)
        with written(self.folder / "tensorboard"):
            add_picture(self._tensorboard, name, row, step)

    def close(self) -> None:
        """Write what is still buffered."""
        with written(self.folder / "tensorboard"):
            self._tensorboard.close()
        if self._wandb:
            self._wandb.finish()


@contextlib.contextmanager
def written(path: Path) -> Iterator[None]:
    """Turn an OSError in the block into a UserError that names ``path``."""
    try:
        yield
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}.") from error


def scalars(record: Record) -> dict[str, float]:
    """A record's values by the names that TensorBoard and W&B show."""
    other = ("kind", "step", "at", "is_best")
    kind = record["kind"]
    return {f"{kind}/{k}": v for k, v in record.items() if k not in other and v is not None}


def add_scalars(writer: SummaryWriter, record: Record) -> None:
    for name, value in scalars(record).items():
        writer.add_scalar(name, value, record["step"])


def add_picture(writer: SummaryWriter, name: str, row: np.ndarray, step: int) -> None:
    writer.add_image(f"rainy, restored, clean: {name}", row, step, dataformats="HWC")


def sample_name(name: str) -> str:
    """A name for files and TensorBoard: printable UTF-8 of at most 200 bytes."""
    text = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    text = text.replace("\\", "%").replace("/", "_")
    return text.encode()[:200].decode(errors="ignore")


def note_start(folder: Path, device: str, num_processes: int, step: int) -> None:
    """Append a line to starts.jsonl: the command, code, versions and devices of a start."""
    path = folder / "starts.jsonl"
    start = provenance(
        host=platform.node(),
        device=device,
        processes=num_processes,
        threads=torch.get_num_threads(),
        step=step,
    )
    with written(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(start) + "\n")


def json_line(record: Record) -> str:
    """A record as a line of log.jsonl. JSON has neither infinity nor NaN; they become null.

    The gradient norm of a step that fp16's scaler skips is infinite.
    """
    is_null = {k: isinstance(v, float) and not math.isfinite(v) for k, v in record.items()}
    values = {key: None if is_null[key] else value for key, value in record.items()}
    return json.dumps(values, allow_nan=False) + "\n"


def read_log(path: Path) -> list[Record]:
    """The records of a log.jsonl; a line that a kill cut off is skipped."""
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
    """Start or continue the run's page at Weights & Biases; WANDB_MODE is respected.

    Raises UserError if the package is not installed.
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
    # The step is a separate value: a resumed run may repeat some, which W&B's counter refuses.
    run.define_metric("*", step_metric="step")
    return run


def draw_curves(history: Sequence[Record], title: str, file: Path) -> None:
    """Draw loss, PSNR, SSIM and learning rate over the epochs, and mark the best epoch."""
    figure, axes = plt.subplots(4, 1, figsize=(7, 9), sharex=True)
    # An automatic layout would take most of the drawing time.
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
