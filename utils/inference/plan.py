"""Which files are restored and where their results go: settled before the first computation."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from natsort import natsorted, ns

from utils.errors import UserError
from utils.inference import photos, video

RESULT_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
VIDEO_SUFFIX = ".mp4"


@dataclass(frozen=True)
class RestoringJob:
    """One image or video, and the file of its result, whose suffix says in which format.

    ``half``: "left" or "right" where only that half of an image is to be restored.
    """

    source: Path
    target: Path
    half: str = ""

    @property
    def is_video(self) -> bool:
        return self.target.suffix.lower() == VIDEO_SUFFIX


@dataclass
class Plan:
    """The files in their order, and sentences about folders that could not be looked into."""

    jobs: list[RestoringJob] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def plan_files(
    sources: Sequence[Path], output: Path, *, suffix: str = ".png", recursive: bool = False
) -> Plan:
    """What to restore and where to; images get ``suffix``.

    ``output`` is a folder, or the file of the result where there is one input and it ends like
    one. Several inputs share the folder, where each input that is a folder gets one of its own.
    Raises UserError where there is nothing to restore, where something is neither image nor video,
    and where a result would replace an input.
    """
    plan = Plan()
    folders: dict[Path, list[Path]] = {}  # of the results -> files whose results go there
    for source in sources:
        if _is_folder(source):
            if source.resolve() == output.resolve():
                raise UserError(f"{output} is the input folder; take another --output folder.")
            below = output if len(sources) == 1 else output / source.resolve().name
            found = _files_below(source, output, recursive, plan.problems)
            for folder, files in found.items():
                folders.setdefault(below / folder.relative_to(source), []).extend(files)
            if not any(found.values()) and not plan.problems:
                hint = "" if recursive else "; --recursive looks into its subfolders too"
                raise UserError(f"The folder {source} holds no image and no video{hint}.")
        else:
            _check_kind(source)
            if len(sources) == 1 and names_a_file(output):
                _check_result_suffix(source, output)
                plan.jobs.append(RestoringJob(source, output))
            else:
                folders.setdefault(output, []).append(source)
    if folders and names_a_file(output):
        raise UserError(
            f"--output {output} names a file, but there is a folder or more than one input; name a "
            "folder."
        )
    for folder, files in folders.items():
        unique = list(dict.fromkeys(files))
        for source, name in _target_names(unique, suffix).items():
            plan.jobs.append(RestoringJob(source, folder / name))
    inputs = {job.source.resolve() for job in plan.jobs}
    for job in plan.jobs:
        if job.target.resolve() in inputs:
            raise UserError(f"{job.target} would replace an input; take another --output.")
    return plan


def _is_folder(source: Path) -> bool:
    """Raises UserError where there is nothing, or where it may not be looked at."""
    try:
        source.stat()
        return source.is_dir()
    except FileNotFoundError as error:
        raise UserError(f"There is no file or folder {source}.") from error
    except OSError as error:
        raise UserError(f"Cannot read {source}: {error.strerror}.") from error


def _check_kind(source: Path) -> None:
    if source.suffix.lower() not in (*photos.SUFFIXES, *video.SUFFIXES):
        known = " ".join((*photos.SUFFIXES, *video.SUFFIXES))
        raise UserError(
            f"{source} does not end like an image or a video; rename it to what it is: {known}."
        )


def names_a_file(output: Path) -> bool:
    """Whether ``--output`` is meant as the file of a result, not as a folder."""
    known = (*photos.SUFFIXES, *RESULT_SUFFIXES, *video.SUFFIXES)
    return output.suffix.lower() in known and not os.path.isdir(output)


def _check_result_suffix(source: Path, output: Path) -> None:
    is_video = source.suffix.lower() in video.SUFFIXES
    allowed = (VIDEO_SUFFIX,) if is_video else RESULT_SUFFIXES
    if output.suffix.lower() not in allowed:
        raise UserError(
            f"--output {output} cannot be written as the result of {source}; it may end in "
            f"{', '.join(allowed)}."
        )


def _files_below(
    source: Path, output: Path, recursive: bool, problems: list[str]
) -> dict[Path, list[Path]]:
    """The images and videos of a folder, of its visible subfolders too where ``recursive``.

    Results of an earlier run inside the folder are left out. What cannot be looked into is told in
    ``problems``.
    """
    output = output.resolve()
    inside = output.is_relative_to(source.resolve())
    found: dict[Path, list[Path]] = {}

    def note(error: OSError) -> None:
        problems.append(f"Cannot read the folder {error.filename}: {error.strerror}.")

    for name, subfolders, names in os.walk(source, onerror=note):
        folder = Path(name)
        subfolders[:] = natsorted(
            (
                sub
                for sub in subfolders
                if recursive
                and not sub.startswith(".")
                and not (inside and (folder / sub).resolve() == output)
            ),
            alg=ns.IGNORECASE,
        )
        try:
            paths = [folder / name for name in natsorted(names, alg=ns.IGNORECASE)]
            found[folder] = [p for p in paths if photos.is_photo(p) or video.is_video(p)]
        except OSError as error:  # a folder whose names may be listed, but not its files
            note(error)
    return found


def _target_names(files: list[Path], suffix: str) -> dict[Path, str]:
    """The names of the results that share a folder.

    a.jpg becomes a.png; where another file's result has that name too, both keep their suffix:
    a.jpg.png and a.bmp.png. Files of one name from different folders are numbered: a.2.png.
    """
    endings = {path: VIDEO_SUFFIX if video.is_video(path) else suffix for path in files}
    names = {path: path.stem + endings[path] for path in files}
    for attempt in range(len(files) + 1):
        # Some file systems know no difference between a.png and A.png.
        counts = Counter(name.casefold() for name in names.values())
        clashing = [path for path, name in names.items() if counts[name.casefold()] > 1]
        if not clashing:
            break
        for number, path in enumerate(clashing, 1):
            if attempt == 0 or names[path] == path.stem + endings[path]:
                names[path] = path.name + endings[path]
            elif number > 1:
                names[path] = f"{path.name}.{number}{endings[path]}"
    return names


def check_output(jobs: Sequence[RestoringJob]) -> None:
    """Raises UserError where a result cannot be written: a folder in its place, rights, room.

    Results take about the room of their inputs or more, and that is all that is known yet.
    """
    for job in jobs:
        try:
            os.stat(job.target)
        except (FileNotFoundError, NotADirectoryError):
            continue  # its folder is looked at below
        except OSError as error:  # a name that is too long, among others
            raise UserError(f"Cannot write {job.target}: {error.strerror}.") from error
        if job.target.is_dir():
            raise UserError(
                f"Cannot write {job.target}, for a folder has that name; take another --output."
            )
    for folder in dict.fromkeys(job.target.parent for job in jobs):
        existing = _nearest_existing(folder)
        if not existing.is_dir():
            raise UserError(
                f"Cannot write to {folder}, for {existing} is a file; take another --output."
            )
        try:
            tempfile.TemporaryFile(dir=existing).close()
        except OSError as error:
            raise UserError(
                f"Cannot write to {folder}: {error.strerror}; take another --output."
            ) from error
    if jobs:
        folder = jobs[0].target.parent
        needed = sum(job.source.stat().st_size for job in jobs)
        free = shutil.disk_usage(_nearest_existing(folder)).free
        if free < needed:
            raise UserError(
                f"The disk of {folder} has {free / 2**20:,.0f} MiB left, but the inputs alone take "
                f"{needed / 2**20:,.0f} MiB; make room or take another --output."
            )


def _nearest_existing(folder: Path) -> Path:
    """The folder, or the first one above it that is there."""
    try:
        return next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as error:
        raise UserError(f"Cannot write to {folder}: {error.strerror}.") from error
