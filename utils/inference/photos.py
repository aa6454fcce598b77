"""Photographs as people have them: every common format in, with what belongs to the pixels.

    file --decoded once--> pixels (upright), colour profile, EXIF, DPI --restored--> PNG and others

8-bit files are decoded by Pillow (HEIC by pillow-heif), deeper ones by OpenCV, since Pillow cuts
them to 8 bits, and TIFFs that OpenCV mixes up by tifffile. ``utils/images.py`` reads the plain
files of data sets.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import struct
import warnings
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageCms

from utils.damage import jpeg_damage
from utils.errors import UserError
from utils.files import atomic_write
from utils.images import TYPES, decode_bytes, read_bytes, refuse_damage, unreadable
from utils.png import PNG_BEGINNING
from utils.tiff import (
    ASSOCIATED_ALPHA,
    BLACK_IS_ZERO,
    RGB,
    TIFF_BEGINNINGS,
    TIFFFILE_ERRORS,
    tiff_layout,
)

# The case of a suffix does not matter; what a file really is, its content tells.
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".tif", ".tiff", ".webp"),
    *(".gif", ".heic", ".heif", ".hif", ".avif", ".ppm", ".pgm", ".pbm", ".pnm"),
)
FORMATS = ("png", "jpg", "webp", "tiff")
DEFAULT_QUALITY = 95

# Pillow's formats behind those suffixes; others, such as PostScript, would start programs. Before
# version 11.3 it knows no AVIF.
Image.init()
PILLOW_FORMATS: list[str] = [
    name
    for name in ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "AVIF", "PPM")
    if name in Image.OPEN
]
# Photographs of 100 megapixels and more are welcome.
Image.MAX_IMAGE_PIXELS = None
# Its log would repeat what our sentences say.
logging.getLogger("PIL").setLevel(logging.CRITICAL)
# What a broken file makes the decoders raise; damage of a certain kind may reach any of them.
DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError),
    *(RuntimeError, ArithmeticError, zlib.error, ImageCms.PyCMSError),
    *TIFFFILE_ERRORS,
)
# Sizes that only a damaged header claims; decoding them would take all memory. Plain colours reach
# 1032 times their file by deflate, the one compression of TIFFs that tifffile decodes by itself.
MAX_DEFLATE = 1100
ALWAYS_PLAUSIBLE = 100_000_000  # pixels
MAX_PIXELS_A_BYTE = 10_000

# The entries of EXIF that describe the photograph; others tell where a file keeps its pixels.
EXIF_KEPT = {
    *(ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model),
    *(ExifTags.Base.Software, ExifTags.Base.DateTime, ExifTags.Base.Artist),
    *(ExifTags.Base.HostComputer, ExifTags.Base.Copyright, ExifTags.Base.Rating),
}
# Sizes and a pointer that hold for the input's file alone.
EXIF_DROPPED = {ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight, 0xA005}
# Colours by the number of ITU-T H.273 that HEIC, AVIF and PNG name them by; 1 is sRGB's.
PRIMARIES = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}
HDR_CURVES = {16: "PQ", 18: "HLG"}
MAX_EXIF = 65_000  # bytes; JPEG has room for 65,533


@dataclass(frozen=True)
class Photo:
    """Pixels, upright, and what a file says about them.

    ``pixels``: (H, W) gray, (H, W, 3) RGB or (H, W, 4) RGBA; uint8, uint16, or float32 in [0, 1].
    Their colour space is that of ``profile``, an ICC profile; without one it is usually sRGB.
    ``notes``: sentences for the user about what of the file was not taken.
    """

    pixels: np.ndarray
    profile: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()

    def with_pixels(self, pixels: np.ndarray) -> Photo:
        return replace(self, pixels=pixels)


def is_photo(path: Path) -> bool:
    """Whether a path is a visible file with the suffix of an image."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


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

    Raises UserError where that does not tell; some such files can be read all the same.
    """
    encoded = read_bytes(path)
    try:
        if _is_heif(encoded):
            width, height = _open_heif(path, encoded).size
        elif (header := _open(encoded)) is not None:
            width, height = header.size
        elif layout := tiff_layout(encoded):
            width, height = layout.width, layout.height
        else:
            raise UserError(unreadable(path))
    except DECODER_ERRORS as error:
        raise UserError(unreadable(path)) from error
    return width * height


def _read_other(path: Path, encoded: bytes) -> Photo:
    """Any format but HEIF, by Pillow or, where it is deeper than 8 bits, by OpenCV."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged EXIF blocks and the like
        header = _open(encoded)
        if header is not None:
            _check_size(path, header, encoded)
            if header.format == "PNG" and not _loads(header):
                header = None  # OpenCV refuses damaged pixels, but not text that is too long
        is_tiff = encoded.startswith(TIFF_BEGINNINGS)
        exif = Image.Exif()
        with contextlib.suppress(*DECODER_ERRORS):
            if header is not None:
                exif = header.getexif()
            elif is_tiff:
                exif.load(encoded)
        turned = _orientation(exif) > 4
        # The decoders turn TIFFs upright themselves, and Pillow forgets the block meanwhile.
        orientation = 1 if is_tiff else _orientation(exif)
        kept_exif = _kept_exif(exif)
        dpi = _tiff_dpi(exif) if is_tiff else header and header.info.get("dpi")
        if header is None:  # OpenCV knows some that Pillow does not, such as float TIFFs
            pixels, profile = _decode_deep(path, encoded), exif.get(ExifTags.Base.InterColorProfile)
        elif _is_deep(header, encoded):
            pixels, profile = _decode_deep(path, encoded), header.info.get("icc_profile")
        else:
            pixels, profile = _decode_8_bit(header)
        return Photo(
            _upright(pixels, orientation),
            _fitting_profile(profile, pixels),
            kept_exif,
            _kept_dpi(dpi, turned),
            _notes(path, encoded, header, exif, profile),
        )


def _open(encoded: bytes) -> Image.Image | None:
    """Pillow's view of a file before its pixels are decoded; None where it knows none."""
    try:
        return Image.open(io.BytesIO(encoded), formats=PILLOW_FORMATS)
    except DECODER_ERRORS:
        return None


def _loads(header: Image.Image) -> bool:
    """Whether Pillow decodes a file; asked before ``getexif``, which decodes a PNG in silence."""
    try:
        header.load()
    except DECODER_ERRORS:
        return False
    return True


def _check_size(path: Path, header: Image.Image, encoded: bytes) -> None:
    width, height = header.size
    if width * height > max(ALWAYS_PLAUSIBLE, MAX_PIXELS_A_BYTE * len(encoded)):
        raise UserError(
            f"{path} claims to hold {width} x {height} pixels in {len(encoded)} bytes; it is "
            "broken."
        )


def _is_deep(header: Image.Image, encoded: bytes) -> bool:
    """Whether the file has more than 8 bits a channel, of which Pillow may drop some."""
    if header.format == "PNG":
        return encoded[24] == 16
    if header.format == "TIFF":
        return max(header.tag_v2.get(258, (1,))) > 8  # type: ignore[attr-defined]
    if header.format == "PPM" and _netpbm_white(encoded) > 255:
        return True
    return header.mode.startswith(("I", "F"))


def _netpbm_white(encoded: bytes) -> int:
    """The value that PPM and PGM files say is white."""
    if encoded[:2] not in (b"P2", b"P3", b"P5", b"P6"):
        return 255
    return int(re.sub(rb"#[^\n]*", b"", encoded[:4096]).split(maxsplit=4)[3])


def _decode_deep(path: Path, encoded: bytes) -> np.ndarray:
    """Pixels with 16 bits or floats; those of a TIFF are upright."""
    layout = tiff_layout(encoded)
    # OpenCV mixes separate channels up and drops the alpha of gray.
    if layout and layout.bits > 8 and (layout.separate or layout.samples == 2):
        if layout.unusual:
            raise UserError(layout.refusal(path))
        pixels = _by_tifffile(path, encoded, layout.refusal(path))
    else:
        pixels = decode_bytes(path, encoded, cv2.IMREAD_UNCHANGED)
        if pixels.ndim == 3 and pixels.shape[2] in (3, 4):  # OpenCV's order is BGR
            pixels = np.ascontiguousarray(pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])
    if pixels.ndim == 3 and pixels.shape[2] == 2:  # gray and alpha
        pixels = pixels[..., [0, 0, 0, 1]]
    if pixels.ndim == 3 and pixels.shape[2] not in (3, 4):
        raise UserError(f"{path} has {pixels.shape[2]} channels; 1 to 4 are read.")
    if layout and layout.alpha == ASSOCIATED_ALPHA and pixels.ndim == 3:
        pixels = _without_alpha_in_colours(pixels)
    white = _netpbm_white(encoded)
    if white > 255:
        pixels = np.rint(pixels * (65535 / white)).clip(0, 65535).astype(np.uint16)
    return pixels


def _by_tifffile(path: Path, encoded: bytes, refusal: str) -> np.ndarray:
    """The pixels of a TIFF, upright, (H, W, C)."""
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(encoded)) as file:
            page = file.pages.first
            if page.nbytes > MAX_DEFLATE * len(encoded):
                raise UserError(unreadable(path))
            pixels, orientation = page.asarray(), page.tags.valueof(274, default=1)
            separate = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
    except zlib.error as error:
        raise UserError(unreadable(path)) from error
    except TIFFFILE_ERRORS as error:  # LZW among others
        raise UserError(refusal) from error
    if pixels.dtype not in TYPES:
        raise UserError(f"{path} holds {pixels.dtype} values; 8, 16 bits and float32 are read.")
    if pixels.ndim != 3:  # volumes
        raise UserError(refusal)
    return _upright(np.moveaxis(pixels, 0, -1) if separate else pixels, orientation)


def _without_alpha_in_colours(pixels: np.ndarray) -> np.ndarray:
    """RGBA whose colours were multiplied by alpha, with the colours as they were."""
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
    """Whether a file is of AVIF's family, but not AVIF."""
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
    notes = []
    if len(image) > 1:
        notes.append(f"{path} holds {len(image)} images; only the main one was taken.")
    if not info.get("icc_profile"):
        notes += _gamut_notes(path, encoded, exif)
    # The file's own turns are done by the decoder; its EXIF orientation repeats them.
    return Photo(
        pixels,
        _fitting_profile(info.get("icc_profile"), pixels),
        _kept_exif(exif),
        _kept_dpi(info.get("dpi"), turned=False),
        tuple(notes),
    )


def _checked(path: Path, photo: Photo) -> Photo:
    """Raises UserError for values that no image has; notes floats that are clipped."""
    pixels = photo.pixels
    if pixels.dtype != np.float32:
        return photo
    if not np.isfinite(pixels).all():
        raise UserError(
            f"{path} holds values that are not numbers or infinite; a float image may hold 0 to 1."
        )
    low, high = float(pixels.min()), float(pixels.max())
    if low >= 0 and high <= 1:
        return photo
    note = f"{path} holds values from {low:g} to {high:g}; those outside 0 to 1 are clipped."
    return replace(photo, pixels=pixels.clip(0, 1), notes=(*photo.notes, note))


def _notes(
    path: Path, encoded: bytes, header: Image.Image | None, exif: Image.Exif, profile: bytes | None
) -> tuple[str, ...]:
    """Sentences about what of the file was not taken as it is."""
    notes = [*_page_notes(path, encoded, header)]
    if header is None and encoded.startswith(PNG_BEGINNING):
        notes.append(f"{path} has metadata that cannot be read; they are left out.")
    if damage := jpeg_damage(encoded):
        notes.append(f"{path} is damaged, so a part of the picture may be wrong ({damage}).")
    if header is not None and header.format == "AVIF" and (bits := _avif_bits(encoded)) > 8:
        notes.append(f"{path} holds {bits} bits a channel; they were reduced to 8.")
    if not profile:
        notes += _gamut_notes(path, encoded, exif)
    return tuple(notes)


def _avif_bits(encoded: bytes) -> int:
    """Bits a channel by the box of the codec's configuration."""
    place = encoded.find(b"av1C")
    flags = encoded[place + 6] if 0 <= place < len(encoded) - 6 else 0
    return (12 if flags & 0x20 else 10) if flags & 0x40 else 8


def _gamut_notes(path: Path, encoded: bytes, exif: Image.Exif) -> list[str]:
    """A sentence where a file without a profile says otherwise that its colours are not sRGB's."""
    named, curve = "", 0
    if encoded[4:8] == b"ftyp" and (place := encoded.find(b"colrnclx")) >= 0:
        primaries, curve = struct.unpack_from(">HH", encoded, place + 8)
        named = PRIMARIES.get(primaries, "")
    elif encoded.startswith(b"\x89PNG") and b"cICP" in encoded[: encoded.find(b"IDAT")]:
        primaries, curve = encoded[encoded.find(b"cICP") + 4 :][:2]
        named = PRIMARIES.get(primaries, "")
    with contextlib.suppress(*DECODER_ERRORS):  # a damaged block
        if exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex) == "R03":
            named = "Adobe RGB"
    named = " ".join(word for word in (named, HDR_CURVES.get(curve)) if word)
    if not named:
        return []
    return [
        f"{path} has no profile, but says that its colours are {named}; viewers will take those of "
        "the result for sRGB."
    ]


def _num_tiff_pages(encoded: bytes) -> int:
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(encoded)) as file:
            return len(file.pages)
    except TIFFFILE_ERRORS as error:
        raise ValueError(str(error)) from error


def _page_notes(path: Path, encoded: bytes, header: Image.Image | None) -> tuple[str, ...]:
    """A sentence where a file holds more than the one image that is read."""
    is_tiff = encoded.startswith(TIFF_BEGINNINGS)
    kind = "pages" if is_tiff else "frames"
    try:
        if header is None and is_tiff:
            count = _num_tiff_pages(encoded)
        else:
            count = getattr(header, "n_frames", 1)
    except DECODER_ERRORS:
        return (f"{path} holds damaged {kind} behind the first; only that was taken.",)
    # The further images of an MPO are those of a phone's other lens.
    if count < 2 or (header is not None and header.format == "MPO"):
        return ()
    return (f"{path} holds {count} {kind}; only the first was taken.",)


def _orientation(exif: Image.Exif) -> int:
    orientation = exif.get(ExifTags.Base.Orientation, 1)
    return orientation if orientation in range(1, 9) else 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels turned and flipped as an EXIF orientation says."""
    turns = {3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}.get(orientation, 0)  # quarters to the left
    turned = np.rot90(pixels, turns)
    return np.ascontiguousarray(turned[:, ::-1] if orientation in (2, 4, 5, 7) else turned)


def _fitting_profile(profile: bytes | None, pixels: np.ndarray) -> bytes | None:
    """The colour profile if it is one for the channels of the pixels."""
    space = b"GRAY" if pixels.ndim == 2 else b"RGB "
    return profile if profile and profile[16:20] == space else None


def _kept_exif(exif: Image.Exif) -> bytes | None:
    """The block for an upright image without thumbnails; None where nothing is in it."""
    kept = Image.Exif()
    try:
        for tag in EXIF_KEPT & set(exif):
            kept[tag] = exif[tag]
        for ifd in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            entries = {k: v for k, v in exif.get_ifd(ifd).items() if k not in EXIF_DROPPED}
            if entries:
                kept.get_ifd(ifd).update(entries)
                kept[ifd] = kept.get_ifd(ifd)
        block = kept.tobytes()
        if len(block) > MAX_EXIF:
            kept.get_ifd(ExifTags.IFD.Exif).pop(ExifTags.Base.MakerNote, None)
            block = kept.tobytes()
    except DECODER_ERRORS:  # a damaged block is no part of the photograph
        return None
    return block if kept and len(block) <= MAX_EXIF else None


def _tiff_dpi(exif: Image.Exif) -> tuple[Any, Any] | None:
    """What a TIFF says about its resolution; Pillow makes 1 dpi of nothing."""
    x, y = (exif.get(tag) for tag in (ExifTags.Base.XResolution, ExifTags.Base.YResolution))
    unit = exif.get(ExifTags.Base.ResolutionUnit, 2)
    if x is None or y is None or unit not in (2, 3):
        return None
    return (x, y) if unit == 2 else (x * 2.54, y * 2.54)  # inches or centimetres


def _kept_dpi(dpi: Any, turned: bool) -> tuple[float, float] | None:
    try:
        x, y = (float(value) for value in dpi or ())
    except DECODER_ERRORS:  # none, or a damaged one
        return None
    if not (0 < x < 1e6 and 0 < y < 1e6):
        return None
    return (y, x) if turned else (x, y)


def write_photo(path: Path, photo: Photo, quality: int = DEFAULT_QUALITY) -> None:
    """Write in the format of the path's suffix (``FORMATS``), whole or not at all.

    PNG and TIFF lose nothing, except that floats become 16 bits in PNG. JPEG and WebP hold 8 bits
    at a ``quality`` of 1 to 100, where WebP at 100 loses nothing; JPEG drops alpha.
    """
    suffix = path.suffix.lower()
    if suffix == ".png":
        content = _png(photo)
    elif suffix in (".tif", ".tiff"):
        content = _tiff(photo)
    else:
        content = _lossy(photo, "WEBP" if suffix == ".webp" else "JPEG", quality)
    atomic_write(path, lambda temporary: temporary.write_bytes(content) and None)


def _png(photo: Photo) -> bytes:
    pixels = photo.pixels
    if pixels.dtype == np.float32:
        pixels = np.rint(np.clip(pixels, 0, 1) * 65535).astype(np.uint16)
    if pixels.ndim == 3:
        pixels = np.ascontiguousarray(pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])
    done, encoded = cv2.imencode(".png", pixels)
    if not done:
        raise UserError(f"OpenCV cannot encode {pixels.shape} {pixels.dtype} as PNG.")
    chunks = b""
    if photo.profile:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(photo.profile))
    if photo.dpi:
        x, y = (round(value / 0.0254) for value in photo.dpi)  # pixels a metre
        chunks += _chunk(b"pHYs", struct.pack(">IIB", x, y, 1))
    if photo.exif:
        chunks += _chunk(b"eXIf", photo.exif.removeprefix(b"Exif\0\0"))
    content = encoded.tobytes()
    return content[:33] + chunks + content[33:]  # behind the signature and IHDR


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _tiff(photo: Photo) -> bytes:
    """A block of EXIF is a TIFF without pixels: here it gets some, deflated in one strip.

    Pillow stores no deep colours and no EXIF beside compressed ones, tifffile no tables of EXIF.
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
    tags[base.Compression] = 8  # deflate
    tags[base.PhotometricInterpretation] = BLACK_IS_ZERO if samples == 1 else RGB
    tags[base.SamplesPerPixel], tags[base.RowsPerStrip] = samples, height
    tags[base.StripByteCounts] = len(strip)
    if samples == 4:
        tags[base.ExtraSamples] = 2  # alpha that does not touch the colours
    if pixels.dtype.kind == "f":
        tags[base.SampleFormat] = (3,) * samples
    if photo.dpi:
        tags[base.XResolution], tags[base.YResolution] = photo.dpi
        tags[base.ResolutionUnit] = 2  # inches
    if photo.profile:
        tags[base.InterColorProfile] = photo.profile
    tags[base.StripOffsets] = 0  # from the end of the tables, by which Pillow raises it
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
        # At a high quality colours are kept at their full size.
        options["subsampling"] = 0 if quality >= 90 else 2
    else:
        options |= {"lossless": quality == 100, "exact": True}
    content = io.BytesIO()
    try:
        Image.fromarray(np.ascontiguousarray(pixels)).save(
            content, kind, quality=quality, **options
        )
    except (OSError, ValueError) as error:  # larger than the format allows
        raise UserError(
            f"{pixels.shape[1]} x {pixels.shape[0]} pixels do not fit into {kind}; take png."
        ) from error
    return content.getvalue()


def _metadata(photo: Photo) -> dict[str, Any]:
    """What Pillow's writers take besides the pixels."""
    given = {"icc_profile": photo.profile, "exif": photo.exif, "dpi": photo.dpi}
    return {name: value for name, value in given.items() if value}
