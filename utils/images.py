"""Image files: which files count as images, reading them as RGB, writing PNG."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import cv2
import numpy as np
from natsort import natsorted, ns
from PIL import ExifTags, Image

from utils.errors import UserError
from utils.files import atomic_write

# Formats that OpenCV reads on every system; the case of a suffix does not matter.
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

TYPES = (np.uint8, np.uint16, np.float32)
TIFF_STARTS = (b"II*\0", b"MM\0*")

# OpenCV's own chatter about broken files would stand beside our sentence about them.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
# Photographs of 100 megapixels are welcome; OpenCV, which looks first, has a limit of its own.
Image.MAX_IMAGE_PIXELS = None


def list_images(folder: Path) -> list[Path]:
    """The image files directly in ``folder`` in natural order (2 before 10).

    Raises UserError where the folder is missing or holds no image.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}.")
    files = [path for path in folder.iterdir() if is_image(path)]
    if not files:
        raise UserError(f"The folder {folder} holds no image ({', '.join(SUFFIXES)}).")
    return natsorted(files, key=lambda path: path.name, alg=ns.IGNORECASE)


def is_image(path: Path) -> bool:
    """Whether a path is a visible file with the suffix of an image."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def images_by_stem(folder: Path) -> dict[str, Path]:
    """The images of ``folder`` by file name without suffix, in natural order.

    Raises UserError where two files share a stem: which one is meant cannot be told.
    """
    by_stem: dict[str, Path] = {}
    for path in list_images(folder):
        if path.stem in by_stem:
            raise UserError(
                f"{path} and {by_stem[path.stem].name} have the same name but for the suffix; "
                "keep one of them."
            )
        by_stem[path.stem] = path
    return by_stem


def read_rgb(path: Path) -> np.ndarray:
    """An image file as RGB, (H, W, 3), upright as its EXIF orientation says.

    8-bit files give uint8, 16-bit ones uint16, float TIFFs float32; gray becomes three equal
    channels, alpha is dropped. Raises UserError naming the file if it is unreadable or truncated.
    """
    # OpenCV 5 scrambles 16-bit TIFFs when it is asked for RGB itself.
    image = decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    return np.ascontiguousarray(image[..., ::-1])


def read_gray_or_rgb(path: Path) -> np.ndarray:
    """As ``read_rgb``, but a gray file stays two-dimensional, (H, W)."""
    return _gray_or_rgb(path, _read_bytes(path))


def _gray_or_rgb(path: Path, encoded: bytes) -> np.ndarray:
    image = _decode_bytes(path, encoded, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    return image if image.ndim == 2 else np.ascontiguousarray(image[..., ::-1])


def read_image(path: Path) -> np.ndarray:
    """An image file with all its channels: (H, W) gray, (H, W, 3) RGB or (H, W, 4) RGBA, upright.

    Types are as with ``read_rgb``; colours are never multiplied by alpha. Raises UserError naming
    the file if it is unreadable or truncated.
    """
    encoded = _read_bytes(path)
    colours = _gray_or_rgb(path, encoded)
    is_tiff = encoded.startswith(TIFF_STARTS)
    if is_tiff and colours.dtype == np.uint8:
        special = _special_tiff(encoded)
        if special is not None:
            return special
    stored = _decode_bytes(path, encoded, cv2.IMREAD_UNCHANGED)
    if stored.shape[2:] != (4,):
        return colours
    if is_tiff and colours.dtype == np.uint8:
        raise UserError(f"{path} is a TIFF with alpha of a kind that is not read; store it as PNG.")
    # OpenCV turns a TIFF upright in any case, other files with alpha never.
    alpha = stored[..., 3] if is_tiff else _upright(stored[..., 3], encoded)
    if colours.ndim == 2:
        colours = np.dstack([colours] * 3)
    return np.dstack([colours, alpha])


def _special_tiff(encoded: bytes) -> np.ndarray | None:
    """An 8-bit TIFF with alpha or in CMYK, as RGBA or RGB, upright; None for any other.

    OpenCV multiplies its colours by alpha, drops the alpha of gray, and takes black for alpha.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            if image.mode in ("RGBA", "RGBa", "LA", "La"):
                return np.asarray(image.convert("RGBA"))
            return np.asarray(image.convert("RGB")) if image.mode == "CMYK" else None
    except (OSError, SyntaxError, ValueError):  # a kind that Pillow does not know
        return None


def _upright(channel: np.ndarray, encoded: bytes) -> np.ndarray:
    """(H, W) turned and flipped as the EXIF orientation of the PNG or WebP file says."""
    exif = Image.Exif()
    try:
        exif.load(_exif_block(encoded))
    except SyntaxError:  # Pillow's word for a damaged block, which OpenCV passes over too
        return channel
    orientation = exif.get(ExifTags.Base.Orientation, 1)
    turns = {3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}.get(orientation, 0)  # quarters to the left
    turned = np.rot90(channel, turns)
    return turned[:, ::-1] if orientation in (2, 4, 5, 7) else turned


def _exif_block(encoded: bytes) -> bytes:
    """The EXIF block of a PNG or WebP file, empty without one.

    Pillow would decode the whole file again, and refuse files for damage elsewhere.
    """
    if encoded.startswith(b"\x89PNG"):
        start, header, wanted, trailer = 8, ">I4s", b"eXIf", 4
    else:
        start, header, wanted, trailer = 12, "<4sI", b"EXIF", 0
    while start + 8 <= len(encoded):
        fields = struct.unpack_from(header, encoded, start)
        length, kind = fields if trailer else fields[::-1]
        if kind == wanted:
            return encoded[start + 8 : start + 8 + length]
        start += 8 + length + trailer
        if not trailer:
            start += length % 2  # WebP's chunks are even
    return b""


def decode(path: Path, flags: int) -> np.ndarray:
    """Decode a file with OpenCV's ``flags``; the channel order is what the flags say."""
    return _decode_bytes(path, _read_bytes(path), flags)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error


def _decode_bytes(path: Path, encoded: bytes, flags: int) -> np.ndarray:
    """``decode`` for the content of ``path``, which is read once for several looks at it."""
    image = None
    # A PNG without its end would make libpng print a line of its own.
    cut_off = encoded.startswith(b"\x89PNG") and b"IEND" not in encoded
    if encoded and not cut_off:
        try:
            image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
        except cv2.error:
            image = None  # said below, as for every other broken file
    if image is None:
        raise UserError(f"{path} is not a readable image; it is truncated, broken or no image.")
    if image.dtype not in TYPES:
        raise UserError(
            f"{path} holds {image.dtype} values; 8 and 16 bits and 32-bit floats are read."
        )
    return image


def to_float(image: np.ndarray) -> np.ndarray:
    """uint8 or uint16 values as float32 in [0, 1]; float values as they are."""
    if image.dtype == np.uint8:
        return image.astype(np.float32) / 255
    if image.dtype == np.uint16:
        return image.astype(np.float32) / 65535
    return image.astype(np.float32)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Float values in [0, 1] as uint8: clipped, then rounded (truncating costs 0.04 dB)."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def as_uint8(image: np.ndarray, path: Path) -> np.ndarray:
    """An image of any type that is read as an 8-bit PNG would hold it, for training and scoring.

    Raises UserError naming ``path`` for float pixels that are not finite or not in [0, 1].
    """
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return to_uint8(image / np.float64(65535))
    broken = image.size - int(np.count_nonzero(np.isfinite(image)))
    if broken:
        raise UserError(f"{path} has {broken} pixel values that are NaN or infinite.")
    # A network may overshoot [0, 1] a little; twice as far it is another range, such as 0..255.
    if image.min() < -1 or image.max() > 2:
        raise UserError(
            f"{path} holds float values from {image.min():.4g} to {image.max():.4g}; float images "
            "are expected in [0, 1]."
        )
    return to_uint8(image)


def write_png(path: Path, image: np.ndarray) -> None:
    """Write (H, W) gray, (H, W, 3) RGB or (H, W, 4) RGBA as PNG, whole or not at all.

    Values are uint8, uint16, or float32 in [0, 1], which are stored in 16 bits.
    """
    if image.dtype == np.float32:
        image = np.rint(np.clip(image, 0, 1) * 65535).astype(np.uint16)
    stored = image
    if image.ndim == 3:
        order = [2, 1, 0, 3] if image.shape[2] == 4 else [2, 1, 0]  # OpenCV's
        stored = np.ascontiguousarray(image[..., order])

    def write(temporary: Path) -> None:
        done, encoded = cv2.imencode(".png", stored)
        if not done:
            raise OSError(f"OpenCV cannot encode {image.shape} {image.dtype} as PNG")
        temporary.write_bytes(encoded.tobytes())

    atomic_write(path, write)
