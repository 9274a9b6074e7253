"""Pointwise operations: fused kernels on CUDA, plain torch elsewhere.

On the CPU, results do not depend on the number of threads. Torch cuts a large tensor into one piece for each thread and
computes the remainder of a piece after its last whole vector by another routine, so the last bit of ``erf``, ``cos``
and ``sin`` depends on the cuts. Here all cuts lie between vectors. Sums and products have no such dependence.
"""

from functools import cache
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_GRAIN = 32_768  # elements: smallest piece of a thread; torch cuts gelu above half of it


@cache
def has_kernels(device_type: str) -> bool:
    """Return whether the fused kernels run on a type of device."""
    return device_type == "cuda" and find_spec("triton") is not None


def learns(x: Tensor) -> bool:
    """Return whether gradients are needed, which in-place operations and fused kernels do not support."""
    return torch.is_grad_enabled() and x.requires_grad


def gelu_(x: Tensor, exact: bool = False) -> Tensor:
    """Return the Gaussian error linear unit by ``erf``, (T, D), in place unless gradients are needed.

    Args:
        x: contiguous tensor.
        exact: use plain torch instead of a fused kernel.
    """
    if learns(x):
        return F.gelu(x)
    if not exact and has_kernels(x.device.type):
        from virnucpro_pl.models.encoders import kernels

        return kernels.gelu_(x)
    if x.device.type != "cpu":
        return torch.ops.aten.gelu_(x)  # type: ignore[no-any-return]
    # Each thread gets a whole number of vectors, or one thread gets all.
    flat, piece = x.view(-1), _GRAIN * torch.get_num_threads()
    whole = x.numel() // piece * piece
    for part in (*torch.split(flat[:whole], piece), *torch.split(flat[whole:], _GRAIN // 2)):
        torch.ops.aten.gelu_(part)
    return x


def gated_gelu(gates: Tensor, exact: bool = False) -> Tensor:
    """Return GELU of the first half of each row times the second half: (T, 2 * F) -> (T, F)."""
    if learns(gates):
        gate, value = gates.chunk(2, dim=-1)
        return F.gelu(gate) * value
    if not exact and has_kernels(gates.device.type):
        from virnucpro_pl.models.encoders import kernels

        return kernels.gated_gelu(gates)
    gate, value = gates.chunk(2, dim=-1)
    return gelu_(gate.contiguous(), exact).mul_(value)


def add_layer_norm(x: Tensor, delta: Tensor | None, norm: nn.LayerNorm, exact: bool = False) -> tuple[Tensor, Tensor]:
    """Return ``x + delta`` and its layer norm, (T, D) each; the sum overwrites ``x`` unless gradients are needed."""
    if learns(x) or (delta is not None and learns(delta)) or learns(norm.weight):
        total = x if delta is None else x + delta
        return total, F.layer_norm(total, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    if not exact and has_kernels(x.device.type):
        from virnucpro_pl.models.encoders import kernels

        return x, kernels.add_layer_norm(x, delta, norm.weight, norm.bias, norm.eps)
    if delta is not None:
        x += delta
    return x, F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """Scale each row to the range of float8: (T, D) -> (T, D) e4m3 and (T, 1) float32 scales."""
    if has_kernels(x.device.type):
        from virnucpro_pl.models.encoders import kernels

        return kernels.quantise(x)
    x = x.float()
    scales = x.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / torch.finfo(torch.float8_e4m3fn).max
    return (x / scales).to(torch.float8_e4m3fn), scales


def cos_sin(angles: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of (P, D) angles."""
    parts = torch.split(angles, max(1, _GRAIN // 2 // angles.shape[-1]))
    return torch.cat([part.cos() for part in parts]), torch.cat([part.sin() for part in parts])
