"""How a TIFF stores its pixels, which decides the library that reads it."""

from __future__ import annotations

import io
import logging
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tifffile

TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF
# Numbers of the TIFF standard.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, YCBCR = 0, 1, 2, 6
LAB_KINDS = (8, 9, 10)
SEPARATE_PLANES = 2
ASSOCIATED_ALPHA, ALPHA = 1, 2  # kinds of extra samples that are transparency
REDUCED = 1  # bit of a page's kind: it shows another page, smaller
UNCOMPRESSED, LZW, JPEG, DEFLATE, PACKBITS, OLD_DEFLATE = 1, 5, 7, 8, 32773, 32946

# What tifffile raises for a broken TIFF.
TIFFFILE_ERRORS = (
    *(OSError, ValueError, TypeError, LookupError, OverflowError, struct.error),
    tifffile.TiffFileError,
)

# Broken files are reported by our own sentence, without tifffile's lines.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class TiffLayout:
    """What decides the library that reads a TIFF; the numbers are those of the TIFF standard.

    ``page`` is the number of the first page that is not a reduced copy of another one, or 0 if all
    are; the other fields describe that page.
    """

    page: int
    width: int
    height: int
    bits: int
    is_float: bool
    compression: int
    photometric: int
    samples: int  # per pixel
    planes: int
    extras: tuple[int, ...]  # the kinds of the samples after the colours

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

    @property
    def num_colours(self) -> int:
        """Samples per pixel without the extra ones."""
        return self.samples - len(self.extras)

    @property
    def has_alpha(self) -> bool:
        """Whether the first extra sample is transparency."""
        return self.extras[:1] in ((ASSOCIATED_ALPHA,), (ALPHA,))

    def refusal(self, path: Path) -> str:
        try:
            kind = tifffile.PHOTOMETRIC(self.photometric).name
        except ValueError:
            kind = str(self.photometric)
        planes = " in planes" if self.planes == SEPARATE_PLANES else ""
        return (
            f"{path} is a TIFF of an unsupported kind ({kind}, {self.bits} bits, {self.samples} "
            f"channels{planes}); store it as RGB in a PNG."
        )


def tiff_layout(encoded: bytes) -> TiffLayout | None:
    """How a TIFF stores its pixels; None for other files. Raises TIFFFILE_ERRORS."""
    if not encoded.startswith(TIFF_BEGINNINGS):
        return None
    with tifffile.TiffFile(io.BytesIO(encoded)) as file:
        number, page = main_page(file)
        return TiffLayout(
            page=number,
            width=int(page.imagewidth),
            height=int(page.imagelength),
            bits=int(page.bitspersample),
            is_float=int(page.sampleformat) == 3,
            compression=int(page.compression),
            photometric=int(page.photometric),
            samples=int(page.samplesperpixel),
            planes=int(page.planarconfig),
            extras=tuple(map(int, page.extrasamples)),
        )


def main_page(file: tifffile.TiffFile) -> tuple[int, Any]:
    """The first page that is not a reduced copy, with its number; page 0 if all are."""
    pages: Any = file.pages  # read lazily, one after the other
    whole = ((number, page) for number, page in enumerate(pages) if not page.subfiletype & REDUCED)
    return next(whole, (0, pages.first))
