"""Pointwise functions whose results do not depend on the number of threads.

On the CPU torch cuts a large tensor into one piece per thread and computes what is left of a piece after the last whole
vector by another routine, so the last bit of ``erf``, ``cos`` and ``sin`` depends on where the cuts fall. Small tensors
are never cut. (Sums and products are exact to the last bit either way.)
"""

import torch
from torch import Tensor

_UNCUT = 16_384  # elements: torch cuts gelu above this, and cos and sin from twice as many on


def gelu_(x: Tensor) -> Tensor:
    """Gaussian error linear unit, by ``erf``, in place: (T, D)."""
    if x.device.type != "cpu" or x.numel() <= _UNCUT:
        return torch.ops.aten.gelu_(x)  # type: ignore[no-any-return]
    for part in torch.split(x, max(1, _UNCUT // x.shape[-1])):
        torch.ops.aten.gelu_(part)
    return x


def cos_sin(angles: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of (P, D) angles."""
    parts = torch.split(angles, max(1, _UNCUT // angles.shape[-1]))
    return torch.cat([part.cos() for part in parts]), torch.cat([part.sin() for part in parts])
