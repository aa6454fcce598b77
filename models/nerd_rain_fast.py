"""Faster forms of NeRD-Rain's blocks: on CPUs, and compiled layer norms for training on GPUs.

Proven by tests/models/test_networks.py, gradients included; the layer norms by
tests/models/test_nerd_rain.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from models.fast import fast_form, on_cpu
from models.layers import full_precision, pixelwise, widened
from models.nerd_rain import GDFN, MDTA, LatentFusion, LayerNorm, SplitProjection


def normalise_rows(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Layer norm of each row of (N, C), computed in float32, in the type of ``x``."""
    wide = widened(x)
    centred = wide - wide.mean(1, keepdim=True)
    variance = centred.square().mean(1, keepdim=True)
    return (centred * torch.rsqrt(variance + eps) * weight + bias).to(x.dtype)


@functools.cache
def _compiled_rows() -> Callable[[Tensor, Tensor, Tensor, float], Tensor]:
    return torch.compile(normalise_rows, dynamic=True)


def _is_compiled(norm: LayerNorm, x: Tensor) -> bool:
    return norm.is_compiled and x.device.type != "meta"


@fast_form(of=LayerNorm.forward, when=_is_compiled)
def normalise_compiled(norm: LayerNorm, x: Tensor) -> Tensor:
    """``LayerNorm.forward`` for training on GPUs: one kernel forward, one or two backward.

    PyTorch's own kernel uses a block of threads per pixel. With few channels most of them idle,
    which costs a quarter of a training step's time at a width of 16 (H200). The compiled kernel is
    specialised in the number of channels, not in that of pixels.
    """
    rows = x.permute(0, 2, 3, 1).flatten(0, 2)  # (B, C, H, W) -> (B * H * W, C)
    torch._dynamo.mark_static(rows, 1)
    with full_precision(x):
        rows = _compiled_rows()(rows, norm.weight, norm.bias, norm.eps)
    return rows.unflatten(0, (x.shape[0], *x.shape[2:])).permute(0, 3, 1, 2)


@fast_form(of=SplitProjection.forward, when=on_cpu)
def project_part_by_part(projection: SplitProjection, x: Tensor) -> tuple[Tensor, ...]:
    """``SplitProjection.forward`` with outputs that are dense in memory, not slices of one map."""
    weights = zip(
        projection.pixelwise.weight.chunk(projection.parts),
        projection.depthwise.weight.chunk(projection.parts),
        strict=True,
    )
    return tuple(
        F.conv2d(pixelwise(x, mix), kernels, padding=1, groups=len(kernels))
        for mix, kernels in weights
    )


def strips(x: Tensor) -> list[tuple[Tensor, slice]]:
    """(B, C, H, W) as strips of rows, each with the slice of it that is left without its borders.

    At each inner border a strip has one more row, so that a 3x3 convolution gives the rows of the
    slice the same values as in the whole image. On a CPU a strip's intermediate maps stay in the
    cache; allocating those of a whole image (66 MB between the two halves of a GDFN, for 256 x 256
    pixels) takes most of the time. With gradients, which keep every map anyway, the whole image is
    one strip. All threads share a strip, so it has 32 rows per thread: with two threads 512 x 512
    pixels take 1.14 times as long in strips of 32 rows, and as long in strips of 128.
    """
    height = x.shape[2]
    if torch.is_grad_enabled():
        return [(x, slice(0, height))]
    count = max(1, height // (32 * torch.get_num_threads()))
    borders = [height * i // count for i in range(count + 1)]
    cut = []
    for top, bottom in pairwise(borders):
        above = min(top, 1)
        cut.append((x[:, :, top - above : bottom + 1], slice(above, above + bottom - top)))
    return cut


@fast_form(of=GDFN.forward, when=on_cpu)
def gdfn_by_strips(block: GDFN, x: Tensor) -> Tensor:
    """``GDFN.forward`` strip by strip."""
    out = []
    for strip, own in strips(x):
        a, b = (y[:, :, own] for y in block.project_in(block.norm(strip)))
        out.append(strip[:, :, own] + block.project_out(F.gelu(a) * b))
    return torch.cat(out, dim=2)


@fast_form(of=MDTA.forward, when=on_cpu)
def mdta_by_strips(block: MDTA, x: Tensor) -> Tensor:
    """``MDTA.forward`` strip by strip, with fewer passes over the pixels.

    The products of q and k and their squared lengths are sums over the pixels, so they are summed
    over the strips. The small matrix of products is divided by the lengths, instead of q and k.
    Attention and the projection after it are both matrices over the channels, so their product is
    applied to v at once.
    """
    values, sums = [], []
    for strip, own in strips(x):
        q, k, v = (y[:, :, own] for y in block.qkv(block.norm(strip)))
        values.append((strip[:, :, own], v))
        sums.append(_attention_sums(q, k, block.num_heads))
    products, q_squares, k_squares = (sum(parts) for parts in zip(*sums, strict=True))
    with full_precision(x):
        # lengths of at least 1e-12, as in F.normalize
        q_length, k_length = (y.clamp_min(1e-24).sqrt() for y in (q_squares, k_squares))
        cosines = products / (q_length.unsqueeze(3) * k_length.unsqueeze(2))
        attention = (cosines * block.temperature).softmax(dim=-1)
        # (C, C, 1, 1) -> (C, heads, C/heads): the columns of each head
        projection = block.project_out.weight.flatten(1).unflatten(1, (block.num_heads, -1))
        # (B, C, C), a 1x1 convolution for each image
        mixes = torch.einsum("ohi,bhij->bohj", projection, attention).flatten(2)
    return torch.cat([rows + _pixelwise_each(v, mixes) for rows, v in values], dim=2)


def _attention_sums(q: Tensor, k: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over the pixels of (B, C, H, W): q k^T of each head, q squared, k squared.

    Shapes (B, heads, C/heads, C/heads) and twice (B, heads, C/heads).
    """
    with full_precision(q):
        # (B, C, H, W) -> (B, heads, C/heads, H * W)
        q, k = (widened(y).unflatten(1, (num_heads, -1)).flatten(3) for y in (q, k))
        return q @ k.mT, q.square().sum(dim=3), k.square().sum(dim=3)


def _pixelwise_each(x: Tensor, weights: Tensor) -> Tensor:
    """``pixelwise`` with weights (B, O, C), one matrix for each image of (B, C, H, W)."""
    pairs = zip(x.split(1), weights, strict=True)
    return torch.cat([pixelwise(image, weight[..., None, None]) for image, weight in pairs])


@fast_form(of=LatentFusion.forward, when=on_cpu)
def fuse_even_pixels(fusion: LatentFusion, x: Tensor, y: Tensor) -> Tensor:
    """``LatentFusion.forward`` with gates of stride 2, at the pixels that it keeps."""
    energy = torch.sigmoid(fusion.query(x) * fusion.key(y))
    fused = []
    for gate, z in ((fusion.gate_x, x), (fusion.gate_y, y)):
        weighted = z * energy
        g = F.conv2d(torch.cat([z, weighted], dim=1), gate.weight, gate.bias, 2, 1)
        fused.append(z[..., ::2, ::2] * g[:, :1] + weighted[..., ::2, ::2] * g[:, 1:])
    return fused[0] + fused[1]
