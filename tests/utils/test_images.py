"""Image files of every kind are read upright with all their channels, and broken ones refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageOps

from utils import images
from utils.errors import UserError


@pytest.fixture
def rgb() -> np.ndarray:
    """(6, 10, 3) uint8 with four different corners."""
    return np.random.default_rng(0).integers(0, 256, (6, 10, 3)).astype(np.uint8)


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[ExifTags.Base.Orientation] = orientation
    return data


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_lossless_formats(tmp_path: Path, rgb: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(rgb).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    for read in (images.read_rgb, images.read_gray_or_rgb):
        np.testing.assert_array_equal(read(path), rgb)


def test_gray_stays_gray_or_becomes_rgb(tmp_path: Path, rgb: np.ndarray) -> None:
    gray = rgb[..., 0]
    Image.fromarray(gray).save(tmp_path / "a.png")
    np.testing.assert_array_equal(images.read_gray_or_rgb(tmp_path / "a.png"), gray)
    np.testing.assert_array_equal(images.read_rgb(tmp_path / "a.png"), np.dstack([gray] * 3))


def test_palettes_become_colours(tmp_path: Path, rgb: np.ndarray) -> None:
    palette = Image.fromarray(rgb).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "a.png")
    expected = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(images.read_gray_or_rgb(tmp_path / "a.png"), expected)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    red = Image.new("RGB", (16, 16), (200, 30, 10))
    red.convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    difference = images.read_gray_or_rgb(tmp_path / "a.jpg").astype(int) - (200, 30, 10)
    assert np.abs(difference).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".jpg"])
def test_exif_orientation(tmp_path: Path, rgb: np.ndarray, orientation: int, suffix: str) -> None:
    options = {".webp": {"lossless": True}, ".jpg": {"quality": 100, "subsampling": 0}}
    path = tmp_path / f"a{suffix}"
    Image.fromarray(rgb).save(path, exif=exif(orientation), **options.get(suffix, {}))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB")).astype(int)
    tolerance = 3 if suffix == ".jpg" else 0
    for read in (images.read_rgb, images.read_gray_or_rgb):
        np.testing.assert_allclose(read(path), upright, atol=tolerance)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_float_tiffs(tmp_path: Path, channels: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).random((6, 10, *channels)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb" if channels else "minisblack")
    np.testing.assert_array_equal(images.read_gray_or_rgb(tmp_path / "a.tif"), image)
    rgb = image if channels else np.dstack([image] * 3)
    np.testing.assert_array_equal(images.read_rgb(tmp_path / "a.tif"), rgb)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiffs_whose_channels_follow_one_another(
    tmp_path: Path, rgb: np.ndarray, dtype: type
) -> None:
    """Above 8 bits OpenCV mixes them up, so they are refused."""
    planes = np.moveaxis(rgb, -1, 0).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
    for read in (images.read_rgb, images.read_gray_or_rgb):
        if dtype == np.uint8:
            np.testing.assert_array_equal(read(tmp_path / "a.tif"), rgb)
        else:
            with pytest.raises(UserError, match=r"a\.tif is a TIFF .*in planes.* as RGB in a PNG"):
                read(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", [np.int32, np.float64])
def test_other_types_are_refused_by_name(tmp_path: Path, dtype: type) -> None:
    cv2.imwrite(str(tmp_path / "a.tif"), np.full((4, 4), 30000, dtype))
    with pytest.raises(UserError, match=rf"a\.tif holds {np.dtype(dtype)} values"):
        images.read_gray_or_rgb(tmp_path / "a.tif")


@pytest.mark.parametrize("kept", [0.0, 0.05, 0.6, 0.99])
@pytest.mark.parametrize("suffix", images.SUFFIXES)
def test_truncated_files_are_refused_by_name(
    tmp_path: Path, suffix: str, kept: float, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"photo{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (120, 90, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    for read in (images.read_rgb, images.read_gray_or_rgb):
        with pytest.raises(UserError, match=f"photo{suffix}"):
            read(path)
    assert capfd.readouterr().err == ""


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        images.read_gray_or_rgb(tmp_path / "a.png")


def test_listing_is_natural_and_takes_visible_images_only(tmp_path: Path) -> None:
    for name in ("10.png", "2.JPG", "b.webp", "A.bmp", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    names = [path.name for path in images.list_images(tmp_path)]
    assert names == ["2.JPG", "10.png", "A.bmp", "b.webp"]
    assert list(images.images_by_stem(tmp_path)) == ["2", "10", "A", "b"]


def test_listing_refuses_missing_and_empty_folders_and_ambiguous_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        images.list_images(tmp_path / "absent")
    with pytest.raises(UserError, match="holds no image"):
        images.list_images(tmp_path)
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"gone\.png is a link to nowhere\.png"):
        images.list_images(tmp_path)
    (tmp_path / "gone.png").unlink()
    for name in ("a.png", "a.jpg"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match="same name but for the suffix"):
        images.images_by_stem(tmp_path)


def test_values_round_to_the_nearest() -> None:
    values = np.array([-1, 0.4 / 255, 0.6 / 255, 1, 2])
    assert images.to_uint8(values).tolist() == [0, 0, 1, 255, 255]
    np.testing.assert_allclose(images.to_float(np.array([0, 255], np.uint8)), [0, 1])
    np.testing.assert_allclose(images.to_float(np.array([0, 65535], np.uint16)), [0, 1])
