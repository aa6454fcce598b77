"""Compare training runs: validation PSNR over training time, and speed.

    python tools/compare_runs.py --runs runs/dmsr runs/nerd_rain --output runs.png

Reads log.jsonl and config.yml in the folder of each run, which may still be training, draws a
figure and prints a Markdown table. Time is that of training steps, without validation and other
work at the end of an epoch. GMAC/s counts three times the multiply-accumulates of restoring a
patch, because its gradients take twice as many.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the root holds our packages

from configs import load_config
from tools.benchmarks.networks import network_size
from utils.errors import UserError, run_main
from utils.files import atomic_write
from utils.markdown import markdown_table
from utils.training.logs import read_log
from utils.training.plan import RunPlan

matplotlib.use("Agg")
from matplotlib import pyplot as plt


@dataclass(frozen=True)
class RunCurve:
    """The figures of one run; ``points`` are (hours, PSNR in dB) of its validations."""

    name: str
    network: str
    parameters: int
    macs_per_pixel: float
    hours: float
    patches: int
    gmacs_per_second: float
    points: list[tuple[float, float]]

    @property
    def patches_per_second(self) -> float:
        return self.patches / (3600 * self.hours)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the figure and print the table that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", nargs="+", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--output", type=Path, required=True, help="a new .png, .pdf or .svg file")
    options = parser.parse_args(arguments)
    if options.output.suffix not in (".png", ".pdf", ".svg"):
        raise UserError(f"--output is {options.output}; it must end in .png, .pdf or .svg.")
    if options.output.exists():
        raise UserError(f"{options.output} already exists; choose another --output.")
    curves = [read_run(folder) for folder in options.runs]
    draw(curves, options.output)
    print(table(curves))


def read_run(folder: Path) -> RunCurve:
    """The figures of a run from its log.

    Raises UserError for a folder that is not a run's, and for a run that has not validated yet.
    """
    log, config = folder / "log.jsonl", folder / "config.yml"
    for path in (log, config):
        if not path.exists():
            raise UserError(f"{folder} is not the folder of a run: it has no {path.name}.")
    cfg = load_config(config)
    plan = RunPlan(cfg, num_samples=0)  # only its stages are used

    seconds = speed = 0.0  # speed: patches per second
    patches = pixels = last_step = 0
    points = []
    for record in read_log(log):
        stage = plan.stage(record["epoch"])
        new = (record["step"] - last_step) * stage.batch_size
        last_step = record["step"]
        # The last few steps of an epoch, which are not logged, keep the speed before them.
        speed = record.get("images_per_second", speed)
        if new and not speed and record.get("seconds"):
            # An old log of epochs shorter than LOG.EVERY_STEPS; includes the time of validation.
            speed = new / record["seconds"]
        if new and not speed:
            raise UserError(
                f"{log} does not contain the speed of its first steps; lower LOG.EVERY_STEPS."
            )
        seconds += new / speed if new else 0
        patches += new
        pixels += new * stage.patch**2
        if "psnr" in record:
            points.append((seconds / 3600, record["psnr"]))
    if not points:
        raise UserError(f"{log} has no validation yet.")

    patch = plan.stage(1).patch
    parameters, macs = network_size(cfg.MODEL.NAME, cfg.MODEL.OPTIONS, (patch, patch))
    macs_per_pixel = macs / patch**2
    return RunCurve(
        name=folder.resolve().name,
        network=" ".join([cfg.MODEL.NAME, *(f"{k}={v}" for k, v in cfg.MODEL.OPTIONS.items())]),
        parameters=parameters,
        macs_per_pixel=macs_per_pixel,
        hours=seconds / 3600,
        patches=patches,
        gmacs_per_second=3 * macs_per_pixel * pixels / seconds / 1e9,
        points=points,
    )


def draw(curves: Sequence[RunCurve], output: Path) -> None:
    """Plot validation PSNR over time, and patches and multiply-accumulates per second."""
    figure, (psnr, patches, gmacs) = plt.subplots(
        1, 3, figsize=(11, 4.5), width_ratios=[3, 1, 1], layout="constrained"
    )
    is_short = max(curve.hours for curve in curves) < 2
    for number, curve in enumerate(curves):
        colour = f"C{number}"
        hours, values = zip(*curve.points, strict=True)
        times = [60 * time for time in hours] if is_short else hours
        psnr.plot(times, values, marker="." if len(times) < 40 else "", color=colour)
        psnr.annotate(
            f"{curve.name} {values[-1]:.2f}",
            (times[-1], values[-1]),
            xytext=(4, 0),
            textcoords="offset points",
            color=colour,
            va="center",
        )
        for axis, value in ((patches, curve.patches_per_second), (gmacs, curve.gmacs_per_second)):
            bar = axis.barh(-number, value, color=colour)
            axis.bar_label(bar, [f"{value:.3g}"], padding=3)
    longest = max(curve.hours for curve in curves) * (60 if is_short else 1)
    psnr.set_xlim(0, 1.45 * longest)  # leaves room for the names after the curves
    psnr.set_xlabel("minutes of training" if is_short else "hours of training")
    psnr.set_ylabel("validation PSNR (dB)")
    psnr.grid(alpha=0.3)
    for axis, label in ((patches, "patches/s"), (gmacs, "GMAC/s")):
        axis.set_title(label)
        axis.margins(x=0.25)
        axis.set_yticks([])
        axis.spines[["top", "right"]].set_visible(False)
    atomic_write(output, lambda file: figure.savefig(file, dpi=120))
    plt.close(figure)


def table(curves: Sequence[RunCurve]) -> str:
    """The figures as a Markdown table, then each run's network."""
    heads = ["run", "parameters", "kMAC/px", "hours", "patches", "patches/s", "GMAC/s", "PSNR"]
    rows = [
        [
            curve.name,
            f"{curve.parameters:,}",
            f"{curve.macs_per_pixel / 1e3:.0f}",
            f"{curve.hours:.2f}",
            f"{curve.patches:,}",
            f"{curve.patches_per_second:.2f}",
            f"{curve.gmacs_per_second:.1f}",
            f"{curve.points[-1][1]:.2f}",
        ]
        for curve in curves
    ]
    networks = (f"{curve.name}: {curve.network}" for curve in curves)
    return "\n".join([markdown_table(heads, rows), "", *networks])


if __name__ == "__main__":
    run_main(main)
