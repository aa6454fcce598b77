"""How the frames of a file store their colours, and how the result will."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import av
import numpy as np

from utils.errors import UserError
from utils.inference.video.yuv import BT601, BT709, MATRICES, Layout, to_rgb

# FFmpeg's numbers: https://ffmpeg.org/doxygen/trunk/pixfmt_8h.html
UNSPECIFIED_MATRIX, RGB_MATRIX = 2, 0
LIMITED, FULL = 1, 2


@dataclass(frozen=True)
class Tags:
    """What a file states about its colours, in FFmpeg's numbers; players rely on it."""

    range: int
    matrix: int
    primaries: int
    transfer: int


@dataclass(frozen=True)
class Colours:
    """The colours of a video.

    pixel_format: FFmpeg's name for how the source stores its frames.
    stored: the same as a ``Layout``; None for RGB.
    written: how the result stores its frames: as the source, where H.264 can.
    tags: what the result states about its colours.
    """

    pixel_format: str
    stored: Layout | None
    written: Layout
    tags: Tags

    def to_rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """A decoded frame as (H, W, 3) float32 RGB in [0, 1]."""
        if frame.format.name != self.pixel_format:  # joined from different videos
            frame = frame.reformat(format=self.pixel_format)
        if self.stored:
            return to_rgb(_planes(frame, self.stored), self.stored)
        is_deep = _depth(frame.format) > 8
        same = frame.reformat(format="rgb48le" if is_deep else "rgb24")
        return same.to_ndarray().astype(np.float32) / (65535 if is_deep else 255)


def find_colours(path: Path, frame: av.VideoFrame, stream: av.VideoStream, swaps: bool) -> Colours:
    """The colours of a video, from its first frame and its stream.

    swaps: whether width and height are swapped to make the frames upright.

    Raises UserError for an unsupported matrix.
    """
    width, height = (frame.height, frame.width) if swaps else (frame.width, frame.height)
    context = stream.codec_context
    tags = Tags(frame.color_range, frame.colorspace, context.color_primaries, context.color_trc)
    stored = None
    if _is_rgb(frame.format):
        bits = 10 if _depth(frame.format) > 8 else 8
        layout = Layout(BT709, full=False, bits=bits, across=1, down=1)
        tags = replace(tags, range=LIMITED, matrix=BT709)
    else:
        stored = layout = _stored_layout(path, frame)
        if swaps:
            layout = replace(layout, across=layout.down, down=layout.across)
        tags = replace(tags, range=FULL) if layout.full else tags
        # The matrix is stated if a player would guess another one, as for turned frames, and if
        # Y'CbCr is labelled as RGB.
        if tags.matrix == RGB_MATRIX or (
            tags.matrix == UNSPECIFIED_MATRIX and _guessed_matrix(width, height) != layout.matrix
        ):
            tags = replace(tags, matrix=layout.matrix)
    return Colours(frame.format.name, stored, _written_layout(layout, width, height), tags)


def values(plane: av.video.plane.VideoPlane, layout: Layout) -> np.ndarray:
    """The values of a plane, (height, width), as a view of its memory."""
    rows = np.frombuffer(cast(Any, plane), layout.dtype).reshape(plane.height, -1)
    return rows[:, : plane.width]


def _stored_layout(path: Path, frame: av.VideoFrame) -> Layout:
    """How the frames' Y'CbCr is stored; what the file does not state is guessed as in players."""
    matrix = frame.colorspace
    if matrix in (UNSPECIFIED_MATRIX, RGB_MATRIX):
        matrix = _guessed_matrix(frame.width, frame.height)
    if matrix not in MATRICES:
        raise UserError(
            f"{path} stores its colours with matrix {matrix} of ITU-T H.273, which is not "
            f"supported; convert it to BT.709 with another program."
        )
    components = frame.format.components
    is_full = frame.format.name.startswith(("yuvj", "gray", "ya"))
    across = down = 2  # gray has no colours; its result is stored like most videos
    if len(components) >= 3:
        across = _factor(frame.width, components[1].width)
        down = _factor(frame.height, components[1].height)
    return Layout(
        matrix,
        full=frame.color_range == FULL or (is_full and frame.color_range != LIMITED),
        bits=max(components[0].bits, 8),
        across=across,
        down=down,
    )


def _written_layout(layout: Layout, width: int, height: int) -> Layout:
    """The layout in which H.264 and H.265 keep all colour samples: 4:2:0, 4:2:2 or 4:4:4.

    If the width or height is odd, the last column or row needs its own colour sample.
    """
    across = 1 if width % 2 else min(layout.across, 2)
    down = 1 if height % 2 or across == 1 else min(layout.down, 2)
    return replace(layout, bits=10 if layout.bits > 8 else 8, across=across, down=down)


def _guessed_matrix(width: int, height: int) -> int:
    """The matrix that players assume if the file states none."""
    return BT709 if height >= 720 or width >= 1280 else BT601


def _is_rgb(pixels: av.VideoFormat) -> bool:
    """Whether frames hold RGB in some order, a palette, or one bit per pixel."""
    return pixels.is_rgb or pixels.has_palette or pixels.components[0].bits < 8


def _depth(pixels: av.VideoFormat) -> int:
    return max(component.bits for component in pixels.components)


def _factor(length: int, fewer: int) -> int:
    """1, 2 or 4: how many luma samples share a colour sample along an axis."""
    return next(factor for factor in (1, 2, 4) if -(-length // factor) == fewer)


def _planes(frame: av.VideoFrame, layout: Layout) -> list[np.ndarray]:
    """The stored planes of a frame; packed formats (NV12, YUYV, P010) are unpacked first."""
    components = frame.format.components[:3]
    if len(components) < 3:
        components = components[:1]
    is_planar = [component.plane for component in components] == list(range(len(components)))
    if not is_planar or frame.format.name.endswith("be") or frame.format.name.startswith("ya"):
        name = layout.pixel_format
        frame = frame.reformat(
            format=name if len(components) == 3 else name.replace("yuv420p", "gray")
        )
    return [values(plane, layout) for plane in frame.planes[: len(components)]]
