"""The display for which an HDR video was graded, and its light level (SMPTE ST 2086, CTA-861.3)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, cast

import av

# Per unit: chromaticities in steps of 0.00002, luminances in steps of 0.0001 cd/m2.
CHROMATICITY, LUMINANCE = 50_000, 10_000


@dataclass(frozen=True)
class Display:
    """Both as x264 and x265 take them; "" if the source does not state them.

    mastering: the primaries, white point and luminances of the display.
    light_level: the brightest pixel and the brightest frame average, in cd/m2.
    """

    mastering: str = ""
    light_level: str = ""


def read_display(frame: av.VideoFrame) -> tuple[Display, list[str]]:
    """What the first frame states, and what cannot be kept because it is incomplete."""
    mastering = light_level = ""
    lost = []
    data = frame.side_data.get("MASTERING_DISPLAY_METADATA")
    if data is not None:
        # FFmpeg's AVMasteringDisplayMetadata: fractions of x, y of red, green, blue and white, of
        # the least and the greatest luminance; whether the chromaticities and luminances are set.
        *parts, has_primaries, has_luminance = struct.unpack("=22i", bytes(cast(Any, data))[:88])
        pairs = zip(parts[::2], parts[1::2], strict=True)
        scales = [CHROMATICITY] * 8 + [LUMINANCE] * 2
        if has_primaries and has_luminance and all(parts[1::2]):
            red_x, red_y, green_x, green_y, blue_x, blue_y, white_x, white_y, least, most = (
                round(part * scale / whole)
                for (part, whole), scale in zip(pairs, scales, strict=True)
            )
            mastering = (
                f"G({green_x},{green_y})B({blue_x},{blue_y})R({red_x},{red_y})"
                f"WP({white_x},{white_y})L({most},{least})"
            )
        else:
            lost.append("the mastering display, which is incomplete")
    data = frame.side_data.get("CONTENT_LIGHT_LEVEL")
    if data is not None:
        light_level = "{},{}".format(*struct.unpack("=2I", bytes(cast(Any, data))[:8]))
    return Display(mastering, light_level), lost
