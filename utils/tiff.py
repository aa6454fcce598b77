"""How a TIFF stores its pixels: what decides which library reads it."""

from __future__ import annotations

import io
import logging
import struct
from dataclasses import dataclass
from pathlib import Path

import tifffile

TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF
# Numbers of the TIFF standard.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
LAB_KINDS = (8, 9, 10)
SEPARATE_PLANES = 2
ASSOCIATED_ALPHA = 1
UNCOMPRESSED, LZW, JPEG, DEFLATE, PACKBITS, OLD_DEFLATE = 1, 5, 7, 8, 32773, 32946

# What a broken TIFF makes tifffile raise.
TIFFFILE_ERRORS = (
    *(OSError, ValueError, TypeError, LookupError, OverflowError, struct.error),
    tifffile.TiffFileError,
)

# tifffile logs lines of its own about broken files, besides our sentence about them.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class TiffLayout:
    """What decides which library reads a TIFF; the numbers are those of the TIFF standard."""

    width: int
    height: int
    bits: int
    photometric: int
    samples: int  # per pixel
    planes: int
    alpha: int  # the kind of the first extra sample

    @property
    def separate(self) -> bool:
        """Whether the channels are stored one after another, which OpenCV mixes up above 8 bits."""
        return self.bits > 8 and self.samples > 1 and self.planes == SEPARATE_PLANES

    @property
    def unusual(self) -> bool:
        """Whether OpenCV misinterprets the colours."""
        if self.bits <= 8:
            return self.photometric in LAB_KINDS
        if self.photometric == WHITE_IS_ZERO:
            return self.samples > 1
        return self.photometric not in (BLACK_IS_ZERO, RGB)

    def refusal(self, path: Path) -> str:
        try:
            kind = tifffile.PHOTOMETRIC(self.photometric).name
        except ValueError:
            kind = str(self.photometric)
        planes = " in planes" if self.planes == SEPARATE_PLANES else ""
        return (
            f"{path} is a TIFF of a kind that is not read ({kind}, {self.bits} bits, "
            f"{self.samples} channels{planes}); store it as RGB in a PNG."
        )


def tiff_layout(encoded: bytes) -> TiffLayout | None:
    """How a TIFF stores its pixels; None for other files. Raises TIFFFILE_ERRORS."""
    if not encoded.startswith(TIFF_BEGINNINGS):
        return None
    with tifffile.TiffFile(io.BytesIO(encoded)) as file:
        page = file.pages.first
        return TiffLayout(
            width=int(page.imagewidth),
            height=int(page.imagelength),
            bits=int(page.bitspersample),
            photometric=int(page.photometric),
            samples=int(page.samplesperpixel),
            planes=int(page.planarconfig),
            alpha=int(next(iter(page.extrasamples), 0)),
        )
