"""Pointwise functions whose results do not depend on the number of threads.

On the CPU torch cuts a large tensor into one piece per thread and computes what is left of a piece after the last whole
vector by another routine, so the last bit of ``erf``, ``cos`` and ``sin`` depends on where the cuts fall. Work below
torch's grain size is never cut.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_UNCUT = 32_767  # elements; at::internal::GRAIN_SIZE is 32,768


def gelu(x: Tensor) -> Tensor:
    """Gaussian error linear unit, by ``erf``: (T, D) -> (T, D)."""
    if x.device.type != "cpu" or x.numel() <= _UNCUT:
        return F.gelu(x.contiguous())
    rows = max(1, _UNCUT // x.shape[-1])
    return torch.cat([F.gelu(part.contiguous()) for part in torch.split(x, rows)])


def cos_sin(angles: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of (P, D) angles."""
    parts = torch.split(angles, max(1, _UNCUT // angles.shape[-1]))
    return torch.cat([part.cos() for part in parts]), torch.cat([part.sin() for part in parts])
