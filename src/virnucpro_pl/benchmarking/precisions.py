"""Precisions of a benchmark."""

import logging
from typing import NamedTuple

import torch

from virnucpro_pl.errors import UserError
from virnucpro_pl.models.encoders.fp8 import can_multiply_fp8

log = logging.getLogger(__name__)


class Precision(NamedTuple):
    """Precision and numerics of a run."""

    name: str
    trainer: str
    """name that Lightning uses"""
    fp8: bool = False
    """linear layers of ESM-2 in float8"""
    fp16_accumulation: bool = False
    """sums of products in float16"""


REFERENCE = Precision("32-true", "32-true")
PRECISIONS = (
    REFERENCE,
    Precision("16-true", "16-true"),
    Precision("bf16-true", "bf16-true"),
    Precision("fp8", "16-true", fp8=True),
    Precision("fp16-accumulation", "16-true", fp16_accumulation=True),
)


def choose_precisions(names: list[str] | None, device: torch.device) -> list[Precision]:
    """Return the requested precisions that the device can compute.

    Args:
        names: names of precisions; None: all but float32 on a GPU, float32 on a CPU.
        device: the device.

    Raises:
        UserError: a name is unknown, or the device can compute none of them.
    """
    by_name = {precision.name: precision for precision in PRECISIONS}
    requested = names or []
    if names is None:
        names = [name for name in by_name if name != REFERENCE.name] if device.type == "cuda" else [REFERENCE.name]
    if unknown := [name for name in names if name not in by_name]:
        raise UserError(f"precisions: {', '.join(map(str, unknown))}: unknown; choose from {', '.join(by_name)}")
    chosen = [by_name[name] for name in dict.fromkeys(names) if can_compute(by_name[name], device)]
    if not chosen:
        raise UserError(
            f"precisions=[{','.join(names)}]: none of them is available on {device}; 32-true works everywhere"
        )
    for name in requested:
        if by_name[name] not in chosen:
            log.warning("precisions: %s is skipped: not available on %s", name, device)
    return chosen


def can_compute(precision: Precision, device: torch.device) -> bool:
    """Return whether the device has units for a precision; emulation says nothing about speed."""
    if precision.fp8:
        return device.type == "cuda" and can_multiply_fp8(device)
    if precision.fp16_accumulation:  # other GPUs sum in float32 as fast
        return device.type == "cuda" and "GeForce" in torch.cuda.get_device_name(device)
    return True
