"""test.py --config: several networks on several sets in one command, one table."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
import torch

import evaluate
import test as script
from data.pairs import find_pairs
from data.scene_hashes import pack_scenes, scene_hashes
from models import build_model, load_foreign, load_weights
from models.published import to_published
from tests.helpers import (
    DETECTOR,
    ROOT,
    smooth_image,
    streaked,
    write_pairs,
    write_task_networks,
)
from tests.ranks import FORK
from tests.runs import train_here
from utils.checkpoints import Weights, read_weights, write_weights
from utils.errors import UserError
from utils.images import read_rgb
from utils.inference.finished import LIST_NAME
from utils.inference.restorer import Restorer
from utils.metrics import score

# Set -> its folder, the names of its rainy and clean files (None: side by side), its protocol, and
# the number of rainy images per clean one.
SETS = {
    "Rain100H": ("Rain13K/test/Rain100H", "input/{}.png", "target/{}.png", "rain13k", 1),
    "Rain200L": ("Rain200L/test", "rain/X2/norain-{}x2.png", "norain/norain-{}.png", "rain13k", 1),
    "DDN-Data": ("DDN-Data/test", "rainy_image/{}_{}.png", "ground_truth/{}.png", "did", 2),
    "Rain1200": ("Rain1200/test", "{}.png", None, "rgb", 1),
    "HQ-RAIN": ("HQ-RAIN", "test/input/{}.png", "test/target/{}.png", "hq_rain", 1),
    "mine": ("mine", "val/input/{}.png", "val/target/{}.png", "rain13k", 1),
}
NETWORKS = ("dmsr_s", "dcsfn_t", "nerd_rain_t")


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])


def write_set(root: Path, name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A tiny copy of a set; its (rainy, clean) images by the name of the rainy file."""
    folder, rainy_name, clean_name, _, variants = SETS[name]
    pairs = {}
    for number in (2, 10):
        clean = smooth_image(zlib.crc32(name.encode()) + number, 24, 32)
        for variant in range(1, variants + 1):
            rainy = streaked(clean, 100 * variant + number)
            file = rainy_name.format(number, variant)
            if clean_name is None:
                write(root / folder / file, np.hstack([clean, rainy]))
            else:
                write(root / folder / file, rainy)
                write(root / folder / clean_name.format(number), clean)
            pairs[Path(file).stem] = rainy, clean
    return pairs


def write_run(name: str, network: str, seed: int = 0, **test_settings: object) -> Path:
    """A run's folder as train.py leaves it, with random weights; returns its config.yml."""
    folder = Path("runs") / name
    torch.manual_seed(seed)
    state = build_model(network).state_dict()
    write_weights(folder / "best.safetensors", Weights(network, {}, state, {}))
    settings = {"RUN": {"NAME": name}, "MODEL": {"NAME": network}, "TEST": test_settings}
    (folder / "config.yml").write_text(json.dumps(settings))  # JSON is YAML
    return folder / "config.yml"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read_table(folder: str = "evaluation") -> dict:
    return json.loads((Path(folder) / "table.json").read_text(encoding="utf-8"))


def run(*arguments: object) -> int:
    return script.main([str(argument) for argument in arguments] + ["--device", "cpu"])


def test_six_sets_and_three_networks_in_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = {name: write_set(Path("datasets"), name) for name in SETS}
    folders = [f"datasets/{SETS[name][0]}" for name in SETS]
    configs = [write_run(f"my_{network}", network, SETS=folders) for network in NETWORKS]
    arguments = [part for config in configs for part in ("--config", config)]
    assert run(*arguments) == 0

    # Every cell is computed from the network, the arrays drawn above and the protocol's function.
    content = read_table()
    assert {c["dataset"]: (c["protocol"], c["num_images"]) for c in content["columns"]} == {
        name: (protocol, 2 * variants) for name, (_, _, _, protocol, variants) in SETS.items()
    }
    rows = {row["method"]: row["scores"] for row in content["rows"] if row["kind"] != "published"}
    assert list(rows) == ["rainy input", *(f"my_{network}" for network in NETWORKS)]
    for method, scores in rows.items():
        restore = None
        if method != "rainy input":
            restore = Restorer(load_weights(f"runs/{method}/best.safetensors"))
        means = []
        for name, (_, _, _, protocol, _) in SETS.items():
            found = []
            for stem, (rainy, clean) in pairs[name].items():
                restored = restore(rainy) if restore else rainy
                if restore:
                    (result,) = (Path("results") / method / name).rglob(f"{stem}.png")
                    np.testing.assert_array_equal(read_rgb(result), restored)
                found.append(score(restored, clean, protocol))
            means.append(np.mean(found, axis=0))
            cell = scores[name]
            assert (cell["psnr"], cell["ssim"]) == pytest.approx(tuple(means[-1]), abs=1e-9)
            assert cell["num_images"] == len(found) and cell["complete"]
        mean = scores["Mean"]["psnr"], scores["Mean"]["ssim"]
        assert mean == pytest.approx(tuple(np.mean(means, axis=0)), abs=1e-9)
    published = {row["source"] for row in content["rows"] if row["kind"] == "published"}
    assert "DMSR paper Table 1, trained on Rain13K" in published
    assert content["provenance"]["weights"]["my_dmsr_s"]["weights"].endswith("best.safetensors")
    assert {"table.md", "table.tex", "images.csv", "statistics.md", "report.html"} <= {
        path.name for path in Path("evaluation").iterdir()
    }
    out = capsys.readouterr().out
    assert "HQ-RAIN PSNR" in out and "my_nerd_rain_t" in out and "written to evaluation/" in out

    # evaluate.py gives the same table from the folders
    done = subprocess.run(
        [sys.executable, ROOT / "evaluate.py", "--benchmark", "results", "--datasets", "datasets",
         "--output", "again"], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    again = {row["method"]: row["scores"] for row in read_table("again")["rows"]}
    for method, scores in rows.items():
        for name in SETS:
            assert again[method][name]["psnr"] == scores[name]["psnr"], (method, name)


def test_finished_results_are_recognised_by_content(capsys: pytest.CaptureFixture[str]) -> None:
    write_set(Path("datasets"), "mine")
    config = write_run("ours", "dmsr_s", SETS="datasets/mine", SCORES="scores")
    results = {name: Path("results/ours/mine") / f"{name}.png" for name in ("2", "10")}

    def restored() -> set[str]:
        """The results that the next call computes."""
        before = {name: os.stat(path).st_mtime_ns for name, path in results.items()}
        assert run("--config", config) == 0
        return {name for name, path in results.items() if os.stat(path).st_mtime_ns != before[name]}

    assert run("--config", config) == 0
    first = {name: path.read_bytes() for name, path in results.items()}
    assert restored() == set()
    assert "results/ours/mine: 2 of 2 are finished" in capsys.readouterr().err

    os.utime("datasets/mine/val/input/2.png", ns=(0, 0))  # the same content
    os.utime("runs/ours/best.safetensors", ns=(0, 0))
    assert restored() == set()
    rainy = Path("datasets/mine/val/input/2.png")
    before = rainy.read_bytes()
    write(rainy, streaked(smooth_image(1, 24, 32), 5))
    assert restored() == {"2"}
    assert "1 result of other weights, options or inputs" in capsys.readouterr().err
    rainy.write_bytes(before)
    results["10"].write_bytes(first["2"])  # edited by hand
    assert restored() == {"2", "10"}
    assert {name: path.read_bytes() for name, path in results.items()} == first
    write_run("ours", "dmsr_s", seed=1, SETS="datasets/mine", SCORES="scores")
    assert restored() == {"2", "10"}
    assert run("--config", config, "TEST.TILE", "64", "TEST.OVERLAP", "4") == 0
    assert restored() == {"2", "10"}

    # a killed run leaves half a line and not the second result
    finished = Path("results/ours/mine") / LIST_NAME
    lines = finished.read_bytes().splitlines(keepends=True)
    finished.write_bytes(lines[-2] + lines[-1][:20])
    assert restored() == {json.loads(lines[-1])[0].removesuffix(".png")}
    assert restored() == set()


def test_a_missing_set_is_named_and_the_others_are_scored(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_set(Path("datasets"), "mine")
    sets = ["datasets/nowhere", "datasets/mine", "datasets/real"]
    write(Path("datasets/real/1.png"), smooth_image(3, 24, 32))
    config = write_run("ours", "dmsr_s", SETS=sets)
    assert run("--config", config) == 1
    captured = capsys.readouterr()
    first, *_ = captured.err.splitlines()
    assert first.startswith("nowhere is left out: there are no rainy images in datasets/nowhere,")
    assert "datasets/nowhere/val" in first
    assert "error: nowhere is left out" in captured.err
    assert "error: real has no clean images, so its results are not scored" in captured.err
    assert Path("results/ours/real/1.png").is_file()
    assert [column["dataset"] for column in read_table()["columns"]] == ["mine"]
    assert read_table()["rows"][1]["scores"]["mine"]["num_images"] == 2
    with pytest.raises(UserError, match="nowhere is left out"):
        run("--config", config, "TEST.SETS", "datasets/nowhere")


def test_a_broken_image_is_named_and_the_table_is_incomplete(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_set(Path("datasets"), "mine")
    Path("datasets/mine/val/input/2.png").write_bytes(b"no image")
    config = write_run("ours", "dmsr_s", SETS="datasets/mine")
    assert run("--config", config, "TEST.PROTOCOL", "did") == 1
    assert "datasets/mine/val/input/2.png" in capsys.readouterr().err
    assert [column["protocol"] for column in read_table()["columns"]] == ["did"]
    assert read_table()["complete"] is False
    with open("evaluation/images.csv", encoding="utf-8", newline="") as file:
        problems = {(r["method"], r["image"]): bool(r["problem"]) for r in csv.DictReader(file)}
    assert problems == {
        ("rainy input", "2"): True, ("rainy input", "10"): False,
        ("ours", "2"): True, ("ours", "10"): False,
    }  # fmt: skip


def test_weights_of_another_network_are_refused() -> None:
    write_set(Path("datasets"), "mine")
    config = write_run("ours", "dmsr_s", SETS="datasets/mine")
    other = write_run("other", "dcsfn_t").with_name("best.safetensors")
    with pytest.raises(UserError, match=r"other/best\.safetensors holds another network.*dmsr_s"):
        run("--config", config, "--weights", other)
    with pytest.raises(UserError, match=r"another network.*'width': 8"):
        run("--config", config, "MODEL.OPTIONS.width", "8")
    # the authors' own file
    network = load_weights(config.with_name("best.safetensors"))
    torch.save(to_published(network), "theirs.pth")
    assert run("--config", config, "--weights", "theirs.pth", "TEST.METHOD", "theirs") == 0
    assert run("--config", config) == 0
    # as with --input, --model selects the published size, not the size in the recipe
    narrow = {
        "MODEL": {"NAME": "dmsr_s", "OPTIONS": {"width": 8}},
        "TEST": {"SETS": "datasets/mine"},
    }
    Path("narrow.yml").write_text(json.dumps(narrow))
    shutil.copy("theirs.pth", "published.pth")
    assert run("--config", "narrow.yml", "--weights", "published.pth", "--model", "dmsr_s") == 0
    for name in ("2.png", "10.png"):
        ours, *theirs = (
            (Path("results") / method / "mine" / name).read_bytes()
            for method in ("ours", "theirs", "published")
        )
        assert theirs == [ours, ours]


@pytest.mark.extras
def test_networks_of_others_share_a_table_with_ours(capsys: pytest.CaptureFixture[str]) -> None:
    """A run, spandrel's network and an authors' checkpoint, on one recipe's set and options."""
    nafnet = pytest.importorskip("spandrel.architectures.NAFNet").NAFNet
    pairs = write_set(Path("datasets"), "Rain100H")
    config = write_run(
        "ours", "dmsr_s", SETS="datasets/Rain13K/test/Rain100H", TILE=64, OVERLAP=16, METHOD="mine"
    )
    ours = config.with_name("best.safetensors")
    torch.manual_seed(2)
    spandrels = nafnet(enc_blk_nums=[1], dec_blk_nums=[1]).eval()
    torch.save({"params": spandrels.state_dict()}, "nafnet_small.pth.tar")
    theirs = build_model("nerd_rain_t", {"width": 8})
    torch.save(to_published(theirs), "authors.pth")
    arguments = (
        *("--config", config, "--weights", ours),
        *("--config", config, "--weights", "nafnet_small.pth.tar", "--model", "spandrel"),
        *("--config", config, "--weights", "authors.pth", "--model", "nerd_rain_t"),
        *("--options", "width=8"),
    )
    assert run(*arguments) == 0
    networks = {
        "mine": load_weights(ours), "nafnet_small": load_foreign(Path("nafnet_small.pth.tar")),
        "authors": theirs.eval(),
    }  # fmt: skip
    rows = {row["method"]: row for row in read_table()["rows"]}
    for method, network in networks.items():
        restore, found = Restorer(network, tile=64, overlap=16), []
        for name, (rainy, clean) in pairs.items():
            restored = read_rgb(Path("results") / method / "Rain100H" / f"{name}.png")
            np.testing.assert_array_equal(restored, restore(rainy))
            found.append(score(restored, clean, "rain13k"))
        cell = rows[method]["scores"]["Rain100H"]
        assert (cell["psnr"], cell["ssim"]) == pytest.approx(tuple(np.mean(found, axis=0)))
    # computed by the network itself, without our wrapper
    rainy = torch.from_numpy(pairs["2"][0]).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        plain = spandrels(rainy)[0].permute(1, 2, 0).clamp(0, 1).mul(255).round().numpy()
    np.testing.assert_allclose(read_rgb(Path("results/nafnet_small/Rain100H/2.png")), plain, atol=1)
    # published rows share the column
    published = [row["method"] for row in read_table()["rows"] if row["kind"] == "published"]
    assert {"DMSR", "MPRNet", "DRSformer"} <= set(published)

    # the last option takes all words that follow it, so settings come first
    with pytest.raises(UserError, match=r"'TEST\.TILE' is not KEY=VALUE"):
        run(*arguments, "TEST.TILE", "96")
    # finished results depend on the content of the weights
    capsys.readouterr()
    assert run("TEST.PRECISION", "float32", *arguments) == 0
    assert "results/nafnet_small/Rain100H: 2 of 2 are finished" in capsys.readouterr().err
    torch.save(nafnet(enc_blk_nums=[1], dec_blk_nums=[1]).state_dict(), "nafnet_small.pth.tar")
    assert run(*arguments) == 0
    assert "nafnet_small/Rain100H: 2 results of other weights" in capsys.readouterr().err


def test_a_network_of_others_named_in_yaml() -> None:
    """MODEL.NAME is a setting, so each method of a comparison can be a YAML of a few lines."""
    Path("peer.yml").write_text(
        "{RUN: {NAME: them}, MODEL: {NAME: spandrel}, TEST: {SETS: datasets/x}}"
    )
    write_set(Path("datasets"), "mine")
    torch.save({"weight": torch.zeros(3)}, "theirs.pth")
    with pytest.raises(UserError, match="no trained weights"):
        run("--config", "peer.yml")
    pytest.importorskip("spandrel")
    with pytest.raises(UserError, match=r"does not recognise the network in theirs\.pth"):
        run("--config", "peer.yml", "--weights", "theirs.pth")


def test_metrics_add_columns_for_all_methods() -> None:
    pairs = write_set(Path("datasets"), "mine")
    config = write_run("ours", "dmsr_s", SETS="datasets/mine")
    assert run("--config", config, "--metrics", "mse") == 0
    for row in read_table()["rows"]:
        expected = []
        for name, (rainy, clean) in pairs.items():
            image = rainy
            if row["method"] == "ours":
                image = read_rgb(Path("results/ours/mine") / f"{name}.png")
            expected.append(np.mean((image.astype(float) - clean) ** 2))
        assert row["scores"]["mine"]["mse"] == pytest.approx(np.mean(expected))
    # refused before anything is restored
    with pytest.raises(UserError, match=r"mse compares with clean images"):
        run("TEST.PROTOCOL", "niqe", "TEST.METHOD", "other", "--config", config, "--metrics", "mse")
    assert not Path("results/other").exists()


@pytest.mark.extras
def test_tasks_on_a_set_with_labels_and_without_clean_images() -> None:
    """Such as MSPFN's BDD350: rainy images and labels."""
    pytest.importorskip("pycocotools")
    detector = write_task_networks(Path("weights"))[DETECTOR]
    for name in ("BDD350", "elsewhere"):
        write(Path(f"datasets/{name}/input/a-1.png"), smooth_image(1, 64, 96))
    Path("datasets/BDD350/labels").mkdir()
    Path("datasets/BDD350/labels/a-1.txt").write_text("2 0.5 0.5 0.25 0.5\n")
    config = write_run("ours", "dmsr_s", SETS="datasets/BDD350", PROTOCOL="niqe")
    tasks = ("--metrics", "piqe", "--tasks", "detection", "--detector", DETECTOR)
    tasks += ("--detector-weights", detector, "--config", config)
    assert run(*tasks) == 0
    table = Path("evaluation/table.md").read_text()
    assert "held to the YOLO labels of BDD350" in table and "mAP50" in table and "PIQE" in table
    rows = list(csv.DictReader(Path("evaluation/images.csv").read_text().splitlines()))
    assert [(row["method"], row["image"], row["true"]) for row in rows] == [
        ("rainy input", "a-1", "1"), ("ours", "a-1", "1"),
    ]  # fmt: skip
    # evaluate.py gives the same scores for the folders
    same = [*map(str, tasks[:-2]), "--no-reference", "--output", "again"]
    assert evaluate.main(["--benchmark", "results", "--datasets", "datasets", *same]) == 0
    assert read_table("again")["rows"] == read_table()["rows"]
    alone = ["--results", "datasets/BDD350/input", "--no-reference", "--output", "alone"]
    assert evaluate.main([*alone, *map(str, tasks[:-2])]) == 0
    assert "held to the YOLO labels" in Path("alone/table.md").read_text()
    # labels of some sets only cannot fill a column, and one file cannot label two sets
    two = ("TEST.SETS", "[datasets/BDD350, datasets/elsewhere]")
    with pytest.raises(UserError, match="neither clean images nor labels for elsewhere"):
        run(*two, *tasks)
    with pytest.raises(UserError, match=r"--labels are those of one data set.*BDD350, elsewhere"):
        run(*two, *tasks, "--labels", "datasets/BDD350/labels")
    with pytest.raises(UserError, match="neither clean images nor masks for BDD350"):
        run(*tasks, "--tasks", "segmentation")


TASK_COMMANDS = re.findall(r"^python .* --tasks .*$", (ROOT / "README.md").read_text(), re.M)


@pytest.mark.extras
def test_the_readmes_commands_with_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """On sets with MSPFN's layout; the networks are small and have random weights."""
    pytest.importorskip("pycocotools")
    pytest.importorskip("pyiqa")
    monkeypatch.setenv("TORCH_HOME", "torch")
    write_task_networks(Path("torch/hub/checkpoints"))
    scipy.io.savemat(
        "niqe.mat",
        {"mu_prisparam": np.linspace(0, 2, 36)[None], "cov_prisparam": np.eye(36)},
    )

    write_pairs(Path("datasets/val"), 1, 96, 128)
    for dataset in ("BDD350", "COCO350", "BDD150"):
        write(Path("datasets") / dataset / "input/7.png", smooth_image(len(dataset), 96, 128))
    for dataset, folder in (("BDD350", "labels"), ("BDD150", "masks")):
        (Path("datasets") / dataset / folder).mkdir()
    Path("datasets/BDD350/labels/7.txt").write_text("2 0.5 0.5 0.25 0.5\n")
    box = {"image_id": 1, "category_id": 3, "bbox": [8, 8, 40, 40]}
    content = {"images": [{"id": 1, "file_name": "7.png"}], "annotations": [box],
               "categories": [{"id": 3, "name": "car"}]}  # fmt: skip
    Path("datasets/COCO350/annotations.json").write_text(json.dumps(content))
    cv2.imwrite("datasets/BDD150/masks/7.png", np.eye(96, 128, dtype=np.uint8) * 7)
    for dataset in ("val", "BDD150"):
        shutil.copytree(f"datasets/{dataset}/input", f"results/dmsr/{dataset}")
    write_run("dmsr", "dmsr_s")
    expected = {  # by the sets named in the command
        "val": "agreement with the clean images", "BDD350": "held to the COCO labels of COCO350;",
        "BDD150": "held to the masks of BDD150",
    }  # fmt: skip
    for command in TASK_COMMANDS:
        _, script_name, *words = shlex.split(command)
        if DETECTOR not in words:
            words += ["--detector", DETECTOR]
        if "--no-reference" in words or "niqe" in words:
            words += ["--niqe-parameters", "niqe.mat"]
        assert {"test.py": script.main, "evaluate.py": evaluate.main}[script_name](words) == 0
        table = Path("evaluation/table.md").read_text()
        (truth,) = (said for name, said in expected.items() if re.search(rf"\b{name}\b", command))
        assert truth in table, command


def test_scenes_of_the_training_set_are_named_below_the_table() -> None:
    for number, seed in ((1, 3), (2, 44), (3, 5)):
        scene = np.random.default_rng(seed).integers(0, 255, (96, 128, 3), np.uint8)
        scene = cv2.GaussianBlur(scene, (0, 0), 4)
        scene = cv2.normalize(scene, None, 0, 255, cv2.NORM_MINMAX)
        write(Path(f"datasets/mine/target/{number}.png"), scene)
        write(Path(f"datasets/mine/input/{number}.png"), streaked(scene, number))
    trained_on = find_pairs(Path("datasets/mine")).pairs[1:2]
    config = write_run("ours", "dmsr_s", SETS="datasets/mine")
    path = config.with_name("best.safetensors")
    weights = read_weights(path)
    scenes = pack_scenes(scene_hashes(trained_on, None))
    write_weights(path, replace(weights, info={"training_scenes": scenes}))
    assert run("--config", config) == 0
    (note,) = (note for note in read_table()["notes"] if "trained on" in note)
    assert note == "ours was trained on 1 of the 3 scenes of mine, such as 2.png."
    # evaluate.py gives the same note if --facts names the weights of the method
    Path("facts.csv").write_text(f"method,weights\nours,{path}\n")
    benchmark = ("--benchmark", "results", "--datasets", "datasets", "--facts", "facts.csv")
    assert evaluate.main([*benchmark, "--output", "again"]) == 0
    assert note in json.loads(Path("again/table.json").read_text())["notes"]


def test_options_of_the_other_mode_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["--config", "a.yml", "--tile", "64"], "write TEST.TILE VALUE at the end"),
        (["--config", "a.yml", "--output", "x"], "write TEST.OUTPUT VALUE at the end"),
        (["--config", "a.yml", "--input", "x"], "--input does not go with --config"),
        (["--config", "a.yml", "--model", "dmsr"], "it needs --weights FILE"),
        (
            ["--config", "a", "--config", "b", "--model", "dmsr", "--weights", "c"],
            "it needs --weights FILE for each --config",
        ),
        (
            ["--config", "a", "--model", "x", "--model", "y", "--weights", "c"],
            "--model is given twice for a; it belongs to the --config before it",
        ),
        (["--config", "a", "--options", "width=8"], "name its network by --model"),
        (["--input", "x", "--metrics", "mse"], "--metrics and --tasks score test sets"),
        (["--config", "a.yml", "--labels", "x"], "--labels belongs to --tasks"),
        (["TEST.TILE", "64"], "--input or --config is needed"),
        (["--input", "x", "--weights", "a", "--weights", "b"], "several --weights"),
        ([], "--input or --config is needed"),
    ):
        with pytest.raises(SystemExit) as ended:
            script.main(arguments)
        assert ended.value.code == 2 and said in capsys.readouterr().err


def test_runs_of_train_py_can_be_tested_directly() -> None:
    """Two networks trained on a user's two folders and compared by one command."""
    for split, count in (("train", 2), ("val", 2)):
        write_pairs(Path("datasets") / split, count, 40, 48)
    small = (
        "MODEL.NAME nerd_rain_t AUGMENT.PATCH 32 OPTIM.BATCH_SIZE 2 OPTIM.EPOCHS 1 "
        "SCHEDULE.WARMUP_EPOCHS 0 DATA.WORKERS 0 VALIDATION.SAMPLES_EVERY 0"
    )
    for name, rate in (("slow", "1e-4"), ("fast", "1e-2")):
        train_here(Path("runs"), name, "OPTIM.LR", rate, *small.split())
    assert run("--config", "runs/slow/config.yml", "--config", "runs/fast/config.yml") == 0
    content = read_table()
    assert [column["dataset"] for column in content["columns"]] == ["val"]
    assert [row["method"] for row in content["rows"]] == ["rainy input", "slow", "fast"]
    # the log and the table agree on the PSNR
    for row in content["rows"][1:]:
        lines = (Path("runs") / row["method"] / "log.jsonl").read_text().splitlines()
        logged = [json.loads(line) for line in lines if "psnr" in line][-1]
        assert logged["psnr"] == pytest.approx(row["scores"]["val"]["psnr"], abs=1e-3)


def run_two(*arguments: object, status: int = 0) -> None:
    """test.py in two processes, with the environment variables that torchrun sets."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    for rank in range(2):
        variables = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        processes.append(FORK.Process(target=run_rank, args=(variables, arguments)))
        processes[-1].start()
    for process in processes:
        process.join(60)
        process.kill()  # if it hangs
        process.join()
    assert [process.exitcode for process in processes] == [status, status]


def run_rank(variables: dict[str, object], arguments: tuple[object, ...]) -> None:
    os.environ.update({name: str(value) for name, value in variables.items()})
    sys.exit(run(*arguments))


def test_two_processes_write_the_same_files_as_one(capfd: pytest.CaptureFixture[str]) -> None:
    """The images of test sets and of folders are distributed over the processes."""
    for name in ("Rain1200", "DDN-Data"):
        write_set(Path("datasets"), name)
    folders = [f"datasets/{SETS[name][0]}" for name in ("Rain1200", "DDN-Data")]
    config = write_run("ours", "dmsr_s", SETS=folders, OUTPUT="alone", SCORES="scores_alone")
    rainy = "datasets/DDN-Data/test/rainy_image"
    weights = config.with_name("best.safetensors")
    assert run("--config", config) == 0
    assert run("--weights", weights, "--input", rainy, "--output", "folder_alone") == 0

    run_two("--config", config, "TEST.OUTPUT", "shared", "TEST.SCORES", "scores_shared")
    capfd.readouterr()
    run_two("--weights", weights, "--input", rainy, "--output", "folder_shared")
    assert capfd.readouterr().err.count(" 0/2 [") == 1  # of the first process
    for one, two, count in (("alone/ours", "shared/ours", 6), ("folder_alone", "folder_shared", 4)):
        files = [path.relative_to(one) for path in Path(one).rglob("*.png")]
        assert len(files) == count
        assert sorted(files) == sorted(p.relative_to(two) for p in Path(two).rglob("*.png"))
        for file in files:
            assert (Path(one) / file).read_bytes() == (Path(two) / file).read_bytes()
    assert read_table("scores_alone")["rows"] == read_table("scores_shared")["rows"]
    # each process restored its share
    finished = (Path("shared/ours/DDN-Data") / LIST_NAME).read_text().strip().splitlines()
    assert sorted(json.loads(line)[0] for line in finished) == [
        "10_1.png", "10_2.png", "2_1.png", "2_2.png",
    ]  # fmt: skip
    # an error found only by the first process ends the other one too, before it restores its share
    refused = ("TEST.OUTPUT", "refused", "TEST.PROTOCOL", "niqe", "--config", config)
    run_two(*refused, "--metrics", "mse", status=1)
    assert not Path("refused").exists()
