"""Restoring image files one after the other, while the next is read and the last is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from tqdm import tqdm

from utils.errors import UserError
from utils.files import DiskFullError
from utils.inference.background import WriteBehind, read_ahead
from utils.inference.console import Problems, say
from utils.inference.photo_output import DEFAULT_QUALITY, check_size, write_photo
from utils.inference.photos import Photo, read_photo
from utils.inference.plan import RestoringJob


def restore_images(
    jobs: Sequence[RestoringJob],
    restorer: Callable[[np.ndarray], np.ndarray],
    problems: Problems,
    *,
    quality: int = DEFAULT_QUALITY,
    on_written: Callable[[RestoringJob], object] = lambda job: None,
    is_shown: bool = True,
) -> None:
    """Restore image files; a file that cannot be restored is added to ``problems``.

    quality: of JPEG and WebP, 1 to 100.
    on_written: called for each result once it is on the disk, in the thread that writes.
    is_shown: whether a bar shows the progress.

    Raises UserError if the disk is full, since the remaining results would not fit either.
    """
    num_written, is_full = 0, False

    def write(job: RestoringJob, photo: Photo) -> None:
        nonlocal num_written, is_full
        if is_full:  # the main thread does not know it yet
            return
        try:
            write_photo(job.target, photo, quality)
        except DiskFullError:
            is_full = True
            raise
        except UserError as error:
            problems.add(str(error))
            return
        num_written += 1
        on_written(job)

    bar = tqdm(total=len(jobs), unit="image", disable=not (jobs and is_shown))
    try:
        with WriteBehind() as writer, bar:
            for job, photo in read_ahead((job, _read_or_refuse(job)) for job in jobs):
                restored = _restore_or_note(job, photo, restorer, problems)
                if restored is not None:
                    writer.submit(write, job, restored)
                bar.update()
    except DiskFullError as error:
        raise UserError(
            f"{error} {len(jobs) - num_written} of {len(jobs)} images are not restored; make room "
            "and give the same command with --skip-existing."
        ) from error


def _read_or_refuse(job: RestoringJob) -> Photo | UserError:
    """The part of an image that is to be restored, or what is wrong with its file."""
    try:
        photo = read_photo(job.source)
        middle = photo.pixels.shape[1] // 2
        if job.half and middle:
            half = photo.pixels[:, :middle] if job.half == "left" else photo.pixels[:, middle:]
            photo = photo.with_pixels(np.ascontiguousarray(half))
        height, width = photo.pixels.shape[:2]
        check_size(job.target, width, height)
        return photo
    except UserError as error:
        return error


def _restore_or_note(
    job: RestoringJob,
    photo: Photo | UserError,
    restorer: Callable[[np.ndarray], np.ndarray],
    problems: Problems,
) -> Photo | None:
    if isinstance(photo, UserError):
        problems.add(str(photo))
        return None
    say(*photo.notes)
    try:
        return photo.with_pixels(restorer(photo.pixels))
    except UserError as error:  # about an image that has no name there
        problems.add(f"{job.source}: {error}")
        return None
