"""The one seam between the encoders and the attention kernels."""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from virnucpro_pl.encoders.packed import PackedTokens

BACKEND = "runs"
"""Name of the backend in use, for the record of a run."""

# Not cuDNN's: it builds a plan for every new pair of count and length, and ragged batches bring new ones all the time.
_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
_BIAS_STEP = 64  # biases are built for lengths rounded up to this, so that neighbouring lengths share one


def attend(
    q: Tensor, k: Tensor, v: Tensor, packed: PackedTokens, alibi_slopes: tuple[float, ...] | None = None
) -> Tensor:
    """Softmax attention of every token to the tokens of its own sequence: (T, H, D) x 3 -> (T, H, D).

    Dense scaled-dot-product attention over each run of equally long sequences; scores are scaled by ``D ** -0.5``.

    Parameters
    ----------
    q, k, v
        (T, H, D) queries, keys and values of T packed tokens and H heads.
    packed
        The sequences the tokens belong to.
    alibi_slopes
        One per head; adds ``-slope * |i - j|`` to the scores of tokens i and j (symmetric ALiBi, Press et al. 2022,
        arXiv:2108.12409).
    """
    with sdpa_kernel(_KERNELS):
        return _attend_runs(q, k, v, packed, alibi_slopes)


def _attend_runs(
    q: Tensor, k: Tensor, v: Tensor, packed: PackedTokens, alibi_slopes: tuple[float, ...] | None
) -> Tensor:
    attended = []
    for start, count, length in packed.runs:
        tokens = slice(start, start + count * length)
        query, key, value = (x[tokens].view(count, length, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
        bias = None if alibi_slopes is None else _alibi_bias(alibi_slopes, length, q)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        attended.append(out.transpose(1, 2).flatten(0, 1))
    if len(attended) == 1:  # the usual case with many reads: nothing to join
        return attended[0]
    return torch.cat(attended) if attended else torch.empty_like(v)


def _alibi_bias(slopes: tuple[float, ...], length: int, like: Tensor) -> Tensor:
    """(1, H, length, length) slice of a cached bias."""
    built = -(-length // _BIAS_STEP) * _BIAS_STEP
    return _build_alibi_bias(slopes, built, like.dtype, like.device)[:, :, :length, :length]


@lru_cache(maxsize=16)
def _build_alibi_bias(slopes: tuple[float, ...], length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    position = torch.arange(length, device=device, dtype=torch.float32)
    distance = (position[:, None] - position[None, :]).abs()
    per_head = torch.tensor(slopes, device=device, dtype=torch.float32)
    return (-per_head[None, :, None, None] * distance).to(dtype)


@lru_cache
def alibi_slopes(num_heads: int) -> tuple[float, ...]:
    """ALiBi slopes of each head; for a number that is no power of two, interleaved as in MosaicBERT.

    The slopes of the largest power of two below come first, then every second one of twice that power (Portes et al.
    2023, arXiv:2312.17482).

    >>> alibi_slopes(3)
    (0.0625, 0.00390625, 0.25)
    """
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    finer = [2 ** (-8 * (i + 1) / (2 * power)) for i in range(2 * power)][::2]
    return tuple(slopes + finer[: num_heads - power])
