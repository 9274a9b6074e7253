"""Triton kernels for CUDA: attention over packed sequences, and pointwise operations.

Attention rotates queries and keys while it loads them and writes each head to its final position, without copies. Each
pointwise kernel reads and writes its tensors once. Sums, softmax, normalisation and GELU are computed in float32 in
every dtype.
``TRITON_INTERPRET=1`` runs them on the CPU, slowly, which is how they are tested without a GPU.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_LOG2E = tl.constexpr(1.4426950408889634)
_SQRT_HALF = tl.constexpr(0.7071067811865476)
_BLOCK = 64  # queries of a program, and keys of each of its steps
_FP8 = torch.float8_e4m3fn


@triton.jit
def _rotate(a, b, cos, sin, position, pair, mask, PAIRS: tl.constexpr):
    """Rotate the two halves of each row by the angles of its position."""
    at = position[:, None] * PAIRS + pair[None, :]
    c, s = tl.load(cos + at, mask=mask, other=0.0), tl.load(sin + at, mask=mask, other=0.0)
    x, y = a.to(tl.float32), b.to(tl.float32)
    return (x * c - y * s).to(a.dtype), (y * c + x * s).to(b.dtype)


# The longest sequence of a batch must not be specialised: batches are ragged, and each value would be compiled anew.
@triton.jit(do_not_specialize=["num_blocks"])
def _attend(
    qkv,
    out,
    cu_seqlens,
    cos,
    sin,
    slopes,
    scale,
    num_blocks,
    num_heads,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    ROTARY: tl.constexpr,
    ALIBI: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute one block of queries of one head and sequence, with an online softmax over the keys (Dao et al. 2022)."""
    program = tl.program_id(0)
    head = program % num_heads
    block = (program // num_heads) % num_blocks
    sequence = program // (num_heads * num_blocks)
    start = tl.load(cu_seqlens + sequence).to(tl.int64)
    length = (tl.load(cu_seqlens + sequence + 1) - start).to(tl.int32)
    if block * BLOCK >= length:
        return
    PAIRS: tl.constexpr = WIDTH // 2  # channels of a head in two halves, which rotary positions pair
    pair = tl.arange(0, PADDED)
    row = block * BLOCK + tl.arange(0, BLOCK)
    mask = (row < length)[:, None] & (pair < PAIRS)[None, :]
    stride = 3 * num_heads * WIDTH
    at = qkv + (start + row)[:, None] * stride + head * WIDTH + pair[None, :]
    q1, q2 = tl.load(at, mask=mask, other=0.0), tl.load(at + PAIRS, mask=mask, other=0.0)
    if ROTARY:
        q1, q2 = _rotate(q1, q2, cos, sin, row, pair, mask, PAIRS)
    if ALIBI:
        slope = tl.load(slopes + head) * _LOG2E
    peak = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    sum1, sum2 = tl.zeros((BLOCK, PADDED), tl.float32), tl.zeros((BLOCK, PADDED), tl.float32)
    for first in range(0, length, BLOCK):
        column = first + tl.arange(0, BLOCK)
        inside = (column < length)[:, None] & (pair < PAIRS)[None, :]
        at = qkv + (start + column)[:, None] * stride + (num_heads + head) * WIDTH + pair[None, :]
        k1, k2 = tl.load(at, mask=inside, other=0.0), tl.load(at + PAIRS, mask=inside, other=0.0)
        if ROTARY:
            k1, k2 = _rotate(k1, k2, cos, sin, column, pair, inside, PAIRS)
        scores = tl.dot(q1, tl.trans(k1), input_precision="ieee")
        scores = tl.dot(q2, tl.trans(k2), acc=scores, input_precision="ieee") * (scale * _LOG2E)
        if ALIBI:
            scores -= slope * tl.abs((row[:, None] - column[None, :]).to(tl.float32))
        scores = tl.where((column < length)[None, :], scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        weights, fade = tl.exp2(scores - higher[:, None]), tl.exp2(peak - higher)
        total = total * fade + tl.sum(weights, 1)
        at += num_heads * WIDTH
        v1, v2 = tl.load(at, mask=inside, other=0.0), tl.load(at + PAIRS, mask=inside, other=0.0)
        weights = weights.to(v1.dtype)
        sum1 = tl.dot(weights, v1, acc=sum1 * fade[:, None], input_precision="ieee")
        sum2 = tl.dot(weights, v2, acc=sum2 * fade[:, None], input_precision="ieee")
        peak = higher
    at = out + (start + row)[:, None] * (num_heads * WIDTH) + head * WIDTH + pair[None, :]
    tl.store(at, (sum1 / total[:, None]).to(out.dtype.element_ty), mask=mask)
    tl.store(at + PAIRS, (sum2 / total[:, None]).to(out.dtype.element_ty), mask=mask)


def attend(
    qkv: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    rotation: tuple[Tensor, Tensor] | None = None,
    slopes: Tensor | None = None,
) -> Tensor:
    """Return the attention of each token to its own sequence: (T, 3, H, D) -> (T, H * D).

    Scores are scaled by ``D ** -0.5``.

    Args:
        qkv: (T, 3, H, D) contiguous queries, keys and values.
        cu_seqlens: (N + 1,) int32 bounds of the sequences.
        max_seqlen: tokens of the longest sequence.
        rotation: (P, D / 2) float32 cosines and sines of at least ``max_seqlen`` positions.
        slopes: (H,) float32; ``slope * |i - j|`` is subtracted from the scores (symmetric ALiBi).
    """
    num_tokens, _, num_heads, width = qkv.shape
    out = torch.empty((num_tokens, num_heads * width), dtype=qkv.dtype, device=qkv.device)
    num_blocks = triton.cdiv(max_seqlen, _BLOCK)
    grid = ((len(cu_seqlens) - 1) * num_blocks * num_heads,)
    if num_tokens == 0:
        return out
    _attend[grid](
        qkv.contiguous(),
        out,
        cu_seqlens,
        *(rotation or (out, out)),
        out if slopes is None else slopes,
        width**-0.5,
        num_blocks,
        num_heads,
        WIDTH=width,
        PADDED=max(16, triton.next_power_of_2(width // 2)),  # smallest size of the matrix units
        ROTARY=rotation is not None,
        ALIBI=slopes is not None,
        BLOCK=_BLOCK,
        num_warps=4,
        num_stages=2,
    )
    return out


@triton.jit
def _add_layer_norm(x, delta, weight, bias, out, eps, width, ADD: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    at = tl.arange(0, BLOCK)
    mask = at < width
    value = tl.load(x + row + at, mask=mask, other=0.0).to(tl.float32)
    if ADD:
        value += tl.load(delta + row + at, mask=mask, other=0.0).to(tl.float32)
        rounded = value.to(x.dtype.element_ty)
        tl.store(x + row + at, rounded, mask=mask)
        value = rounded.to(tl.float32)
    centred = tl.where(mask, value - tl.sum(value, 0) / width, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 0) / width + eps)
    gain = tl.load(weight + at, mask=mask, other=0.0).to(tl.float32)
    shift = tl.load(bias + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + row + at, (centred * scale * gain + shift).to(out.dtype.element_ty), mask=mask)


def add_layer_norm(x: Tensor, delta: Tensor | None, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Add ``delta`` to ``x`` in place and return the layer norm of the sum: (T, D) each."""
    num_rows, width = x.shape
    out = torch.empty_like(x)
    _add_layer_norm[(num_rows,)](
        x,
        x if delta is None else delta,
        weight,
        bias,
        out,
        eps,
        width,
        ADD=delta is not None,
        BLOCK=triton.next_power_of_2(width),
        num_warps=8 if width > 1024 else 4,
    )
    return out


@triton.jit
def _gelu_of(x, EXACT: tl.constexpr):
    """Compute GELU by ``erf``, or by an approximation within 2e-7, which is exact in half precision.

    The approximation is 7.1.26 of Abramowitz and Stegun 1964; ``erf`` would take longer than the memory traffic.
    """
    if EXACT:
        return 0.5 * x * (1.0 + tl.erf(x * _SQRT_HALF))
    z = tl.abs(x) * _SQRT_HALF
    t = 1.0 / (1.0 + 0.3275911 * z)
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = 0.5 * poly * tl.exp2(z * z * -_LOG2E)
    return x * tl.where(x < 0, tail, 1.0 - tail)


@triton.jit
def _gelu(x, size, EXACT: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    value = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(x + at, _gelu_of(value, EXACT).to(x.dtype.element_ty), mask=mask)


def gelu_(x: Tensor) -> Tensor:
    """Compute the Gaussian error linear unit in place; any contiguous shape."""
    block = 4096
    _gelu[(triton.cdiv(x.numel(), block),)](x, x.numel(), EXACT=x.dtype == torch.float32, BLOCK=block, num_warps=8)
    return x


@triton.jit
def _gated_gelu(gates, out, width, EXACT: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    mask = at < width
    gate = tl.load(gates + row * 2 * width + at, mask=mask, other=0.0).to(tl.float32)
    value = tl.load(gates + (row * 2 + 1) * width + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + row * width + at, (_gelu_of(gate, EXACT) * value).to(out.dtype.element_ty), mask=mask)


def gated_gelu(gates: Tensor) -> Tensor:
    """Return GELU of the first half of each row times the second half: (T, 2 * F) -> (T, F)."""
    num_rows, width = gates.shape[0], gates.shape[1] // 2
    out = torch.empty((num_rows, width), dtype=gates.dtype, device=gates.device)
    _gated_gelu[(num_rows,)](
        gates, out, width, EXACT=gates.dtype == torch.float32, BLOCK=triton.next_power_of_2(width), num_warps=8
    )
    return out


@triton.jit
def _quantise(x, out, scales, width, BLOCK: tl.constexpr, LARGEST: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    mask = at < width
    value = tl.load(x + row * width + at, mask=mask, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(value), 0), 1e-12) / LARGEST
    tl.store(scales + row, scale)
    tl.store(out + row * width + at, (value / scale).to(out.dtype.element_ty), mask=mask)


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """Scale each row to the range of float8: (T, D) -> (T, D) e4m3 and (T, 1) float32 scales."""
    num_rows, width = x.shape
    out = torch.empty((num_rows, width), dtype=_FP8, device=x.device)
    scales = torch.empty((num_rows, 1), dtype=torch.float32, device=x.device)
    _quantise[(num_rows,)](
        x, out, scales, width, BLOCK=triton.next_power_of_2(width), LARGEST=torch.finfo(_FP8).max, num_warps=8
    )
    return out, scales
