"""The metadata of a photograph: EXIF, colour profile, resolution, and notes about what is lost.

Notes are sentences for the user about everything in the file that its result does not keep.
"""

from __future__ import annotations

import contextlib
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import ExifTags, Image

from utils.damage import DECODER_ERRORS, jpeg_damage
from utils.png import PNG_BEGINNING, read_chunks
from utils.tiff import TiffLayout

# The entries of EXIF that describe the photograph; others describe the layout of the file.
EXIF_KEPT = {
    *(ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model),
    *(ExifTags.Base.Software, ExifTags.Base.DateTime, ExifTags.Base.Artist),
    *(ExifTags.Base.HostComputer, ExifTags.Base.Copyright, ExifTags.Base.Rating),
}
# Sizes and a pointer that apply to the input's file alone.
EXIF_DROPPED = {ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight, 0xA005}
# Primaries by their numbers in ITU-T H.273, as HEIC, AVIF and PNG store them; 1 is sRGB's.
PRIMARIES = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}
HDR_CURVES = {16: "PQ", 18: "HLG"}
# What PNG's gAMA and cHRM hold for sRGB: white, red, green and blue as x and y.
SRGB_GAMMA = 2.2
SRGB_CHROMATICITIES = np.array([0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06])
XMP_TAG = 700  # of TIFF
MAX_EXIF = 65_000  # bytes; JPEG has room for 65,533


def exif_orientation(exif: Image.Exif) -> int:
    orientation = exif.get(ExifTags.Base.Orientation, 1)
    return orientation if orientation in range(1, 9) else 1


def kept_exif(exif: Image.Exif) -> bytes | None:
    """The block for an upright image without thumbnails; None if it would be empty."""
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
    except DECODER_ERRORS:  # a damaged block
        return None
    return block if kept and len(block) <= MAX_EXIF else None


def fitting_profile(profile: bytes | None, pixels: np.ndarray) -> bytes | None:
    """The colour profile if it is for the channels of the pixels, else None."""
    space = b"GRAY" if pixels.ndim == 2 else b"RGB "
    return profile if profile and profile[16:20] == space else None


def tiff_dpi(exif: Image.Exif) -> tuple[Any, Any] | None:
    """The resolution of a TIFF, or None; Pillow would say 1 dpi."""
    x, y = (exif.get(tag) for tag in (ExifTags.Base.XResolution, ExifTags.Base.YResolution))
    unit = exif.get(ExifTags.Base.ResolutionUnit, 2)
    if x is None or y is None or unit not in (2, 3):
        return None
    return (x, y) if unit == 2 else (x * 2.54, y * 2.54)  # inches or centimetres


def kept_dpi(dpi: Any, turned: bool) -> tuple[float, float] | None:
    try:
        x, y = (float(value) for value in dpi or ())
    except DECODER_ERRORS:  # absent or damaged
        return None
    if not (0 < x < 1e6 and 0 < y < 1e6):
        return None
    return (y, x) if turned else (x, y)


def notes_about(
    path: Path,
    encoded: bytes,
    header: Image.Image | None,
    layout: TiffLayout | None,
    exif: Image.Exif,
    profile: bytes | None,
) -> tuple[str, ...]:
    """Sentences about everything in a file that was not taken as it is."""
    notes = [*_page_notes(path, encoded, header, layout)]
    if header is None and encoded.startswith(PNG_BEGINNING):
        notes.append(f"{path} has metadata that cannot be read and is left out.")
    if damage := jpeg_damage(encoded):
        notes.append(f"{path} is damaged, so a part of the picture may be wrong ({damage}).")
    if header is not None and header.format == "AVIF" and (bits := _avif_bits(encoded)) > 8:
        notes.append(f"{path} holds {bits} bits per channel; they were reduced to 8.")
    if layout and layout.samples > (kept := layout.num_colours + layout.has_alpha):
        notes.append(f"{path} has {layout.samples} channels; only the first {kept} were taken.")
    if not profile:
        notes += gamut_notes(path, encoded, exif)
    xmp = exif.get(XMP_TAG) if header is None else header.info.get("xmp")
    return (*notes, *xmp_notes(path, xmp))


def xmp_notes(path: Path, xmp: object) -> list[str]:
    """A sentence if there is XMP, which describes the input's file rather than the picture."""
    return [f"{path} has XMP metadata, which is left out."] if xmp else []


def _avif_bits(encoded: bytes) -> int:
    """Bits per channel by the box of the codec's configuration."""
    place = encoded.find(b"av1C")
    flags = encoded[place + 6] if 0 <= place < len(encoded) - 6 else 0
    return (12 if flags & 0x20 else 10) if flags & 0x40 else 8


def gamut_notes(path: Path, encoded: bytes, exif: Image.Exif) -> list[str]:
    """A sentence about a file without a profile whose colours are not sRGB's by other metadata."""
    named = ""
    if encoded[4:8] == b"ftyp" and (place := encoded.find(b"colrnclx")) >= 0:
        named = _named_colours(*struct.unpack_from(">HH", encoded, place + 8))
    elif encoded.startswith(PNG_BEGINNING):
        named = _png_colours(encoded)
    with contextlib.suppress(*DECODER_ERRORS):  # a damaged block
        if exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex) == "R03":
            named = "Adobe RGB"
    if not named:
        return []
    return [
        f"{path} has no profile, but says that its colours are {named}; viewers will show the "
        "result as sRGB."
    ]


def _named_colours(primaries: int, curve: int) -> str:
    """Names of the colours that are not sRGB's, by their numbers in ITU-T H.273."""
    return " ".join(filter(None, (PRIMARIES.get(primaries), HDR_CURVES.get(curve))))


def _png_colours(encoded: bytes) -> str:
    """How the colours of a PNG differ from sRGB's: by cICP, or else by gAMA and cHRM."""
    chunks: dict[bytes, bytes] = {}
    for chunk in read_chunks(encoded):
        if chunk.kind == b"IDAT":
            break
        if chunk.is_sound:
            chunks.setdefault(chunk.kind, chunk.data)
    if b"cICP" in chunks:
        return _named_colours(*chunks[b"cICP"][:2])
    if b"iCCP" in chunks or b"sRGB" in chunks:
        return ""
    differences = []
    if gamma := int.from_bytes(chunks.get(b"gAMA", b""), "big"):
        exponent = 100_000 / gamma
        if abs(exponent / SRGB_GAMMA - 1) > 0.03:
            differences.append(f"of gamma {exponent:.2g}")
    if len(chunks.get(b"cHRM", b"")) == 32:
        stored = np.frombuffer(chunks[b"cHRM"], ">u4") / 100_000
        if np.abs(stored - SRGB_CHROMATICITIES).max() > 0.005:
            differences.append("of other primaries")
    return " and ".join(differences)


def _page_notes(
    path: Path, encoded: bytes, header: Image.Image | None, layout: TiffLayout | None
) -> tuple[str, ...]:
    """A sentence about a file that holds more than the one image that is read."""
    is_mpo = header is not None and header.format == "MPO"  # a phone's other lens, or gain maps
    kind = "pages" if layout else "images" if is_mpo else "frames"
    try:
        if header is None and layout:
            count = _num_tiff_pages(encoded)
        else:
            count = getattr(header, "n_frames", 1)
    except DECODER_ERRORS:
        return (f"{path} holds damaged {kind} after the first; only that one was taken.",)
    if count < 2:
        return ()
    if layout and layout.page:
        return (
            f"{path} holds {count} pages, of which the first is a reduced image; page "
            f"{layout.page + 1} was taken.",
        )
    return (f"{path} holds {count} {kind}; only the first was taken.",)


def _num_tiff_pages(encoded: bytes) -> int:
    with tifffile.TiffFile(io.BytesIO(encoded)) as file:
        return len(file.pages)
