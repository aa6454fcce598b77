"""Every number of the published recipes, typed once more by hand from the releases.

A slip in a YAML would train for days before anybody saw it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from configs import load_config

CONFIGS = Path(__file__).parents[2] / "configs"

# What no release does and every recipe leaves off.
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

# File -> recipe, network, training and validation folder below datasets/, protocol.
RECIPES = {
    "dmsr_rain13k": (DMSR, "dmsr", "Rain13K/train", "Rain13K/test/Rain100L", "rain13k"),
    "mspfn_rain13k": (MSPFN, "mspfn", "Rain13K/train", "Rain13K/test/Rain100H", "rain13k"),
    "mspfn_n1_rain13k": (MSPFN, "mspfn_n1", "Rain13K/train", "Rain13K/test/Rain100H", "rain13k"),
    "dcsfn_rain100h": (DCSFN, "dcsfn", "Rain100H/train", "Rain100H/test", "rgb"),
    "dcsfn_rain100l": (DCSFN, "dcsfn", "Rain100L/train", "Rain100L/test", "rgb"),
    "dcsfn_rain1200": (DCSFN, "dcsfn", "Rain1200/train", "Rain1200/test", "rgb"),
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


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_is_the_published_one(name: str) -> None:
    recipe, network, train, validation, protocol = RECIPES[name]
    expected = recipe | {
        "RUN.NAME": name,
        "MODEL.NAME": network,
        "MODEL.OPTIONS": {},
        "DATA.TRAIN": f"datasets/{train}",
        "DATA.VAL": f"datasets/{validation}",
        "VALIDATION.PROTOCOL": protocol,
    }
    cfg = load_config(CONFIGS / f"{name}.yml")
    found = {}
    for key in expected:
        value = cfg
        for part in key.split("."):
            value = value[part]
        found[key] = value
    assert found == expected


def test_mspfn_takes_the_released_number_of_steps() -> None:
    """Some 240,000 tiles of 96 pixels an epoch, a million steps of 12 in 50 epochs."""
    cfg = load_config(CONFIGS / "mspfn_rain13k.yml")
    steps = 13_712 * cfg.DATA.REPEAT // cfg.OPTIM.BATCH_SIZE * cfg.OPTIM.EPOCHS
    assert 950_000 < steps < 1_050_000


RAIN13K = ["Test100", "Rain100H", "Rain100L", "Test2800", "Test1200"]
TEST_SETS = {
    **{
        name: [f"datasets/Rain13K/test/{test_set}" for test_set in RAIN13K]
        for name in ("dmsr_rain13k", "mspfn_rain13k", "mspfn_n1_rain13k")
    },
    **{
        f"{network}_{short}": f"datasets/{name}/test"
        for network in ("nerd_rain", "nerd_rain_s")
        for short, name in (
            ("rain200l", "Rain200L"), ("rain200h", "Rain200H"), ("did", "DID-Data"),
            ("ddn", "DDN-Data"), ("spa", "SPA-Data"),
        )
    },
    "nerd_rain_cnn_rain200h": "datasets/Rain200H/test",
    **{f"dcsfn_{name.lower()}": f"datasets/{name}/test"
       for name in ("Rain100H", "Rain100L", "Rain1200")},
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [path.stem for path in CONFIGS.glob("*_*.yml") if not path.stem.startswith("petrichor")],
)
def test_a_published_recipe_names_its_papers_test_sets(name: str) -> None:
    cfg = load_config(CONFIGS / f"{name}.yml")
    assert TEST_SETS[name.replace("_cnn", "")] == cfg.TEST.SETS
    assert cfg.TEST.TILE == "released" and cfg.TEST.PROTOCOL == ""
