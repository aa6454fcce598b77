"""The shipped weights: small, made by their recipes, and good at what their card says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage
import yaml

from configs import load_config
from data.rain import Rain, add_rain
from models import load_weights
from models.network import DerainingNetwork
from tests.helpers import ROOT
from utils.checkpoints import read_weights
from utils.images import read_rgb
from utils.inference.restorer import Restorer
from utils.metrics import score

WEIGHTS = ROOT / "weights" / "petrichor.safetensors"
REAL = ROOT / "weights" / "petrichor_real.safetensors"


@pytest.fixture(scope="module", params=[WEIGHTS, REAL], ids=lambda path: path.stem)
def network(request: pytest.FixtureRequest) -> DerainingNetwork:
    return load_weights(request.param)


@pytest.fixture(scope="module", params=["astronaut", "chelsea", "coffee"])
def photo(request: pytest.FixtureRequest) -> np.ndarray:
    """Part of a photograph inside scikit-image, which no network was trained on."""
    image = read_rgb(Path(skimage.__file__).parent / "data" / f"{request.param}.png")
    return np.ascontiguousarray(image[:256, 32:288])


@pytest.mark.parametrize(
    ("path", "recipe_name"), [(WEIGHTS, "petrichor_cuda"), (REAL, "petrichor_real")]
)
def test_the_file_is_small_and_its_recipe_ships(path: Path, recipe_name: str) -> None:
    assert path.stat().st_size <= 8e6
    weights = read_weights(path)
    recipe = load_config(ROOT / "configs" / f"{recipe_name}.yml")
    assert (weights.model, weights.options) == (recipe.MODEL.NAME, dict(recipe.MODEL.OPTIONS))
    trained = yaml.safe_load(weights.info["config"])
    if path == WEIGHTS:
        # The run ended after a fixed time, and compiled its norms without this setting.
        trained["OPTIM"] |= {"EPOCHS": recipe.OPTIM.EPOCHS, "COMPILE": recipe.OPTIM.COMPILE}
    else:
        assert_same_settings(trained["DATA"]["SYNTHESIS"], recipe.DATA.SYNTHESIS)
    for part in ("LOSS", "OPTIM", "SCHEDULE", "AUGMENT"):
        assert_same_settings(trained[part], recipe[part])


def assert_same_settings(trained: dict, recipe: dict) -> None:
    """Every setting of the training is the recipe's; settings added since are not compared."""
    for key, value in trained.items():
        if isinstance(value, dict):
            assert_same_settings(value, recipe[key])
        else:
            assert recipe[key] == value, key


@pytest.mark.parametrize(
    ("density", "brightness", "least_gain"), [(1.0, 0.6, 5.0), (0.4, 0.5, 3.0), (0.06, 0.5, 0.5)]
)
def test_rain_is_removed(
    network: DerainingNetwork,
    photo: np.ndarray,
    density: float,
    brightness: float,
    least_gain: float,
) -> None:
    rain = Rain(density=density, brightness=brightness, length=35, width=1.5, angle=10)
    rainy = add_rain(photo, rain, np.random.default_rng(0))
    restored = Restorer(network)(rainy)
    assert score(restored, photo).psnr > score(rainy, photo).psnr + least_gain


def test_a_dry_photograph_stays_as_it_is(network: DerainingNetwork, photo: np.ndarray) -> None:
    assert score(Restorer(network)(photo), photo).psnr > 36
