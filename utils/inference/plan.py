"""Which files are restored and where their results go: decided before the first computation."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utils.errors import UserError
from utils.folders import dead_link_sentence, walk_folders
from utils.inference import photos, video

RESULT_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
VIDEO_SUFFIX = ".mp4"


@dataclass(frozen=True)
class RestoringJob:
    """One image or video, and the file of its result, whose suffix says in which format.

    ``half``: "left" or "right" if only that half of an image is to be restored.
    """

    source: Path
    target: Path
    half: str = ""

    @property
    def is_video(self) -> bool:
        return self.target.suffix.lower() == VIDEO_SUFFIX


@dataclass
class Plan:
    """The files in their order, and sentences for the user.

    problems: what cannot be restored: folders that cannot be read, broken links.
    notes: results whose names are not just those of their inputs.
    """

    jobs: list[RestoringJob] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def plan_files(
    sources: Sequence[Path], output: Path, *, suffix: str = ".png", recursive: bool = False
) -> Plan:
    """What to restore and where to; images get ``suffix``.

    ``output`` is a folder or, for one input, the file of its result, if its suffix is one of a
    result. Several inputs share the folder, in which each input folder gets a subfolder. Raises
    UserError if there is nothing to restore, if an input is neither an image nor a video, and if a
    result would replace an input.
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
                hint = "" if recursive else "; --recursive includes its subfolders"
                raise UserError(f"The folder {source} holds neither images nor videos{hint}.")
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
        names = _target_names(list(dict.fromkeys(files)), suffix)
        plan.jobs += [RestoringJob(source, folder / name) for source, name in names.items()]
        if longer := [
            f"{source.name} -> {name}"
            for source, name in names.items()
            if Path(name).stem != source.stem
        ]:
            more = f" and {len(longer) - 3} more" if len(longer) > 3 else ""
            plan.notes.append(
                f"Inputs of {folder} that share a name keep their suffix in that of the result: "
                f"{', '.join(longer[:3])}{more}."
            )
    inputs = {job.source.resolve() for job in plan.jobs}
    for job in plan.jobs:
        if job.target.resolve() in inputs:
            raise UserError(f"{job.target} would replace an input; take another --output.")
    return plan


def _is_folder(source: Path) -> bool:
    """Raises UserError for a path that does not exist, cannot be accessed or is a device."""
    try:
        mode = source.stat().st_mode
    except FileNotFoundError as error:
        if source.is_symlink():
            raise UserError(dead_link_sentence(source)) from error
        raise UserError(f"There is no file or folder {source}.") from error
    except OSError as error:
        raise UserError(f"Cannot read {source}: {error.strerror}.") from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise UserError(_special_sentence(source))
    return stat.S_ISDIR(mode)


def _special_sentence(path: Path) -> str:
    return f"{path} is a pipe, socket or device; name a file or a folder."


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in (*photos.SUFFIXES, *video.SUFFIXES)


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in video.SUFFIXES


def _check_kind(source: Path) -> None:
    if not _is_known(source):
        known = " ".join((*photos.SUFFIXES, *video.SUFFIXES))
        raise UserError(
            f"{source} has an unsupported extension; rename it to what the file is: {known}."
        )


def names_a_file(output: Path) -> bool:
    """Whether ``--output`` is meant as the file of a result, not as a folder."""
    is_file_name = _is_known(output) or output.suffix.lower() in RESULT_SUFFIXES
    return is_file_name and not os.path.isdir(output)


def _check_result_suffix(source: Path, output: Path) -> None:
    allowed = (VIDEO_SUFFIX,) if _is_video(source) else RESULT_SUFFIXES
    if output.suffix.lower() not in allowed:
        raise UserError(
            f"--output {output} cannot be written as the result of {source}; it may end in "
            f"{', '.join(allowed)}."
        )


def _files_below(
    source: Path, output: Path, recursive: bool, problems: list[str]
) -> dict[Path, list[Path]]:
    """The images and videos of a folder, and of its visible subfolders where ``recursive``.

    Results of an earlier run inside the folder are left out. ``problems`` receives a sentence for
    everything that cannot be read.
    """
    results = output.resolve()
    found: dict[Path, list[Path]] = {}
    for folder, content in walk_folders(
        source, problems, lambda subfolder: recursive and subfolder.resolve() != results
    ):
        found[folder] = list(filter(_is_known, content.files))
        problems += map(_special_sentence, filter(_is_known, content.special))
        # A link without a suffix may have led to a folder.
        dead = (link for link in content.dead_links if _is_known(link) or not link.suffix)
        problems += map(dead_link_sentence, dead)
    return found


def _target_names(files: list[Path], suffix: str) -> dict[Path, str]:
    """The names of the results that share a folder.

    a.jpg becomes a.png; if the result of another file has that name too, both keep their suffix:
    a.jpg.png and a.bmp.png. Files of one name from different folders are numbered: a.2.png.
    """
    endings = {path: VIDEO_SUFFIX if _is_video(path) else suffix for path in files}
    names = {path: path.stem + endings[path] for path in files}
    for attempt in range(len(files) + 1):
        # Some file systems do not distinguish a.png from A.png.
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
    """Raise UserError if a result cannot be written: a folder has its name, permission is missing,
    or the disk has less room than the inputs take.
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
                f"Cannot write {job.target}: a folder has that name; take another --output."
            )
    for folder in dict.fromkeys(job.target.parent for job in jobs):
        existing = _nearest_existing(folder)
        if not existing.is_dir():
            raise UserError(
                f"Cannot write to {folder}: {existing} is a file; take another --output."
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
    """The folder, or the nearest one above it that exists."""
    try:
        return next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as error:
        raise UserError(f"Cannot write to {folder}: {error.strerror}.") from error
