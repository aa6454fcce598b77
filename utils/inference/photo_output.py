"""Writing a restored photograph as PNG, TIFF, JPEG or WebP, with what belongs to its pixels."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from utils.errors import UserError
from utils.files import atomic_write
from utils.images import encode_png
from utils.inference.photos import Photo
from utils.png import write_chunk
from utils.tiff import ALPHA, BLACK_IS_ZERO, DEFLATE, RGB

FORMATS = ("png", "jpg", "webp", "tiff")
DEFAULT_QUALITY = 95
# The largest sides in pixels, by format; libjpeg stops short of JPEG's own 65,535.
MAX_SIDES = {"JPEG": 65_500, "WEBP": 16_383}


def check_size(path: Path, width: int, height: int) -> None:
    """Raise UserError where the format of the path's suffix cannot hold so large a picture."""
    kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}.get(path.suffix.lower(), "")
    if max(width, height) > MAX_SIDES.get(kind, max(width, height)):
        raise UserError(
            f"Cannot write {path}: {width} x {height} pixels do not fit into {kind}; take png."
        )


def write_photo(path: Path, photo: Photo, quality: int = DEFAULT_QUALITY) -> None:
    """Write in the format of the path's suffix (``FORMATS``), whole or not at all.

    PNG and TIFF are lossless, except that floats become 16 bits in PNG. JPEG and WebP store 8 bits
    at a ``quality`` of 1 to 100; WebP at 100 is lossless, and JPEG drops alpha.
    """
    check_size(path, photo.pixels.shape[1], photo.pixels.shape[0])
    suffix = path.suffix.lower()
    if suffix == ".png":
        content = _png(photo)
    elif suffix in (".tif", ".tiff"):
        content = _tiff(photo)
    else:
        try:
            content = _lossy(photo, "WEBP" if suffix == ".webp" else "JPEG", quality)
        except (OSError, ValueError) as error:  # of the encoder
            raise UserError(f"Cannot write {path}: {error}; take png.") from error
    atomic_write(path, lambda temporary: temporary.write_bytes(content) and None)


def _png(photo: Photo) -> bytes:
    content, chunks = encode_png(photo.pixels), b""
    if photo.profile:
        chunks += write_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(photo.profile))
    if photo.dpi:
        x, y = (round(value / 0.0254) for value in photo.dpi)  # pixels per metre
        chunks += write_chunk(b"pHYs", struct.pack(">IIB", x, y, 1))
    if photo.exif:
        chunks += write_chunk(b"eXIf", photo.exif.removeprefix(b"Exif\0\0"))
    return content[:33] + chunks + content[33:]  # after the signature and IHDR


def _tiff(photo: Photo) -> bytes:
    """A TIFF made of the EXIF block, which is one without pixels, and one strip of Deflate data.

    Pillow writes neither deep colours nor EXIF beside compressed pixels, tifffile no EXIF tables.
    """
    pixels = photo.pixels
    height, width, samples = (*pixels.shape, 1)[:3]
    tags = Image.Exif()
    if photo.exif:
        tags.load(photo.exif)
    order = tags.endian = tags.endian or "<"
    strip = zlib.compress(pixels.astype(order + pixels.dtype.str[1:], copy=False).tobytes())
    base = ExifTags.Base
    tags[base.ImageWidth], tags[base.ImageLength] = width, height
    tags[base.BitsPerSample] = (8 * pixels.itemsize,) * samples
    tags[base.Compression] = DEFLATE
    tags[base.PhotometricInterpretation] = BLACK_IS_ZERO if samples == 1 else RGB
    tags[base.SamplesPerPixel], tags[base.RowsPerStrip] = samples, height
    tags[base.StripByteCounts] = len(strip)
    if samples == 4:
        tags[base.ExtraSamples] = ALPHA
    if pixels.dtype.kind == "f":
        tags[base.SampleFormat] = (3,) * samples
    if photo.dpi:
        tags[base.XResolution], tags[base.YResolution] = photo.dpi
        tags[base.ResolutionUnit] = 2  # inches
    if photo.profile:
        tags[base.InterColorProfile] = photo.profile
    tags[base.StripOffsets] = 0  # after the tables, whose length Pillow adds
    content = tags.tobytes().removeprefix(b"Exif\0\0") + strip
    if len(content) >= 2**32:
        raise UserError(f"{width} x {height} pixels do not fit into TIFF; take png.")
    return content


def _lossy(photo: Photo, kind: str, quality: int) -> bytes:
    pixels = photo.pixels
    if pixels.dtype == np.float32:
        pixels = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    elif pixels.dtype == np.uint16:
        pixels = np.rint(pixels / 257).astype(np.uint8)
    options = _metadata(photo)
    if kind == "JPEG":
        pixels = pixels[..., :3] if pixels.ndim == 3 else pixels
        # At a high quality colours keep their full resolution.
        options["subsampling"] = 0 if quality >= 90 else 2
    else:
        options |= {"lossless": quality == 100, "exact": True}
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(content, kind, quality=quality, **options)
    return content.getvalue()


def _metadata(photo: Photo) -> dict[str, Any]:
    """What Pillow writes besides the pixels."""
    given = {"icc_profile": photo.profile, "exif": photo.exif, "dpi": photo.dpi}
    return {name: value for name, value in given.items() if value}
