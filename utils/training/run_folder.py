"""A run's folder: its lock, the checkpoint to continue from, the files of its weights."""

from __future__ import annotations

import shutil
from pathlib import Path

from utils.checkpoints import Weights, read_weights, write_weights
from utils.errors import UserError
from utils.files import FileLock, atomic_write, remove_all_unfinished

RESULTS = ("latest.pth", "previous.pth", "best.safetensors", "log.jsonl")


class RunFolder:
    """The paths of a run's files in the folder ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.latest = path / "latest.pth"
        self.previous = path / "previous.pth"
        self.best = path / "best.safetensors"
        self.log = path / "log.jsonl"
        self.config = path / "config.yml"
        self._lock = FileLock(path / ".lock")

    def results(self) -> list[str]:
        """The names of the results in the folder; any of them makes it a run."""
        return [name for name in RESULTS if (self.path / name).exists()]

    def checkpoint_to_resume(self, resume: bool, resume_from: Path | None) -> Path | None:
        """The checkpoint to continue from; None for a new run.

        Raises UserError for a missing checkpoint, and rather than overwrite results.
        """
        found = self.results()
        if resume_from is not None:
            if not resume_from.is_file():
                raise UserError(
                    f"There is no checkpoint {resume_from}; --resume-from takes a run's latest.pth "
                    "or previous.pth."
                )
            if found and resume_from.resolve().parent != self.path.resolve():
                raise UserError(
                    f"{self.path} holds {', '.join(found)}, which a run that continues "
                    f"{resume_from} would overwrite; choose another RUN.NAME."
                )
            return resume_from
        if not resume:
            if found:
                raise UserError(
                    f"The run {self.path} exists (it holds {', '.join(found)}); continue it with "
                    "--resume, or choose another RUN.NAME."
                )
            return None
        for checkpoint in (self.latest, self.previous):
            if checkpoint.exists():
                return checkpoint
        if self.best.exists():
            raise UserError(
                f"{self.path} holds best.safetensors but no checkpoint to continue from; choose "
                "another RUN.NAME, and start from these weights with MODEL.INIT."
            )
        if not _holds_steps_alone(self.log):
            raise UserError(
                f"{self.log} has finished epochs, but there is no checkpoint to continue from; "
                "choose another RUN.NAME, or move the log away."
            )
        return None

    def resume_hint(self) -> str:
        """The state of the last checkpoint, in one sentence."""
        if self.latest.exists():
            return f"The last checkpoint is untouched: {self.latest}."
        return "There is no checkpoint yet."

    def lock(self, is_new: bool = False) -> None:
        """Lock the folder for this process until ``unlock`` or the process's end.

        Removes what killed processes left behind. Raises UserError if another process holds the
        lock or, for a new run, has trained here since ``checkpoint_to_resume`` was called.
        """
        if not self._lock.acquire():
            raise UserError(
                f"{self.path} is being trained by {self._lock.holder}; wait for its end, stop it, "
                "or choose another RUN.NAME."
            )
        if is_new and self.latest.exists():
            raise UserError(
                f"Another process has trained {self.path} in the meantime; --resume continues it."
            )
        remove_all_unfinished(self.path)

    def check_is_ours(self) -> None:
        """Raise UserError if the folder was renamed, removed or replaced since ``lock``."""
        if not self._lock.is_held:
            raise UserError(
                f"The folder {self.path} was renamed, removed or replaced while this run trained "
                "in it; nothing more is written there. Move it back, or set RUN.FOLDER and "
                "RUN.NAME to where it is now, and continue with --resume."
            )

    def unlock(self) -> None:
        """Release the lock, if this process holds it."""
        self._lock.release()

    def keep_best(
        self, weights: Weights, kept: list[tuple[float, str]], count: int
    ) -> list[tuple[float, str]]:
        """Keep ``weights`` if they are among the ``count`` best; remove those that no longer are.

        ``kept`` and the result list PSNR and file name in best/, best first. The very best is also
        best.safetensors, with a ``count`` of 1 the only file.
        """
        psnr, step = weights.info["psnr"], weights.info["step"]
        name = f"step{step:07d}_{psnr:.2f}dB.safetensors"
        kept = sorted([*kept, (psnr, name)], key=lambda entry: -entry[0])  # stable: the older first
        if kept[0][1] == name:
            write_weights(self.best, weights)
        if count > 1 and name in [other for _, other in kept[:count]]:
            write_weights(self.path / "best" / name, weights)
        for _, dropped in kept[count:]:
            (self.path / "best" / dropped).unlink(missing_ok=True)
        return kept[:count]

    def take_best(
        self, origin: Path, psnr: float, kept: list[tuple[float, str]], count: int
    ) -> list[tuple[float, str]]:
        """Copy the best weights of the run in the folder ``origin``, unless they are here already.

        ``psnr`` and ``kept`` come from its checkpoint. Returns those of ``kept`` that are here now;
        the first is best.safetensors and, with a ``count`` above 1, in best/ too. It stays in the
        list even if ``origin`` lacks best.safetensors.
        """
        best = origin / self.best.name
        if not self.best.exists() and best.exists() and read_weights(best).info.get("psnr") == psnr:
            _copy(best, self.best)
        for _, name in kept:
            source, own = origin / "best" / name, self.path / "best" / name
            if source.exists() and not own.exists():
                _copy(source, own)
        if count > 1 and kept and self.best.exists():  # a run with a count of 1 has no best/
            own = self.path / "best" / kept[0][1]
            if not own.exists() and read_weights(self.best).info.get("psnr") == psnr:
                _copy(self.best, own)
        others = [entry for entry in kept[1:] if (self.path / "best" / entry[1]).exists()]
        return kept[:1] + others

    def keep_snapshot(self, weights: Weights, epoch: int) -> None:
        """Keep an epoch's weights permanently."""
        write_weights(self.path / "snapshots" / f"epoch{epoch:04d}.safetensors", weights)


def _copy(source: Path, target: Path) -> None:
    atomic_write(target, lambda temporary: shutil.copyfile(source, temporary))


def _holds_steps_alone(log: Path) -> bool:
    """Whether a log holds only steps, as after a kill before the first checkpoint.

    The kill may have cut off the last line anywhere.
    """
    if not log.exists():
        return True
    start = '{"kind": "step"'
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return all(start.startswith(line[: len(start)]) for line in lines)
