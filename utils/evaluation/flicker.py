"""Flicker: the mean absolute change of the error between neighbouring frames, in gray levels.

    E_t = restored_t - clean_t                                  R, G and B in 0..255
    flicker = mean of |E_t - E_(t-1)| over pixels, channels and t = 2 .. T

With ``flow``, E_(t-1) is first warped to frame t: pixel p takes E_(t-1)(p + F(p)), interpolated
linearly, where F is OpenCV's DIS flow (medium preset) from the clean frame t to the clean frame
t - 1. Two kinds of pixels are left out: those that F moves out of the frame, and occluded ones,
where the backward flow B does not cancel F (Sundaram, Brox and Keutzer, ECCV 2010):

    |F(p) + B(p + F(p))|^2 > 0.01 (|F(p)|^2 + |B(p + F(p))|^2) + 0.5

The idea is the temporal warping error of Lai et al. ("Learning Blind Video Temporal Consistency",
ECCV 2018): the mean squared difference between a restored frame and its warped neighbour, in
[0, 1], by FlowNet2. Here the error replaces the frame, so that changes of the clean clip itself do
not count, and the difference is absolute, in gray levels.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from utils.errors import UserError
from utils.evaluation.quality import Metric, as_rgb
from utils.wording import size_text

FLICKER = Metric("flicker", "Flicker", 3, higher_is_better=False)
FLICKER_FLOW = Metric("flicker_flow", "Flicker (flow)", 3, higher_is_better=False)
MIN_FLOW_SIDE = 16  # pixels; OpenCV's DIS flow crashes on smaller frames

Images = tuple[np.ndarray, np.ndarray | None]  # restored and clean, uint8, (H, W, 3) or (H, W)


def flicker_caption(flow: bool) -> str:
    """The sentence on flicker in the caption of a table."""
    moved = (
        ", the earlier error moved by DIS flow of the clean clip; occluded pixels and those that "
        "leave the frame are left out"
    )
    return (
        "Flicker: mean absolute change of the error (restored - clean; R, G and B in 0..255) from "
        f"frame to frame{moved if flow else ''}; after the warping error of Lai et al., ECCV 2018"
    )


def flicker(now: Images, before: Images, flow: bool = False) -> float:
    """Mean absolute change of the error from one frame to the next, in gray levels.

    NaN if ``flow`` leaves out all pixels. Raises UserError for frames of different sizes, and with
    ``flow`` for frames below ``MIN_FLOW_SIDE``.
    """
    error, earlier = _error(*now), _error(*before)
    if error.shape[:2] != earlier.shape[:2]:
        raise UserError(
            f"the frame has {size_text(error)} px, the one before it {size_text(earlier)}"
        )
    if error.ndim != earlier.ndim:
        error, earlier = np.atleast_3d(error), np.atleast_3d(earlier)
    if not flow:
        return float(np.abs(error - earlier).mean(dtype=np.float64))
    assert now[1] is not None and before[1] is not None
    moved, is_seen = _moved(earlier, now[1], before[1])
    change = np.abs(error - moved)[is_seen]
    return float(change.mean(dtype=np.float64)) if change.size else math.nan


def _error(restored: np.ndarray, clean: np.ndarray | None) -> np.ndarray:
    assert clean is not None
    if restored.ndim != clean.ndim:
        restored, clean = as_rgb(restored), as_rgb(clean)
    return restored.astype(np.float32) - clean


def _moved(
    earlier: np.ndarray, clean: np.ndarray, clean_before: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The previous frame's error, warped to this frame, and a mask of the pixels seen in both.

    ``earlier`` is (H, W) or (H, W, C), float32; the mask is (H, W).
    """
    height, width = clean.shape[:2]
    if min(height, width) < MIN_FLOW_SIDE:
        raise UserError(
            f"the frame has {size_text(clean)} px; --flow needs at least "
            f"{MIN_FLOW_SIDE}x{MIN_FLOW_SIDE}"
        )
    there, back = _dis_flow(clean, clean_before), _dis_flow(clean_before, clean)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    x, y = columns + there[..., 0], rows + there[..., 1]
    back = cv2.remap(back, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    moved = cv2.remap(earlier, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    is_inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    lengths = (there**2).sum(axis=2) + (back**2).sum(axis=2)
    is_consistent = ((there + back) ** 2).sum(axis=2) <= 0.01 * lengths + 0.5
    return moved.reshape(earlier.shape), is_inside & is_consistent


def _dis_flow(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(H, W, 2) float32: pixel p of ``start`` is found in ``end`` at p + flow."""
    gray = [cv2.cvtColor(i, cv2.COLOR_RGB2GRAY) if i.ndim == 3 else i for i in (start, end)]
    # A new object per call: threads cannot share one. Any: its types forbid None as initial flow.
    dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return dis.calc(*gray, None)
