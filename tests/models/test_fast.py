"""The registry of faster forms: what is replaced, and when."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.fast import FAST_FORMS, fast_form, on_cpu, reference_ops, replaceable
from models.layers import PixelwiseConv


@replaceable
def halve(x: Tensor, times: int = 1) -> Tensor:
    return x / 2**times


def test_a_form_replaces_its_formula_where_it_applies_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("models.fast.FAST_FORMS", {})

    @fast_form(of=halve, when=lambda x, times=1: x.dtype == torch.float64)
    def halve_wrongly(x: Tensor, times: int = 1) -> Tensor:
        return x + times

    exact, rough = torch.tensor([8.0], dtype=torch.float64), torch.tensor([8.0])
    assert halve(exact, 3) == 11 and halve(rough, 3) == 1
    with reference_ops():
        assert halve(exact, 3) == 1
        with reference_ops():
            assert halve(exact, 3) == 1
        assert halve(exact, 3) == 1
    assert halve(exact, 3) == 11
    with pytest.raises(ValueError, match="already has a fast form"):
        fast_form(of=halve, when=on_cpu)(halve_wrongly)


def test_only_what_is_marked_can_be_replaced() -> None:
    with pytest.raises(ValueError, match="not replaceable"):
        fast_form(of=on_cpu, when=on_cpu)


def test_torch_compile_traces_through_the_choice() -> None:
    """In one graph; no compiler runs here."""
    layer, x = PixelwiseConv(3, 5), torch.rand(2, 3, 4, 6)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))


def test_every_form_belongs_to_a_network_or_to_the_shared_blocks() -> None:
    homes = {name.split(".")[1] for name in FAST_FORMS}
    assert homes == {"dcsfn", "dmsr", "layers", "mspfn", "nerd_rain"}
