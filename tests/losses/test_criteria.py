"""The losses of the recipes against the releases' figures, and their parts against formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import nn

from configs import load_config
from losses import build_criterion
from losses.criteria import Criterion
from losses.pyramids import BilinearPyramid, GaussianPyramid
from losses.terms import (
    TERMS,
    Charbonnier,
    Edge,
    FftComplex,
    FftStacked,
    Laplacian,
    NegativeSsim,
)
from tests.reference import golden_network, golden_steps
from utils.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"
NERD_RAIN = {"CHARBONNIER": "char", "FFT_COMPLEX": "fft", "EDGE": "edge", "IMPLICIT": "l1"}
# Network -> a recipe of it, and our names of the loss's parts to those of the golden figures.
RECIPES = {
    "dmsr": ("dmsr_rain13k", {"L1": "l1", "FFT_STACKED": "fft"}),
    "nerd_rain": ("nerd_rain_rain200l", NERD_RAIN),
    "nerd_rain_s": ("nerd_rain_s_rain200h", NERD_RAIN),
    "nerd_rain_cnn": ("nerd_rain_cnn_rain200h", NERD_RAIN),
    "dcsfn": ("dcsfn_rain100h", {"NEGATIVE_SSIM": "ssim"}),
    "mspfn": ("mspfn_rain13k", {"LAPLACIAN": "edge"}),
}


@pytest.mark.parametrize(
    "name",
    # NeRD-Rain-S is the same code as NeRD-Rain
    [pytest.param(name, marks=[pytest.mark.slow] * (name == "nerd_rain")) for name in RECIPES],
)
def test_recipe_takes_the_steps_of_the_release(name: str) -> None:
    """Loss, parts and gradient norm of the first steps, with the loss of the shipped YAML."""
    recipe, golden_parts = RECIPES[name]
    network = golden_network(name).train()
    criterion = build_criterion(
        load_config(CONFIGS / f"{recipe}.yml").LOSS, network.implicit_outputs
    )
    steps = golden_steps(name)
    optimizer = torch.optim.Adam(network.parameters(), lr=steps[0][2]["lr"])
    for rainy, clean, expected in steps:
        loss, parts = criterion(network(rainy), clean)
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), float("inf"))
        assert loss.item() == pytest.approx(expected["loss"], rel=1e-5)
        for ours, theirs in golden_parts.items():
            sign = -1 if theirs == "ssim" else 1
            assert sign * parts[ours].item() == pytest.approx(expected[theirs], rel=1e-5), ours
        if "grad_norm" in expected:
            assert norm.item() == pytest.approx(expected["grad_norm"], rel=1e-4)
        optimizer.step()


def test_ssim_is_that_of_scikit_image_on_zero_padded_images() -> None:
    rng = np.random.default_rng(0)
    clean = rng.random((40, 36, 3))
    noisy = np.clip(clean + rng.normal(0, 0.1, clean.shape), 0, 1)
    x, y = (torch.from_numpy(a).permute(2, 0, 1)[None] for a in (noisy, clean))
    # scikit-image pads otherwise, so the zeros are part of its images.
    zeros = nn.functional.pad(x, (5, 5, 5, 5)), nn.functional.pad(y, (5, 5, 5, 5))
    expected = structural_similarity(
        zeros[1][0].permute(1, 2, 0).numpy(), zeros[0][0].permute(1, 2, 0).numpy(),
        channel_axis=2, gaussian_weights=True, sigma=1.5, data_range=1.0,
        use_sample_covariance=False, full=True,
    )[1][5:-5, 5:-5].mean()  # fmt: skip
    negative_ssim = NegativeSsim().double()
    assert -negative_ssim(x, y).item() == pytest.approx(expected, abs=1e-6)
    assert negative_ssim(y, y).item() == pytest.approx(-1)


def test_terms_vanish_on_equal_images_and_see_a_single_changed_pixel() -> None:
    clean = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    changed = clean.clone()
    changed[0, 1, 5, 7] += 0.5
    for term in (FftStacked(), FftComplex()):
        assert term(clean, clean) == 0
    for term in (Charbonnier(), Edge(), Laplacian()):
        assert term(clean, clean).item() == pytest.approx(1e-3)  # sqrt(1e-6)
    # A delta of 0.5 has a spectrum of modulus 0.5 everywhere, in one of three channels.
    assert FftComplex()(changed, clean).item() == pytest.approx(0.5 / 3, rel=1e-5)
    assert Edge()(changed, clean) > 1.1e-3 and Laplacian()(changed, clean) > 1.1e-3


def test_pyramids_halve_in_their_own_ways() -> None:
    image = torch.arange(64.0).reshape(1, 1, 8, 8)
    bilinear = BilinearPyramid()(image, 3)
    assert torch.equal(bilinear[1][0, 0, 0], torch.tensor([4.5, 6.5, 8.5, 10.5]))  # means of 2x2
    assert bilinear[2][0, 0, 0, 0] == 13.5  # a resize of the full image: pixels 1.5, not a mean
    impulse = torch.zeros(1, 1, 16, 16)
    impulse[0, 0, 8, 8] = 256.0
    half = GaussianPyramid()(impulse, 2)[1]
    # 5x5 binomial weights (1 4 6 4 1)/16, then means of two: (6+4)/2, (4+1)/2, 1/2
    assert half[0, 0, 4, 4].item() == pytest.approx(5 * 5)
    assert half[0, 0, 4, 3].item() == pytest.approx(5 * 2.5)
    assert half[0, 0, 4, 5].item() == pytest.approx(5 * 0.5)


def test_criterion_runs_in_float32_under_autocast() -> None:
    criterion = build_criterion(load_config(CONFIGS / "dmsr_rain13k.yml").LOSS)
    clean = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    outputs = tuple(clean[..., ::step, ::step].bfloat16() for step in (1, 2, 4))
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = criterion(outputs, clean)
    assert loss.dtype == torch.float32 and loss.isfinite()


def test_all_kernels_move_with_the_criterion_and_none_is_made_while_it_computes(
    monkeypatch,
) -> None:
    """On CUDA, a kernel made from a list in each micro-batch would be a blocking copy.

    float64 takes the place of a device here: a convolution refuses a kernel left in float32.
    """
    weights = dict.fromkeys(TERMS, 0.5)
    criterion = Criterion(weights, num_scales=3, pyramid="gaussian")
    assert {name for name, _ in criterion.named_buffers()} == {
        "terms.EDGE.kernel",
        "terms.LAPLACIAN.kernel",
        "terms.NEGATIVE_SSIM.window",
        "pyramid.kernel",
    }
    assert not criterion.state_dict()  # a checkpoint does not hold them
    images = [torch.rand(1, 3, 32 // s, 32 // s, dtype=torch.float64) for s in (1, 2, 4)]
    for name in ("tensor", "as_tensor", "from_numpy", "arange"):
        monkeypatch.setattr(torch, name, None)
    monkeypatch.setattr(torch.Tensor, "new_tensor", None)
    for term in criterion.terms.double().values():
        assert term(images[0], images[0].flip(3)).dtype == torch.float64
    assert criterion.pyramid.double()(images[0], 3)[2].dtype == torch.float64
    criterion.float()(tuple(images), images[0].float())


def test_a_loss_without_terms_or_with_an_unknown_pyramid_is_refused() -> None:
    with pytest.raises(UserError, match=r"set one of LOSS\.TERMS\.L1"):
        build_criterion(load_config(CONFIGS / "dmsr_rain13k.yml", ["LOSS.TERMS.L1", "0",
                                    "LOSS.TERMS.FFT_STACKED", "0"]).LOSS)  # fmt: skip
    with pytest.raises(UserError, match="bilinear, gaussian"):
        build_criterion(load_config(CONFIGS / "dmsr_rain13k.yml", ["LOSS.PYRAMID", "x"]).LOSS)


def images(*shapes: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.zeros(shape) for shape in shapes)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (torch.zeros(2, 3, 8, 8), r"returns a tensor of shape \(2, 3, 8, 8\); it must return a tu"),
        ([torch.zeros(2, 3, 8, 8)], "returns a list of Tensor"),
        ({"restored": torch.zeros(2, 3, 8, 8)}, "returns a dict"),
        ((torch.zeros(2, 3, 8, 8), None), "returns a tuple of Tensor, NoneType"),
        (images((2, 3, 8, 8)), "takes 2 outputs; this network has 1"),
        (images((2, 1, 8, 8), (2, 3, 4, 4)), r"Output 0 .* shape \(2, 1, 8, 8\).*\(2, 3, 8, 8\)"),
        (images((1, 3, 8, 8), (1, 3, 4, 4)), r"Output 0 .* shape \(1, 3, 8, 8\)"),
        (images((2, 3, 8, 8), (2, 3, 8, 8)), r"Output 1 .*8 x 8 images .*\(2, 3, 4, 4\)"),
        (images((2, 3, 8, 8), (3, 4, 4)), r"Output 1 .* shape \(3, 4, 4\)"),
    ],
)
def test_anything_but_a_tuple_of_fitting_images_is_refused(outputs: object, message: str) -> None:
    """Broadcasting would accept most of them."""
    criterion = Criterion({"L1": 1.0}, num_scales=2)
    with pytest.raises(UserError, match=message):
        criterion(outputs, torch.zeros(2, 3, 8, 8))


def test_outputs_that_are_not_compared_may_have_any_shape() -> None:
    criterion = Criterion({"L1": 1.0})
    loss, _ = criterion(images((2, 3, 8, 8), (2, 3, 5, 5)), torch.ones(2, 3, 8, 8))
    assert loss.item() == 1


def test_implicit_outputs_are_those_that_the_network_names() -> None:
    clean = torch.ones(1, 3, 16, 16)
    outputs = images((1, 3, 16, 16), (1, 3, 4, 4), (1, 3, 9, 9), (1, 3, 8, 8))
    criterion = Criterion({"L1": 1.0}, implicit_weight=0.5, implicit_outputs=((3, 1), (1, 2)))
    loss, parts = criterion(outputs, clean)
    assert loss.item() == pytest.approx(1 + 0.5 * 2)
    assert parts["IMPLICIT"].item() == pytest.approx(2)
    with pytest.raises(UserError, match="takes 4 outputs; this network has 2"):
        criterion(outputs[:2], clean)


def test_an_implicit_loss_without_implicit_outputs_is_refused() -> None:
    node = load_config(CONFIGS / "dmsr_rain13k.yml", ["LOSS.IMPLICIT", "0.1"]).LOSS
    with pytest.raises(UserError, match=r"LOSS\.IMPLICIT is 0\.1.*no implicit outputs"):
        build_criterion(node)
