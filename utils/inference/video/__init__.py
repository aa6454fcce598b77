"""Videos: read frame by frame, restored, and encoded again with the sound of the source.

    restoring.py    one video, from its file to its result
    reader.py       the frames of a file: upright, RGB, each with its own time
    containers.py   opening files, and whether they are complete
    clocks.py       times that start late, jump or run backwards
    colours.py      how a file stores its colours; yuv.py: Y'CbCr to RGB and back
    temporal.py     removing residual flicker
    unfinished.py   the finished frames of a killed run, and the lock of a result
    encoding.py     frames as H.264 or H.265
    joining.py      the result: encoded frames and the tracks of the source
    tracks.py       sounds, subtitles, chapters and tags

This file does not import FFmpeg: a run over photographs also asks which files are videos.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# What phones, cameras, recorders and editors write; case does not matter.
SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".wmv", ".asf"),
    *(".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob", ".flv", ".f4v", ".ogv", ".mxf", ".dv"),
)
CODECS = ("h264", "hevc")
# Constant rate factor, 0 to 51: at 12, an identity network keeps more than 41 dB even of rain.
DEFAULT_CRF = 12


@dataclass(frozen=True)
class VideoOptions:
    """How videos are restored and written.

    codec: one of CODECS.
    crf: constant rate factor of the encoder, 0 (large files) to 51.
    temporal: whether residual flicker is removed.
    """

    codec: str = "h264"
    crf: int = DEFAULT_CRF
    temporal: bool = False


def is_video(path: Path) -> bool:
    """Whether a path is a visible file with the suffix of a video."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
