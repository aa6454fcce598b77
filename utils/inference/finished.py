"""Which results in a folder are finished, so that an interrupted benchmark continues.

A result is finished if a line of the folder's list says that exactly this content was made from
this content of the input with these weights and options. Its presence alone does not count: results
of other weights, of a changed input, or edited by hand are restored again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError
from utils.inference.plan import RestoringJob

LIST_NAME = ".finished.jsonl"


class FinishedResults:
    """The list of finished results in one folder, by one method.

    Several processes may add to it, since one system call appends a line. Incomplete lines are
    skipped.
    """

    def __init__(self, folder: Path, fingerprint: str, inputs: dict[Path, str]) -> None:
        """Read the list of ``folder``, if any. ``fingerprint`` identifies weights and options.

        ``inputs`` remembers the digests of inputs, which several methods share.
        """
        self.path = folder / LIST_NAME
        self.fingerprint = fingerprint
        self._inputs = inputs
        self._known: dict[str, tuple[str, str]] = {}  # name -> digests of how and what
        self._made_from: dict[Path, str] = {}
        try:
            lines = self.path.read_bytes().splitlines() if self.path.is_file() else []
        except OSError as error:
            raise UserError(f"Cannot read {self.path}: {error.strerror or error}.") from error
        for entry in filter(None, map(_parse, lines)):
            self._known[entry[0]] = entry[1:]

    def unfinished(self, jobs: Sequence[RestoringJob]) -> list[RestoringJob]:
        """The jobs whose results have yet to be made.

        Reads every input; ``add`` records the content that it has now. An input that cannot be read
        stays among the jobs, and restoring it reports the problem.
        """
        left = []
        for job in jobs:
            if job.source not in self._inputs:
                self._inputs[job.source] = _digest(job.source)
            source = self._inputs[job.source]
            how = hashlib.sha256(f"{self.fingerprint} {job.half} {source}".encode()).hexdigest()
            self._made_from[job.target] = how
            known = self._known.get(self._name(job))
            if not source or known is None or known != (how, _digest(job.target)):
                left.append(job)
        return left

    def add(self, job: RestoringJob) -> None:
        """Record that the result of one of the ``unfinished`` jobs is on the disk.

        Raises UserError if the list cannot be written.
        """
        entry = [self._name(job), self._made_from[job.target], _digest(job.target)]
        line = "\n" + json.dumps(entry)  # ends a line that a killed process left incomplete
        try:
            with open(self.path, "ab", buffering=0) as file:
                file.write(line.encode())
        except OSError as error:
            raise UserError(f"Cannot write {self.path}: {error.strerror or error}.") from error

    def _name(self, job: RestoringJob) -> str:
        return job.target.relative_to(self.path.parent).as_posix()


def _parse(line: bytes) -> tuple[str, str, str] | None:
    """Name and both digests of a line, None for one that a killed process left incomplete."""
    try:
        name, how, content = json.loads(line)
        return name, how, content
    except (ValueError, TypeError):
        return None


def _digest(path: Path) -> str:
    """The SHA-256 of a file, "" if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
