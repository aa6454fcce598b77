"""Break the code on purpose and see whether a test notices: python tests/mutate.py [WORD ...].

Each mutant in tests/mutants.yml is a plausible mistake. It is made in a copy of the tracked files,
and the named tests run there. A mutant whose tests all pass has survived: the tests have a gap.
WORDs select the mutants whose description or file contains one of them. It takes minutes; the exit
status is 1 if a mutant survived or no longer fits the code.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
LIMIT = 600  # seconds for the tests of one mutant; one that hangs has been noticed


@dataclass(frozen=True)
class Mutant:
    """``before`` occurs once in ``file``; with ``after`` in its place, ``tests`` should fail."""

    file: str
    what: str
    tests: str
    before: str
    after: str


def read_mutants() -> list[Mutant]:
    """The mutants of tests/mutants.yml, which lists them by file."""
    files = yaml.safe_load((ROOT / "tests" / "mutants.yml").read_text(encoding="utf-8"))
    return [Mutant(file=file, **fields) for file, mutants in files.items() for fields in mutants]


def survives(mutant: Mutant) -> str:
    """The fate of a mutant: killed, SURVIVED, DOES NOT FIT or NOT RUN."""
    source = (ROOT / mutant.file).read_text(encoding="utf-8")
    if source.count(mutant.before) != 1:
        return f"DOES NOT FIT ({source.count(mutant.before)} places)"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        tracked = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        for name in filter(None, tracked.split("\0")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
        (copy / mutant.file).write_text(
            source.replace(mutant.before, mutant.after), encoding="utf-8"
        )
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not gpu"]
        try:
            done = subprocess.run(
                [*command, *shlex.split(mutant.tests)],
                cwd=copy,
                capture_output=True,
                text=True,
                timeout=LIMIT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            )
        except subprocess.TimeoutExpired:
            return "killed (hangs)"
    if done.returncode == 0:
        return "SURVIVED"
    # 1: a test failed. Any other status is a mistake in the list, such as a missing file.
    return "killed" if done.returncode == 1 else f"NOT RUN ({done.stdout[-200:]})"


def main() -> int:
    parser = argparse.ArgumentParser(description="Break the code on purpose, run the tests.")
    parser.add_argument("words", nargs="*", metavar="WORD", help="only mutants that contain one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants at once")
    args = parser.parse_args()
    chosen = [
        mutant
        for mutant in read_mutants()
        if not args.words or any(word in mutant.what + mutant.file for word in args.words)
    ]
    failures = []
    with ThreadPoolExecutor(args.jobs) as pool:
        for mutant, fate in zip(chosen, pool.map(survives, chosen), strict=True):
            print(f"{fate:20}  {mutant.file}: {mutant.what}", flush=True)
            if not fate.startswith("killed"):
                failures.append(mutant.what)
    print(f"{len(chosen) - len(failures)} of {len(chosen)} mutants were noticed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
