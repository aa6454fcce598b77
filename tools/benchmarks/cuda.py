"""Everything about a GPU: the tests marked gpu, then every network in every mode.

    python tools/benchmark.py cuda --output report.md

The tables are those of ``networks`` and ``training``; the latter uses each recipe's own patches and
batch, and lists the most expensive operators of a step.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch

from tools.benchmarks import networks, training
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
RESTORING_MODES = ("float32", "float32+tf32", "bf16", "bf16+channels_last", "bf16+compile", "fp16")
TRAINING_MODES = (*RESTORING_MODES, "bf16+graph", "bf16+compile+graph", "bf16+checkpointing")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=3, help="time for each row (default: 3)")
    parser.add_argument("--without-tests", action="store_true", help="measure only")


def run(args: argparse.Namespace) -> str:
    if not torch.cuda.is_available():
        raise UserError("PyTorch finds no CUDA device here.")
    parts = [] if args.without_tests else [run_tests()]
    common = ["--device", "cuda", "--seconds", str(args.seconds)]
    for module, modes, more in (
        (networks, RESTORING_MODES, []),
        (training, TRAINING_MODES, ["--operators"]),
    ):
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        parts.append(module.run(parser.parse_args([*common, "--modes", *modes, *more])))
    return "\n\n".join(parts)


def run_tests() -> str:
    """The failed tests and the last line of pytest; all lines go to stderr as they come."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-v", "--tb=short"]
    lines = []
    with subprocess.Popen(
        [*command, "tests/test_cuda.py"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as tests:
        for line in tests.stdout or ():
            print(line, end="", file=sys.stderr, flush=True)
            lines.append(line.rstrip())
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return "\n".join(["Tests on the GPU:", *failed, *lines[-1:]])
