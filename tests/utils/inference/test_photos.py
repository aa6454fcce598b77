"""Photographs of every format: upright pixels, colours and metadata, read and written."""

from __future__ import annotations

import importlib.util
import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

from tests.helpers import random_image
from utils.errors import UserError
from utils.images import read_rgb
from utils.inference.photo_output import write_photo
from utils.inference.photos import Photo, num_pixels, read_photo
from utils.png import write_chunk


@pytest.fixture
def rgb() -> np.ndarray:
    """(6, 10, 3) uint8 with four different corners."""
    return random_image((6, 10, 3))


def pixels_of(path: Path) -> np.ndarray:
    return read_photo(path).pixels


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[ExifTags.Base.Orientation] = orientation
    return data


LOSSLESS = {
    ".png": {},
    ".bmp": {},
    ".tif": {},
    ".gif": {},
    ".ppm": {},
    ".webp": {"lossless": True},
    ".avif": {"quality": 100, "subsampling": "4:4:4"},
}


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_every_format_is_read(tmp_path: Path, rgb: np.ndarray, suffix: str) -> None:
    gray = suffix == ".gif"  # its palette holds these grays exactly
    image = rgb[..., 0] if gray else rgb
    path = tmp_path / f"a{suffix}"
    Image.fromarray(image).save(path, **LOSSLESS[suffix])
    expected = np.dstack([image] * 3) if gray and pixels_of(path).ndim == 3 else image
    np.testing.assert_allclose(pixels_of(path), expected, atol=4 if suffix == ".avif" else 0)


def test_palettes_become_rgb_or_rgba(tmp_path: Path, rgb: np.ndarray) -> None:
    palette = Image.fromarray(rgb).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), palette.convert("RGB"))
    palette.save(tmp_path / "b.png", transparency=0)
    transparent = np.asarray(Image.open(tmp_path / "b.png").convert("RGBA"))
    np.testing.assert_array_equal(pixels_of(tmp_path / "b.png"), transparent)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "has_alpha"),
    [
        *((suffix, False) for suffix in (".png", ".webp", ".tif", ".jpg")),
        *((suffix, True) for suffix in (".png", ".webp")),
    ],
)
def test_photos_stand_upright(
    tmp_path: Path, rgb: np.ndarray, orientation: int, suffix: str, has_alpha: bool
) -> None:
    options = {
        ".webp": {"lossless": True, "exact": True},
        ".jpg": {"quality": 100, "subsampling": 0},
    }
    image = np.dstack([rgb, rgb[..., 1] | 1]) if has_alpha else rgb  # no pixel is fully transparent
    path = tmp_path / f"a{suffix}"
    Image.fromarray(image).save(path, exif=exif(orientation), **options.get(suffix, {}))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.pixels, expected)
    np.testing.assert_array_equal(read_rgb(path), expected[..., :3])
    write_photo(tmp_path / "b.png", photo)  # which must not turn them again
    shown = ImageOps.exif_transpose(Image.open(tmp_path / "b.png"))
    np.testing.assert_array_equal(shown, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_deep_photos_stand_upright(
    tmp_path: Path, rgb: np.ndarray, orientation: int, suffix: str
) -> None:
    """OpenCV decodes 16 bits, and the result is turned as with 8 bits."""
    deep = rgb.astype(np.uint16) * 257
    if suffix == ".png":
        write_photo(tmp_path / "a.png", Photo(deep, exif=exif(orientation).tobytes()))
    else:
        tag = (ExifTags.Base.Orientation, "H", 1, orientation, True)
        tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", extratags=[tag])
    Image.fromarray(rgb).save(tmp_path / "b.png", exif=exif(orientation))
    np.testing.assert_array_equal(
        pixels_of(tmp_path / f"a{suffix}"), pixels_of(tmp_path / "b.png").astype(np.uint16) * 257
    )


@pytest.mark.parametrize(("kind", "suffix"), [("TIFF", ".tif"), ("TIFF", ".png"), ("PNG", ".tif")])
def test_alpha_never_touches_the_colours(
    tmp_path: Path, rgb: np.ndarray, kind: str, suffix: str
) -> None:
    """Even if a pixel is transparent or the suffix belongs to another format."""
    rgba = np.dstack([rgb, np.arange(60, dtype=np.uint8).reshape(6, 10) * 4])
    Image.fromarray(rgba).save(tmp_path / f"a{suffix}", format=kind)
    np.testing.assert_array_equal(pixels_of(tmp_path / f"a{suffix}"), rgba)


def test_damage_outside_the_pixels_is_not_refused(tmp_path: Path, rgb: np.ndarray) -> None:
    """A PNG with alpha, a text that is too long for Pillow and an invalid EXIF block."""
    rgba = np.dstack([rgb, rgb[..., 1]])
    texts = PngImagePlugin.PngInfo()
    texts.add_text("XML:com.adobe.xmp", "x" * 2_000_000, zip=True)
    Image.fromarray(rgba).save(tmp_path / "a.png", pnginfo=texts, exif=b"nonsense")
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), rgba)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiffs_that_store_white_as_zero(tmp_path: Path, dtype: type) -> None:
    """As written by some scanners; they are read as the positive picture."""
    largest = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[dtype]
    image = random_image((5, 7), dtype)
    tifffile.imwrite(tmp_path / "a.tif", largest - image, photometric="miniswhite")
    assert pixels_of(tmp_path / "a.tif").dtype == dtype
    np.testing.assert_allclose(pixels_of(tmp_path / "a.tif"), image, atol=1e-6)
    np.testing.assert_allclose(read_rgb(tmp_path / "a.tif"), np.dstack([image] * 3), atol=1e-6)


def lab_of(srgb: np.ndarray) -> np.ndarray:
    """CIE Lab under D50, the white of Lab TIFFs, by CIE's formulas and Bruce Lindbloom's matrix."""
    values = srgb / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    to_xyz = [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ]
    xyz = linear @ np.transpose(to_xyz) / (0.96422, 1, 0.82521)
    x, y, z = np.moveaxis(
        np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116), -1, 0
    )
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def test_tiffs_in_lab(tmp_path: Path) -> None:
    srgb = np.array([[(200, 60, 20), (90, 160, 70), (60, 80, 190), (128, 128, 128)]])
    stored = np.rint(lab_of(srgb) * (2.55, 1, 1)).astype(int).astype(np.uint8)  # a, b are signed
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="cielab")
    # The tolerance is that of a and b rounded to integers.
    np.testing.assert_allclose(pixels_of(tmp_path / "a.tif"), srgb, atol=6)
    tifffile.imwrite(tmp_path / "b.tif", stored.astype(np.uint16) * 256, photometric="cielab")
    with pytest.raises(
        UserError, match=r"b\.tif is a TIFF of an unsupported kind .*CIELAB, 16 bits.* as RGB"
    ):
        read_photo(tmp_path / "b.tif")
    for name in "ab":
        with pytest.raises(UserError, match=rf"{name}\.tif is a TIFF of an unsupported kind"):
            read_rgb(tmp_path / f"{name}.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_gray_of_16_bits_with_alpha_becomes_rgba(tmp_path: Path, compression: str | None) -> None:
    image = random_image((5, 7, 2), np.uint16)
    options = {"extrasamples": ["unassalpha"], "compression": compression}
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack", **options)
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.tif"), image[..., [0, 0, 0, 1]])


def test_premultiplied_colours_of_16_bits(tmp_path: Path) -> None:
    rgba = random_image((5, 7, 4), np.uint16)
    rgba[..., 3] |= 0x8000  # nearly transparent pixels would lose their colours
    multiplied = rgba.copy()
    multiplied[..., :3] = np.rint(rgba[..., :3] * (rgba[..., 3:] / 65535))
    options = {"photometric": "rgb", "extrasamples": ["assocalpha"]}
    tifffile.imwrite(tmp_path / "a.tif", multiplied, **options)
    np.testing.assert_allclose(pixels_of(tmp_path / "a.tif"), rgba, atol=1)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_gray_with_alpha_becomes_rgba(tmp_path: Path, rgb: np.ndarray, suffix: str) -> None:
    gray_alpha = np.ascontiguousarray(rgb[..., :2])
    Image.fromarray(gray_alpha, "LA").save(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(pixels_of(tmp_path / f"a{suffix}"), gray_alpha[..., [0, 0, 0, 1]])


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_keeps_channels_and_depth(tmp_path: Path, shape: tuple[int, ...], dtype: type) -> None:
    image = random_image(shape, dtype)
    write_photo(tmp_path / "a.png", Photo(image))
    read = pixels_of(tmp_path / "a.png")
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, image)
    if dtype == np.uint8:  # the order of the channels, read by another library
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), image)


def test_float_images_are_clipped_with_a_note_and_stored_in_16_bits(tmp_path: Path) -> None:
    image = np.random.default_rng(0).uniform(-0.1, 1.1, (4, 4, 3)).astype(np.float32)
    image[1, 2] = 3.25, 0.5, -0.5
    cv2.imwrite(str(tmp_path / "a.tif"), image[..., ::-1])
    photo = read_photo(tmp_path / "a.tif")
    np.testing.assert_array_equal(photo.pixels, image.clip(0, 1))
    assert "from -0.5 to 3.25; those outside 0 to 1 are clipped" in " ".join(photo.notes)
    write_photo(tmp_path / "a.png", photo)
    stored = pixels_of(tmp_path / "a.png")
    np.testing.assert_allclose(stored / 65535, image.clip(0, 1), atol=0.51 / 65535)


P3 = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()  # any RGB profile


def taken_by_a_camera(orientation: int) -> Image.Exif:
    data = exif(orientation)
    data[ExifTags.Base.Make] = "Maker"
    data.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] = 1.8
    data.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return data


@pytest.mark.parametrize("result", [".png", ".jpg", ".webp", ".tiff"])
@pytest.mark.parametrize("source", [".png", ".jpg", ".webp", ".tif"])
def test_profile_exif_and_dpi_are_carried_over(
    tmp_path: Path, rgb: np.ndarray, source: str, result: str
) -> None:
    written = {"icc_profile": P3, "exif": taken_by_a_camera(6).tobytes(), "dpi": (72, 72)}
    Image.fromarray(rgb).save(tmp_path / f"a{source}", **written)
    write_photo(tmp_path / f"b{result}", read_photo(tmp_path / f"a{source}"))
    with Image.open(tmp_path / f"b{result}") as written:
        assert written.info["icc_profile"] == P3
        data = written.getexif()
        assert data[ExifTags.Base.Make] == "Maker"
        assert data.get(ExifTags.Base.Orientation, 1) == 1
        assert data.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] == pytest.approx(1.8)
        assert data.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
        if ".webp" not in (source, result):  # WebP cannot store dpi
            assert written.info["dpi"] == pytest.approx((72, 72), abs=0.1)
        assert written.size == (6, 10)  # rotated by 90 degrees


@pytest.mark.parametrize("shape", [(6, 10), (6, 10, 3), (6, 10, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("order", ["<", ">"])
def test_metadata_of_tiffs_are_carried_over(
    tmp_path: Path, shape: tuple[int, ...], dtype: type, order: str
) -> None:
    """At every depth: from a PNG's EXIF to a TIFF, and from there to another TIFF."""
    pixels = random_image(shape, dtype)
    data = taken_by_a_camera(1)
    data.endian = order
    profile = P3 if len(shape) == 3 else P3[:16] + b"GRAY" + P3[20:]
    write_photo(tmp_path / "0.tif", Photo(pixels, profile, data.tobytes(), (72, 300.5)))
    write_photo(tmp_path / "1.tif", read_photo(tmp_path / "0.tif"))
    for number in range(2):
        with tifffile.TiffFile(tmp_path / f"{number}.tif") as written:
            page = written.pages.first
            np.testing.assert_array_equal(page.asarray(), pixels)
            assert page.dtype == dtype
            assert page.tags[271].value == "Maker"
            assert page.tags[34665].value["FNumber"] == pytest.approx(1.8)
            assert page.tags[34853].value["GPSLatitudeRef"] == "N"
            assert page.tags[34675].value == profile
            assert page.get_resolution(unit="INCH") == pytest.approx((72, 300.5))


@pytest.mark.parametrize(("unit", "expected"), [("INCH", 50), ("CENTIMETER", 127), (None, None)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_the_resolution_of_tiffs(
    tmp_path: Path, dtype: type, unit: str | None, expected: float | None
) -> None:
    resolution = None if unit is None else (50, 50)
    image = np.zeros((4, 4, 3), dtype)
    tifffile.imwrite(
        tmp_path / "a.tif", image, photometric="rgb", resolution=resolution, resolutionunit=unit
    )
    read = read_photo(tmp_path / "a.tif").dpi
    assert read == (None if expected is None else pytest.approx((expected, expected)))


def test_a_photo_with_a_profile_keeps_its_appearance(tmp_path: Path) -> None:
    """Shown through its profile, which is sRGB with red and green primaries exchanged."""
    colours = np.full((8, 8, 3), (200, 60, 20), np.uint8)
    profile = P3.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    Image.fromarray(colours).save(tmp_path / "a.png", icc_profile=profile)
    photo = read_photo(tmp_path / "a.png")
    for suffix in (".png", ".jpg", ".webp", ".tiff"):
        write_photo(tmp_path / f"b{suffix}", photo, quality=100)
        seen = [as_srgb(tmp_path / name) for name in ("a.png", f"b{suffix}")]
        np.testing.assert_allclose(seen[1], seen[0], atol=3)
        assert np.abs(seen[0].astype(int) - colours).max() > 50


def as_srgb(path: Path) -> np.ndarray:
    """What a colour-managed viewer shows."""
    with Image.open(path) as image:
        source = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        return np.asarray(ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB")))


def test_a_profile_for_another_number_of_channels_is_dropped(
    tmp_path: Path, rgb: np.ndarray
) -> None:
    Image.fromarray(rgb[..., 0]).save(tmp_path / "a.png", icc_profile=P3)
    assert read_photo(tmp_path / "a.png").profile is None


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    red = Image.new("RGB", (16, 16), (200, 30, 10))
    red.convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    assert np.abs(pixels_of(tmp_path / "a.jpg").astype(int) - (200, 30, 10)).max() <= 4
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "red.tif")
    read = pixels_of(tmp_path / "red.tif")
    assert read.shape == (8, 8, 3) and np.abs(read.astype(int) - (255, 0, 0)).max() <= 4
    # An RGB profile does not apply to CMYK.
    red.convert("CMYK").save(tmp_path / "b.jpg", quality=100, icc_profile=P3)
    np.testing.assert_array_equal(pixels_of(tmp_path / "b.jpg"), pixels_of(tmp_path / "a.jpg"))


def heic(path: Path, image: np.ndarray, mode: str, **options: object) -> Path:
    pillow_heif = pytest.importorskip("pillow_heif")
    size = (image.shape[1], image.shape[0])
    pillow_heif.encode(mode, size, image.tobytes(), str(path), quality=100, chroma=444, **options)
    return path


def test_heic_is_read_with_its_profile_and_upright(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    image = np.zeros((64, 80, 3), np.uint8)
    image[:, :40] = (200, 60, 20)
    pillow_heif.register_heif_opener()
    Image.fromarray(image).save(
        tmp_path / "a.heic", quality=100, chroma=444, icc_profile=P3, exif=exif(6).tobytes()
    )
    photo = read_photo(tmp_path / "a.heic")
    upright = np.asarray(Image.open(tmp_path / "a.heic").convert("RGB"))  # by the HEIC plugin
    np.testing.assert_array_equal(photo.pixels, upright)
    assert photo.profile == P3
    write_photo(tmp_path / "b.png", photo)
    assert Image.open(tmp_path / "b.png").getexif().get(ExifTags.Base.Orientation, 1) == 1


def test_heic_of_10_bits_keeps_its_depth(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    image = np.dstack([ramp] * 3)
    photo = read_photo(heic(tmp_path / "a.heic", image, "RGB;16"))
    assert photo.pixels.dtype == np.uint16
    assert len(np.unique(photo.pixels)) > 256
    assert np.abs(photo.pixels.astype(int) - image).max() < 65535 / 100


def test_heic_without_its_package_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(UserError, match=r"a\.heic .* pip install pillow-heif"):
        read_photo(tmp_path / "a.heic")


@pytest.mark.parametrize(
    ("suffix", "dtype", "word"),
    [(".tif", np.uint8, "pages"), (".tif", np.float32, "pages"), (".gif", np.uint8, "frames")],
)
def test_only_the_first_of_several_pages_is_read_and_this_is_reported(
    tmp_path: Path, suffix: str, dtype: type, word: str
) -> None:
    path = tmp_path / f"a{suffix}"
    pages = random_image((3, 8, 9), dtype)
    if suffix == ".gif":
        first, *others = map(Image.fromarray, pages)
        first.save(path, save_all=True, append_images=others)
    else:
        tifffile.imwrite(path, pages, photometric="minisblack")
    photo = read_photo(path)
    seen = photo.pixels[..., 0] if photo.pixels.ndim == 3 else photo.pixels
    np.testing.assert_array_equal(seen, pages[0])
    assert photo.notes == (f"{path} holds 3 {word}; only the first was taken.",)


def test_damaged_jpegs_are_reported(tmp_path: Path) -> None:
    """Decoders fill in what they cannot read without reporting it."""
    path, noise = tmp_path / "a.jpg", random_image((64, 64, 3))
    Image.fromarray(noise).save(path, exif=exif(1))
    assert read_photo(path).notes == ()
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8] = b"\xff\xd7" * 4  # misplaced markers
    path.write_bytes(content)
    (note,) = read_photo(path).notes
    assert note.startswith(f"{path} is damaged, so a part of the picture may be wrong (")


@pytest.mark.skipif(not cv2.haveImageWriter("a.avif"), reason="OpenCV is built without AVIF")
def test_avif_of_more_than_8_bits_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.avif"
    for bits, noted in ((8, ()), (10, (10,)), (12, (12,))):
        image = np.full((16, 16, 3), 2**bits // 2, np.uint8 if bits == 8 else np.uint16)
        cv2.imwrite(str(path), image, [cv2.IMWRITE_AVIF_DEPTH, bits])
        photo = read_photo(path)
        assert photo.pixels.dtype == np.uint8 and np.abs(photo.pixels.astype(int) - 128).max() <= 2
        expected = (
            f"{path} holds {bits} bits per channel; they were reduced to 8." for bits in noted
        )
        assert photo.notes == tuple(expected)


def test_only_the_main_one_of_several_heic_images_is_read_and_this_is_reported(
    tmp_path: Path,
) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "a.heic"
    images = [Image.new("RGB", (64, 64), (gray,) * 3) for gray in (50, 200)]
    file = pillow_heif.from_pillow(images[0])
    file.save(path, quality=100)
    assert read_photo(path).notes == ()
    file.add_from_pillow(images[1])
    file.save(path, quality=100, primary_index=1)
    photo = read_photo(path)
    assert np.abs(photo.pixels.astype(int) - 200).max() <= 2
    assert photo.notes == (f"{path} holds 2 images; only the main one was taken.",)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".heic"])
def test_wide_colours_without_a_profile_are_reported(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    picture = Image.new("RGB", (64, 64), (200, 60, 20))
    if suffix == ".heic":
        pillow_heif = pytest.importorskip("pillow_heif")
        p3 = {"color_primaries": 12, "transfer_characteristics": 13, "matrix_coefficients": 1}
        pillow_heif.from_pillow(picture).save(path, full_range_flag=1, **p3)
        named = "Display P3"
    elif suffix == ".png":
        path.write_bytes(png_with(np.asarray(picture), b"cICP", bytes([9, 16, 0, 1])))
        named = "BT.2020 PQ"
    else:  # as cameras write it
        data = exif(1)
        data.get_ifd(ExifTags.IFD.Exif)[ExifTags.IFD.Interop] = {1: "R03"}
        picture.save(path, exif=data)
        named = "Adobe RGB"
    (note,) = read_photo(path).notes
    assert note.startswith(f"{path} has no profile, but says that its colours are {named}; ")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("white", [100, 255, 1023, 65535])
def test_netpbm_files_state_their_own_maximum(tmp_path: Path, white: int, channels: int) -> None:
    values = np.random.default_rng(0).integers(0, white + 1, (4, 5, channels))
    kind = {1: (b"P5", b"P2"), 3: (b"P6", b"P3")}[channels]
    binary = values.astype(">u2" if white > 255 else np.uint8).tobytes()
    text = b" ".join(b"%d" % value for value in values.ravel()) + b"\n"
    for beginning, body in zip(kind, (binary, text), strict=True):
        (tmp_path / "a.ppm").write_bytes(beginning + b"\n# note 7\n5 4\n%d\n" % white + body)
        read = pixels_of(tmp_path / "a.ppm")
        assert read.dtype == (np.uint16 if white > 255 else np.uint8)
        largest = np.iinfo(read.dtype).max
        expected = np.rint(values.reshape(read.shape) * (largest / white))
        np.testing.assert_allclose(read, expected, atol=1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(tmp_path: Path, value: float) -> None:
    image = np.full((4, 4, 3), 0.5, np.float32)
    image[1, 2, 0] = value
    cv2.imwrite(str(tmp_path / "a.tif"), image)
    with pytest.raises(UserError, match=r"a\.tif holds values that are NaN or infinite"):
        read_photo(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_lossy_formats_are_close_and_follow_the_quality(
    tmp_path: Path, suffix: str, dtype: type
) -> None:
    y, x = np.mgrid[0:64, 0:80] / 80
    scale = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[dtype]
    noise = np.random.default_rng(0).normal(0, 0.05, (64, 80, 1))
    image = (np.dstack([x, y, x * y]) + noise).clip(0, 1)
    values = (image * scale).astype(dtype)
    sizes = []
    for quality in (30, 95):
        write_photo(tmp_path / f"a{suffix}", Photo(values), quality)
        sizes.append((tmp_path / f"a{suffix}").stat().st_size)
    assert sizes[1] > 2 * sizes[0]
    error = pixels_of(tmp_path / f"a{suffix}") / 255 - image
    assert np.sqrt((error**2).mean()) < 0.03


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_planar_tiffs(tmp_path: Path, dtype: type, orientation: int) -> None:
    image = random_image((5, 7, 3), dtype)
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.moveaxis(image, -1, 0).copy(),
        photometric="rgb",
        planarconfig="separate",
        extratags=[(ExifTags.Base.Orientation, "H", 1, orientation, True)],
    )
    expected = np.rot90(image, -1) if orientation == 6 else image
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.tif"), expected)


def test_webp_at_quality_100_is_lossless(tmp_path: Path, rgb: np.ndarray) -> None:
    rgba = np.dstack([rgb, rgb[..., 0]])
    write_photo(tmp_path / "a.webp", Photo(rgba), quality=100)
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.webp"), rgba)


def png_with(image: np.ndarray, kind: bytes, data: bytes) -> bytes:
    """A PNG with an extra chunk after its first."""
    encoded = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)[1].tobytes()
    return encoded[:33] + write_chunk(kind, data) + encoded[33:]


SRGB = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)  # white, red, green, blue
ADOBE = (31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)


@pytest.mark.parametrize(
    ("kind", "data", "named"),
    [
        (b"gAMA", struct.pack(">I", 45455), None),
        (b"gAMA", struct.pack(">I", 100_000), "of gamma 1"),
        (b"gAMA", struct.pack(">I", 55556), "of gamma 1.8"),
        (b"cHRM", struct.pack(">8I", *SRGB), None),
        (b"cHRM", struct.pack(">8I", *ADOBE), "of other primaries"),
    ],
)
def test_png_colours_without_a_profile_are_reported(
    tmp_path: Path, rgb: np.ndarray, kind: bytes, data: bytes, named: str | None
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_with(rgb, kind, data))
    sentence = (
        f"{path} has no profile, but says that its colours are {named}; viewers will show the "
        "result as sRGB."
    )
    assert read_photo(path).notes == ((sentence,) if named else ())
    content = path.read_bytes()  # a chunk with precedence decides
    path.write_bytes(content[:33] + write_chunk(b"sRGB", b"\0") + content[33:])
    assert read_photo(path).notes == ()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_xmp_is_dropped_and_reported(tmp_path: Path, rgb: np.ndarray, suffix: str) -> None:
    path, packet = tmp_path / f"a{suffix}", b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
    if suffix == ".png":
        path.write_bytes(png_with(rgb, b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + packet))
    elif suffix == ".tif":
        tag = (700, "B", len(packet), packet, True)
        tifffile.imwrite(path, rgb.astype(np.uint16), photometric="rgb", extratags=[tag])
    else:
        Image.fromarray(rgb).save(path, xmp=packet)
    photo = read_photo(path)
    assert photo.notes == (f"{path} has XMP metadata, which is left out.",)
    write_photo(tmp_path / "b.png", photo)
    assert b"xmp" not in (tmp_path / "b.png").read_bytes()


def test_further_images_of_a_phone_are_reported(tmp_path: Path, rgb: np.ndarray) -> None:
    path = tmp_path / "a.jpg"
    other = Image.fromarray(255 - rgb)
    Image.fromarray(rgb).save(path, "MPO", save_all=True, append_images=[other], quality=100)
    photo = read_photo(path)
    np.testing.assert_allclose(photo.pixels, Image.open(path).convert("RGB"), atol=1)
    assert photo.notes == (f"{path} holds 2 images; only the first was taken.",)


def test_transparency_of_16_bit_gray(tmp_path: Path) -> None:
    gray = random_image((5, 7), np.uint16)
    gray[1, 2:4] = 0x1234
    (tmp_path / "a.png").write_bytes(png_with(gray, b"tRNS", b"\x12\x34"))
    expected = np.dstack([gray] * 3 + [np.full((5, 7), 65535, np.uint16)])
    expected[1, 2:4, 3] = 0
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("extras", "kept"),
    [
        (["unspecified"], 3),
        (["unspecified", "unspecified"], 3),
        (["unassalpha", "unspecified"], 4),
        (["unassalpha"], 4),
    ],
)
def test_channels_besides_colours_and_alpha_are_dropped_and_reported(
    tmp_path: Path, dtype: type, extras: list[str], kept: int
) -> None:
    shape = (5, 7, 3 + len(extras))
    image = random_image(shape, dtype)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", extrasamples=extras)
    photo = read_photo(tmp_path / "a.tif")
    np.testing.assert_array_equal(photo.pixels, image[..., :kept])
    note = f"{tmp_path / 'a.tif'} has {shape[2]} channels; only the first {kept} were taken."
    assert photo.notes == ((note,) if kept < shape[2] else ())


@pytest.mark.parametrize("orientation", [1, 6])
def test_ycbcr_tiffs_without_compression(tmp_path: Path, orientation: int) -> None:
    """Compared with the formulas of ITU-R BT.601 in full range."""
    rgb = np.random.default_rng(0).integers(0, 256, (6, 10, 3)).astype(np.float64)
    y = rgb @ (0.299, 0.587, 0.114)
    cb, cr = 128 + (rgb[..., 2] - y) / 1.772, 128 + (rgb[..., 0] - y) / 1.402
    stored = np.rint(np.dstack([y, cb, cr])).clip(0, 255).astype(np.uint8)
    tag = (ExifTags.Base.Orientation, "H", 1, orientation, True)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="ycbcr", extratags=[tag])
    expected = np.rot90(rgb, -1) if orientation == 6 else rgb
    np.testing.assert_allclose(pixels_of(tmp_path / "a.tif"), expected, atol=2)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_half_floats(tmp_path: Path, shape: tuple[int, ...], compression: str | None) -> None:
    image = random_image(shape, np.float16)
    kind = "rgb" if len(shape) == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", image, photometric=kind, compression=compression)
    read = pixels_of(tmp_path / "a.tif")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, image.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiffs_that_begin_with_a_thumbnail(tmp_path: Path, dtype: type) -> None:
    image = random_image((12, 20, 3), dtype)
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(image[::4, ::4], photometric="rgb", subfiletype=1)
        file.write(image, photometric="rgb", compression="zlib")
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.pixels, image)
    assert num_pixels(path) == 12 * 20
    note = "holds 2 pages, of which the first is a reduced image; page 2 was taken."
    assert photo.notes == (f"{path} {note}",)
    with pytest.raises(UserError, match=r"first page is a reduced image; store page 2 alone"):
        read_rgb(path)


def test_the_resolution_is_turned_with_the_photo(tmp_path: Path, rgb: np.ndarray) -> None:
    for suffix in (".jpg", ".tif"):
        path = tmp_path / f"a{suffix}"
        Image.fromarray(rgb).save(path, exif=exif(6), dpi=(72, 300))
        assert read_photo(path).dpi == pytest.approx((300, 72), abs=0.1)
        Image.fromarray(rgb).save(path, exif=exif(3), dpi=(72, 300))
        assert read_photo(path).dpi == pytest.approx((72, 300), abs=0.1)


def test_16_bits_are_rounded_to_8(tmp_path: Path) -> None:
    """One 8-bit step is 257: 128 is rounded to 0 and 129 to 1."""
    values = np.array([[0, 128, 129, 385, 386, 65406, 65407, 65535]], np.uint16)
    write_photo(tmp_path / "a.webp", Photo(values), quality=100)
    stored = np.asarray(Image.open(tmp_path / "a.webp"))[0, :, 0]
    assert stored.tolist() == [0, 0, 1, 1, 2, 254, 255, 255]


@pytest.mark.parametrize(("quality", "kept"), [(95, True), (90, True), (89, False)])
def test_jpeg_keeps_all_colours_from_quality_90_on(
    tmp_path: Path, quality: int, kept: bool
) -> None:
    """With chroma subsampling, red and green stripes of one pixel turn brown."""
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = (200, 20, 20)
    stripes[:, 1::2] = (20, 120, 20)
    write_photo(tmp_path / "a.jpg", Photo(stripes), quality)
    difference = pixels_of(tmp_path / "a.jpg")[:, ::2, 0].astype(int) - 200
    assert (np.abs(difference).mean() < 8) == kept


def test_photos_that_a_format_cannot_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"70000 x 1 pixels do not fit into JPEG; take png"):
        write_photo(tmp_path / "a.jpg", Photo(np.zeros((1, 70000), np.uint8)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kept", [0.0, 0.05, 0.6, 0.99])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp", ".avif", ".heic"])
def test_truncated_photos_are_refused_by_name(
    tmp_path: Path, suffix: str, kept: float, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"photo{suffix}"
    noise = random_image((120, 90, 3))
    if suffix == ".heic":
        heic(path, noise, "RGB")
    else:
        Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UserError, match=f"photo{suffix}"):
        read_photo(path)
    assert capfd.readouterr().err == ""


def one_file_of_each_kind(folder: Path) -> dict[str, bytes]:
    """Small files of every format, compression and depth, by name."""
    y, x = np.mgrid[0:40, 0:50]
    image = np.stack([x * 5, y * 6, x + y], -1).astype(np.uint8)
    deep, floats = image.astype(np.uint16) * 257, (image / 255).astype(np.float32)
    planes = {"photometric": "rgb", "planarconfig": "separate"}
    picture, other = Image.fromarray(image), Image.fromarray(255 - image)
    for name, options in (
        ("a.jpg", {"exif": exif(6), "icc_profile": P3}),
        ("progressive.jpg", {"progressive": True}),
        ("a.png", {"exif": exif(6), "icc_profile": P3}),
        ("a.tif", {"exif": exif(6)}),
        ("deflate.tif", {"compression": "tiff_adobe_deflate"}),
        ("lzw.tif", {"compression": "tiff_lzw"}),
        ("pages.tif", {"save_all": True, "append_images": [other]}),
        ("a.webp", {}),
        ("lossless.webp", {"lossless": True}),
        ("frames.webp", {"save_all": True, "append_images": [other]}),
        ("frames.gif", {"save_all": True, "append_images": [other]}),
        ("a.bmp", {}),
        ("a.ppm", {}),
        ("a.avif", {}),
    ):
        picture.save(folder / name, **options)
    write_photo(folder / "deep.png", Photo(deep))
    tifffile.imwrite(folder / "deep.tif", deep, photometric="rgb")
    tifffile.imwrite(folder / "deep planes.tif", np.moveaxis(deep, -1, 0).copy(), **planes)
    tifffile.imwrite(
        folder / "zip planes.tif", np.moveaxis(deep, -1, 0).copy(), compression="zlib", **planes
    )
    tifffile.imwrite(folder / "float.tif", floats, photometric="rgb", compression="zlib")
    tifffile.imwrite(folder / "float planes.tif", np.moveaxis(floats, -1, 0).copy(), **planes)
    cv2.imwrite(str(folder / "deep lzw.tif"), deep)
    if importlib.util.find_spec("pillow_heif"):
        heic(folder / "a.heic", image, "RGB")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_any_damaged_file_gives_a_picture_or_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Files are truncated or have changed bytes, mostly in headers; a crash would end a run."""
    rng = np.random.default_rng(0)
    (tmp_path / "whole").mkdir()
    outcomes = {"read": 0, "refused": 0}
    for name, content in one_file_of_each_kind(tmp_path / "whole").items():
        damaged = [content[:cut] for cut in (*range(3, 330, 25), len(content) * 2 // 3)]
        for number in range(12):
            changed = bytearray(content)
            first = (0, max(len(content) - 250, 0))[number % 2]  # libtiff's header is at the end
            for place in first + rng.integers(0, min(len(content), 250), 1 + number % 3):
                changed[place] = rng.integers(0, 256)
            damaged.append(bytes(changed))
        path = tmp_path / f"damaged {name}"
        for content in damaged:
            path.write_bytes(content)
            try:
                photo = read_photo(path)
            except UserError as error:
                assert path.name in str(error) and "\n" not in str(error)
                outcomes["refused"] += 1
            else:
                assert photo.pixels.dtype in (np.uint8, np.uint16, np.float32)
                assert photo.pixels.shape[2:] in ((), (3,), (4,)) and photo.pixels.size
                outcomes["read"] += 1
    assert min(outcomes.values()) > 50
    assert "tifffile" not in capfd.readouterr().err  # its lines would break the progress bar


def test_a_huge_size_in_a_damaged_header_is_refused(tmp_path: Path) -> None:
    """The 5 GB are not allocated."""
    path = tmp_path / "a.webp"
    frames = [Image.new("RGB", (80, 64), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    content = bytearray(path.read_bytes())
    assert content[12:16] == b"VP8X" and content[27] == 63  # the height less 1, in 3 bytes
    content[29] = 64
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.webp claims to hold 80 x 4194368 pixels in \d+ bytes"):
        read_photo(path)


def test_damage_after_the_first_page_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.full((3, 40, 50), 77, np.uint8), photometric="minisblack")
    content = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        width = file.pages[1].tags[256].offset
    path.write_bytes(content[:width] + b"\xff\xff" + content[width + 2 :])  # removes the width
    photo = read_photo(path)
    assert (photo.pixels == 77).all()
    (note,) = photo.notes
    assert note == f"{path} holds damaged pages after the first; only that one was taken."
