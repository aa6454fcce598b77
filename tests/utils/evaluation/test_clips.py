"""Clips: means over frames, then over clips; flicker; pairs by name, by time and by position."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

import evaluate
from data.results import pair_clips
from tests.helpers import smooth_image
from tests.utils.inference.video.videos import Kind, write
from utils.errors import UserError
from utils.evaluation.clips import score_clips
from utils.evaluation.flicker import flicker
from utils.evaluation.quality import Metric
from utils.evaluation.score_cache import ScoreCache
from utils.evaluation.scoring import NIQE, ScoringJob
from utils.metrics import score

HEIGHT, WIDTH = 48, 64


def noise(seed: int, strength: int = 20, channels: int = 3) -> np.ndarray:
    shape = (HEIGHT, WIDTH, channels) if channels > 1 else (HEIGHT, WIDTH)
    return np.random.default_rng(seed).integers(-strength, strength + 1, shape)


def panned(number: int, seed: int = 1) -> np.ndarray:
    """A frame of a clip in which the camera pans by 3 pixels per frame; 60 to 195."""
    scene = smooth_image(seed, HEIGHT, WIDTH + 60).astype(int) * 135 // 255 + 60
    return scene[:, 3 * number : 3 * number + WIDTH].astype(np.uint8)


def write_frame(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])


def write_clips(root: Path, counts: dict[str, int]) -> dict[str, list[tuple[np.ndarray, ...]]]:
    """Clips as make_rain.py writes them, and results; (rainy, restored, clean) frames by clip."""
    made = {}
    for seed, (clip, count) in enumerate(counts.items(), 1):
        made[clip] = []
        for number in range(count):
            clean = panned(number, seed)
            rainy, restored = (
                (clean + noise(10 * seed + number, strength)).astype(np.uint8)
                for strength in (40, 9 + seed)
            )
            made[clip].append((rainy, restored, clean))
            folders = ("data/wet/input", "results/ours/wet", "data/wet/target")
            for folder, image in zip(folders, made[clip][-1], strict=True):
                write_frame(root / folder / clip / f"{number + 1:04}.png", image)
    return made


def run(tmp_path: Path, *options: object) -> int:
    """evaluate.py on the clips of ``write_clips``."""
    return evaluate.main(
        [*("--results", str(tmp_path / "results/ours/wet")),
         *("--target", str(tmp_path / "data/wet"), "--output", str(tmp_path / "out")),
         *map(str, options)]
    )  # fmt: skip


def rows(tmp_path: Path, name: str = "images") -> list[dict[str, str]]:
    with open(tmp_path / "out" / f"{name}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "out" / "table.json").read_text(encoding="utf-8"))


def plain_flicker(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """The definition, pixel by pixel of each channel."""
    changes = []
    for (before, clean_before), (now, clean_now) in itertools.pairwise(pairs):
        values = (image.ravel().tolist() for image in (now, clean_now, before, clean_before))
        total = sum(abs((a - b) - (c - d)) for a, b, c, d in zip(*values, strict=True))
        changes.append(total / now.size)
    return sum(changes) / len(changes)


# --- figures -------------------------------------------------------------------------------------


def test_means_are_over_frames_and_then_over_clips(tmp_path: Path) -> None:
    made = write_clips(tmp_path, {"street": 4, "lake": 2})
    assert run(tmp_path, "--clips", "--protocol", "rgb") == 0
    figures: dict[str, dict[str, tuple[float, ...]]] = {}
    for method, side in (("rainy input", 0), ("ours", 1)):
        figures[method] = {}
        for clip, frames in made.items():
            pairs = [(frame[side], frame[2]) for frame in frames]
            psnr = []
            for image, clean in pairs:
                mse = ((image.astype(float) - clean) ** 2).mean()
                psnr.append(10 * math.log10(255**2 / mse))
            ssim = [score(image, clean, "rgb").ssim for image, clean in pairs]
            of_clip = sum(psnr) / len(psnr), sum(ssim) / len(ssim), plain_flicker(pairs)
            figures[method][clip] = of_clip
    found = rows(tmp_path)
    assert [(row["method"], row["image"]) for row in found] == [
        ("rainy input", "lake"), ("rainy input", "street"), ("ours", "lake"), ("ours", "street"),
    ]  # fmt: skip
    for row in found:
        expected = figures[row["method"]][row["image"]]
        values = [float(row[key]) for key in ("psnr", "ssim", "flicker")]
        assert values == pytest.approx(expected, abs=1e-6)
    content = table(tmp_path)
    by_method = {row["method"]: row["scores"]["wet"] for row in content["rows"]}
    for method, cell in by_method.items():
        means = np.mean(list(figures[method].values()), axis=0)  # not weighted by length
        assert [cell[key] for key in ("psnr", "ssim", "flicker")] == pytest.approx(means, abs=1e-6)
        assert cell["num_images"] == 2 and cell["complete"]
    caption = " ".join(content["notes"])
    assert "Flicker, lower is better; means over the frames of a clip, then over clips." in caption
    assert "wet (2 clips)" in caption and "Lai et al., ECCV 2018" in caption

    frames = [row for row in rows(tmp_path, "frames") if row["method"] == "ours"]
    assert [(row["clip"], row["frame"]) for row in frames] == [
        *(("lake", f"{n:04}") for n in (1, 2)), *(("street", f"{n:04}") for n in (1, 2, 3, 4)),
    ]  # fmt: skip
    assert [row["flicker"] == "" for row in frames] == [True, False, True, False, False, False]
    pairs = [(frame[1], frame[2]) for frame in made["street"][2:]]
    assert float(frames[-1]["flicker"]) == pytest.approx(plain_flicker(pairs), abs=1e-6)


def test_lower_flicker_is_better(tmp_path: Path) -> None:
    write_clips(tmp_path, {"street": 3, "lake": 3})
    for path in (tmp_path / "results/ours/wet").rglob("*.png"):  # higher PSNR, but more flicker
        clean = cv2.imread(str(tmp_path / "data/wet/target" / path.parent.name / path.name))
        steady = tmp_path / "results/steady/wet" / path.parent.name / path.name
        steady.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(steady), clean + 30)
    arguments = ["--benchmark", tmp_path / "results", "--datasets", tmp_path / "data", "--clips"]
    assert evaluate.main([*map(str, arguments), "--output", str(tmp_path / "out")]) == 0
    cells = {row["method"]: row["scores"]["wet"] for row in table(tmp_path)["rows"]}
    assert cells["steady"]["flicker"] == 0 and cells["ours"]["flicker"] > 5
    assert (cells["steady"]["flicker_rank"], cells["ours"]["flicker_rank"]) == (1, 2)
    assert (cells["steady"]["psnr_rank"], cells["ours"]["psnr_rank"]) == (2, 1)
    reference = {s["metric"]: s["reference"] for s in table(tmp_path)["statistics"]}
    assert reference == {"psnr": "ours", "ssim": "steady", "flicker": "steady"}


def test_flow_warps_the_error_along_with_the_scene() -> None:
    """A pan by 3 pixels per frame, as in ``panned``, with an error that moves along or stays."""
    drawn = cv2.GaussianBlur(noise(3, 60, 1).astype(np.float32), (0, 0), 2)
    pattern = np.hstack([drawn, drawn])[..., None] * 4
    clean = [panned(number).astype(np.float32) for number in (0, 1)]

    def frame(number: int, shift: int) -> tuple[np.ndarray, np.ndarray]:
        error = pattern[:, shift : shift + WIDTH]
        return np.rint(clean[number] + error).clip(0, 255).astype(np.uint8), panned(number)

    pans_along = frame(1, 3), frame(0, 0)
    assert flicker(*pans_along) > 5
    assert flicker(*pans_along, flow=True) < 0.5
    stays = frame(1, 0), frame(0, 0)
    assert flicker(*stays) < 0.5  # from rounding both frames
    assert flicker(*stays, flow=True) > 5


def test_flow_excludes_what_comes_into_the_frame() -> None:
    """The last 3 columns of a pan to the right were not in the previous frame."""
    before, now = (panned(0), panned(0)), (panned(1).copy(), panned(1))
    now[0][:, -3:] = 255
    assert flicker(now, before) > 3
    assert flicker(now, before, flow=True) < 0.1
    now[0][:, -9:-6] = 255  # errors inside the previous frame count
    assert flicker(now, before, flow=True) > 3


def test_flow_excludes_what_was_hidden() -> None:
    """A plate moves 8 pixels to the right and uncovers a static scene."""
    scene, plate = (
        cv2.GaussianBlur(np.random.default_rng(seed).normal(128, 400, shape), (0, 0), 1.5)
        for seed, shape in ((5, (96, 128, 3)), (6, (48, 48, 3)))
    )

    def clean(left: int) -> np.ndarray:
        frame = scene.copy()
        frame[24:72, left : left + 48] = plate
        return frame.clip(0, 255).astype(np.uint8)

    def changed(left: int) -> float:
        """Flicker of a new error in the 8 columns from ``left`` on."""
        restored = clean(38).astype(int)
        restored[24:72, left : left + 8] += 80
        return flicker((restored, clean(38)), (clean(30), clean(30)), flow=True)

    assert changed(30) < 0.2 * changed(50)  # in the uncovered area, and on the plate


def test_frames_too_small_for_flow_or_of_two_sizes_are_refused() -> None:
    image = np.zeros((15, 40, 3), np.uint8)
    with pytest.raises(UserError, match="40x15 px; --flow needs at least 16x16"):
        flicker((image, image), (image, image), flow=True)
    with pytest.raises(UserError, match="40x15 px, the one before it 39x15"):
        flicker((image, image), (image[:, :39], image[:, :39]))


def test_flow_has_its_own_column_and_cached_scores(tmp_path: Path) -> None:
    write_clips(tmp_path, {"street": 3})
    assert run(tmp_path, "--clips") == 0 == run(tmp_path, "--clips", "--flow")
    content = table(tmp_path)
    assert content["metrics"][2]["name"] == "Flicker (flow)"
    assert "moved by DIS flow of the clean clip" in " ".join(content["notes"])
    made = [cv2.imread(str(p)) for p in sorted((tmp_path / "data/wet/target/street").iterdir())]
    ours = [cv2.imread(str(p)) for p in sorted((tmp_path / "results/ours/wet/street").iterdir())]
    pairs = [(a[..., ::-1], b[..., ::-1]) for a, b in zip(ours, made, strict=True)]
    expected = np.mean([flicker(pairs[n], pairs[n - 1], flow=True) for n in (1, 2)])
    assert float(rows(tmp_path)[1]["flicker_flow"]) == pytest.approx(expected, rel=1e-9)


def test_unchanged_clips_are_not_scored_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clips(tmp_path, {"street": 3, "lake": 2})
    run(tmp_path, "--clips")
    before = rows(tmp_path), rows(tmp_path, "frames")
    assert "4 clips (0 kept from before)" in capsys.readouterr().out
    run(tmp_path, "--clips")
    assert "4 clips (4 kept from before)" in capsys.readouterr().out
    assert (rows(tmp_path), rows(tmp_path, "frames")) == before
    write_frame(tmp_path / "results/ours/wet/lake/0002.png", panned(0))
    run(tmp_path, "--clips")
    assert "4 clips (3 kept from before)" in capsys.readouterr().out


# --- problems ------------------------------------------------------------------------------------


def test_problems_of_frames_are_named_and_the_rest_is_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = write_clips(tmp_path, {"street": 6, "lake": 2})
    ours = tmp_path / "results/ours/wet/street"
    (ours / "0002.png").unlink()
    (ours / "0005.png").write_bytes((ours / "0005.png").read_bytes()[:400])
    write_frame(ours / "0009.png", panned(0))
    assert run(tmp_path, "--clips", "--protocol", "rgb") == 1
    said = capsys.readouterr().err
    assert f"missing: {ours.parent} has no result named street/0002" in said
    assert f"{ours / '0005.png'} is not a readable image" in said
    assert f"extra: {ours / '0009.png'} has no partner" in said
    assert "3 problems; the table is incomplete" in said
    kept = [made["street"][n][1:] for n in (0, 2, 3, 5)]
    psnr = np.mean([score(*pair, "rgb").psnr for pair in kept])
    row = next(r for r in rows(tmp_path) if (r["method"], r["image"]) == ("ours", "street"))
    # flicker only between neighbours: the 3rd and the 4th frame
    expected = psnr, plain_flicker([made["street"][n][1:] for n in (2, 3)])
    assert (float(row["psnr"]), float(row["flicker"])) == pytest.approx(expected, abs=1e-6)
    assert "0002" in row["problem"] and row["problem"].endswith("(and 2 more)")
    content = table(tmp_path)
    assert [r["scores"]["wet"]["complete"] for r in content["rows"]] == [True, False]
    assert "INCOMPLETE: 1 clip not scored in full" in " ".join(content["notes"])
    # an extra frame does not affect the mean
    write_clips(tmp_path, {"street": 6, "lake": 2})
    assert run(tmp_path, "--clips") == 1 and table(tmp_path)["complete"]


def test_a_clip_of_other_sizes_is_one_problem_or_is_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = write_clips(tmp_path, {"street": 3, "lake": 2})
    for path in (tmp_path / "results/ours/wet/lake").iterdir():
        write_frame(path, cv2.imread(str(path))[:40, :60, ::-1])
    assert run(tmp_path, "--clips") == 1
    said = capsys.readouterr().err
    assert "lake/0001.png: the sizes differ: the restored frame has 60x40 px" in said
    assert "1 problem; the table is incomplete" in said
    assert run(tmp_path, "--clips", "--crop") == 0
    row = next(r for r in rows(tmp_path) if (r["method"], r["image"]) == ("ours", "lake"))
    pairs = [tuple(x[:40, :60] for x in frame[1:]) for frame in made["lake"]]
    assert float(row["flicker"]) == pytest.approx(plain_flicker(pairs), abs=1e-6)
    assert row["remarks"] == "60x40 and 64x48 px cut to 60x40 (and 1 more frame)"
    assert run(tmp_path, "--clips") == 1  # scores with --crop are not reused without it


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    write_clips(tmp_path, {"street": 2})
    for options, said in (
        (["--flow"], "--flow is for flicker, which needs clips"),
        (["--clips", "--metrics", "fid"], "fid is a figure of whole folders of images"),
        (["--clips", "--tasks", "segmentation"], "segmentation is a figure of whole folders"),
        (["--clips", "--embed"], "--embed puts images into the page"),
    ):
        with pytest.raises(UserError, match=said):
            run(tmp_path, *options)
    for side in ("results/ours/wet", "data/wet/target", "data/wet/input"):
        (tmp_path / side / "street/0002.png").unlink()
    assert run(tmp_path, "--clips") == 1
    assert "flicker needs two neighbouring frames" in rows(tmp_path)[1]["problem"]


# --- pairs ---------------------------------------------------------------------------------------


def gray_planes(luma: np.ndarray) -> list[np.ndarray]:
    """A gray frame of 4:2:0 video in limited range."""
    return [luma, *[np.full((HEIGHT // 2, WIDTH // 2), 128, np.uint8)] * 2]


def as_shown(luma: np.ndarray) -> np.ndarray:
    """BT.601 and BT.709 agree on gray: 16..235 becomes 0..255 in each channel."""
    gray = np.rint((luma.astype(float) - 16) / 219 * 255).clip(0, 255).astype(np.uint8)
    return np.dstack([gray] * 3)


VIDEO = Kind(".mp4")  # lossless


def write_video(path: Path, frames: Sequence[np.ndarray], times: Sequence[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, VIDEO, [gray_planes(frame) for frame in frames], times)


def lumas(count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Clean and restored frames, gray, as a video stores them."""
    clean = [panned(number)[..., 1] for number in range(count)]
    restored = [(c + noise(number, 9, 1)).astype(np.uint8) for number, c in enumerate(clean)]
    return clean, restored


def test_the_frames_of_videos_are_paired_by_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The result lacks the frame at 3/25 s and has an extra one at the end."""
    clean, restored = lumas(7)
    write_video(tmp_path / "data/wet/target/a", clean[:6], range(6))
    write_video(tmp_path / "data/wet/input/a", clean[:6], range(6))
    kept = [0, 1, 2, 4, 5, 6]
    write_video(tmp_path / "results/ours/wet/a", [restored[n] for n in kept], kept)
    for kept_before in (0, 1):  # scores of the rainy clip, which is complete
        assert run(tmp_path, "--protocol", "rgb") == 1
        captured = capsys.readouterr()
        result, target = (tmp_path / f"{f}/a.mp4" for f in ("results/ours/wet", "data/wet/target"))
        assert f"missing: {result} has no frame at 0.120 s" in captured.err
        assert f"extra: {result} has a frame at 0.240 s, {target} has none" in captured.err
        assert "2 problems; the table is incomplete" in captured.err
        assert f"2 clips ({kept_before} kept from before)" in captured.out
    shown = {n: (as_shown(restored[n]), as_shown(clean[n])) for n in (0, 1, 2, 4, 5)}
    psnr = np.mean([score(*pair, "rgb").psnr for pair in shown.values()])
    changes = [plain_flicker([shown[n - 1], shown[n]]) for n in (1, 2, 5)]
    rainy, row = rows(tmp_path)
    assert float(row["psnr"]) == pytest.approx(psnr, abs=1e-6)
    assert float(row["flicker"]) == pytest.approx(np.mean(changes), abs=1e-6)
    assert (float(rainy["psnr"]), float(rainy["flicker"])) == (100, 0)
    assert rainy["remarks"] == "6 frames equal the clean one under rgb"
    times = [r["frame"] for r in rows(tmp_path, "frames") if r["method"] == "ours"]
    assert times == [f"{n / 25:.3f} s" for n in range(7)]


def test_times_may_differ_by_the_rounding_of_containers_only(tmp_path: Path) -> None:
    """Matroska rounds to milliseconds; a shift by a quarter of a frame (10 ms) is not rounding."""
    clean, restored = lumas(4)
    write_video(tmp_path / "data/wet/target/a", clean, range(4))
    thousandths = Fraction(1, 1000)
    for late, status in ((9, 0), (11, 1)):
        times = [0, 40, 80 + late, 120]
        planes = [gray_planes(frame) for frame in restored]
        path = tmp_path / "results/ours/wet/a"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, Kind(".mkv"), planes, times, thousandths)
        assert run(tmp_path) == status
    frames = [row["frame"] for row in rows(tmp_path, "frames") if row["problem"]]
    assert frames == ["0.080 s", "0.091 s"]


def test_a_video_and_a_folder_are_paired_by_position(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean, restored = lumas(4)
    for number, frame in enumerate(clean):
        write_frame(tmp_path / f"data/wet/target/a/{number}.png", as_shown(frame))
    write_video(tmp_path / "results/ours/wet/a", restored, range(4))
    for kept in (0, 1):
        assert run(tmp_path, "--protocol", "rgb") == 0
        assert f"1 clip ({kept} kept from before)" in capsys.readouterr().out
        pairs = [(as_shown(a), as_shown(b)) for a, b in zip(restored, clean, strict=True)]
        (row,) = rows(tmp_path)
        assert float(row["psnr"]) == pytest.approx(np.mean([score(*p, "rgb").psnr for p in pairs]))
        assert float(row["flicker"]) == pytest.approx(plain_flicker(pairs), abs=1e-6)
    write_frame(tmp_path / "data/wet/target/a/4.png", as_shown(clean[0]))
    assert run(tmp_path, "--protocol", "rgb") == 1
    said = capsys.readouterr().err
    assert "a.mp4 has 4 frames, " in said and "target/a 5; a video and a folder of" in said
    assert rows(tmp_path)[0]["psnr"] == ""


def test_frames_in_jpeg_are_counted_in_a_note(tmp_path: Path) -> None:
    """Of each method's scored frames, not of its clips; a missing frame does not count."""
    made = write_clips(tmp_path, {"street": 4, "lake": 3})
    ours = tmp_path / "results/ours/wet"
    for frame, (_, restored, _) in zip(("0001", "0002", "0003"), made["street"], strict=False):
        (ours / f"street/{frame}.png").unlink()
        write_frame(ours / f"street/{frame}.jpg", restored)
    (ours / "lake/0003.png").unlink()
    assert run(tmp_path, "--clips") == 1
    said = [note for note in table(tmp_path)["notes"] if "JPEG" in note]
    assert said == [
        "3 of the 6 frames of ours on wet are JPEG files, whose losses are part of the scores."
    ]


def test_clips_with_the_layout_of_ntu_rain(tmp_path: Path) -> None:
    """a1_Rain/00001.jpg and a1_GT/00001.jpg; results are named as by test.py."""
    expected = {}
    for clip in ("a1", "b12"):
        pairs = []
        for number in (1, 2, 12):
            clean, rainy = panned(number), (panned(number) + noise(number)).astype(np.uint8)
            write_frame(tmp_path / f"data/wet/{clip}_GT/{number:05}.png", clean)
            write_frame(tmp_path / f"data/wet/{clip}_Rain/{number:05}.png", rainy)
            write_frame(tmp_path / f"results/ours/wet/{clip}/{number:05}.png", rainy)
            pairs.append((rainy, clean))
        expected[clip] = plain_flicker(pairs)
    assert run(tmp_path, "--clips", "--input", tmp_path / "data/wet") == 0
    for row in rows(tmp_path):
        assert float(row["flicker"]) == pytest.approx(expected[row["image"]], abs=1e-6)
    assert [(r["method"], r["image"]) for r in rows(tmp_path)] == [
        ("rainy input", "a1"), ("rainy input", "b12"), ("ours", "a1"), ("ours", "b12"),
    ]  # fmt: skip


def test_a_single_clip_can_be_scored(tmp_path: Path) -> None:
    """A folder of frames or a video, against a clean one with any name."""
    clean, restored = lumas(3)
    write_video(tmp_path / "dry", clean, range(3))
    write_video(tmp_path / "mine", restored, range(3))
    for number, (a, b) in enumerate(zip(restored, clean, strict=True)):
        write_frame(tmp_path / f"x/{number}.png", as_shown(a))
        write_frame(tmp_path / f"y/{number}.png", as_shown(b))
    figures = []
    for names in (("mine.mp4", "dry.mp4"), ("x", "y", "--clips"), ("mine.mp4", "y")):
        result, target, *more = names
        arguments = ["--results", tmp_path / result, "--target", tmp_path / target, *more]
        arguments += ["--output", tmp_path / "out"]
        assert evaluate.main([str(argument) for argument in arguments]) == 0
        (row,) = rows(tmp_path)
        figures.append((float(row["psnr"]), float(row["flicker"])))
    assert figures[0] == pytest.approx(figures[1]) and figures[1] == pytest.approx(figures[2])


def test_videos_and_images_share_no_table(tmp_path: Path) -> None:
    clean, restored = lumas(2)
    for name in ("films", "wet"):
        write_frame(tmp_path / f"data/{name}/target/1.png", panned(0))
        write_frame(tmp_path / f"results/ours/{name}/1.png", panned(1))
    for path in (tmp_path / "results/ours/films", tmp_path / "data/films/target"):
        (path / "1.png").unlink()
        write_video(path / "a", clean if "data" in str(path) else restored, range(2))
    arguments = ["--benchmark", tmp_path / "results", "--datasets", tmp_path / "data"]
    arguments += ["--output", tmp_path / "out"]
    arguments = [str(argument) for argument in arguments]
    with pytest.raises(UserError, match=r"films/?\S* holds videos, .*wet does not; one table"):
        evaluate.main(arguments)
    assert evaluate.main([*arguments, "--sets", "films"]) == 0
    assert [row["image"] for row in rows(tmp_path)] == ["a"]
    (tmp_path / "data/films/target/a").mkdir()
    write_frame(tmp_path / "data/films/target/a/1.png", panned(0))
    assert evaluate.main([*arguments, "--sets", "films"]) == 1
    assert "are clips with the same name" in rows(tmp_path)[0]["problem"]


def test_videos_are_not_scored_against_themselves(tmp_path: Path) -> None:
    write_video(tmp_path / "clips/a", lumas(2)[0], range(2))
    folder = str(tmp_path / "clips")
    with pytest.raises(UserError, match="would be scored against itself"):
        evaluate.main(["--results", folder, "--target", folder, "--output", str(tmp_path / "out")])


def test_a_damaged_video_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clean, restored = lumas(6)
    write_video(tmp_path / "data/wet/target/a", clean, range(6))
    write_video(tmp_path / "results/ours/wet/a", restored, range(6))
    write_video(tmp_path / "data/wet/target/b", clean, range(6))
    path = tmp_path / "results/ours/wet/b.mp4"
    path.write_bytes(b"no video")
    assert run(tmp_path) == 1
    said = capsys.readouterr().err
    assert f"{path} is not a readable video" in said and "1 problem; the table is" in said
    assert [row["psnr"] != "" for row in rows(tmp_path)] == [True, False]


def test_real_rain_is_scored_without_flicker(tmp_path: Path) -> None:
    """Without clean clips, metrics of single frames are averaged over frames, then over clips."""
    restored = lumas(3)[1]
    write_video(tmp_path / "results/ours/wet/a", restored, range(3))
    job = ScoringJob("ours", "wet", NIQE, tmp_path / "results/ours/wet", None)

    class Brightness:
        metric = Metric("light", "Light", 1)
        name = "brightness of the tests"

        def score(self, restored: np.ndarray, clean: np.ndarray | None) -> float:
            assert clean is None
            return float(restored.mean())

    cache = ScoreCache(tmp_path / "kept.jsonl")
    (result,) = score_clips([pair_clips(job)], cache, scorers=[Brightness()])
    assert [metric.key for metric in result.metrics] == ["light"] and not result.problems
    expected = np.mean([as_shown(frame).mean() for frame in restored])
    assert result.images[0].scores == pytest.approx((expected,))


def test_the_page_has_the_frames_of_the_clean_clip(tmp_path: Path) -> None:
    """In the same order for all methods: null for a missing frame, and without extra frames."""
    write_clips(tmp_path, {"street": 4})
    ours = tmp_path / "results/ours/wet/street"
    (ours / "0002.png").unlink()
    write_frame(ours / "0001x.png", panned(0))
    run(tmp_path, "--clips")
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    files = {method["name"]: method["files"][0] for method in data["sets"][0]["methods"]}
    folder = "../results/ours/wet/street"
    assert files["ours"] == {"frames": [f"{folder}/0001.png", None, f"{folder}/0003.png",
                                        f"{folder}/0004.png"]}  # fmt: skip
    assert len(files["clean"]["frames"]) == len(files["rainy input"]["frames"]) == 4
    assert data["unit"] == "clip"
