"""One video, from its file to its result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import cast

import numpy as np
from torch import nn
from tqdm import tqdm

from utils.errors import UserError
from utils.files import DiskFullError
from utils.inference.background import WriteBehind, read_ahead
from utils.inference.console import say
from utils.inference.restorer import Restorer
from utils.inference.video import VideoOptions
from utils.inference.video.containers import num_shown_frames
from utils.inference.video.reader import VideoReader
from utils.inference.video.temporal import LOOK_BACK, remove_flicker
from utils.inference.video.unfinished import UnfinishedVideo
from utils.wording import plural


def restore_video(
    source: Path,
    target: Path,
    restorer: Restorer,
    options: VideoOptions,
    notify: Callable[[str], None] = say,
) -> list[str]:
    """Restore a video frame by frame, from where a killed run stopped.

    notify: receives sentences about what is changed or left out.

    Returns the problems, in sentences. Raises DiskFullError.
    """
    try:
        with VideoReader(source) as reader:
            picture = reader.picture
            settings = {
                "input": _stamp(source),
                "network": _digest(cast(nn.Module, restorer.network)),
                **restorer.settings_for(picture.height, picture.width),
            }
            with UnfinishedVideo(
                target, settings, picture, reader.times, options, notify
            ) as unfinished:
                _restore_frames(reader, unfinished, restorer, options.temporal, notify)
                num_frames = unfinished.num_finished
                notes = unfinished.finish(source, reader.start, reader.last_duration)
            for sentence in (*reader.notes, *notes):
                notify(sentence)
            problems = [
                f"{sentence} {target} holds the frames that could be read."
                for sentence in reader.problems()
            ]
            shown = num_shown_frames(target)
            if shown != num_frames:
                problems.append(
                    f"{target} shows {shown} of the {num_frames} frames that were written; please "
                    f"report this together with {source}."
                )
            return problems
    except DiskFullError:
        raise
    except UserError as error:
        return [str(error)]
    except KeyboardInterrupt:
        notify(f"{target}: finished frames are kept; the same command continues after them.")
        raise


def _restore_frames(
    reader: VideoReader,
    unfinished: UnfinishedVideo,
    restorer: Restorer,
    is_temporal: bool,
    notify: Callable[[str], None],
) -> None:
    """Restore the unfinished frames; meanwhile the next is read and the previous one stored."""
    num_kept = unfinished.num_finished
    if num_kept:
        kept = plural(num_kept, "frame")
        notify(f"{unfinished.target}: continuing after {kept} of an earlier run.")
    start = max(num_kept - LOOK_BACK, 0) if is_temporal else num_kept
    rainy = read_ahead(reader.frames(start))
    bar = tqdm(total=reader.num_frames or None, initial=num_kept, unit="frame")
    # The thread that reads has stopped before the reader closes the file.
    with closing(rainy), WriteBehind() as writer, bar:
        restored: Iterable[np.ndarray] = map(restorer, rainy)
        if is_temporal:
            restored = remove_flicker(restored)
        for number, frame in enumerate(restored, start):
            if number >= num_kept:
                writer.submit(unfinished.append, frame)
                bar.update()


def _stamp(path: Path) -> str:
    """A file's size and modification time, by which a changed file is noticed."""
    stat = path.stat()
    return f"{stat.st_size} bytes, changed {stat.st_mtime_ns}"


def _digest(network: nn.Module) -> str:
    """A digest of a network's configuration and weights, whichever file they came from."""
    digest = hashlib.sha256(repr((type(network), getattr(network, "config", None))).encode())
    for name, value in network.state_dict().items():
        array = np.ascontiguousarray(value.detach().float().cpu().numpy())
        digest.update(f"{name} {value.dtype} {array.shape}".encode())
        digest.update(array.data if array.ndim else array.tobytes())
    return digest.hexdigest()
