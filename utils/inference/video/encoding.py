"""Encoding frames as H.264 or H.265, in pieces that can be joined."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import cast

import av
import numpy as np

from utils.errors import UserError
from utils.files import atomic_write
from utils.inference.video.colours import values
from utils.inference.video.containers import url
from utils.inference.video.reader import Picture

# Codec -> FFmpeg's encoder and MP4's name. Apple's players do not show H.265 as hev1, the default.
ENCODERS = {"h264": ("libx264", "avc1"), "hevc": ("libx265", "hvc1")}
# Pixels along the shorter side: with smaller frames, x265 writes past the end of its buffers.
MIN_SIDES = {"h264": 1, "hevc": 64}
# By how many frames x264 and x265 may have to decode a frame before it is shown.
REORDER = 2


def write_piece(
    path: Path,
    frames: Iterable[Sequence[np.ndarray]],
    times: Sequence[int],
    picture: Picture,
    *,
    codec: str,
    crf: int,
) -> None:
    """Encode frames, given as the planes of ``picture.layout``, into a file.

    times: of the frames, in units of ``picture.time_base``.

    A piece starts with a key frame, so pieces can be joined. Raises UserError if the disk or the
    encoder fails.
    """

    def write(temporary: Path) -> None:
        with av.open(url(temporary), "w", format="mp4") as container:
            encoder, name = ENCODERS[codec]
            options = _options(codec, crf, picture)
            stream = cast(
                av.VideoStream, container.add_stream(encoder, rate=picture.rate, options=options)
            )
            stream.width, stream.height = picture.width, picture.height
            stream.pix_fmt = picture.layout.pixel_format
            context = stream.codec_context
            context.codec_tag = name
            context.time_base = picture.time_base
            if picture.pixel_aspect:
                context.sample_aspect_ratio = picture.pixel_aspect
            context.color_range = picture.tags.range
            context.colorspace = picture.tags.matrix
            context.color_primaries = picture.tags.primaries
            context.color_trc = picture.tags.transfer
            for planes, time in zip(frames, times, strict=True):
                frame = _frame(planes, picture)
                frame.pts, frame.time_base = time - times[0], picture.time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))

    write_video(path, write)


def write_video(path: Path, write: Callable[[Path], None]) -> None:
    """``atomic_write`` for FFmpeg's files; its errors become UserErrors."""
    try:
        atomic_write(path, write)
    except av.error.FFmpegError as error:
        raise UserError(f"Cannot encode {path}: {error.strerror}.") from error


def _options(codec: str, crf: int, picture: Picture) -> dict[str, str]:
    # Results are scored, so PSNR is optimised; at this quality they look the same either way.
    options = {"crf": str(crf), "preset": "medium", "tune": "psnr"}
    display = picture.display
    if codec == "hevc":
        private = ["log-level=none"]
        names = {"master-display": display.mastering, "max-cll": display.light_level}
    else:
        private = []
        names = {"mastering-display": display.mastering, "cll": display.light_level}
    private += [f"{name}={value}" for name, value in names.items() if value]
    if private:
        options["x265-params" if codec == "hevc" else "x264-params"] = ":".join(private)
    return options


def _frame(planes: Sequence[np.ndarray], picture: Picture) -> av.VideoFrame:
    frame = av.VideoFrame(picture.width, picture.height, picture.layout.pixel_format)
    for plane, filled in zip(frame.planes, planes, strict=True):
        values(plane, picture.layout)[:] = filled
    return frame
