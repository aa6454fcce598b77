"""What is particular to DMSR: its blocks against their formulas, its statistics of training."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.dmsr import DMSR, VARIANTS, DMSRConfig, FourierUnit, PairConv, inverse_by_axis
from models.fast import reference_ops


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def close(actual: Tensor, expected: Tensor, tolerance: float = 2e-6) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def test_pair_conv_is_a_grouped_convolution_of_interleaved_channels() -> None:
    conv = PairConv(3)
    x, guide = torch.randn(2, 3, 9, 7), torch.randn(2, 3, 9, 7)
    together = torch.empty(2, 6, 9, 7)
    together[:, 0::2], together[:, 1::2] = x, guide
    padded = F.pad(together, (3, 3, 3, 3), mode="reflect")
    expected = F.conv2d(padded, conv.weight, conv.bias, groups=3)
    close(conv(x, guide), expected)
    with reference_ops():
        close(conv(x, guide), expected)


def test_fourier_unit_is_a_matrix_over_the_parts_of_the_spectrum() -> None:
    """By a discrete Fourier transform written out as a sum."""
    unit = FourierUnit(2).double().eval()
    for entry in (unit.norm.weight, unit.norm.running_var):
        nn.init.uniform_(entry, 0.5, 2)
    for entry in (unit.norm.bias, unit.norm.running_mean):
        nn.init.uniform_(entry, -1, 1)
    h, w = 4, 6
    x = torch.randn(1, 2, h, w, dtype=torch.double)

    def waves(n: int) -> Tensor:
        steps = torch.arange(n, dtype=torch.double)
        return torch.polar(torch.full((n, n), n**-0.5, dtype=torch.double),
                           -2 * torch.pi * torch.outer(steps, steps) / n)  # fmt: skip

    spectrum = waves(h) @ x[0].to(torch.cdouble) @ waves(w)  # (2, H, W)
    parts = torch.stack([part for c in spectrum for part in (c.real, c.imag)])  # (4, H, W)
    mixed = torch.einsum("oi,ihw->ohw", unit.conv.weight[:, :, 0, 0], parts)
    norm = unit.norm
    scale = norm.weight / (norm.running_var + 1e-5).sqrt()
    mixed = (mixed - norm.running_mean[:, None, None]) * scale[:, None, None]
    mixed = (mixed + norm.bias[:, None, None]).clamp(min=0)
    half = torch.complex(mixed[0::2], mixed[1::2])[..., : w // 2 + 1]
    close(unit(x)[0], torch.fft.irfft2(half, s=(h, w), norm="ortho"), 1e-9)


@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_the_inverse_by_axis_is_the_inverse_of_a_cpu(size) -> None:
    """For spectra of no real image too, and with the same gradients."""
    h, w = size
    spectrum = torch.randn(2, 3, h, w // 2 + 1, dtype=torch.cdouble, requires_grad=True)
    weights = torch.randn(2, 3, h, w, dtype=torch.double)
    images = (
        inverse_by_axis(spectrum, size),
        torch.fft.irfft2(spectrum, s=size, norm="ortho"),
    )
    close(*images, 1e-12)
    close(*(torch.autograd.grad((y * weights).sum(), spectrum)[0] for y in images), 1e-12)


def test_batch_norms_move_their_statistics_by_a_tenth() -> None:
    """Momentum 0.1 towards the batch's mean and unbiased variance, as the release trains."""
    network = DMSR(VARIANTS["dmsr_s"]).train()
    norms = {name: m for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    seen: dict[str, Tensor] = {}
    for name, norm in norms.items():
        nn.init.uniform_(norm.running_mean, -1, 1)
        norm.register_forward_pre_hook(
            lambda module, inputs, name=name: seen.update({name: inputs[0].detach().clone()})
        )
    before = {name: norm.running_mean.clone() for name, norm in norms.items()}
    network(torch.rand(2, 3, 64, 64))
    assert len(norms) == 12  # two in each of the six dual-domain blocks
    for name, norm in norms.items():
        values = seen[name].movedim(1, 0).flatten(1)
        close(norm.running_mean, 0.9 * before[name] + 0.1 * values.mean(dim=1), 1e-5)
        close(norm.running_var, 0.9 + 0.1 * values.var(dim=1), 1e-5)


def test_instance_norms_keep_no_statistics() -> None:
    network = DMSR(VARIANTS["dmsr_s"])
    norms = [m for m in network.modules() if isinstance(m, nn.InstanceNorm2d)]
    assert len(norms) == 2
    assert all(norm.running_mean is None and norm.weight is not None for norm in norms)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"width": 7}, "width is 7"), ({"width": 0}, "width is 0"), ({"num_blocks": 0}, "at least 1")],
)
def test_impossible_sizes_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DMSRConfig(**options)
