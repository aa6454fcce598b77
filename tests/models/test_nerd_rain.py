"""What is particular to NeRD-Rain: its blocks against their formulas, its unused weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models import build_model
from models.fast import reference_ops
from models.layers import pixelwise
from models.nerd_rain import (
    CAB,
    GDFN,
    INR,
    MDTA,
    VARIANTS,
    LatentFusion,
    LayerNorm,
    NeRDRain,
    NeRDRainConfig,
)
from models.nerd_rain_fast import normalise_compiled, normalise_rows, strips
from models.published import from_published, to_published
from utils.errors import UserError
from utils.training.ema import ModelEma


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def tiny() -> NeRDRain:
    return NeRDRain(VARIANTS["nerd_rain_t"])


def close(actual: Tensor, expected: Tensor, tolerance: float = 2e-6) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def test_published_names_hold_every_weight() -> None:
    network = tiny()
    published = to_published(network)
    dead = {
        "reduce_chan_level1_max3.weight": slice(None),
        "INR.imnet.layers.0.weight": slice(9 * 8, 9 * 8 + 18),
        "INR2.imnet.layers.0.weight": slice(9 * 8, 9 * 8 + 18),
    }
    for name, columns in dead.items():
        assert not published[name][:, columns].any()
        # what a checkpoint holds there has no way into the network
        published[name] = published[name].clone()
        published[name][:, columns] = 1.0
    state = from_published(network, published)
    assert state.keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert torch.equal(state[name], value), name


def test_third_pass_merges_with_the_second_ones_weights() -> None:
    network = tiny().eval()
    scale = network.scales[2]
    calls = []
    for i, merge in enumerate(scale.fine_merges):
        merge.register_forward_hook(lambda *_, i=i: calls.append(i))
    network.restore(torch.rand(1, 3, 16, 16))
    assert calls == [0, 1, 1]


def cnn() -> NeRDRain:
    return NeRDRain(VARIANTS["nerd_rain_cnn_t"])


def test_all_cabs_share_one_slope_that_is_one_parameter_and_60_published_entries() -> None:
    network = cnn()
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


def test_cab_equals_its_formula() -> None:
    slope = torch.nn.PReLU(init=-0.7)
    cab = CAB(8, slope)
    x = torch.randn(2, 8, 5, 7)
    y = F.conv2d(x, cab.conv_in.weight, padding=1)
    y = torch.where(y > 0, y, -0.7 * y)
    r = F.conv2d(y, cab.conv_out.weight, padding=1)
    squeezed = (r.mean((2, 3)) @ cab.squeeze.weight[:, :, 0, 0].T).clamp_min(0)
    gate = torch.sigmoid(squeezed @ cab.excite.weight[:, :, 0, 0].T)
    close(cab(x), x + r * gate[:, :, None, None])
    assert not any(name.endswith("bias") for name, _ in cab.named_parameters())


def test_start_values_are_the_releases() -> None:
    """Temperatures and gains of 1; all else uniform up to 1/sqrt(inputs), PyTorch's default.

    The first layer of an INR is part of a linear layer of 9C + 20 inputs there.
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


# The blocks, each against its formula


@pytest.mark.parametrize("dense", [True, False])
def test_pixelwise_is_a_1x1_convolution(dense: bool) -> None:
    x = torch.rand(2, 5, 7, 9)
    if not dense:
        x = x.contiguous(memory_format=torch.channels_last)
    weight, bias = torch.rand(4, 5, 1, 1), torch.rand(4)
    close(pixelwise(x, weight, bias), F.conv2d(x, weight, bias))


def plain_attention(block: MDTA, x: Tensor) -> Tensor:
    """x + project_out(softmax(temperature * q k^T) v), step by step."""
    b, c, h, w = x.shape
    y = F.layer_norm(x.movedim(1, -1), (c,), block.norm.weight, block.norm.bias).movedim(-1, 1)
    y = F.conv2d(y, block.qkv.pixelwise.weight)
    y = F.conv2d(y, block.qkv.depthwise.weight, padding=1, groups=3 * c)
    q, k, v = (part.reshape(b, block.num_heads, -1, h * w) for part in y.chunk(3, dim=1))
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    out = (q @ k.mT * block.temperature).softmax(dim=-1) @ v
    return x + F.conv2d(out.reshape(b, c, h, w), block.project_out.weight)


def plain_feed_forward(block: GDFN, x: Tensor) -> Tensor:
    """x + project_out(gelu(a) b), step by step."""
    c = x.shape[1]
    y = F.layer_norm(x.movedim(1, -1), (c,), block.norm.weight, block.norm.bias).movedim(-1, 1)
    y = F.conv2d(y, block.project_in.pixelwise.weight)
    y = F.conv2d(y, block.project_in.depthwise.weight, padding=1, groups=y.shape[1])
    a, b = y.chunk(2, dim=1)
    return x + F.conv2d(F.gelu(a) * b, block.project_out.weight)


@pytest.mark.parametrize("height", [20, 101])  # one strip; three, of unequal heights
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("form", [nullcontext, reference_ops])
def test_blocks_equal_their_formulas(height: int, gradients: bool, form: Callable) -> None:
    x = torch.randn(2, 8, height, 12)
    attention, feed_forward = MDTA(8, num_heads=2), GDFN(8)
    with torch.no_grad():  # away from the starts at 1 and 0, which hide mistakes
        attention.temperature.copy_(torch.tensor([3.0, -5.0]).reshape(2, 1, 1))
        for norm in (attention.norm, feed_forward.norm):
            norm.weight.uniform_(0.5, 2)
            norm.bias.uniform_(-1, 1)
    with torch.set_grad_enabled(gradients), form():
        close(attention(x), plain_attention(attention, x))
        close(feed_forward(x), plain_feed_forward(feed_forward, x))


def test_attention_of_zero_queries_has_finite_gradients() -> None:
    attention = MDTA(8, num_heads=2)
    with torch.no_grad():
        attention.qkv.pixelwise.weight[:8] = 0
    attention(torch.randn(1, 8, 4, 4)).sum().backward()
    assert all(p.grad.isfinite().all() for p in attention.parameters())


def test_fusion_is_the_even_pixels_of_the_full_one() -> None:
    fusion = LatentFusion(4)
    x, y = torch.randn(2, 4, 6, 10), torch.randn(2, 4, 6, 10)
    energy = torch.sigmoid(fusion.query(x) * fusion.key(y))
    full = torch.zeros_like(x)
    for z, gate in ((x, fusion.gate_x), (y, fusion.gate_y)):
        g = F.conv2d(torch.cat([z, z * energy], dim=1), gate.weight, gate.bias, padding=1)
        full = full + z * g[:, :1] + z * energy * g[:, 1:]
    close(fusion(x, y), full[..., ::2, ::2])
    with reference_ops():
        close(fusion(x, y), full[..., ::2, ::2])


def test_implicit_head_is_the_released_mlp_and_trains_like_it() -> None:
    network = tiny()
    head: INR = network.heads[0]
    published = {
        name: value.detach().clone().requires_grad_()
        for name, value in to_published(network).items()
        if name.startswith("INR.")
    }
    latent = torch.randn(2, 32, 3, 5)

    # the released form: 9C unfolded values, 18 relative coordinates of 0, cells of 2, an MLP
    features = head.up(latent)
    x = F.unfold(features, 3, padding=1).mT  # (B, 4H * 4W, 9C)
    x = torch.cat([x, x.new_zeros(*x.shape[:2], 18), x.new_full((*x.shape[:2], 2), 2.0)], dim=2)
    for i in (0, 2, 4, 6):
        x = F.relu(x) if i else x
        name = f"INR.imnet.layers.{i}"
        x = F.linear(x, published[f"{name}.weight"], published[f"{name}.bias"])
    image = x.mT.unflatten(2, features.shape[2:])

    close(head(latent), image)
    head(latent).square().sum().backward()
    image.square().sum().backward()
    weight, bias = (published[f"INR.imnet.layers.0.{part}"].grad for part in ("weight", "bias"))
    close(head.cell.grad, weight[:, -2:], 1e-4)
    close(head.neighbours.weight.grad, weight[:, :72].reshape(-1, 8, 3, 3), 1e-4)
    close(head.neighbours.bias.grad, bias, 1e-4)
    assert head.cell.grad.abs().max() > 0


def test_restore_by_strips_equals_the_whole_image() -> None:
    network = tiny().eval()
    rainy = torch.rand(1, 3, 144, 80)
    whole = network(rainy)[0].detach()
    with torch.no_grad():
        close(network.restore(rainy), whole, 1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 7}, "width is 7"),
        ({"width": 0}, "width is 0"),
        ({"head_width": 0}, "head_width is 0"),
        ({"num_blocks": (2, 3)}, "num_blocks is"),
        ({"num_blocks": (2, 0, 3)}, "num_blocks is"),
        ({"block": "conv"}, "block is 'conv'; it must be transformer or cnn"),
        ({"block": "cnn", "width": 10}, "width is 10; with CNN blocks"),
    ],
)
def test_impossible_sizes_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NeRDRainConfig(**options)


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
    """Values and gradients; in bf16 to its rounding."""
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
    """Every row belongs to one strip; with two threads strips have twice the rows."""
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
