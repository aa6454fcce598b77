"""Damage inside the data of image files, which decoders fill in silently."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.helpers import smooth_image
from utils.damage import image_damage
from utils.errors import UserError
from utils.images import read_gray_or_rgb, read_rgb
from utils.inference.photos import read_photo
from utils.png import PNG_BEGINNING, read_chunks, write_chunk


def noisy_image() -> np.ndarray:
    """(320, 481, 3) uint8, of which compressors need a few hundred kilobytes."""
    noise = np.random.default_rng(0).integers(-9, 10, (320, 481, 3))
    return (smooth_image(0, 320, 481).astype(int) + noise).clip(0, 255).astype(np.uint8)


def png_parts(image: np.ndarray) -> list[tuple[bytes, bytes]]:
    """The chunks of an image's PNG, with its data in IDAT chunks of 8 KiB."""
    encoded = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    (head,) = (chunk.data for chunk in read_chunks(encoded) if chunk.kind == b"IHDR")
    data = b"".join(chunk.data for chunk in read_chunks(encoded) if chunk.kind == b"IDAT")
    idats = [(b"IDAT", data[place : place + 8192]) for place in range(0, len(data), 8192)]
    return [(b"IHDR", head), *idats, (b"IEND", b"")]


def joined(parts: list[tuple[bytes, bytes]]) -> bytes:
    return PNG_BEGINNING + b"".join(write_chunk(*part) for part in parts)


def zeroed(encoded: bytes, count: int = 4096) -> bytes:
    """Zeros in the middle, as in a copy that lost a block."""
    middle = len(encoded) // 2
    return encoded[:middle] + bytes(count) + encoded[middle + count :]


def flipped(encoded: bytes, place: int | None = None) -> bytes:
    """Flip one bit, by default in the middle."""
    changed = bytearray(encoded)
    changed[len(encoded) // 2 if place is None else place] ^= 0x10
    return bytes(changed)


READERS: tuple[Callable, ...] = (read_photo, read_rgb, read_gray_or_rgb)


@pytest.mark.parametrize("depth", [8, 16])
def test_a_png_with_damaged_data_is_refused_by_every_reader(
    tmp_path: Path, depth: int, capfd: pytest.CaptureFixture[str]
) -> None:
    image = noisy_image() if depth == 8 else noisy_image().astype(np.uint16) * 257
    parts = png_parts(image)
    whole = joined(parts)
    path = tmp_path / "a.png"
    path.write_bytes(whole)
    for read in READERS:
        pixels = getattr(read(path), "pixels", read(path))
        np.testing.assert_array_equal(pixels, image)
    middle = len(parts) // 2
    for damaged, named in (
        (zeroed(whole), True),
        (flipped(whole), True),
        (flipped(whole, 20), True),  # the height
        (whole[: len(whole) * 2 // 3], True),
        (joined(parts[:middle] + parts[middle + 1 :]), False),
        (joined([*parts[:-2], parts[-1]]), False),
    ):
        path.write_bytes(damaged)
        assert ("is damaged or cut off" in image_damage(damaged)) == named
        for read in READERS:
            with pytest.raises(UserError, match=r"a\.png is not a readable image"):
                read(path)
    if depth == 8:  # libpng prints lines about data with right checksums only
        assert "CRC error" not in capfd.readouterr().err


def test_the_damaged_chunk_is_named_with_its_place() -> None:
    parts = png_parts(noisy_image())
    place = len(joined(parts[:3]))
    damaged = flipped(joined(parts), place + 8 + 77)
    assert image_damage(damaged) == f"its IDAT chunk at byte {place} is damaged or cut off"
    palette = Image.new("P", (8, 8))
    palette.putpalette([7, 8, 9])
    content = io.BytesIO()
    palette.save(content, "PNG", transparency=3)
    for kind in (b"PLTE", b"tRNS"):
        place = content.getvalue().index(kind)
        assert f"its {kind.decode()} chunk at byte {place - 4} " in image_damage(
            flipped(content.getvalue(), place + 4)
        )


def test_damaged_metadata_of_a_png_is_left_out_and_reported(tmp_path: Path) -> None:
    image = noisy_image()
    head, *others = png_parts(image)
    content = joined([head, (b"tEXt", b"Title\0rain"), *others])
    path = tmp_path / "a.png"
    path.write_bytes(flipped(content, content.index(b"rain")))
    assert image_damage(path.read_bytes()) == ""
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.pixels, image)
    assert photo.notes == (f"{path} has metadata that cannot be read and is left out.",)
    np.testing.assert_array_equal(read_rgb(path), image)


def tiff(compression: str | None, depth: int = 8, **options: object) -> bytes:
    image = noisy_image() if depth == 8 else noisy_image().astype(np.uint16) * 257
    content = io.BytesIO()
    if compression == "zlib":
        tifffile.imwrite(content, image, photometric="rgb", compression="zlib", **options)
    else:
        Image.fromarray(image).save(content, "TIFF", compression=compression, **options)
    return content.getvalue()


@pytest.mark.parametrize(
    ("compression", "options", "named"),
    [
        ("zlib", {"rowsperstrip": 16}, "Deflate"),
        ("zlib", {"tile": (64, 64)}, "Deflate"),
        ("zlib", {"depth": 16}, "Deflate"),
        ("tiff_lzw", {}, "LZW"),
        ("packbits", {}, "PackBits"),
        ("jpeg", {}, ""),
    ],
)
def test_a_tiff_with_damaged_data_is_refused_by_every_reader(
    tmp_path: Path, compression: str, options: dict, named: str
) -> None:
    """Deflate has a checksum; in the others, zeros in the middle make inconsistent data."""
    whole = tiff(compression, **options)
    path = tmp_path / "a.tif"
    path.write_bytes(whole)
    assert image_damage(whole) == ""
    for read in READERS:
        assert getattr(read(path), "pixels", read(path)).shape == (320, 481, 3)
    for damaged in (zeroed(whole, 400), flipped(whole)) if named == "Deflate" else (zeroed(whole),):
        path.write_bytes(damaged)
        assert named in image_damage(damaged) != ""
        for read in READERS:
            with pytest.raises(UserError, match=rf"a\.tif is not a readable image: .*{named}"):
                read(path)


def test_a_tiff_without_compression_has_nothing_to_check() -> None:
    assert image_damage(zeroed(tiff(None))) == ""


def test_damaged_jpegs_are_read_and_reported(tmp_path: Path) -> None:
    Image.fromarray(noisy_image()).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    assert image_damage(whole) == ""
    (tmp_path / "a.jpg").write_bytes(zeroed(whole, 400))
    assert image_damage(zeroed(whole, 400)) != ""
    assert read_rgb(tmp_path / "a.jpg").shape == (320, 481, 3)


@pytest.mark.parametrize("encoded", [b"", b"BM", b"\xff\xd8", b"II*\0", PNG_BEGINNING, b"no image"])
def test_unreadable_files_have_no_known_damage(encoded: bytes) -> None:
    assert image_damage(encoded) == ""
