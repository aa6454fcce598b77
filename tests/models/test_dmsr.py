"""What only DMSR has: an inverse FFT for CUDA, and batch norms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from models.dmsr import DMSR, VARIANTS, inverse_by_axis


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def close(actual: Tensor, expected: Tensor, tolerance: float = 2e-6) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_the_inverse_by_axis_is_the_inverse_of_a_cpu(size) -> None:
    """For spectra that are not Hermitian too, and with the same gradients."""
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
