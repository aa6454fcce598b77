"""The README's commands run as written, in a folder laid out as the README says.

Only the reader's files are filled in, and trainings are shortened.
"""

from __future__ import annotations

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from configs import load_config
from data.settings import training_folders
from models import build_model
from models.published import to_published
from tests.helpers import ROOT, write_pairs
from utils.set_names import named_folders

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.split("  #")[0].strip()
    for language, block in BLOCKS
    if language == ""
    for line in block.splitlines()
    if line.startswith(("python ", "torchrun "))
]

# Replaces the reader's files.
OWN = {
    "photo.jpg": "pairs/input/1.png",
    "FOLDER": "pairs/input",
    "skimage": "photographs",  # smaller images with the same names
    "THEIRS.pth": "theirs.pth",
    "OURS.safetensors": "nerd.safetensors",
}
# Makes a training take seconds; its folders stay those of the recipe.
SHORT = shlex.split(
    "DATA.WORKERS 0 DATA.REPEAT 1 AUGMENT.PATCH 64 OPTIM.EPOCHS 1 SCHEDULE.NAME multi_step "
    "OPTIM.BATCH_SIZE 2"
)
SMALL = {"nerd": "nerd_rain_t", "dcsfn": "dcsfn_t"}  # by the recipe's first word; DMSR's otherwise
# Commands that need optional packages have their own tests.
OPTIONAL = ("--no-reference", "--metrics", "--tasks", "web_page.py", "rain.mp4", "spandrel")


def folders_of_recipes() -> set[str]:
    """Every folder that configs/*.yml train, validate or test on, except the demo's."""
    folders = set()
    for path in (ROOT / "configs").glob("*.yml"):
        cfg = load_config(path)
        folders |= {folder for folder, _ in training_folders(cfg.DATA.TRAIN)}
        for setting, name in ((cfg.DATA.VAL, "DATA.VAL"), (cfg.TEST.SETS, "TEST.SETS")):
            folders |= set(named_folders(setting, name).values())
    return {folder for folder in folders if not folder.startswith("demo/")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A newcomer's folder: rainy images, data sets where the README says, authors' weights."""
    folder = tmp_path_factory.mktemp("newcomer")
    write_pairs(folder / "pairs", 4)
    (folder / "photographs").mkdir()
    for number, name in enumerate(("astronaut", "chelsea", "coffee", "rocket"), 1):
        clean = folder / "pairs" / "target" / f"{number}.png"
        shutil.copy(clean, folder / "photographs" / f"{name}.png")
    tests = (f"Rain13K/test/{name}" for name in ("Test100", "Rain100H", "Rain100L", "Test2800"))
    for name in ("Rain13K/train", *tests, "Rain13K/test/Test1200"):
        write_pairs(folder / "datasets" / name, 2 if name.endswith("train") else 1)
    for name in ("train", "test"):  # no smaller than DCSFN's largest crop
        write_pairs(folder / "datasets" / "Rain200H" / name, 2, 96, 88)
    published = to_published(build_model("nerd_rain"))
    torch.save({"state_dict": published}, folder / "theirs.pth")
    return folder


def runnable(command: str) -> list[str]:
    """The command for this interpreter, with the reader's files and a short training."""
    words = [OWN.get(word, word) for word in shlex.split(command)]
    if words[0] == "torchrun":
        words = ["python", "-m", "torch.distributed.run", "--standalone", *words[1:]]
        words = [word.replace("per_node=4", "per_node=2") for word in words]
    if any(word.endswith("train.py") for word in words):
        recipe = next((word for word in words if word.startswith("configs/")), "")
        network = SMALL.get(recipe.removeprefix("configs/").split("_")[0], "dmsr_s")
        words += [*SHORT, "MODEL.NAME", network]
        words += ["OPTIM.EPOCHS", "2"] if "--resume" in words else []
    if words[1:4] == ["test.py", "--config", "configs/dmsr_rain13k.yml"]:
        words += ["MODEL.NAME", "dmsr_s"]  # trained by the previous command
    if words[1:2] == ["tools/make_rain.py"]:
        short = {"8": "1", "50": "3", "320x240": "48x40"}  # variants, frames, their size
        words = [short.get(word, word) for word in words]
    words = ["64" if word == "256" else word for word in words]  # a smaller image
    words = [
        str(ROOT / word) if re.fullmatch(r"(tools/\w+|\w+)\.py|configs/\w+\.yml", word) else word
        for word in words
    ]
    return [sys.executable, *words[1:]]


def test_the_tree_of_the_readme_has_every_recipes_data_set() -> None:
    section = README.split("## Data sets")[1].split("\n## ")[0]
    for name in sorted({path.split("/")[1] for path in folders_of_recipes()}):
        assert f"datasets/{name}" in section or f"  {name}/ " in section, name


def test_the_commands_of_the_readme_run_in_its_order(folder: Path) -> None:
    assert len(COMMANDS) >= 15
    for command in COMMANDS:
        if any(word in command for word in OPTIONAL):
            continue
        done = subprocess.run(
            runnable(command), cwd=folder, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (folder / "runs" / "dmsr" / "best.safetensors").exists()
    kept = [p.read_text() for p in (folder / "evaluation" / "history").glob("*.json")]
    assert any("dmsr" in table and "nerd_rain_s" in table for table in kept)
    assert "Flicker (flow)" in (folder / "evaluation" / "table.md").read_text()


def test_the_python_code_of_the_readme_runs(folder: Path) -> None:
    """In a folder with a photo.jpg and the project's weights."""
    (code,) = [block for language, block in BLOCKS if language == "python"]
    shutil.copy(folder / "pairs/input/1.png", folder / "photo.jpg")
    (folder / "weights").mkdir(exist_ok=True)
    shutil.copy(ROOT / "weights/petrichor.safetensors", folder / "weights")
    check = (
        "rainy = read_rgb(Path('photo.jpg')); assert restored.shape == rainy.shape == (72, 88, 3)"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{check}"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr


def test_every_link_of_the_readme_leads_to_a_file_or_a_heading() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if not target.startswith("http"):
            name, _, anchor = target.partition("#")
            file = ROOT / (name or "README.md")
            assert file.exists(), target
            if anchor:
                headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
                anchors = [
                    re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in headings
                ]
                assert anchor in anchors, target


@pytest.mark.parametrize(
    ("table", "text", "digits"), [("demo", "README.md", 3), ("report", "tools/README.md", 4)]
)
def test_the_text_states_the_same_figures_as_its_pictures(
    table: str, text: str, digits: int
) -> None:
    """The runs that made the pictures also wrote their figures to tools/pictures/*.csv."""
    with open(ROOT / "tools" / "pictures" / f"{table}.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    (psnr,) = (name for name in rows[0] if "PSNR" in name)
    (ssim,) = (name for name in rows[0] if "SSIM" in name)
    words = " ".join((ROOT / text).read_text().split())
    for row in rows:
        figures = f"{float(row[psnr]):.2f}", f"{float(row[ssim]):.{digits}f}"
        assert any(f"{figures[0]}{unit} / {figures[1]}" in words for unit in ("", " dB")), row


def test_the_model_cards_front_matter_states_the_figures_of_its_table() -> None:
    front, _, card = (ROOT / "weights" / "README.md").read_text()[4:].partition("\n---\n")
    meta = yaml.safe_load(front)
    assert meta["pipeline_tag"] == "image-to-image"
    (heavy,) = (line for line in card.splitlines() if line.startswith("| heavy rain"))
    cells = [cell.strip(" *") for cell in heavy.split("|")[-3:-1]]
    for model, cell in zip(meta["model-index"], cells, strict=True):
        metrics = {m["type"]: m["value"] for m in model["results"][0]["metrics"]}
        assert f"{metrics['psnr']:.2f} / {metrics['ssim']:.3f}" == cell, model["name"]
