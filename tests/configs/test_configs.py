"""Settings: every shipped file loads, and mistakes are refused in one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from yacs.config import CfgNode

from configs import default_config, load_config, settings_help
from data.settings import build_augmentation
from losses import build_criterion
from models import build_model
from utils.errors import UserError
from utils.metrics import PROTOCOLS

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "configs").glob("*.yml"))


@pytest.mark.parametrize("path", [*RECIPES, ROOT / "training.yml"], ids=lambda path: path.stem)
def test_every_file_of_settings_loads_and_its_parts_fit_together(path: Path) -> None:
    """The network, the loss and the patches of any YAML in configs/."""
    config = load_config(path)
    assert config.VALIDATION.PROTOCOL in PROTOCOLS
    build_augmentation(config.AUGMENT)
    with torch.device("meta"):
        network = build_model(config.MODEL.NAME, config.MODEL.OPTIONS)
    criterion = build_criterion(config.LOSS, network.implicit_outputs)
    for patch in {config.AUGMENT.PATCH, *(stage[1] for stage in config.AUGMENT.PROGRESSIVE)}:
        rainy = torch.empty(1, 3, patch, patch, device="meta")
        criterion.check(network(rainy), rainy)


def test_the_command_line_overrides_the_file() -> None:
    overrides = ["OPTIM.BATCH_SIZE", "8", "OPTIM.LR", "1e-3", "LOSS.RANGE", "[-1, 1]"]
    overrides += ["MODEL.OPTIONS.width", "24", "OPTIM.TF32", "true", "RUN.NAME", "mine"]
    config = load_config(ROOT / "configs" / "dmsr_rain13k.yml", overrides)
    assert (config.OPTIM.BATCH_SIZE, config.OPTIM.LR, config.LOSS.RANGE) == (8, 1e-3, [-1, 1])
    assert (config.MODEL.OPTIONS.width, config.OPTIM.TF32, config.RUN.NAME) == (24, True, "mine")
    assert config.OPTIM.EPOCHS == 300  # the file's


def test_a_file_builds_on_its_base(tmp_path) -> None:
    (tmp_path / "base.yml").write_text("OPTIM: {LR: 1e-3, EPOCHS: 5}\n")
    (tmp_path / "top.yml").write_text("BASE: base.yml\nOPTIM: {EPOCHS: 7}\n")
    config = load_config(tmp_path / "top.yml")
    assert (config.OPTIM.LR, config.OPTIM.EPOCHS) == (1e-3, 7)


def test_another_network_starts_without_the_options_of_the_one_before(tmp_path) -> None:
    """Otherwise a recipe with options would fit its own network only."""
    (tmp_path / "base.yml").write_text("MODEL: {NAME: nerd_rain, OPTIONS: {head_width: 64}}\n")
    (tmp_path / "same.yml").write_text("BASE: base.yml\nMODEL: {OPTIONS: {width: 16}}\n")
    (tmp_path / "other.yml").write_text(
        "BASE: base.yml\nMODEL: {NAME: dmsr, OPTIONS: {num_blocks: 4}}\n"
    )
    assert load_config(tmp_path / "same.yml").MODEL.OPTIONS == {"head_width": 64, "width": 16}
    assert load_config(tmp_path / "other.yml").MODEL.OPTIONS == {"num_blocks": 4}
    name, width = ["MODEL.NAME", "dcsfn"], ["MODEL.OPTIONS.width", "8"]
    for settings, left in ((name, {}), (name + width, {"width": 8}), (width + name, {"width": 8})):
        options = load_config(tmp_path / "same.yml", settings).MODEL.OPTIONS
        assert options == left
    again = load_config(tmp_path / "same.yml", ["MODEL.NAME", "nerd_rain"])
    assert again.MODEL.OPTIONS == {"head_width": 64, "width": 16}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["OPTIM.BATCHSIZE", "8"], r"no setting OPTIM\.BATCHSIZE.*Did you mean OPTIM\.BATCH_SIZE"),
        (["optim.batch_size", "8"], r"no setting optim.*OPTIM"),
        (["OPTIM.BATCH_SIZE", "eight"], r"OPTIM\.BATCH_SIZE is 'eight'.*must be of type int"),
        (["OPTIM.BATCH_SIZE", "8.5"], r"must be of type int"),
        (["OPTIM.TF32", "1"], r"must be of type bool"),
        (["OPTIM.LR", "fast"], r"must be of type float"),
        (["OPTIM", "8"], r"OPTIM is a group of settings \(BATCH_SIZE"),
        (["OPTIM.CLIP_NORM", "-1"], r"OPTIM\.CLIP_NORM is -1\.0; it must be at least 0"),
        (["OPTIM.EMA", "1.5"], r"from 0|at least 0 and below 1"),
        (["OPTIM.LR", "0"], r"must be above 0"),
        (["OPTIM.LR", "nan"], r"must be above 0"),
        (["OPTIM.LR", "inf"], r"OPTIM\.LR is inf; it must be above 0"),
        (["OPTIM.LR", "1e-7"], r"OPTIM\.LR is 1e-07, below SCHEDULE\.LR_MIN, 1e-06"),
        (["LOSS.TERMS.L1", "-1"], r"LOSS\.TERMS\.L1 is -1\.0; it must be at least 0"),
        (["LOSS.IMPLICIT", "-1"], r"LOSS\.IMPLICIT is -1\.0; it must be at least 0"),
        (["OPTIM.PRECISION", "int8"], r"must be one of float32, bf16, fp16"),
        (["OPTIM.NAME", "sgd"], r"must be one of adam, adamw"),
        (["SCHEDULE.NAME", "linear"], r"one of warmup_cosine, multi_step, exponential"),
        (["VALIDATION.PROTOCOL", "y"], r"VALIDATION\.PROTOCOL is 'y'; it must be one of"),
        (["TEST.PROTOCOL", "y"], r"one of nothing, rain13k, did, rgb, hq_rain, raindrop, niqe"),
        (["TEST.TILE", "half"], r"tile is 'half'"),
        (["TEST.ENSEMBLE", "4"], r"TEST\.ENSEMBLE is 4; it must be one of 1, 8"),
        (["TEST.OVERLAP", "-2"], r"at least -1"),
        (["OPTIM.EPOCHS", "0"], r"must be at least 1"),
        (["OPTIM.EMA", "1"], r"OPTIM\.EMA is 1\.0; it must be at least 0 and below 1"),
        (["OPTIM.BETAS", "[0.9, 1]"], r"must be at least 0 and below 1"),
        (["OPTIM.EPOCHS", "3"], r"WARMUP_EPOCHS is 3; it must be below OPTIM\.EPOCHS, 3"),
        (["OPTIM.BETAS", "[0.9]"], r"must hold two numbers"),
        (["LOSS.RANGE", "['a', 'b']"], r"must hold numbers"),
        (["AUGMENT.CROP", "[80, 48]"], r"the smaller number comes first"),
        (["AUGMENT.PROGRESSIVE", "[[1, 64]]"], r"each stage is \[first epoch, patch, batch\]"),
        (["VALIDATION.EVERY", "0"], r"must be at least 1"),
        (["RUN.NAME", ""], r"RUN\.NAME is empty"),
        (["OPTIM.BATCH_SIZE"], r"KEY VALUE pairs; OPTIM\.BATCH_SIZE has no value"),
    ],
)
def test_mistakes_are_refused_in_one_sentence(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(ROOT / "training.yml", overrides)


def test_text_settings_take_any_text() -> None:
    recipe = ROOT / "configs" / "dmsr_rain13k.yml"  # which lists several sets
    overrides = ["TEST.SETS", "datasets/mine", "TEST.TILE", "128"]
    node = load_config(recipe, overrides).TEST
    assert (node.SETS, node.TILE) == ("datasets/mine", "128")
    lists = load_config(recipe, ["TEST.SETS", "[a, [b, name]]"]).TEST.SETS
    assert lists == ["a", ["b", "name"]]
    assert load_config(ROOT / "training.yml", ["RUN.NAME", "2024"]).RUN.NAME == "2024"


def test_a_file_that_builds_on_itself_is_refused(tmp_path) -> None:
    (tmp_path / "a.yml").write_text("BASE: b.yml\n")
    (tmp_path / "b.yml").write_text("BASE: a.yml\n")
    with pytest.raises(UserError, match=r"a\.yml builds on itself"):
        load_config(tmp_path / "a.yml")


def test_files_without_settings_are_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="Cannot read the settings"):
        load_config(tmp_path / "missing.yml")
    (tmp_path / "broken.yml").write_text("OPTIM: [1, 2\n")
    with pytest.raises(UserError, match="is not YAML"):
        load_config(tmp_path / "broken.yml")
    (tmp_path / "list.yml").write_text("- 1\n")
    with pytest.raises(UserError, match="contains no settings"):
        load_config(tmp_path / "list.yml")


def test_a_group_that_occurs_twice_is_refused(tmp_path) -> None:
    """PyYAML would silently use the second one only."""
    (tmp_path / "twice.yml").write_text("OPTIM: {LR: 1e-3}\nRUN: {NAME: a}\nOPTIM: {EPOCHS: 3}\n")
    with pytest.raises(UserError, match="OPTIM occurs twice"):
        load_config(tmp_path / "twice.yml")


def test_every_setting_is_read_somewhere() -> None:
    """A setting that nothing reads would be ignored silently."""
    code = "".join(
        path.read_text()
        for pattern in ("*.py", "data/*.py", "models/*.py", "losses/*.py", "utils/**/*.py")
        for path in ROOT.glob(pattern)
    )
    for group, node in default_config().items():
        for key in node:
            assert re.search(rf"\.{key}\b|{group}\.{key}\b", code), f"{group}.{key}"


def test_the_help_lists_every_setting_with_default_and_comment_in_80_columns() -> None:
    text = settings_help()
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    for group, node in default_config().items():
        assert f"\n{group}" in f"\n{text}"
        for key, value in node.items():
            if not isinstance(value, CfgNode):
                default = value if isinstance(value, str) and value else repr(value)
                assert f" {group}.{key} {default}" in words
    assert "OPTIM.ACCUMULATE 1 micro-batches per step" in words
    # two lines of comment above the setting
    assert "DATA.TRAIN datasets/train A folder of pairs, or a list of folders" in words
    assert "DATA.SYNTHESIS.SHARE_LIGHT 0.1 with light rain" in words
