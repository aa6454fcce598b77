"""Reading photographs of every common format, with what belongs to the pixels.

    file --decoded once--> pixels (upright), colour profile, EXIF, DPI, notes

8-bit files are decoded by Pillow (HEIC by pillow-heif), deeper ones by OpenCV, since Pillow cuts
them to 8 bits, and TIFFs that OpenCV misreads by tifffile. ``utils/images.py`` reads the plain
files of data sets, photo_output.py writes results.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from PIL import ExifTags, Image, ImageCms

from utils.damage import DECODER_ERRORS
from utils.errors import UserError
from utils.images import TYPES, decode_bytes, read_bytes, refuse_damage, unreadable
from utils.inference.photo_metadata import (
    exif_orientation,
    fitting_profile,
    gamut_notes,
    kept_dpi,
    kept_exif,
    notes_about,
    tiff_dpi,
    xmp_notes,
)
from utils.png import read_chunks
from utils.tiff import (
    ASSOCIATED_ALPHA,
    SEPARATE_PLANES,
    TIFFFILE_ERRORS,
    UNCOMPRESSED,
    YCBCR,
    TiffLayout,
    main_page,
    tiff_layout,
)

# In any case; the content decides which format a file really has.
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".tif", ".tiff", ".webp"),
    *(".gif", ".heic", ".heif", ".hif", ".avif", ".ppm", ".pgm", ".pbm", ".pnm"),
)

# Pillow's formats behind those suffixes; others, such as PostScript, would start programs.
PILLOW_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "AVIF", "PPM")
# Photographs of 100 megapixels and more are allowed.
Image.MAX_IMAGE_PIXELS = None
# Pillow's log would repeat our sentences.
logging.getLogger("PIL").setLevel(logging.CRITICAL)
# Larger sizes come from a damaged header; decoding them would take all memory. Deflate, the only
# compression that tifffile decodes without help, shrinks plain colours by a factor of 1032.
MAX_DEFLATE = 1100
ALWAYS_PLAUSIBLE = 100_000_000  # pixels
MAX_PIXELS_PER_BYTE = 10_000


@dataclass(frozen=True)
class Photo:
    """Pixels, upright, and what a file says about them.

    ``pixels``: (H, W) gray, (H, W, 3) RGB or (H, W, 4) RGBA; uint8, uint16, or float32 in [0, 1].
    Their colour space is that of ``profile``, an ICC profile; without one it is usually sRGB.
    ``notes``: sentences for the user about everything in the file that was left out.
    """

    pixels: np.ndarray
    profile: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()

    def with_pixels(self, pixels: np.ndarray) -> Photo:
        return replace(self, pixels=pixels)


def read_photo(path: Path) -> Photo:
    """An image file of any of the formats, decoded once.

    Gray stays gray; gray with alpha becomes RGBA; palettes become RGB or RGBA; CMYK becomes sRGB by
    its profile. Colours are never multiplied by alpha. Raises UserError naming the file if it is
    unreadable, truncated, or holds values that are not finite.
    """
    encoded = read_bytes(path)
    refuse_damage(path, encoded)
    try:
        photo = (_read_heif if _is_heif(encoded) else _read_other)(path, encoded)
    except DECODER_ERRORS as error:
        raise UserError(unreadable(path)) from error
    except MemoryError as error:
        raise UserError(f"{path} does not fit into memory, or is broken.") from error
    return _checked(path, photo)


def num_pixels(path: Path) -> int:
    """How many pixels an image file holds, by its header alone.

    Raises UserError if the header does not say; some such files can still be read.
    """
    encoded = read_bytes(path)
    try:
        if _is_heif(encoded):
            width, height = _open_heif(path, encoded).size
        elif layout := tiff_layout(encoded):
            width, height = layout.width, layout.height
        elif (header := _open(encoded)) is not None:
            width, height = header.size
        else:
            raise UserError(unreadable(path))
    except DECODER_ERRORS as error:
        raise UserError(unreadable(path)) from error
    return width * height


def _read_other(path: Path, encoded: bytes) -> Photo:
    """Any format but HEIF, by Pillow or, where it is deeper than 8 bits, by OpenCV."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about damaged EXIF blocks and the like
        layout = tiff_layout(encoded)
        header = _open(encoded)
        if header is not None:
            if layout:
                header.seek(layout.page)
            _check_size(path, header, encoded)
            if header.format == "PNG" and not _loads(header):
                header = None  # OpenCV refuses damaged pixels, but not text that is too long
        exif = Image.Exif()
        with contextlib.suppress(*DECODER_ERRORS):
            if header is not None:
                exif = header.getexif()
            elif layout:
                exif.load(encoded)
        turned = exif_orientation(exif) > 4
        # The decoders turn TIFFs upright themselves, after which Pillow forgets the block.
        orientation = 1 if layout else exif_orientation(exif)
        exif_block = kept_exif(exif)
        dpi = tiff_dpi(exif) if layout else header and header.info.get("dpi")
        if header is None:  # OpenCV knows some that Pillow does not, such as float TIFFs
            profile = exif.get(ExifTags.Base.InterColorProfile)
        else:
            profile = header.info.get("icc_profile")
        if header is None or _is_deep(header, encoded, layout):
            pixels = _decode_deep(path, encoded, layout)
        else:
            pixels, profile = _decode_8_bit(header)
        return Photo(
            _upright(pixels, orientation),
            fitting_profile(profile, pixels),
            exif_block,
            kept_dpi(dpi, turned),
            notes_about(path, encoded, header, layout, exif, profile),
        )


def _open(encoded: bytes) -> Image.Image | None:
    """Pillow's view of a file before its pixels are decoded; None for an unknown format."""
    try:
        return Image.open(io.BytesIO(encoded), formats=PILLOW_FORMATS)
    except DECODER_ERRORS:
        return None


def _loads(header: Image.Image) -> bool:
    """Whether Pillow decodes a file; called before ``getexif``, which hides a failure."""
    try:
        header.load()
    except DECODER_ERRORS:
        return False
    return True


def _check_size(path: Path, header: Image.Image, encoded: bytes) -> None:
    width, height = header.size
    if width * height > max(ALWAYS_PLAUSIBLE, MAX_PIXELS_PER_BYTE * len(encoded)):
        raise UserError(
            f"{path} claims to hold {width} x {height} pixels in {len(encoded)} bytes; it is "
            "broken."
        )


def _is_deep(header: Image.Image, encoded: bytes, layout: TiffLayout | None) -> bool:
    """Whether Pillow misreads a file: it drops bits above 8 and mixes up raw YCbCr."""
    if header.format == "PNG":
        return encoded[24] == 16
    if layout:
        is_raw = layout.compression == UNCOMPRESSED
        return layout.bits > 8 or (layout.photometric == YCBCR and is_raw)
    if header.format == "PPM" and _netpbm_white(encoded) > 255:
        return True
    return header.mode.startswith(("I", "F"))


def _netpbm_white(encoded: bytes) -> int:
    """The value of white in a PPM or PGM file; 255 for other files."""
    if encoded[:2] not in (b"P2", b"P3", b"P5", b"P6"):
        return 255
    return int(re.sub(rb"#[^\n]*", b"", encoded[:4096]).split(maxsplit=4)[3])


def _decode_deep(path: Path, encoded: bytes, layout: TiffLayout | None) -> np.ndarray:
    """Pixels of 16 bits or floats, (H, W), (H, W, 3) or (H, W, 4); upright if of a TIFF."""
    if layout and _is_for_tifffile(layout):
        if layout.unusual:
            raise UserError(layout.refusal(path))
        pixels = _by_tifffile(path, encoded, layout.refusal(path))
    else:
        pixels = decode_bytes(path, encoded, cv2.IMREAD_UNCHANGED)
        if pixels.ndim == 3 and pixels.shape[2] in (3, 4):  # OpenCV's order is BGR
            pixels = np.ascontiguousarray(pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])
    if layout and pixels.ndim == 3:
        pixels = pixels[..., : layout.num_colours + layout.has_alpha]
    if pixels.ndim == 3 and pixels.shape[2] in (1, 2):  # gray, gray and alpha
        pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., [0, 0, 0, 1]]
    if pixels.ndim == 3 and pixels.shape[2] not in (3, 4):
        raise UserError(f"{path} has {pixels.shape[2]} channels; 1 to 4 are read.")
    if layout and layout.extras[:1] == (ASSOCIATED_ALPHA,) and pixels.ndim == 3:
        pixels = _without_alpha_in_colours(pixels)
    if pixels.ndim == 2 and (key := _transparent_gray(encoded)) is not None:
        alpha = np.where(pixels == key, 0, 65535).astype(np.uint16)
        pixels = np.dstack([pixels, pixels, pixels, alpha])
    white = _netpbm_white(encoded)
    if white > 255:
        pixels = np.rint(pixels * (65535 / white)).clip(0, 65535).astype(np.uint16)
    return pixels


def _is_for_tifffile(layout: TiffLayout) -> bool:
    """Whether OpenCV misreads or refuses it: separate channels, gray with alpha, five channels,
    half floats, pages other than the first.
    """
    if layout.bits <= 8:
        return False
    is_half = layout.is_float and layout.bits == 16
    return (
        layout.separate or layout.samples == 2 or layout.samples > 4 or is_half or layout.page > 0
    )


def _transparent_gray(encoded: bytes) -> int | None:
    """The value that is transparent in a PNG of 16-bit gray, which OpenCV ignores."""
    for chunk in read_chunks(encoded):
        if chunk.kind == b"tRNS" and encoded[24:26] == b"\x10\0":
            return int.from_bytes(chunk.data[:2], "big")
        if chunk.kind == b"IDAT":
            break
    return None


def _by_tifffile(path: Path, encoded: bytes, refusal: str) -> np.ndarray:
    """The main page of a TIFF, upright, (H, W) or (H, W, C); half floats become float32."""
    try:
        with tifffile.TiffFile(io.BytesIO(encoded)) as file:
            _, page = main_page(file)
            if page.nbytes > MAX_DEFLATE * len(encoded):
                raise UserError(unreadable(path))
            pixels, orientation = page.asarray(), page.tags.valueof(274, default=1)
            separate = page.planarconfig == SEPARATE_PLANES and page.samplesperpixel > 1
    except zlib.error as error:
        raise UserError(unreadable(path)) from error
    except TIFFFILE_ERRORS as error:  # LZW among others
        raise UserError(refusal) from error
    if pixels.dtype == np.float16:
        pixels = pixels.astype(np.float32)
    if pixels.dtype not in TYPES:
        raise UserError(f"{path} holds {pixels.dtype} values; 8, 16 bits and floats are read.")
    if pixels.ndim not in (2, 3):  # volumes
        raise UserError(refusal)
    return _upright(np.moveaxis(pixels, 0, -1) if separate else pixels, orientation)


def _without_alpha_in_colours(pixels: np.ndarray) -> np.ndarray:
    """RGBA whose colours are multiplied by alpha, with the colours divided by it."""
    largest = 1 if pixels.dtype == np.float32 else np.iinfo(pixels.dtype).max
    alpha = pixels[..., 3:] / np.float64(largest)
    colours = (pixels[..., :3] / np.where(alpha > 0, alpha, 1)).clip(0, largest)
    if largest != 1:
        colours = np.rint(colours)
    return np.dstack([colours.astype(pixels.dtype), pixels[..., 3:]])


def _decode_8_bit(header: Image.Image) -> tuple[np.ndarray, bytes | None]:
    """Pixels that are not yet upright, except those of a TIFF, and their colour profile."""
    header.load()
    profile = header.info.get("icc_profile")
    if header.mode == "CMYK" and profile and profile[16:20] == b"CMYK":
        srgb = ImageCms.createProfile("sRGB")
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(header, source, srgb, outputMode="RGB")
        assert converted is not None  # it is None for in-place conversions
        return np.asarray(converted), None
    if header.mode == "CMYK":
        profile = None
    gray = header.mode in ("1", "L")
    mode = "RGBA" if header.has_transparency_data else "L" if gray else "RGB"
    return np.asarray(header.convert(mode)), profile


def _is_heif(encoded: bytes) -> bool:
    """Whether a file is HEIF: AVIF's container without AVIF's brands."""
    length = int.from_bytes(encoded[:4], "big")
    brands = encoded[8:length]
    return encoded[4:8] == b"ftyp" and b"avif" not in brands and b"avis" not in brands


def _open_heif(path: Path, encoded: bytes) -> Any:
    """pillow-heif's view of a file before its pixels are decoded; beyond 8 bits they become 16."""
    try:
        import pillow_heif
    except ImportError as error:
        raise UserError(
            f"{path} is a HEIC file, which needs a package: pip install pillow-heif"
        ) from error
    return pillow_heif.open_heif(io.BytesIO(encoded), convert_hdr_to_8bit=False)


def _read_heif(path: Path, encoded: bytes) -> Photo:
    """HEIC as phones store it."""
    image = _open_heif(path, encoded)
    pixels, info = np.asarray(image), image.info
    exif = Image.Exif()
    try:
        exif.load(info.get("exif") or b"")
    except DECODER_ERRORS:
        exif = Image.Exif()
    if pixels.ndim == 3 and pixels.shape[2] == 2:  # gray and alpha
        pixels = pixels[..., [0, 0, 0, 1]]
    notes = xmp_notes(path, info.get("xmp"))
    if len(image) > 1:
        notes.append(f"{path} holds {len(image)} images; only the main one was taken.")
    if not info.get("icc_profile"):
        notes += gamut_notes(path, encoded, exif)
    # The file's own turns are done by the decoder; its EXIF orientation repeats them.
    return Photo(
        pixels,
        fitting_profile(info.get("icc_profile"), pixels),
        kept_exif(exif),
        kept_dpi(info.get("dpi"), turned=False),
        tuple(notes),
    )


def _checked(path: Path, photo: Photo) -> Photo:
    """Raises UserError for NaN and infinity; clips floats to [0, 1] with a note."""
    pixels = photo.pixels
    if pixels.dtype != np.float32:
        return photo
    if not np.isfinite(pixels).all():
        raise UserError(
            f"{path} holds values that are NaN or infinite; a float image may hold 0 to 1."
        )
    low, high = float(pixels.min()), float(pixels.max())
    if low >= 0 and high <= 1:
        return photo
    note = f"{path} holds values from {low:g} to {high:g}; those outside 0 to 1 are clipped."
    return replace(photo, pixels=pixels.clip(0, 1), notes=(*photo.notes, note))


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels turned and flipped as an EXIF orientation says."""
    turns = {3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}.get(orientation, 0)  # quarters to the left
    turned = np.rot90(pixels, turns)
    return np.ascontiguousarray(turned[:, ::-1] if orientation in (2, 4, 5, 7) else turned)
