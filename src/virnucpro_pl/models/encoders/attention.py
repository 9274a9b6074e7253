"""Attention over packed sequences, and the choice of its kernels."""

import math
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from virnucpro_pl.data.packed import PackedTokens
from virnucpro_pl.models.encoders.pointwise import has_kernels, learns

Backend = Literal["auto", "triton", "flash", "varlen", "runs", "exact"]
"""
- ``triton``: our own kernel with ALiBi and rotary positions; CUDA, any dtype.
- ``flash``: the flash-attn package, with ALiBi; CUDA, half precision.
- ``varlen``: torch's ``varlen_attn``, without ALiBi; CUDA, half precision.
- ``runs``: dense attention over runs of sequences of equal length; any device.
- ``exact``: ``runs`` by plain matrix products and softmax; slow, the reference.
- ``auto``: the first of these, except ``exact``, that the device supports.
"""

# Not cuDNN's: it builds a plan for each new pair of count and length, and ragged batches always have new ones.
_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
_BIAS_STEP = 64  # biases are built for lengths rounded up to this, so that similar lengths share one
_FEW_RUNS = 4  # so many dense calls are faster than one ragged call


class Rotation(NamedTuple):
    """Rotary positions (Su et al. 2021, arXiv:2104.09864)."""

    cos: Tensor
    """(P, D / 2) float32, for positions 0 to P - 1 and heads of width D"""
    sin: Tensor
    """(P, D / 2) float32"""


def attend(
    qkv: Tensor,
    packed: PackedTokens,
    *,
    rotation: Rotation | None = None,
    alibi_slopes: tuple[float, ...] | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Return the softmax attention of each token to its own sequence: (T, 3, H, D) -> (T, H * D).

    Scores are scaled by ``D ** -0.5``. With gradients, dense attention over padded sequences computes it.

    Args:
        qkv: (T, 3, H, D) queries, keys and values of T packed tokens and H heads.
        packed: the sequences.
        rotation: rotary positions of queries and keys.
        alibi_slopes: one for each head; ``-slope * |i - j|`` is added to the scores of tokens i and j (symmetric ALiBi,
            Press et al. 2022, arXiv:2108.12409).
        backend: attention kernels.
    """
    if learns(qkv):
        return _attend_padded(qkv, packed, rotation, alibi_slopes)
    chosen = choose_backend(backend, qkv.device.type, qkv.dtype, alibi_slopes is not None, len(packed.runs))
    if chosen == "triton":
        from virnucpro_pl.models.encoders import kernels

        slopes = None if alibi_slopes is None else _slopes_on(alibi_slopes, qkv.device)
        return kernels.attend(qkv, packed.cu_seqlens, packed.max_seqlen, rotation, slopes)
    if chosen in ("flash", "varlen"):
        attend_ragged = _attend_flash if chosen == "flash" else _attend_varlen
        if rotation is not None:
            rotation = Rotation(rotation.cos[packed.positions], rotation.sin[packed.positions])
        return attend_ragged(*_rotated(qkv, rotation), packed, alibi_slopes).flatten(1)
    with sdpa_kernel([SDPBackend.MATH] if chosen == "exact" else _KERNELS):
        return _attend_runs(qkv, packed, rotation, alibi_slopes)


def choose_backend(backend: Backend, device_type: str, dtype: torch.dtype, with_alibi: bool, num_runs: int) -> Backend:
    """Return the kernels to use: those of ``auto``, or the requested ones, or ``runs`` if they are not available.

    Args:
        backend: requested kernels.
        device_type: ``cuda`` or another type.
        dtype: dtype of the tensors.
        with_alibi: scores have an ALiBi bias.
        num_runs: number of runs of sequences of equal length in the batch.
    """
    half_on_cuda = device_type == "cuda" and dtype in (torch.float16, torch.bfloat16)
    able: dict[Backend, bool] = {
        "triton": has_kernels(device_type),
        "flash": half_on_cuda and has_flash_attn(),
        "varlen": half_on_cuda and not with_alibi,
        "runs": True,
        "exact": True,
    }
    if backend != "auto":
        return backend if able[backend] else "runs"
    if num_runs <= _FEW_RUNS and not able["triton"]:
        return "runs"
    return next(name for name, can in able.items() if can)


def available_backends(device_type: str, dtype: torch.dtype, with_alibi: bool) -> list[Backend]:
    """Return the kernels that are available here."""
    names: tuple[Backend, ...] = get_args(Backend)[1:]
    return [name for name in names if choose_backend(name, device_type, dtype, with_alibi, 1) == name]


@cache
def has_flash_attn() -> bool:
    """Return whether the flash-attn package is installed."""
    return find_spec("flash_attn") is not None


def _attend_runs(
    qkv: Tensor, packed: PackedTokens, rotation: Rotation | None, alibi_slopes: tuple[float, ...] | None
) -> Tensor:
    attended = []
    for start, count, length in packed.runs:
        dense = qkv[start : start + count * length].view(count, length, *qkv.shape[1:])
        turned = rotation and Rotation(rotation.cos[:length], rotation.sin[:length])
        query, key, value = (x.transpose(1, 2) for x in _rotated(dense, turned))
        bias = None if alibi_slopes is None else _alibi_bias(alibi_slopes, length, qkv)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        attended.append(out.transpose(1, 2).reshape(count * length, -1))
    if len(attended) == 1:  # the usual case with many reads
        return attended[0]
    return torch.cat(attended) if attended else qkv[:, 0].flatten(1)


def _attend_padded(
    qkv: Tensor, packed: PackedTokens, rotation: Rotation | None, alibi_slopes: tuple[float, ...] | None
) -> Tensor:
    """Compute attention over padded sequences in one dense call, with gradients."""
    lengths = packed.cu_seqlens.diff()
    rows = torch.repeat_interleave(torch.arange(len(lengths), device=qkv.device), lengths, output_size=len(qkv))
    if rotation is not None:
        cos, sin = (angle[packed.positions][:, None, None] for angle in rotation)
        a, b = qkv[:, :2].float().chunk(2, dim=-1)
        turned = torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(qkv.dtype)
        qkv = torch.cat([turned, qkv[:, 2:]], dim=1)
    padded = qkv.new_zeros((len(lengths), packed.max_seqlen, *qkv.shape[1:]))
    padded = padded.index_put((rows, packed.positions), qkv)
    query, key, value = (x.transpose(1, 2) for x in padded.unbind(2))
    is_token = torch.arange(packed.max_seqlen, device=qkv.device) < lengths[:, None]
    bias = torch.zeros(is_token.shape, dtype=qkv.dtype, device=qkv.device).masked_fill(~is_token, float("-inf"))
    bias = bias[:, None, None, :]
    if alibi_slopes is not None:
        bias = bias + _alibi_bias(alibi_slopes, packed.max_seqlen, qkv)
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.expand(-1, query.shape[1], -1, -1))
    return attended.transpose(1, 2)[rows, packed.positions].flatten(1)


def _attend_varlen(q: Tensor, k: Tensor, v: Tensor, packed: PackedTokens, _: tuple[float, ...] | None) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    bounds, longest = packed.cu_seqlens, packed.max_seqlen
    return varlen_attn(q, k, v, bounds, bounds, longest, longest)  # type: ignore[return-value]


def _attend_flash(q: Tensor, k: Tensor, v: Tensor, packed: PackedTokens, slopes: tuple[float, ...] | None) -> Tensor:
    from flash_attn import flash_attn_varlen_func

    per_head = None if slopes is None else _slopes_on(slopes, q.device)
    bounds, longest = packed.cu_seqlens, packed.max_seqlen
    return flash_attn_varlen_func(  # type: ignore[no-any-return]
        q, k, v, bounds, bounds, longest, longest, alibi_slopes=per_head
    )


def _rotated(qkv: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return rotated queries and keys, and values, of (..., P, 3, H, D)."""
    q, k, v = qkv.unbind(-3)
    if rotation is None:
        return q, k, v
    cos, sin = (angle[:, None, None] for angle in rotation)
    a, b = qkv[..., :2, :, :].float().chunk(2, dim=-1)
    rotated = torch.empty((*a.shape[:-1], q.shape[-1]), dtype=torch.float32, device=qkv.device)
    first, second = rotated.chunk(2, dim=-1)
    torch.mul(a, cos, out=first).addcmul_(b, sin, value=-1)
    torch.mul(b, cos, out=second).addcmul_(a, sin)
    q, k = rotated.to(qkv.dtype).unbind(-3)
    return q, k, v


def _alibi_bias(slopes: tuple[float, ...], length: int, like: Tensor) -> Tensor:
    """Return a slice of a cached bias, (1, H, length, length)."""
    built = -(-length // _BIAS_STEP) * _BIAS_STEP
    return _build_alibi_bias(slopes, built, like.dtype, like.device)[:, :, :length, :length]


# Autograd refuses tensors of inference mode, and a cached bias must serve training, too.


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _build_alibi_bias(slopes: tuple[float, ...], length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    position = torch.arange(length, device=device, dtype=torch.float32)
    distance = (position[:, None] - position[None, :]).abs()
    return (-_slopes_on(slopes, device)[None, :, None, None] * distance).to(dtype)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _slopes_on(slopes: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(slopes, device=device, dtype=torch.float32)


@lru_cache
def alibi_slopes(num_heads: int) -> tuple[float, ...]:
    """Return the ALiBi slopes of the heads, interleaved as in MosaicBERT if their number is no power of two.

    The slopes of the next smaller power of two come first, then every second one of twice that power (Portes et al.
    2023, arXiv:2312.17482).

    >>> alibi_slopes(3)
    (0.0625, 0.00390625, 0.25)
    """
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    finer = [2 ** (-8 * (i + 1) / (2 * power)) for i in range(2 * power)][::2]
    return tuple(slopes + finer[: num_heads - power])
