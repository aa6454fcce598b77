"""What a training step takes here: forward, backward, optimiser and memory, as a table.

    python tools/benchmark_training.py --networks nerd_rain dcsfn --precisions float32 bf16
    python tools/benchmark_training.py --against HEAD~1     how much faster than that commit

A step is the forward pass on random patches, the mean absolute error of the first three outputs,
the backward pass and Adam: what the figures of the releases were measured with; Adam is fused, as
in train.py. Each row is taken in processes of its own, in turns with those of the other commit, and
shows the shortest step: processor time on one thread of a CPU, else wall time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the root holds our packages

from tools.measuring import seconds_text
from utils.errors import UserError, run_main
from utils.files import write_text
from utils.markdown import markdown_table

# Patches a step, as the releases were measured.
BATCHES = {"dmsr": 2, "nerd_rain": 1, "nerd_rain_s": 1, "dcsfn": 2, "mspfn_n1": 1, "mspfn": 1}

# Runs in the folder of either commit, so it uses nothing of ours but ``build_model``.
STEPS = """
import json, resource, sys, time
import torch
import torch.nn.functional as F
from models import build_model

name, batch, patch, precision, threads, seconds, device = json.loads(sys.argv[1])
torch.set_num_threads(threads)
torch.manual_seed(0)
on_cuda = device.startswith("cuda")

def now():
    if on_cuda:
        torch.cuda.synchronize()
    return time.process_time() if threads == 1 and not on_cuda else time.perf_counter()

network = build_model(name).train().to(device)
optimizer = torch.optim.Adam(network.parameters(), 1e-6, fused=True)
rainy, clean = torch.rand(2, batch, 3, patch, patch, device=device)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
best, steps, until = None, 0, time.monotonic() + seconds
while steps < 3 or time.monotonic() < until:
    times = [now()]
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
        outputs = network(rainy)
    targets = (F.interpolate(clean, output.shape[-2:]) for output in outputs[:3])
    loss = sum((o.float() - t).abs().mean() for o, t in zip(outputs[:3], targets))
    times.append(now())
    loss.backward()
    times.append(now())
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    times.append(now())
    parts = [b - a for a, b in zip(times, times[1:])]
    if steps and (best is None or sum(parts) < sum(best)):
        best = parts
    steps += 1
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
memory = (peak - before) * (1 if sys.platform == "darwin" else 1024)
if on_cuda:
    memory = torch.cuda.max_memory_allocated()
print(json.dumps([*best, memory]))
"""


@dataclass(frozen=True)
class Step:
    """The parts of the shortest step in seconds, and the most memory of all in bytes."""

    forward: float
    backward: float
    optimizer: float
    memory: int

    @property
    def seconds(self) -> float:
        return self.forward + self.backward + self.optimizer


def main() -> None:
    args = parse_arguments()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        roots = [ROOT]
        if args.against:
            check_out(args.against, Path(folder))
            roots.append(Path(folder))
        for name in args.networks:
            for precision in args.precisions:
                print(f"measuring {name} {precision} ...", file=sys.stderr)
                turns = [[measure(root, name, precision, args) for root in roots] for _ in "12"]
                shortest = [
                    min(steps, key=lambda s: s.seconds) for steps in zip(*turns, strict=True)
                ]
                rows.append(row(name, precision, args.batch or BATCHES[name], *shortest))
    heads = ["network", "precision", "batch", "forward", "backward", "Adam", "step", "images/s"]
    heads += ["memory", *([f"times as fast as {args.against}"] if args.against else [])]
    text = markdown_table(heads, rows, num_left=2)
    text += f"\n\nPatches of {args.patch}x{args.patch}, {args.device}, {args.threads} thread(s)."
    print(text)
    if args.output:
        write_text(args.output, text + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--precisions", nargs="+", choices=("float32", "bf16"), default=["float32"])
    parser.add_argument("--against", metavar="COMMIT", help="measure that commit too")
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--batch", type=int, help="default: 2 for DMSR and DCSFN, else 1")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: 1)")
    parser.add_argument("--seconds", type=float, default=10, help="a row and turn (default: 10)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the table there too")
    return parser.parse_args()


def check_out(commit: str, folder: Path) -> None:
    """The files of a commit of this repository, in ``folder``."""
    command = ["git", "archive", commit]
    archive = subprocess.run(command, cwd=ROOT, capture_output=True)
    if archive.returncode:
        reason = archive.stderr.decode().strip().splitlines()[-1]
        raise UserError(f"git has no commit {commit} here: {reason}")
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")


def measure(root: Path, name: str, precision: str, args: argparse.Namespace) -> Step:
    """One row's step by the code in ``root``, in a process of its own."""
    batch = args.batch or BATCHES[name]
    job = [name, batch, args.patch, precision, args.threads, args.seconds, args.device]
    command = [sys.executable, "-c", STEPS, json.dumps(job)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1]
        raise UserError(f"{name} {precision} cannot be measured in {root}: {reason}")
    return Step(*json.loads(done.stdout.splitlines()[-1]))


def row(name: str, precision: str, batch: int, step: Step, before: Step | None = None) -> list[str]:
    """The cells of one row; ``before`` is the other commit's."""
    times = (step.forward, step.backward, step.optimizer, step.seconds)
    cells = [name, precision, str(batch), *map(seconds_text, times)]
    cells += [f"{batch / step.seconds:.2f}", f"{step.memory / 2**20:.0f} MiB"]
    return cells + ([f"{before.seconds / step.seconds:.2f}"] if before else [])


if __name__ == "__main__":
    run_main(main)
