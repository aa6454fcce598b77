"""Perceptual hashes of clean images, by which two pictures of one scene are recognised.

A hash holds the low frequencies of a small gray picture, 144 bits (``imagehash.phash``). Two
pictures of one scene differ in few bits, even after JPEG; hashes of mirrored, rotated and slightly
cropped views find those too. Hashes are computed once and remembered.

Measured on 409 photographs of BSDS500: stored as JPEG of quality 50 they differ from the originals
in at most 4 bits, cropped by 2% in at most 20; unrelated ones differ in at least 40 bits, in all
eight orientations. With the crops below, pictures cropped by up to 6% are found.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import imagehash
import numpy as np
from PIL import Image
from tqdm import tqdm

from data.pairs import Pair
from utils.errors import UserError
from utils.files import FileLock, atomic_write
from utils.images import as_uint8, read_gray_or_rgb
from utils.stamps import stamp_files

SIDE = 12  # the hash has SIDE x SIDE bits
BYTES = SIDE * SIDE // 8
THUMBNAIL = 4 * SIDE  # height and width of the picture that is hashed
MOST_BITS = 24  # in which two pictures of one scene may differ
FEWEST_ONES = SIDE * SIDE // 4  # a plain picture has fewer, and no scene to recognise

CROP = 0.05  # of height and width, cut off at one or both ends
CROPS = ((0.5, 0.5), (0, 0), (0, 1), (1, 0), (1, 1))  # position of what is kept, 0 to 1 in y and x
VIEWS = 1 + len(CROPS)
ORIENTATIONS = 8

BATCH = 512  # images handed to the threads at a time
MOST_PRODUCTS = 1 << 24  # of hashes at a time, 4 bytes each
MOST_PACKED = 65_536  # scenes that weights record
PACKED = "phash144"  # the first field of packed scenes

Rows = np.ndarray  # (N, V, BYTES) uint8: N images, V views of each


def scene_hashes(
    pairs: Sequence[Pair], index: Path | None = None, *, turned: bool = False, quiet: bool = True
) -> Rows:
    """The hashes of the pairs' clean images: (N, 6, 18) uint8, or (N, 48, 18) if ``turned``.

    The views are the whole image and five crops; ``turned`` adds the other seven orientations of
    each, after the upright views. With ``index``, the hashes are remembered in a file beside that
    file, by the images' names, sizes and times. Of several processes that start together, one
    computes them and the others wait. Raises UserError for an unreadable image.
    """
    unique = list(dict.fromkeys((pair.clean, pair.half) for pair in pairs))
    number = {key: i for i, key in enumerate(unique)}
    views = VIEWS * (ORIENTATIONS if turned else 1)
    if index is None:
        rows = _compute(unique, turned, quiet)
    else:
        place = index.with_name(f"{index.name}_scenes_{views}")
        with FileLock(place.with_name(f"{place.name}.lock")):
            rows = _remembered(unique, place, views, turned, quiet)
    return rows[[number[pair.clean, pair.half] for pair in pairs]]


def _remembered(
    images: Sequence[tuple[Path, str]], place: Path, views: int, turned: bool, quiet: bool
) -> Rows:
    record = np.dtype([("stamp", "S16"), ("rows", "u1", (views, BYTES))])
    known = np.empty(0, record)
    if place.is_file():
        content = place.read_bytes()
        whole = len(content) // record.itemsize * record.itemsize
        known = np.frombuffer(content[:whole], record)
    wanted = _stamps(images)
    new = np.flatnonzero(~np.isin(wanted, known["stamp"])).tolist()
    if new:
        added = np.empty(len(new), record)
        added["stamp"] = wanted[new]
        added["rows"] = _compute([images[i] for i in new], turned, quiet)
        known = np.concatenate([known, added])
        content = known.tobytes()
        atomic_write(place, lambda temporary: temporary.write_bytes(content))
    order = np.argsort(known["stamp"])
    return known["rows"][order[np.searchsorted(known["stamp"], wanted, sorter=order)]]


def _stamps(images: Sequence[tuple[Path, str]]) -> np.ndarray:
    """(N,) bytes: digests of the files' names, sizes and times and of the halves."""
    stamps = stamp_files(path for path, _ in images)
    lines = [
        f"{stamp.line()}{half}".encode(errors="surrogateescape")
        for stamp, (_, half) in zip(stamps, images, strict=True)
    ]
    # hexadecimal: NumPy cuts off zero bytes
    digests = [hashlib.blake2b(line, digest_size=8).hexdigest().encode() for line in lines]
    return np.array(digests, "S16")


def _compute(images: Sequence[tuple[Path, str]], turned: bool, quiet: bool) -> Rows:
    rows = []
    bar = tqdm(total=len(images), desc="scenes", unit="image", leave=False, disable=quiet or None)
    with ThreadPoolExecutor() as pool, bar:
        for start in range(0, len(images), BATCH):
            some = images[start : start + BATCH]
            for row in pool.map(lambda image: hash_views(read_clean(*image), turned=turned), some):
                rows.append(row)
                bar.update()
    return np.stack(rows) if rows else np.empty((0, VIEWS, BYTES), np.uint8)


def read_clean(path: Path, half: str) -> np.ndarray:
    """The clean image of a pair as (H, W) uint8; ``half`` says which half of the file is rainy."""
    image = as_uint8(read_gray_or_rgb(path), path)
    if half:
        middle = image.shape[1] // 2
        image = image[:, middle:] if half == "left" else image[:, :middle]
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def hash_views(image: np.ndarray, *, turned: bool = False) -> np.ndarray:
    """The hashes of a gray image (H, W) uint8, whole and cropped: (6, 18) or (48, 18) uint8."""
    height, width = image.shape
    kept = round(height * (1 - CROP)), round(width * (1 - CROP))
    views = [image]
    for y, x in CROPS:
        top, left = round((height - kept[0]) * y), round((width - kept[1]) * x)
        views.append(image[top : top + kept[0], left : left + kept[1]])
    small = [
        cv2.resize(view, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
        for view in views
        if view.size
    ]
    small += [small[0]] * (VIEWS - len(small))  # of an image of one pixel
    if turned:
        # The thumbnail is square, so rotating it equals rotating the image.
        small = [
            np.rot90(view[:, ::-1] if is_mirrored else view, quarter)
            for is_mirrored in (False, True)
            for quarter in range(4)
            for view in small
        ]
    bits = [
        imagehash.phash(Image.fromarray(np.ascontiguousarray(view)), hash_size=SIDE).hash
        for view in small
    ]
    return np.packbits(np.array(bits).reshape(len(bits), -1), axis=1)


# --- comparing hashes ----------------------------------------------------------------------------


def nearest(upright: Rows, turned: Rows) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of M images for each of N images, by their views: its number, and the bits.

    ``upright`` is (N, V, 18) with V = 1 or 6, ``turned`` is (M, 48, 18). The whole image of the N
    is compared with all views of the M, each crop with the whole images of the M in their eight
    orientations. Plain images show no scene, and their distance is 144 bits.
    """
    count, others = len(upright), len(turned)
    numbers, distances = np.zeros(count, np.int64), np.full(count, SIDE * SIDE)
    if not count or not others:
        return numbers, distances
    whole = turned[:, ::VIEWS]
    comparisons = [(upright[:, 0], turned)]
    comparisons += [(upright[:, view], whole) for view in range(1, upright.shape[1])]
    for ours, theirs in comparisons:
        for part, bits in _fewest_bits(ours, theirs):
            best = bits.argmin(axis=1)
            fewest = bits[np.arange(len(best)), best]
            numbers[part] = np.where(fewest < distances[part], best, numbers[part])
            distances[part] = np.minimum(fewest, distances[part])
    distances[_is_plain(upright[:, 0]) | _is_plain(turned[:, 0])[numbers]] = SIDE * SIDE
    return numbers, distances


def _fewest_bits(ours: np.ndarray, theirs: Rows) -> Iterator[tuple[slice, np.ndarray]]:
    """The fewest bits in which each of N hashes (N, 18) differs from any view of each of M images.

    Yields n of the N at a time: their slice, and (n, M) integers.
    """
    images, views = theirs.shape[:2]
    signs = _signs(theirs.reshape(-1, BYTES)).T
    step = max(1, MOST_PRODUCTS // (images * views))
    for start in range(0, len(ours), step):
        part = slice(start, start + step)
        # The dot product of two hashes' signs: equal bits minus differing bits.
        products = (_signs(ours[part]) @ signs).reshape(-1, images, views)
        yield part, ((SIDE * SIDE - products.max(axis=2)) / 2).astype(np.int64)


def _signs(rows: np.ndarray) -> np.ndarray:
    """(N, 144) float32: 1 for a bit that is set, else -1."""
    return np.unpackbits(rows, axis=1).astype(np.float32) * 2 - 1


def _is_plain(rows: np.ndarray) -> np.ndarray:
    return np.unpackbits(rows, axis=1).sum(axis=1) < FEWEST_ONES


# --- the hashes that weights record --------------------------------------------------------------


def pack_scenes(rows: Rows) -> str:
    """The scenes of a training set as one line of text, for the metadata of weights.

    ``rows`` come from ``scene_hashes``; equal scenes count once. Of more than 65,536 scenes only
    every n-th is kept.
    """
    whole = np.unique(rows[:, 0], axis=0)
    kept = whole[:: max(1, -(-len(whole) // MOST_PACKED))]
    return f"{PACKED} {len(whole)} {base64.b64encode(kept.tobytes()).decode('ascii')}"


def unpack_scenes(text: str) -> Rows:
    """The hashes in packed scenes, (N, 1, 18). Raises UserError for any other text."""
    fields = text.split(" ")
    try:
        if len(fields) != 3 or fields[0] != PACKED:
            raise ValueError
        content = base64.b64decode(fields[2], validate=True)
        return np.frombuffer(content, np.uint8).reshape(-1, 1, BYTES)
    except (ValueError, binascii.Error) as error:
        raise UserError("The training scenes in the weights' metadata are damaged.") from error


def overlap(packed: str, pairs: Sequence[Pair], index: Path | None = None) -> list[Pair]:
    """The pairs whose scene is among the ``packed`` training scenes, in their order."""
    if not pairs:
        return []
    scenes = unpack_scenes(packed)[:, 0]
    turned = scene_hashes(pairs, index, turned=True)
    scenes = scenes[~_is_plain(scenes)]
    fewest = np.full(len(pairs), SIDE * SIDE)
    for _, bits in _fewest_bits(scenes, turned):
        fewest = np.minimum(fewest, bits.min(axis=0))
    return [pair for pair, bits in zip(pairs, fewest, strict=True) if bits <= MOST_BITS]
