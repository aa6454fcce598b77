"""Image files of data sets: which files count as images, reading them as RGB, writing PNG.

utils/inference/photos.py reads photographs of every kind with their metadata.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from utils.damage import image_damage, is_jpeg
from utils.errors import UserError
from utils.files import atomic_write
from utils.folders import dead_link_sentence, scan_folder
from utils.png import PNG_BEGINNING
from utils.tiff import TIFFFILE_ERRORS, WHITE_IS_ZERO, tiff_layout
from utils.wording import composed

# Formats that OpenCV reads on every system, in lower case.
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

TYPES = (np.uint8, np.uint16, np.float32)

# Broken files are reported by our own sentence, without OpenCV's lines.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def list_images(folder: Path) -> list[Path]:
    """The image files directly in ``folder`` in natural order (2 before 10).

    Raises UserError if the folder is missing or holds no image, and for a dead link.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}.")
    content = scan_folder(folder)
    for link in content.dead_links:
        if _has_image_name(link.name):
            raise UserError(dead_link_sentence(link))
    images = [path for path in content.files if _has_image_name(path.name)]
    if not images:
        raise UserError(f"The folder {folder} holds no image ({', '.join(SUFFIXES)}).")
    return images


def is_image(path: Path) -> bool:
    """Whether a path is a visible file with the suffix of an image."""
    return _has_image_name(path.name) and path.is_file()


def _has_image_name(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")


def images_by_stem(folder: Path) -> dict[str, Path]:
    """The images directly in ``folder`` as ``by_stem`` gives them, in natural order.

    Raises UserError as ``list_images`` does.
    """
    return by_stem(list_images(folder))


def by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Files by name without suffix, in Unicode's composed form.

    Raises UserError if two files share a stem, since either could be meant.
    """
    found: dict[str, Path] = {}
    for path in paths:
        stem = composed(path.stem)
        if stem in found:
            raise UserError(
                f"{path} and {found[stem].name} have the same name but for the suffix; keep one of "
                "them."
            )
        found[stem] = path
    return found


def read_rgb(path: Path) -> np.ndarray:
    """An image file as RGB, (H, W, 3), upright as its EXIF orientation says.

    8-bit files give uint8, 16-bit files uint16, float TIFFs float32. Gray becomes three equal
    channels, alpha is dropped. Raises UserError naming the file if it is unreadable or truncated.
    """
    # Not by OpenCV's own flag for colour: OpenCV 5 then scrambles 16-bit TIFFs and refuses gray
    # float TIFFs.
    image = read_gray_or_rgb(path)
    return image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)


def read_gray_or_rgb(path: Path) -> np.ndarray:
    """As ``read_rgb``, but a gray file stays two-dimensional, (H, W)."""
    return decode_gray_or_rgb(path, read_bytes(path))


def decode_gray_or_rgb(path: Path, encoded: bytes) -> np.ndarray:
    """``read_gray_or_rgb`` for ``encoded``, the content of ``path``."""
    image = decode_bytes(path, encoded, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    # Four times as fast as copying image[..., ::-1].
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises UserError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error


def decode_bytes(path: Path, encoded: bytes, flags: int) -> np.ndarray:
    """The content of ``path`` decoded by OpenCV; ``flags`` are those of ``cv2.imdecode``."""
    try:
        layout = tiff_layout(encoded)
    except TIFFFILE_ERRORS as error:
        raise UserError(unreadable(path)) from error
    if layout and (layout.unusual or layout.separate):
        raise UserError(layout.refusal(path))
    if layout and layout.page:
        raise UserError(
            f"{path} is a TIFF whose first page is a reduced image; store page {layout.page + 1} "
            "alone."
        )
    refuse_damage(path, encoded)
    image = None
    # libpng would print a line about a PNG without its end.
    cut_off = encoded.startswith(PNG_BEGINNING) and b"IEND" not in encoded
    if encoded and not cut_off:
        try:
            image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
        except cv2.error:
            image = None  # reported below, as for every other broken file
    if image is None:
        raise UserError(unreadable(path))
    if image.dtype not in TYPES:
        raise UserError(
            f"{path} holds {image.dtype} values; 8 and 16 bits and 32-bit floats are read."
        )
    if layout and layout.photometric == WHITE_IS_ZERO and image.dtype != np.uint8:
        # OpenCV inverts 8-bit images only.
        image = (1 if image.dtype == np.float32 else 65535) - image
    return image


def refuse_damage(path: Path, encoded: bytes) -> None:
    """Raise UserError for a PNG or TIFF with damaged data.

    A damaged JPEG is decoded, since only a part of it is spoilt; its reader may call
    ``image_damage``.
    """
    if not is_jpeg(encoded) and (damage := image_damage(encoded)):
        raise UserError(f"{path} is not a readable image: {damage}.")


def unreadable(path: Path) -> str:
    """The sentence for a file that cannot be decoded."""
    return f"{path} is not a readable image; it is truncated, broken or not an image."


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
    """An image of any type as an 8-bit PNG stores it, for training and scoring.

    Raises UserError naming ``path`` for float pixels that are not finite or not in [0, 1].
    """
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return to_uint8(image / np.float64(65535))
    broken = image.size - int(np.count_nonzero(np.isfinite(image)))
    if broken:
        raise UserError(f"{path} has {broken} pixel values that are NaN or infinite.")
    # A network may overshoot [0, 1] a little; these values must have another range, such as 0..255.
    if image.min() < -1 or image.max() > 2:
        raise UserError(
            f"{path} holds float values from {image.min():.4g} to {image.max():.4g}; float images "
            "are expected in [0, 1]."
        )
    return to_uint8(image)


def stack_rows(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Images of one type below one another, flush left on white."""
    widest = max(row.shape[1] for row in rows)
    return np.vstack(
        [
            np.pad(
                row, [(0, 0), (0, widest - row.shape[1]), (0, 0)][: row.ndim], constant_values=255
            )
            for row in rows
        ]
    )


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an image for ``encode_png`` to a file, whole or not at all."""
    content = encode_png(image)
    atomic_write(path, lambda temporary: temporary.write_bytes(content))


def encode_png(image: np.ndarray) -> bytes:
    """(H, W) gray, (H, W, 3) RGB or (H, W, 4) RGBA as the content of a PNG file.

    Values are uint8, uint16, or float32 in [0, 1]; floats are stored in 16 bits.
    """
    if image.dtype == np.float32:
        image = np.rint(np.clip(image, 0, 1) * 65535).astype(np.uint16)
    if image.ndim == 3:
        order = [2, 1, 0, 3] if image.shape[2] == 4 else [2, 1, 0]  # OpenCV's
        image = np.ascontiguousarray(image[..., order])
    done, encoded = cv2.imencode(".png", image)
    if not done:
        raise UserError(f"OpenCV cannot encode {image.shape} {image.dtype} as PNG.")
    return encoded.tobytes()
