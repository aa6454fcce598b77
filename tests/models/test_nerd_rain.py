"""What only NeRD-Rain has: a shared slope, start values, compiled norms, strips."""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from models import build_model
from models.fast import reference_ops
from models.nerd_rain import CAB, MDTA, VARIANTS, LayerNorm, NeRDRain, NeRDRainConfig
from models.nerd_rain_fast import normalise_compiled, normalise_rows, strips
from models.published import from_published, to_published
from utils.errors import UserError
from utils.training.ema import ModelEma


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_all_cabs_share_one_slope_that_is_one_parameter_and_60_published_entries() -> None:
    network = NeRDRain(VARIANTS["nerd_rain_cnn_t"])
    slopes = [name for name, p in network.named_parameters() if p.shape == (1,)]
    assert slopes == ["activation.weight"] and network.activation.weight.item() == 0.25
    copy = deepcopy(network)
    with torch.no_grad():
        copy.activation.weight.fill_(-3)
    assert network.activation.weight.item() == 0.25
    rainy = torch.rand(1, 3, 16, 16)
    for n in (network, copy):
        for cab in (m for m in n.modules() if isinstance(m, CAB)):
            assert cab.shared[0] is n.activation
    assert (network.restore(rainy) - copy.restore(rainy)).abs().max() > 1e-4
    published = to_published(network)
    names = [name for name, value in published.items() if value.shape == (1,)]
    assert len(names) == 60 == sum(name.endswith(".body.1.weight") for name in published)
    assert all(published[name].item() == 0.25 for name in names)
    published[names[7]] = torch.tensor([0.26])
    with pytest.raises(UserError, match=r"60 copies of the slope .* differ"):
        from_published(network, published)


def test_start_values_are_the_releases() -> None:
    """Temperatures and gains of 1; all others uniform up to 1/sqrt(inputs), PyTorch's default.

    In the release the first layer of an INR is a linear layer of 9C + 20 inputs.
    """
    network = NeRDRain(NeRDRainConfig(width=16, head_width=64, num_blocks=(1, 1, 1)))
    for name, value in network.named_parameters():
        if name.endswith("temperature") or ".norm." in name:
            assert (value == (0.0 if name.endswith("bias") else 1.0)).all(), name
            continue
        weight = value if value.ndim > 2 else network.get_parameter(name.replace("bias", "weight"))
        bound = weight[0].numel() ** -0.5
        if "neighbours" in name or name.endswith("cell"):
            bound = (9 * 16 + 20) ** -0.5
        assert value.abs().max() <= bound, name
        assert value.abs().max() > bound * (1 - 14 / value.numel()), name


def test_attention_of_zero_queries_has_finite_gradients() -> None:
    attention = MDTA(8, num_heads=2)
    with torch.no_grad():
        attention.qkv.pixelwise.weight[:8] = 0
    attention(torch.randn(1, 8, 4, 4)).sum().backward()
    assert all(p.grad.isfinite().all() for p in attention.parameters())


def test_attention_sees_only_the_direction_of_tiny_queries() -> None:
    attention, x = MDTA(8, num_heads=2), torch.randn(1, 8, 4, 4)
    with torch.no_grad():
        expected = attention(x)
        attention.qkv.pixelwise.weight[:8] *= 1e-4
        for form in (nullcontext, reference_ops):
            with form():
                torch.testing.assert_close(attention(x), expected, rtol=0, atol=1e-5)


def plain_rows(norm: LayerNorm, x: Tensor) -> Tensor:
    """``normalise_compiled`` without its compilation."""
    rows = x.permute(0, 2, 3, 1).flatten(0, 2)
    rows = normalise_rows(rows, norm.weight, norm.bias, norm.eps)
    return rows.unflatten(0, (2, 5, 7)).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    "normalise",
    [plain_rows, pytest.param(normalise_compiled, marks=pytest.mark.extras)],  # extras: g++
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 5e-2)])
def test_layer_norms_for_training_are_those_of_pytorch(normalise, dtype, tolerance) -> None:
    """Values and gradients; in bf16 to within its rounding."""
    norm = LayerNorm(8)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = (3 * torch.randn(2, 8, 5, 7) + 1).to(dtype).requires_grad_()
    weights, results = torch.randn(2, 8, 5, 7), []
    for y in (norm(x.float()), normalise(norm, x)):  # PyTorch's in float32, as autocast runs it
        inputs = (x, norm.weight, norm.bias)
        results.append((y, *torch.autograd.grad((y * weights).sum(), inputs)))
    assert results[1][0].dtype == dtype
    for expected, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours.float(), expected.float(), rtol=tolerance, atol=tolerance)


def test_training_compiles_the_norms_and_the_average_stays_plain() -> None:
    network = build_model("nerd_rain_t")
    ema = ModelEma(network, 0.9)
    network.compile_for_training()
    norms = [m for m in network.modules() if isinstance(m, LayerNorm)]
    assert norms and all(norm.is_compiled for norm in norms)
    assert not any(m.is_compiled for m in ema.network.modules() if isinstance(m, LayerNorm))


def test_strips_are_as_high_as_the_threads_need() -> None:
    """Every row belongs to one strip; with two threads a strip has twice as many."""
    x = torch.arange(130.0).reshape(1, 1, 130, 1)
    before = torch.get_num_threads()
    try:
        for threads, rows in ((1, [32, 33, 32, 33]), (2, [65, 65]), (3, [130])):
            torch.set_num_threads(threads)
            with torch.no_grad():
                cut = strips(x)
            assert [own.stop - own.start for _, own in cut] == rows
            kept = torch.cat([strip[:, :, own] for strip, own in cut], dim=2)
            assert torch.equal(kept, x)
    finally:
        torch.set_num_threads(before)
