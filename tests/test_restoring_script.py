"""test.py as a user runs it: inputs, results, options, and one sentence per mistake."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

import test as script
from models import build_model, load_weights
from models.published import to_published
from tests.helpers import (
    ROOT,
    SMALL_DMSR,
    as_ordinary_user,
    run_script,
    smooth_image,
    write_random_weights,
)
from utils import images
from utils.checkpoints import Weights, write_weights
from utils.errors import UserError
from utils.inference.arguments import parse_arguments, restoring_options
from utils.inference.photos import read_photo
from utils.inference.restorer import Restorer

Run = Callable[..., int]
Capsys = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_weights(tmp_path_factory.mktemp("weights") / "small.safetensors")


@pytest.fixture
def run(weights: Path) -> Run:
    """``run(*arguments)`` runs test.py with small weights in this process; returns the status."""

    def call(*arguments: object) -> int:
        given = ["--weights", weights] if "--weights" not in arguments else []
        return script.main([str(argument) for argument in (*given, *arguments)])

    return call


@pytest.fixture
def restored_shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Replaces the network by the identity and lists the shapes of the images it is given."""
    shapes: list[tuple[int, ...]] = []

    def restore(self: Restorer, image: np.ndarray) -> np.ndarray:
        shapes.append(image.shape)
        return image

    monkeypatch.setattr(Restorer, "__call__", restore)
    return shapes


def pixels_of(path: Path) -> np.ndarray:
    return read_photo(path).pixels


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def write_images(folder: Path, *names: object) -> None:
    """Small images; a number is also the seed of its image."""
    for name in names:
        seed = name if isinstance(name, int) else 1
        images.write_png(folder / f"{name}.png", smooth_image(seed, 8, 8))


def write_image(path: Path, image: np.ndarray) -> Path:
    images.write_png(path.parent / "new.png", image)  # only the content decides
    return (path.parent / "new.png").rename(path)


def test_a_folder_becomes_a_folder_with_the_same_names(
    run: Run, weights: Path, tmp_path: Path
) -> None:
    inputs = {
        "1": smooth_image(1, 40, 70),
        "2": smooth_image(2, 80, 64)[..., 0],
        "10": np.dstack([smooth_image(3, 20, 20), np.full((20, 20), 9, np.uint8)]),
        "deep": smooth_image(4, 65, 66).astype(np.uint16) * 257,
    }
    for name, image in inputs.items():
        images.write_png(tmp_path / "in" / f"{name}.png", image)
    assert run("--input", tmp_path / "in", "--output", tmp_path / "out") == 0
    assert files_in(tmp_path / "out") == ["1.png", "10.png", "2.png", "deep.png"]
    network = load_weights(weights)
    for name, image in inputs.items():
        restored = pixels_of(tmp_path / "out" / f"{name}.png")
        assert restored.dtype == image.dtype
        np.testing.assert_array_equal(restored, Restorer(network)(image))


def test_options_reach_the_restorer(run: Run, weights: Path, tmp_path: Path) -> None:
    image = smooth_image(1, 150, 170)
    images.write_png(tmp_path / "a.png", image)
    network = load_weights(weights)
    seen = []
    for arguments, options in (
        ([], {}),
        (["--tile", "96", "--overlap", "16"], {"tile": 96, "overlap": 16}),
        (["--tile", "released"], {"tile": "released"}),
        (["--ensemble", "8"], {"ensemble": 8}),
        (["--precision", "bf16"], {"precision": "bf16"}),
        (["--strength", "0.5"], {"strength": 0.5}),
        (["--memory", "0.5"], {"memory": 2**29}),
    ):
        assert run("--input", tmp_path / "a.png", "--output", tmp_path / "out", *arguments) == 0
        seen.append(pixels_of(tmp_path / "out" / "a.png"))
        np.testing.assert_array_equal(
            seen[-1], Restorer(network, notify=lambda line: None, **options)(image)
        )
    assert len({restored.tobytes() for restored in seen[:-1]}) == 6


def test_memory_is_given_in_gib() -> None:
    arguments = ["--input", "a.png", "--memory", "1.75", "--device", "cpu"]
    options = restoring_options(parse_arguments("", arguments))
    assert options.memory == 1_879_048_192  # 1.75 * 1024**3
    assert restoring_options(parse_arguments("", arguments[:2])).memory is None


def test_wrong_options_are_refused_before_the_weights_are_read(run: Run, tmp_path: Path) -> None:
    images.write_png(tmp_path / "a.png", smooth_image(1, 8, 8))
    for option, value, sentence in (
        ("--tile", 10, "at least 64"),
        ("--strength", 1.5, "The strength is 1.5; it may be 0 to 1"),
        ("--overlap", -1, "may not be negative"),
        ("--precision", "fp16", "fp16 is for GPUs"),
    ):
        arguments = ("--input", tmp_path / "a.png", "--weights", tmp_path / "absent.safetensors")
        with pytest.raises(UserError, match=sentence):
            run(*arguments, "--device", "cpu", option, value)


def test_an_authors_checkpoint_gives_the_same_image(run: Run, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = build_model("dmsr_s").eval()
    published = {f"module.{name}": value for name, value in to_published(network).items()}
    torch.save({"state_dict": published}, tmp_path / "authors.pth")
    image = smooth_image(1, 70, 70)
    images.write_png(tmp_path / "a.png", image)
    arguments = ("--weights", tmp_path / "authors.pth", "--input", tmp_path / "a.png")
    assert run(*arguments, "--model", "dmsr_s", "--output", tmp_path / "out") == 0
    restored = pixels_of(tmp_path / "out" / "a.png")
    np.testing.assert_array_equal(restored, Restorer(network)(image))
    with pytest.raises(UserError, match="--model"):
        run(*arguments, "--output", tmp_path / "out")


def test_model_spandrel_reports_files_it_cannot_read(run: Run, tmp_path: Path) -> None:
    images.write_png(tmp_path / "a.png", smooth_image(1, 8, 8))
    torch.save({"epoch": 3}, tmp_path / "theirs.pth.tar")
    arguments = ("--input", tmp_path / "a.png", "--weights", tmp_path / "theirs.pth.tar")
    with pytest.raises(UserError, match=r"theirs\.pth\.tar holds no named tensors"):
        run(*arguments, "--model", "spandrel")


def test_without_weights_the_shipped_network_is_used(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    assert script.SHIPPED_WEIGHTS == ROOT / "weights" / "petrichor.safetensors"
    images.write_png(tmp_path / "a.png", smooth_image(1, 64, 64))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(script, "SHIPPED_WEIGHTS", weights)
    assert script.main(["--input", "a.png"]) == 0
    assert f"network that ships with the project ({weights})" in capsys.readouterr().err
    assert files_in(tmp_path) == ["a.png", "results/a.png"]
    monkeypatch.setattr(script, "SHIPPED_WEIGHTS", tmp_path / "absent.safetensors")
    with pytest.raises(UserError, match=r"absent\.safetensors.*name a file"):
        script.main(["--input", "a.png"])


def test_precision_is_measured_by_default_only_for_images_and_the_shipped_network(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    """The detection of bf16 is patched: without native support, float32 needs no measuring."""
    image = smooth_image(1, 64, 64)
    images.write_png(tmp_path / "a.png", image)
    video = write_video(tmp_path / "v.mkv", 1)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(script, "SHIPPED_WEIGHTS", weights)
    for source, arguments, is_tried in (
        (tmp_path / "a.png", [], True),
        (tmp_path / "a.png", ["--precision", "float32"], False),
        (tmp_path / "a.png", ["--precision", "auto", "--weights", weights], True),
        (tmp_path / "a.png", ["--weights", weights], False),
        (video, [], False),
        (video, ["--precision", "auto"], True),
    ):
        given = ["--input", source, "--output", tmp_path / "out", "--device", "cpu", *arguments]
        assert script.main(list(map(str, given))) == 0
        printed = capsys.readouterr().err
        assert (
            "precision: float32, since this processor has no native bf16" in printed
        ) == is_tried


def test_videos_stay_in_float32_where_photographs_are_restored_in_bf16(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    """The processor and the clock are patched: bf16 is native and ten times as fast."""
    image = smooth_image(1, 64, 64)
    images.write_png(tmp_path / "in" / "a.png", image)
    write_video(tmp_path / "in" / "v.mkv", 1)
    used = []

    class Recorded(Restorer):
        def __call__(self, image: np.ndarray) -> np.ndarray:
            used.append((image.dtype.name, self.options.precision))
            return super().__call__(image)

    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(script, "SHIPPED_WEIGHTS", weights)
    monkeypatch.setattr(script, "Restorer", Recorded)
    for options, video_precision in (([], "float32"), (["--precision", "auto"], "bf16")):
        seconds = (1.0, 0.1, 1.0, 0.1)  # float32 and bf16: warm-up, then measured
        ends = np.cumsum([step for second in seconds for step in (5, second)])
        with monkeypatch.context() as patch:
            now = iter(ends.tolist())
            patch.setattr("utils.inference.precision.perf_counter", lambda now=now: next(now))
            given = ["--input", tmp_path / "in", "--output", tmp_path / "out", "--device", "cpu"]
            assert script.main(list(map(str, [*given, *options]))) == 0
        assert "precision: bf16, which is 10.0 times as fast" in capsys.readouterr().err
        assert used == [("uint8", "bf16"), ("float32", video_precision)]
        used.clear()
    expected = Restorer(load_weights(weights), precision="bf16", notify=lambda line: None)(image)
    np.testing.assert_array_equal(pixels_of(tmp_path / "out" / "a.png"), expected)


def test_files_that_cannot_be_restored_are_named_and_the_rest_is_restored(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    write_images(tmp_path / "in", *"abc")
    (tmp_path / "in" / "0.png").write_bytes(b"no image")
    (tmp_path / "in" / "4.mp4").write_bytes(b"no video")

    def restore(self: Restorer, image: np.ndarray) -> np.ndarray:
        (tmp_path / "out" / "a.png").mkdir(parents=True, exist_ok=True)  # as another program might
        return image

    monkeypatch.setattr(Restorer, "__call__", restore)
    assert run("--input", tmp_path / "in", "--output", tmp_path / "out") == 1
    assert files_in(tmp_path / "out") == ["b.png", "c.png"]
    printed = capsys.readouterr().err
    assert "3 of 5 could not be restored" in printed and "Cannot write" in printed
    assert "0.png is not a readable image" in printed
    assert "4.mp4 is not a readable video" in printed


def test_a_full_disk_ends_the_folder(
    run: Run,
    tmp_path: Path,
    restored_shapes: list[tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capsys,
) -> None:
    """os.replace is patched: a test cannot fill a disk."""
    write_images(tmp_path / "in", *range(6))
    (tmp_path / "in" / "0.png").write_bytes(b"no image")

    def replace(source: Path, target: Path) -> None:
        if Path(target).name == "2.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        os.rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(UserError, match=r"2\.png: No space left on device\. 5 of 6 images are not"):
        run("--input", tmp_path / "in", "--output", tmp_path / "out")
    assert files_in(tmp_path / "out") == ["1.png"]
    assert len(restored_shapes) < 5  # at most those waiting to be written
    assert "1 of 6 could not be restored" in capsys.readouterr().err


def test_a_size_that_the_format_cannot_hold_is_reported_before_restoring(
    run: Run, tmp_path: Path, restored_shapes: list[tuple[int, ...]], capsys: Capsys
) -> None:
    images.write_png(tmp_path / "in" / "wide.png", np.zeros((2, 16384), np.uint8))
    images.write_png(tmp_path / "in" / "fits.png", np.zeros((2, 16383), np.uint8))
    arguments = ("--input", tmp_path / "in", "--output", tmp_path / "out", "--format", "webp")
    assert run(*arguments) == 1
    assert restored_shapes == [(2, 16383)]
    assert files_in(tmp_path / "out") == ["fits.webp"]
    printed = capsys.readouterr().err
    assert "wide.webp: 16384 x 2 pixels do not fit into WEBP; take png." in printed


def test_a_restoring_error_names_its_file(run: Run, tmp_path: Path, capsys: Capsys) -> None:
    torch.manual_seed(0)
    network = build_model("dmsr_s", SMALL_DMSR)
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, torch.nan)
    weights = Weights("dmsr_s", SMALL_DMSR, network.state_dict(), {})
    write_weights(tmp_path / "nan.safetensors", weights)
    write_images(tmp_path / "in", *"ab")
    arguments = ("--weights", tmp_path / "nan.safetensors", "--input", tmp_path / "in")
    assert run(*arguments, "--output", tmp_path / "out") == 1
    printed = capsys.readouterr().err.splitlines()
    for name in "ab":
        sentence = "The network's result in float32 is NaN or infinite; are these weights broken?"
        # at once and at the end
        assert printed.count(f"{tmp_path / 'in' / name}.png: {sentence}") == 2


@pytest.mark.parametrize("half", ["left", "right"])
def test_only_the_chosen_half_of_each_image_is_restored(
    run: Run, tmp_path: Path, half: str
) -> None:
    """The middle column of an odd width belongs to the right half."""
    image = smooth_image(1, 40, 131)
    images.write_png(tmp_path / "a.png", image)
    arguments = ("--input", tmp_path / "a.png", "--output", tmp_path / "out")
    assert run(*arguments, "--half", half, "--strength", 0) == 0
    expected = image[:, :65] if half == "left" else image[:, 65:]
    np.testing.assert_array_equal(pixels_of(tmp_path / "out" / "a.png"), expected)


@pytest.mark.parametrize("options", [(), ("--skip-existing",)])
def test_outputs_that_cannot_be_written_are_refused_before_anything_is_computed(
    run: Run, tmp_path: Path, options: tuple[str, ...]
) -> None:
    write_images(tmp_path / "in", "a", "b", "sub/c")
    (tmp_path / "out" / "b.png").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"kept")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "sub").write_bytes(b"kept")
    one, folder = tmp_path / "in" / "a.png", tmp_path / "in"
    for source, output, sentence in (
        (folder, "out", r"Cannot write .*out/b\.png: a folder has that name; take another"),
        (folder, "file", "Cannot write to .*: .*/file is a file; take another --output"),
        (folder, "other", "Cannot write to .*other/sub: .*other/sub is a file; take another"),
        (one, "file", "Cannot write to .*file: .*file is a file; take another --output"),
        (one, "file/a.jpg", "Cannot write to .*file: .*file is a file; take another --output"),
        (one, "n" * 252 + ".jpg", "Cannot write .*: File name too long"),
    ):
        before = files_in(tmp_path)
        with pytest.raises(UserError, match=sentence):
            run("--input", source, "--output", tmp_path / output, "--recursive", *options)
        assert files_in(tmp_path) == before
    assert (tmp_path / "file").read_bytes() == b"kept"


def test_the_suffix_of_the_output_may_be_in_capitals(run: Run, tmp_path: Path) -> None:
    images.write_png(tmp_path / "a.png", smooth_image(1, 40, 60))
    video = write_video(tmp_path / "v.MOV", 2)
    for name in ("X.JPG", "X.TIF", "X.WEBP", "X.PNG"):
        assert run("--input", tmp_path / "a.png", "--output", tmp_path / "out" / name) == 0
        with Image.open(tmp_path / "out" / name) as written:
            assert written.size == (60, 40)
            assert written.format[0] == name[2]
    assert run("--input", video, "--output", tmp_path / "out" / "V.MP4") == 0
    assert len(decoded(tmp_path / "out" / "V.MP4")) == 2
    assert files_in(tmp_path / "out") == ["V.MP4", "X.JPG", "X.PNG", "X.TIF", "X.WEBP"]


def test_a_photo_keeps_its_metadata_in_another_format(
    run: Run, weights: Path, tmp_path: Path
) -> None:
    image = smooth_image(1, 70, 80)
    details = Image.Exif()
    details[ExifTags.Base.Make] = "Maker"
    Image.fromarray(image).save(tmp_path / "a.webp", lossless=True, exif=details)
    arguments = ("--input", tmp_path / "a.webp", "--output")
    assert run(*arguments, tmp_path / "x.jpg", "--quality", 100) == 0
    assert run(*arguments, tmp_path / "y.jpg", "--quality", 10) == 0
    assert run(*arguments, tmp_path / "out", "--format", "tiff") == 0
    assert files_in(tmp_path) == ["a.webp", "out/a.tiff", "x.jpg", "y.jpg"]
    restored = Restorer(load_weights(weights))(image)
    np.testing.assert_array_equal(pixels_of(tmp_path / "out" / "a.tiff"), restored)
    assert np.abs(pixels_of(tmp_path / "x.jpg").astype(int) - restored).mean() < 2
    assert (tmp_path / "y.jpg").stat().st_size < (tmp_path / "x.jpg").stat().st_size / 2
    for result in ("x.jpg", "out/a.tiff"):
        with Image.open(tmp_path / result) as written:
            assert written.getexif()[ExifTags.Base.Make] == "Maker"


def test_problems_are_reported_when_they_happen_and_again_after_ctrl_c(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    write_images(tmp_path / "in", 2, 3)
    (tmp_path / "in" / "1.png").write_bytes(b"no image")
    calls = []

    def interrupted(self: Restorer, image: np.ndarray) -> np.ndarray:
        calls.append(capsys.readouterr().err)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return image

    monkeypatch.setattr(Restorer, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("--input", tmp_path / "in", "--output", tmp_path / "out")
    assert "1.png is not a readable image" in calls[0]
    printed = capsys.readouterr().err
    assert "1 of 3 could not be restored" in printed and "1.png is not a readable image" in printed
    assert files_in(tmp_path / "out") == ["2.png"]
    np.testing.assert_array_equal(pixels_of(tmp_path / "out" / "2.png"), smooth_image(2, 8, 8))


def test_left_overs_of_killed_runs_are_removed(run: Run, tmp_path: Path) -> None:
    write_images(tmp_path / "in", "a")
    (tmp_path / "out").mkdir()
    for name in (
        ".partial-a-0b_x3c4d.png",
        ".partial-b-0b_x3c4d.png",
        ".a.png",
        ".partial-a-b.png",
    ):
        (tmp_path / "out" / name).touch()
    assert run("--input", tmp_path / "in", "--output", tmp_path / "out") == 0
    assert files_in(tmp_path / "out") == [
        ".a.png",
        ".partial-a-b.png",
        ".partial-b-0b_x3c4d.png",
        "a.png",
    ]


@pytest.mark.parametrize("closed", ["small.safetensors", "in/a.png", "in", "out"])
def test_missing_permissions_are_reported_in_one_sentence(
    weights: Path, tmp_path: Path, closed: str
) -> None:
    write_images(tmp_path / "in", "a")
    (tmp_path / "out").mkdir()
    shutil.copy(weights, tmp_path / "small.safetensors")
    (tmp_path / closed).chmod(0o555 if closed == "out" else 0)
    code = "import runpy, sys; sys.argv[0] = 'test.py'; runpy.run_path('test.py', None, '__main__')"
    done = as_ordinary_user(
        code, "--weights", tmp_path / "small.safetensors", "--input", tmp_path / "in",
        "--output", tmp_path / "out",
    )  # fmt: skip
    (tmp_path / closed).chmod(0o755)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Permission denied" in done.stderr and str(tmp_path / closed) in done.stderr


def test_long_names_are_kept(run: Run, tmp_path: Path) -> None:
    name = "n" * 250 + ".png"
    images.write_png(tmp_path / "in" / name, smooth_image(1, 8, 8))
    assert run("--input", tmp_path / "in", "--output", tmp_path / "out") == 0
    assert files_in(tmp_path / "out") == [name]


@pytest.mark.slow
def test_compiled_networks_give_the_same_results(run: Run, tmp_path: Path) -> None:
    images.write_png(tmp_path / "a.png", smooth_image(1, 64, 64))
    arguments = ("--input", tmp_path / "a.png", "--output")
    assert run(*arguments, tmp_path / "plain") == 0
    assert run(*arguments, tmp_path / "compiled", "--compile") == 0
    plain, compiled = (images.read_rgb(tmp_path / f / "a.png") for f in ("plain", "compiled"))
    assert np.abs(plain.astype(int) - compiled).max() <= 1


def test_existing_results_are_skipped_on_request(run: Run, tmp_path: Path, capsys: Capsys) -> None:
    write_images(tmp_path / "in", 1, 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "1.png").write_bytes(b"kept")
    arguments = ("--input", tmp_path / "in", "--output", tmp_path / "out")
    assert run(*arguments, "--skip-existing") == 0
    assert (tmp_path / "out" / "1.png").read_bytes() == b"kept"
    assert images.read_rgb(tmp_path / "out" / "2.png").shape == (8, 8, 3)
    capsys.readouterr()
    assert run(*arguments) == 0
    assert (tmp_path / "out" / "1.png").read_bytes() != b"kept"
    assert "2 results in" in capsys.readouterr().err  # replacing is never silent


@pytest.mark.parametrize(
    ("other", "results"),
    [("a.jpg", ["a.jpg.png", "a.png.png"]), ("A.png", ["A.png.png", "a.png.2.png"])],
)
def test_skipping_goes_by_the_name_of_the_result(
    run: Run, tmp_path: Path, other: str, results: list[str]
) -> None:
    """a.png with a.jpg or A.png in one folder: their results have different names."""
    for name in ("a.png", other):
        write_image(tmp_path / "in" / name, smooth_image(len(name), 8, 8))
    for name in ("a.png", "A.png", "a.png.jpg"):  # not the results of these inputs
        (tmp_path / "out" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_bytes(b"kept")
    arguments = ("--input", tmp_path / "in", "--output", tmp_path / "out", "--skip-existing")
    assert run(*arguments) == 0
    for name in results:
        assert images.read_rgb(tmp_path / "out" / name).shape == (8, 8, 3)
        (tmp_path / "out" / name).write_bytes(b"done")
    assert run(*arguments) == 0
    assert [(tmp_path / "out" / name).read_bytes() for name in results] == [b"done"] * 2


def write_video(path: Path, count: int) -> Path:
    """A gray H.264 video of 80 x 64 pixels with 10 frames per second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
        for i in range(count):
            gray = np.full((64, 80, 3), 20 + 20 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(gray)))
        container.mux(stream.encode(None))
    return path


def test_a_video_becomes_a_video(run: Run, tmp_path: Path) -> None:
    source = write_video(tmp_path / "rain.mkv", 4)
    for options in ((), ("--temporal", "--crf", "20", "--video-codec", "hevc")):
        assert run("--input", source, "--output", tmp_path / "out", *options) == 0
        assert files_in(tmp_path / "out") == ["rain.mp4"]
        with av.open(str(tmp_path / "out" / "rain.mp4")) as container:
            assert container.streams.video[0].codec_context.name == (options or ["h264"])[-1]
            assert [frame.time for frame in container.decode(video=0)] == [0, 0.1, 0.2, 0.3]


def test_a_video_that_ends_early_is_restored_up_to_there(
    run: Run, tmp_path: Path, capsys: Capsys
) -> None:
    source = write_video(tmp_path / "rain.mkv", 6)
    source.write_bytes(source.read_bytes()[:-1])
    assert run("--input", source, "--output", tmp_path / "out") == 1
    assert files_in(tmp_path / "out") == ["rain.mp4"]
    assert len(decoded(tmp_path / "out" / "rain.mp4")) == 6
    assert "rain.mkv ends early" in capsys.readouterr().err


@pytest.mark.parametrize("temporal", [False, True])
def test_an_interrupted_video_continues_where_it_stopped(
    run: Run, tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch, temporal: bool
) -> None:
    source = write_video(tmp_path / "rain.mp4", 9)
    options = ["--temporal"] if temporal else []
    arguments = ("--input", source, *options, "--output")
    assert run(*arguments, tmp_path / "at once") == 0

    class Interrupted(Restorer):
        def __call__(self, image: np.ndarray) -> np.ndarray:
            calls.append(image.mean())
            if len(calls) == 6:
                raise KeyboardInterrupt
            return super().__call__(image)

    calls: list[float] = []
    monkeypatch.setattr(script, "Restorer", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(*arguments, tmp_path / "out")
    assert "the same command continues" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.mp4"))
    first, calls[:] = calls[:], []
    calls.extend([0.0] * 6)  # past the call that interrupts
    assert run(*arguments, tmp_path / "out") == 0
    assert f"continuing after {4 if temporal else 5} frames" in capsys.readouterr().err
    # Frame 5 was interrupted; --temporal looks back two frames and had not finished frame 4.
    again = calls[6:]
    assert again == pytest.approx([*first[2 if temporal else 5 :], *again[-3:]])
    assert len(again) == (7 if temporal else 4)
    at_once, resumed = (decoded(tmp_path / name / "rain.mp4") for name in ("at once", "out"))
    # x264 reads uninitialised memory: equal frames may be encoded slightly differently.
    assert np.abs(resumed.astype(int) - at_once).max() <= 8
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["rain.mp4"]


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray() for frame in container.decode(video=0)])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--input", "absent"], "no file or folder"),
        (["--input", "empty"], "--recursive includes its subfolders"),
        (["--input", "empty", "--recursive"], "holds neither images nor videos"),
        (["--input", "full", "--output", "full"], "is the input folder"),
        (["--input", "full/a.png", "--output", "full"], "would replace an input"),
        (["--input", "full", "--output", "full/a.png"], "a folder or more than one input; name"),
        (["--input", "full", "--temporal"], "--temporal is for videos"),
    ],
)
def test_mistakes_are_reported_in_one_sentence(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty" / "sub").mkdir(parents=True)
    images.write_png(tmp_path / "full" / "a.png", smooth_image(1, 8, 8))
    with pytest.raises(UserError, match=sentence):
        run(*arguments, *([] if "--output" in arguments else ["--output", "out"]))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--tile", "whole", "--overlap", "8"],
        ["--tile", "released", "--overlap", "8"],
        ["--memory", "0"],
        ["--memory", "inf"],
        ["--device", "meta"],
        ["--device", "warp"],
        ["--device", "cuda:99"],
        pytest.param(
            ["--device", "mps"],
            marks=pytest.mark.skipif(torch.backends.mps.is_available(), reason="it is one"),
        ),
        ["--ensemble", "3"],
        ["--quality", "80"],
        ["--quality", "0", "--format", "jpg"],
        ["--format", "gif"],
    ],
)
def test_impossible_arguments_end_with_status_2(
    run: Run, tmp_path: Path, arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        run("--input", tmp_path, "--output", tmp_path / "out", *arguments)
    assert ending.value.code == 2


def test_the_command_line(weights: Path, tmp_path: Path) -> None:
    images.write_png(tmp_path / "a.png", smooth_image(1, 70, 70))
    arguments = ("--weights", weights, "--output", tmp_path / "out")
    done = run_script("test.py", "--input", tmp_path / "a.png", *arguments)
    assert (done.returncode, files_in(tmp_path / "out")) == (0, ["a.png"])
    failed = run_script("test.py", "--input", tmp_path / "b.png", *arguments)
    assert failed.returncode == 1
    assert failed.stderr == f"error: There is no file or folder {tmp_path / 'b.png'}.\n"


BEGIN_4K = """
import resource, sys
import numpy as np
from models import build_model
from utils.inference.memory import keep_freed_memory
from utils.inference.restorer import Restorer

def progress(done, total):
    if done == min(total, 2):  # the others need no more
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
        sys.exit()

keep_freed_memory()
image = np.random.default_rng(0).integers(0, 256, (2160, 3840, 3)).astype(np.uint8)
Restorer(build_model(sys.argv[1]).eval(), notify=lambda line: None, progress=progress)(image)
"""


@pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="bf16 of x86 processors"
)
def test_emulated_bf16_is_reported(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On such a processor a photograph took 71 s instead of 3 s without any message."""
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    source = write_image(tmp_path / "photo.png", smooth_image(0, 40, 48))
    for precision in ("float32", "bf16"):
        arguments = ("--weights", weights, "--input", source, "--output", tmp_path / precision)
        done = run_script("test.py", *arguments, "--precision", precision, "--device", "cpu")
        assert done.returncode == 0, done.stderr
        is_reported = "(AVX2) emulates bf16; float32 is many times as fast." in done.stderr
        assert is_reported == (precision == "bf16")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units")
@pytest.mark.parametrize("name", ["dmsr", "nerd_rain", "nerd_rain_s", "dcsfn", "mspfn_n1", "mspfn"])
def test_a_4k_image_takes_less_than_4_gib(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN_4K, name], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 4
