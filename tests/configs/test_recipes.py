"""Every number of the published recipes, typed once more by hand from the releases.

Without it, a slip in a YAML would be noticed after days of training.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from configs import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
GOLDEN = Path(__file__).parents[1] / "golden"

# What no release uses.
OFF = {
    "AUGMENT.PROGRESSIVE": [],
    "OPTIM.ACCUMULATE": 1,
    "OPTIM.NAME": "adam",
    "OPTIM.BETAS": [0.9, 0.999],
    "OPTIM.EPS": 1e-8,
    "OPTIM.WEIGHT_DECAY": 0.0,
    "OPTIM.CLIP_NORM": 0.0,
    "OPTIM.EMA": 0.0,
    "OPTIM.PRECISION": "float32",
    "OPTIM.TF32": False,
    "OPTIM.CHANNELS_LAST": False,
    "OPTIM.COMPILE": False,
    "OPTIM.CUDA_GRAPH": False,
    "OPTIM.GRADIENT_CHECKPOINTING": False,
    "MODEL.INIT": "",
    "RUN.DETERMINISTIC": False,
    "DATA.LAYOUT": "auto",
    "DATA.MATCH": "",
    "VALIDATION.EVERY": 1,
    "VALIDATION.BEST": "mean",
    "CHECKPOINT.KEEP_BEST": 1,
}
NO_COLOUR_CHANGE = {"AUGMENT.SATURATION": [1.0, 1.0], "AUGMENT.SATURATION_PROBABILITY": 0.0}
NO_ZOOM = {"AUGMENT.CROP": [], "AUGMENT.ROTATION": 0.0, "AUGMENT.BLACK_CORNERS": False}
TERMS = ("L1", "CHARBONNIER", "FFT_STACKED", "FFT_COMPLEX", "EDGE", "LAPLACIAN", "NEGATIVE_SSIM")


def terms(**weights: float) -> dict[str, float]:
    return {f"LOSS.TERMS.{name}": weights.get(name, 0.0) for name in TERMS}


DMSR = {
    **OFF, **NO_COLOUR_CHANGE, **NO_ZOOM, **terms(L1=1.0, FFT_STACKED=0.1),
    "RUN.SEED": 0, "DATA.REPEAT": 1,
    "AUGMENT.PATCH": 64, "AUGMENT.GEOMETRY": "dihedral9",
    "LOSS.SCALES": 3, "LOSS.PYRAMID": "bilinear", "LOSS.IMPLICIT": 0.0, "LOSS.RANGE": [0.0, 1.0],
    "OPTIM.BATCH_SIZE": 12, "OPTIM.EPOCHS": 300, "OPTIM.LR": 2e-4,
    "SCHEDULE.NAME": "warmup_cosine", "SCHEDULE.WARMUP_EPOCHS": 3, "SCHEDULE.LR_MIN": 1e-6,
    "VALIDATION.PATIENCE": 40,
}  # fmt: skip
NERD_RAIN = {
    **OFF, **NO_ZOOM, **terms(CHARBONNIER=1.0, FFT_COMPLEX=0.01, EDGE=0.05),
    "RUN.SEED": 1234, "DATA.REPEAT": 1,
    "AUGMENT.PATCH": 256, "AUGMENT.GEOMETRY": "dihedral9",
    "AUGMENT.SATURATION": [0.8, 1.2], "AUGMENT.SATURATION_PROBABILITY": 1 / 3,
    "LOSS.SCALES": 3, "LOSS.PYRAMID": "gaussian", "LOSS.IMPLICIT": 0.1, "LOSS.RANGE": [0.0, 1.0],
    "OPTIM.BATCH_SIZE": 1, "OPTIM.EPOCHS": 3000, "OPTIM.LR": 1e-4,
    "SCHEDULE.NAME": "warmup_cosine", "SCHEDULE.WARMUP_EPOCHS": 3, "SCHEDULE.LR_MIN": 1e-6,
    "VALIDATION.PATIENCE": 0,
}  # fmt: skip
DCSFN = {
    **OFF, **NO_COLOUR_CHANGE, **terms(NEGATIVE_SSIM=1.0),
    "RUN.SEED": 66, "DATA.REPEAT": 1,
    "AUGMENT.PATCH": 64, "AUGMENT.CROP": [48, 80], "AUGMENT.GEOMETRY": "hflip",
    "AUGMENT.ROTATION": 30.0, "AUGMENT.BLACK_CORNERS": True,
    "LOSS.SCALES": 1, "LOSS.PYRAMID": "bilinear", "LOSS.IMPLICIT": 0.0, "LOSS.RANGE": [0.0, 1.0],
    "OPTIM.BATCH_SIZE": 24, "OPTIM.EPOCHS": 800, "OPTIM.LR": 5e-4,
    "SCHEDULE.NAME": "multi_step", "SCHEDULE.MILESTONES": [0.6, 0.8], "SCHEDULE.GAMMA": 0.1,
    "VALIDATION.PATIENCE": 0,
}  # fmt: skip
MSPFN = {
    **OFF, **NO_COLOUR_CHANGE, **NO_ZOOM, **terms(CHARBONNIER=1.0, LAPLACIAN=0.05),
    "RUN.SEED": 0, "DATA.REPEAT": 18,
    "AUGMENT.PATCH": 96, "AUGMENT.GEOMETRY": "dihedral_batch",
    "LOSS.SCALES": 1, "LOSS.PYRAMID": "bilinear", "LOSS.IMPLICIT": 0.0, "LOSS.RANGE": [-1.0, 1.0],
    "OPTIM.BATCH_SIZE": 12, "OPTIM.EPOCHS": 50, "OPTIM.LR": 5e-4,
    "SCHEDULE.NAME": "exponential", "SCHEDULE.GAMMA": 0.8, "SCHEDULE.DECAY_STEPS": 20000,
    "SCHEDULE.LR_MIN": 1e-6,
    "VALIDATION.PATIENCE": 0,
}  # fmt: skip

# File -> recipe, network, training and validation folder below datasets/, protocol of validation.
RECIPES = {
    "dmsr_rain13k": (DMSR, "dmsr", "Rain13K/train", "Rain13K/test/Rain100L", "rain13k"),
    "mspfn_rain13k": (MSPFN, "mspfn", "Rain13K/train", "Rain13K/test/Rain100H", "rain13k"),
    "mspfn_n1_rain13k": (MSPFN, "mspfn_n1", "Rain13K/train", "Rain13K/test/Rain100H", "rain13k"),
    **{
        f"dcsfn_{name.lower()}": (DCSFN, "dcsfn", f"{name}/train", f"{name}/test", "rgb")
        for name in ("Rain100H", "Rain100L", "Rain1200")
    },
    **{
        f"{network}_{short}": (NERD_RAIN, network, f"{name}/train", f"{name}/test", protocol)
        for network in ("nerd_rain", "nerd_rain_s")
        for short, name, protocol in (
            ("rain200l", "Rain200L", "rain13k"),
            ("rain200h", "Rain200H", "rain13k"),
            ("did", "DID-Data", "did"),
            ("ddn", "DDN-Data", "did"),
            ("spa", "SPA-Data", "rain13k"),
        )
    },
    "nerd_rain_cnn_rain200h": (
        NERD_RAIN, "nerd_rain_cnn", "Rain200H/train", "Rain200H/test", "rain13k",
    ),
}  # fmt: skip
RAIN13K = ["Test100", "Rain100H", "Rain100L", "Test2800", "Test1200"]


def test_every_published_recipe_is_checked_here() -> None:
    files = {path.stem for path in CONFIGS.glob("*_*.yml")}
    assert {name for name in files if not name.startswith("petrichor")} == RECIPES.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_is_the_published_one(name: str) -> None:
    recipe, network, train, validation, protocol = RECIPES[name]
    test_sets: str | list[str] = f"datasets/{validation}"
    if train == "Rain13K/train":
        test_sets = [f"datasets/Rain13K/test/{test_set}" for test_set in RAIN13K]
    expected = recipe | {
        "RUN.NAME": name,
        "MODEL.NAME": network,
        "MODEL.OPTIONS": {},
        "DATA.TRAIN": f"datasets/{train}",
        "DATA.VAL": f"datasets/{validation}",
        "VALIDATION.PROTOCOL": protocol,
        "TEST.SETS": test_sets,
        "TEST.TILE": "released",
        "TEST.PROTOCOL": "",
    }
    cfg = load_config(CONFIGS / f"{name}.yml")
    found = {}
    for key in expected:
        value = cfg
        for part in key.split("."):
            value = value[part]
        found[key] = value
    assert found == expected


# The networks whose scores are published, by their names in the papers.
PAPERS = {
    "dmsr": "DMSR",
    "nerd_rain": "NeRD-Rain",
    "nerd_rain_s": "NeRD-Rain-S",
    "dcsfn": "DCSFN",
    "mspfn": "MSPFN",
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_header_has_the_command_and_the_published_scores(name: str) -> None:
    lines = (CONFIGS / f"{name}.yml").read_text().splitlines()
    header = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    assert f"python train.py --config configs/{name}.yml " in header
    assert "Length" in header
    cfg = load_config(CONFIGS / f"{name}.yml")
    sets = cfg.TEST.SETS if isinstance(cfg.TEST.SETS, list) else [cfg.TEST.SETS]
    names = [Path(folder.removesuffix("/test")).name for folder in sets]
    names = ["Test1200" if name == "Rain1200" else name for name in names]  # as Rain13K has it
    with open(GOLDEN / "published_results.csv", newline="") as file:
        expected = {
            (row["dataset"], f"{row['psnr']}/{row['ssim']}")
            for row in csv.DictReader(file)
            if row["model"] == PAPERS.get(cfg.MODEL.NAME)
            and row["dataset"] in names
            and "retrained" not in row["trained_on"]
        }
    assert set(re.findall(r"(\S+) (\d+\.\d+/0\.\d+)", header)) == expected


def test_mspfn_takes_the_released_number_of_steps() -> None:
    """Some 240,000 tiles of 96 pixels per epoch, a million steps of 12 in 50 epochs."""
    cfg = load_config(CONFIGS / "mspfn_rain13k.yml")
    steps = 13_712 * cfg.DATA.REPEAT // cfg.OPTIM.BATCH_SIZE * cfg.OPTIM.EPOCHS
    assert steps == 50 * 20_568
