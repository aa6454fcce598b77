"""Photographs as people have them: every common format in, with what belongs to the pixels.

    file --decoded once--> pixels (upright), colour profile, EXIF, DPI --restored--> PNG and others

8-bit files are decoded by Pillow (HEIC by pillow-heif), deeper ones by OpenCV, since Pillow cuts
them to 8 bits. ``utils/images.py`` reads the plain files of data sets.
"""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from utils.errors import UserError
from utils.files import atomic_write
from utils.images import TYPES, decode_bytes, read_bytes

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
# What a broken file makes Pillow raise, besides the OSError of a truncated one.
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error, EOFError)

# The entries of EXIF that describe the photograph; others tell where a file keeps its pixels.
EXIF_KEPT = {
    *(ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model),
    *(ExifTags.Base.Software, ExifTags.Base.DateTime, ExifTags.Base.Artist),
    *(ExifTags.Base.HostComputer, ExifTags.Base.Copyright, ExifTags.Base.Rating),
}
# Sizes and a pointer that hold for the input's file alone.
EXIF_DROPPED = {ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight, 0xA005}
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
    if encoded[4:8] == b"ftyp" and not _is_avif(encoded):
        photo = _read_heif(path, encoded)
    else:
        photo = _read_other(path, encoded)
    return _checked(path, photo)


def _read_other(path: Path, encoded: bytes) -> Photo:
    """Any format but HEIF, by Pillow or, where it is deeper than 8 bits, by OpenCV."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged EXIF blocks and the like
        header = _open(encoded)
        if header is None:  # OpenCV knows some that Pillow does not, such as float TIFFs
            return Photo(_decode_deep(path, encoded))
        deep = _is_deep(header, encoded)
        is_tiff = header.format == "TIFF"
        try:
            exif = header.getexif()
        except PILLOW_ERRORS:
            exif = Image.Exif()
        # OpenCV and Pillow turn TIFFs upright themselves, and Pillow forgets the block meanwhile.
        orientation = 1 if is_tiff else _orientation(exif)
        kept_exif = _kept_exif(exif)
        if deep:
            pixels, profile = _decode_deep(path, encoded), header.info.get("icc_profile")
        else:
            pixels, profile = _decode_8_bit(path, header)
        return Photo(
            _upright(pixels, orientation),
            _fitting_profile(profile, pixels),
            kept_exif,
            _kept_dpi(header.info.get("dpi"), turned=orientation > 4),
            _page_notes(path, header),
        )


def _open(encoded: bytes) -> Image.Image | None:
    """Pillow's view of a file before its pixels are decoded; None where it knows none."""
    try:
        return Image.open(io.BytesIO(encoded), formats=PILLOW_FORMATS)
    except (UnidentifiedImageError, *PILLOW_ERRORS):
        return None


def _is_deep(header: Image.Image, encoded: bytes) -> bool:
    """Whether the file has more than 8 bits a channel, of which Pillow may drop some."""
    if header.format == "PNG":
        return encoded[24] == 16
    if header.format == "TIFF":
        return max(header.tag_v2.get(258, (1,))) > 8  # type: ignore[attr-defined]
    return header.mode.startswith(("I", "F"))


def _decode_deep(path: Path, encoded: bytes) -> np.ndarray:
    """Pixels with 16 bits or floats; those of a TIFF are upright."""
    if encoded.startswith((b"II*\0", b"MM\0*")):
        planes = _separate_planes(path, encoded)
        if planes is not None:
            return planes
    image = decode_bytes(path, encoded, cv2.IMREAD_UNCHANGED)
    if image.ndim == 2:
        return image
    if image.shape[2] not in (3, 4):
        raise UserError(f"{path} has {image.shape[2]} channels; 1, 3 and 4 are read.")
    order = [2, 1, 0, 3][: image.shape[2]]  # OpenCV's is BGR
    return np.ascontiguousarray(image[..., order])


def _separate_planes(path: Path, encoded: bytes) -> np.ndarray | None:
    """The pixels of a TIFF that stores its channels one after another, which OpenCV mixes up."""
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(encoded)) as file:
            page = file.pages.first
            if page.planarconfig != tifffile.PLANARCONFIG.SEPARATE or page.samplesperpixel == 1:
                return None
            planes, orientation = page.asarray(), page.tags.valueof(274, default=1)
    except (*PILLOW_ERRORS, tifffile.TiffFileError) as error:
        raise UserError(f"{path} is a TIFF of a kind that is not read; store it as PNG.") from error
    if planes.dtype not in TYPES:
        raise UserError(f"{path} holds {planes.dtype} values; 8, 16 bits and float32 are read.")
    return _upright(np.moveaxis(planes, 0, -1), orientation)


def _decode_8_bit(path: Path, header: Image.Image) -> tuple[np.ndarray, bytes | None]:
    """Pixels that are not yet upright, except those of a TIFF, and their colour profile."""
    try:
        header.load()
        profile = header.info.get("icc_profile")
        if header.mode == "CMYK" and profile:
            srgb = ImageCms.createProfile("sRGB")
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(header, source, srgb, outputMode="RGB")
            assert converted is not None  # it is None for in-place conversions
            return np.asarray(converted), None
        has_alpha = "transparency" in header.info or "A" in header.mode or "a" in header.mode
        mode = "RGBA" if has_alpha else "L" if header.mode in ("1", "L") else "RGB"
        return np.asarray(header.convert(mode)), profile
    except (*PILLOW_ERRORS, ImageCms.PyCMSError) as error:
        raise UserError(
            f"{path} is not a readable image; it is truncated, broken or no image."
        ) from error


def _is_avif(encoded: bytes) -> bool:
    length = int.from_bytes(encoded[:4], "big")
    return any(brand in encoded[8:length] for brand in (b"avif", b"avis"))


def _read_heif(path: Path, encoded: bytes) -> Photo:
    """HEIC as phones store it; more than 8 bits become 16."""
    try:
        import pillow_heif
    except ImportError as error:
        raise UserError(
            f"{path} is a HEIC file, which needs a package: pip install pillow-heif"
        ) from error
    try:
        image = pillow_heif.open_heif(io.BytesIO(encoded), convert_hdr_to_8bit=False)
        pixels, info = np.asarray(image), image.info
    except (*PILLOW_ERRORS, RuntimeError) as error:
        raise UserError(
            f"{path} is not a readable image; it is truncated, broken or no image."
        ) from error
    exif = Image.Exif()
    try:
        exif.load(info.get("exif") or b"")
    except PILLOW_ERRORS:
        exif = Image.Exif()
    if pixels.ndim == 3 and pixels.shape[2] == 2:  # gray and alpha
        pixels = pixels[..., [0, 0, 0, 1]]
    # The file's own turns are done by the decoder; its EXIF orientation repeats them.
    return Photo(
        pixels,
        _fitting_profile(info.get("icc_profile"), pixels),
        _kept_exif(exif),
        _kept_dpi(info.get("dpi"), turned=False),
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


def _page_notes(path: Path, header: Image.Image) -> tuple[str, ...]:
    """A sentence where a file holds more than the one image that is read."""
    count = getattr(header, "n_frames", 1)
    # The further images of an MPO are those of a phone's other lens.
    if count < 2 or header.format == "MPO":
        return ()
    kind = "pages" if header.format == "TIFF" else "frames"
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
    except PILLOW_ERRORS:  # a damaged block is no part of the photograph
        return None
    return block if kept and len(block) <= MAX_EXIF else None


def _kept_dpi(dpi: Any, turned: bool) -> tuple[float, float] | None:
    if not dpi or not all(0 < float(value) < 1e6 for value in dpi):
        return None
    x, y = (float(value) for value in dpi)
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
    content = io.BytesIO()
    if photo.pixels.dtype == np.uint8:
        # Pillow writes the tables of EXIF into uncompressed files only.
        compression = None if photo.exif else "tiff_adobe_deflate"
        Image.fromarray(photo.pixels).save(
            content, "TIFF", compression=compression, **_metadata(photo)
        )
        return content.getvalue()
    import tifffile  # Pillow stores no deep colours

    tifffile.imwrite(
        content,
        photo.pixels,
        photometric="minisblack" if photo.pixels.ndim == 2 else "rgb",
        extrasamples=["unassalpha"] if photo.pixels.shape[2:] == (4,) else None,
        compression="zlib",
        iccprofile=photo.profile,
        resolution=photo.dpi,
        resolutionunit="INCH" if photo.dpi else None,
        metadata=None,
    )
    return content.getvalue()


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
