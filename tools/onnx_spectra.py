"""DMSR's Fourier transforms for PyTorch's TorchScript exporter, which does not support any.

ONNX's DFT stores a complex number as two values in a last dimension, so view_as_real and
view_as_complex become the identity.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.onnx import symbolic_helper

OPSET = 18  # its DFT takes the axis as an attribute


def register() -> None:
    """Register the transforms for ``torch.onnx.export(..., dynamo=False)``."""
    for name, symbolic in (
        ("fft_rfft2", rfft2),
        ("fft_irfft2", irfft2),
        ("view_as_real", lambda g, x: x),
        ("view_as_complex", lambda g, x: x),
        ("movedim", movedim),
        ("mT", lambda g, x: g.op("Transpose", x, perm_i=[0, 1, 3, 2])),  # (B, C, H, W)
    ):
        torch.onnx.register_custom_op_symbolic(f"aten::{name}", symbolic, OPSET)


def rfft2(g: Any, x: Any, s: Any, dim: Any, norm: Any) -> Any:
    """``torch.fft.rfft2(x, norm="ortho")``: (B, C, H, W) to (B, C, H, W // 2 + 1, 2)."""
    rows = g.op("DFT", g.op("Unsqueeze", x, _ints(g, -1)), axis_i=3, onesided_i=1)
    spectrum = g.op("DFT", rows, axis_i=2)
    return g.op("Div", spectrum, _root_of_pixels(g, x))


def irfft2(g: Any, spectrum: Any, s: Any, dim: Any, norm: Any) -> Any:
    """``torch.fft.irfft2(spectrum, s=(H, W), norm="ortho")`` for even W: the inverse of rfft2."""
    rows = g.op("DFT", spectrum, axis_i=2, inverse_i=1)
    # A real signal has a Hermitian spectrum: the rest of each row is its columns W/2 - 1 to 1,
    # conjugated.
    mirrored = g.op("Slice", rows, _ints(g, -2), _ints(g, 0), _ints(g, 3), _ints(g, -1))
    conjugate = g.op("Constant", value_t=torch.tensor([1.0, -1.0]))
    whole = g.op("Concat", rows, g.op("Mul", mirrored, conjugate), axis_i=3)
    # (B, C, H, W, 2), whose imaginary parts are 0 up to rounding
    values = g.op("DFT", whole, axis_i=3, inverse_i=1)
    real = g.op("Slice", values, _ints(g, 0), _ints(g, 1), _ints(g, 4))
    image = g.op("Squeeze", real, _ints(g, 4))
    return g.op("Mul", image, _root_of_pixels(g, image))  # the inverse DFTs divide by H * W


def movedim(g: Any, x: Any, source: Any, destination: Any) -> Any:
    """``x.movedim(source, destination)`` for the five dimensions of a spectrum in ONNX."""
    source, destination = (_number(dim) % 5 for dim in (source, destination))
    order = [dim for dim in range(5) if dim != source]
    order.insert(destination, source)
    return g.op("Transpose", x, perm_i=order)


def _number(value: Any) -> int:
    """The value of an integer constant in the exporter's graph."""
    return symbolic_helper._get_const(value, "i", "dim")


def _root_of_pixels(g: Any, x: Any) -> Any:
    """The square root of H * W for (B, C, H, W)."""
    sides = g.op("Slice", g.op("Shape", x), _ints(g, 2), _ints(g, 4), _ints(g, 0))
    sides = g.op("Cast", sides, to_i=torch.onnx.TensorProtoDataType.FLOAT)
    return g.op("Sqrt", g.op("ReduceProd", sides, keepdims_i=0))


def _ints(g: Any, *values: int) -> Any:
    return g.op("Constant", value_t=torch.tensor(values))
