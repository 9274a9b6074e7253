"""The work between matrix products: fused kernels on CUDA, plain torch elsewhere.

On the CPU, results do not depend on the number of threads. Torch cuts a large tensor into one piece per thread and
computes what is left of a piece after the last whole vector by another routine, so the last bit of ``erf``, ``cos`` and
``sin`` depends on where the cuts fall. Small tensors are never cut. (Sums and products are exact to the last bit.)
"""

from functools import cache
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_UNCUT = 16_384  # elements: torch cuts gelu above this, and cos and sin from twice as many on


@cache
def has_kernels(device_type: str) -> bool:
    """Whether the fused kernels run on this kind of device."""
    return device_type == "cuda" and find_spec("triton") is not None


def gelu_(x: Tensor) -> Tensor:
    """Gaussian error linear unit, by ``erf``, in place: (T, D)."""
    if has_kernels(x.device.type):
        from virnucpro_pl.encoders import kernels

        return kernels.gelu_(x)
    if x.device.type != "cpu" or x.numel() <= _UNCUT:
        return torch.ops.aten.gelu_(x)  # type: ignore[no-any-return]
    # Parts of about the same size, because torch takes another routine for a single row that is part of a longer one.
    most_rows = max(1, _UNCUT // x.shape[-1])
    for part in torch.tensor_split(x, -(-len(x) // most_rows)):
        torch.ops.aten.gelu_(part)
    return x


def gated_gelu(gates: Tensor) -> Tensor:
    """GELU of the first half of each row times the second: (T, 2 * F) -> (T, F)."""
    if has_kernels(gates.device.type):
        from virnucpro_pl.encoders import kernels

        return kernels.gated_gelu(gates)
    gate, value = gates.chunk(2, dim=-1)
    return gelu_(gate) * value


def add_layer_norm(x: Tensor, delta: Tensor | None, norm: nn.LayerNorm) -> Tensor:
    """Add ``delta`` to ``x`` in place and return the layer norm of the sum: (T, D) each."""
    if has_kernels(x.device.type):
        from virnucpro_pl.encoders import kernels

        return kernels.add_layer_norm(x, delta, norm.weight, norm.bias, norm.eps)
    if delta is not None:
        x += delta
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """Scale each row to the range of float8: (T, D) -> (T, D) e4m3 and (T, 1) float32 scales."""
    if has_kernels(x.device.type):
        from virnucpro_pl.encoders import kernels

        return kernels.quantise(x)
    x = x.float()
    scales = x.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / torch.finfo(torch.float8_e4m3fn).max
    return (x / scales).to(torch.float8_e4m3fn), scales


def cos_sin(angles: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of (P, D) angles."""
    parts = torch.split(angles, max(1, _UNCUT // angles.shape[-1]))
    return torch.cat([part.cos() for part in parts]), torch.cat([part.sin() for part in parts])
