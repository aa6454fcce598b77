"""Whether the data of an image file are sound: the one check that every reader uses.

Decoders silently fill in what they cannot decode, so a half-gray photograph would be trained on,
scored or restored.
"""

from __future__ import annotations

import io
import warnings
import zlib
from typing import Any

import simplejpeg
import tifffile
from PIL import Image, ImageCms, UnidentifiedImageError

from utils.png import read_chunks
from utils.tiff import (
    DEFLATE,
    JPEG,
    LZW,
    OLD_DEFLATE,
    PACKBITS,
    SEPARATE_PLANES,
    TIFF_BEGINNINGS,
    TIFFFILE_ERRORS,
    main_page,
)

# What decoders raise for broken files; which of these depends on the damage.
DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError),
    *(RuntimeError, ArithmeticError, zlib.error, ImageCms.PyCMSError),
    *TIFFFILE_ERRORS,
)
# Pillow warns about damaged tables besides raising.
warnings.filterwarnings("ignore", module=r"PIL\.")


def image_damage(encoded: bytes) -> str:
    """What is wrong with the pixel data of a JPEG, PNG or TIFF file; "" if nothing is known.

    A file that no decoder accepts may pass, since its reader refuses it. BMP, uncompressed TIFF and
    other formats without redundancy cannot be checked.
    """
    return jpeg_damage(encoded) or png_damage(encoded) or tiff_damage(encoded)


def is_jpeg(encoded: bytes) -> bool:
    return encoded.startswith(b"\xff\xd8")


def jpeg_damage(encoded: bytes) -> str:
    """libjpeg's warning about the data of a JPEG, which OpenCV and Pillow ignore."""
    if not is_jpeg(encoded):
        return ""
    try:
        simplejpeg.decode_jpeg(encoded, strict=True)
    except ValueError as error:
        warning = str(error)
    else:
        return ""
    try:
        simplejpeg.decode_jpeg(encoded, strict=False)
    except ValueError:
        return ""  # a kind that simplejpeg does not support
    return warning


def png_damage(encoded: bytes) -> str:
    """Names the first chunk with pixel data that does not match its checksum."""
    for chunk in read_chunks(encoded):
        if chunk.decides_pixels and not chunk.is_sound:
            name = chunk.kind.decode("ascii", "replace")
            return f"its {name} chunk at byte {chunk.place} is damaged or cut off"
    return ""


def tiff_damage(encoded: bytes) -> str:
    """What is wrong with the compressed data of a TIFF's main page.

    libtiff never checks the checksums of Deflate, and OpenCV ignores most of libtiff's errors.
    """
    if not encoded.startswith(TIFF_BEGINNINGS):
        return ""
    try:
        with tifffile.TiffFile(io.BytesIO(encoded)) as file:
            number, page = main_page(file)
            compression, tables = int(page.compression), page.jpegtables or b""
            places = zip(page.dataoffsets, page.databytecounts, strict=True)
            segments = [encoded[place : place + size] for place, size in places]
            length = None if page.is_tiled else _num_bytes(page)
    except TIFFFILE_ERRORS:
        return ""  # the reader refuses it
    if compression in (DEFLATE, OLD_DEFLATE) and not all(map(_inflates, segments)):
        return "its Deflate data are broken"
    if compression == JPEG:
        whole = (tables[:-2] + segment[2:] if tables else segment for segment in segments)
        return next(filter(None, map(jpeg_damage, whole)), "")
    if compression == PACKBITS and length not in (None, sum(map(_packbits_length, segments))):
        return "its PackBits data are broken"
    if compression == LZW and not _pillow_decodes(encoded, number):
        return "its LZW data are broken"
    return ""


def _num_bytes(page: Any) -> int:
    """The size in bytes of a TIFF page's pixels; each row of each plane starts at a new byte."""
    planes = page.samplesperpixel if page.planarconfig == SEPARATE_PLANES else 1
    bits = page.imagewidth * page.samplesperpixel // planes * page.bitspersample
    return planes * page.imagelength * -(-bits // 8)


def _inflates(segment: bytes) -> bool:
    inflate = zlib.decompressobj()
    try:
        inflate.decompress(segment)
    except zlib.error:
        return False
    return inflate.eof


def _packbits_length(segment: bytes) -> int:
    """The number of bytes that PackBits data decode to; too few if they are truncated."""
    place = length = 0
    while place < len(segment):
        count = segment[place]
        if count < 128:  # count + 1 bytes follow
            length += min(count + 1, len(segment) - place - 1)
            place += count + 2
        else:  # one byte is repeated 257 - count times; 128 is skipped
            length += 257 - count if count > 128 else 0
            place += 2 if count > 128 else 1
    return length


def _pillow_decodes(encoded: bytes, page: int) -> bool:
    """Whether libtiff decodes a TIFF without an error; True if Pillow does not support its kind."""
    try:
        with Image.open(io.BytesIO(encoded), formats=["TIFF"]) as image:
            image.seek(page)
            image.load()
    except UnidentifiedImageError:
        return True
    except OSError:
        return False
    return True
