"""The numerics choices that a benchmark compares, and what each does to embeddings and calls."""

import logging
from typing import NamedTuple

import torch
from torch import Tensor

from virnucpro_pl.errors import UserError
from virnucpro_pl.models.encoders.fp8 import can_multiply_fp8
from virnucpro_pl.models.head import OTHERS, VIRUS, Head

log = logging.getLogger(__name__)


class Precision(NamedTuple):
    """One way to compute."""

    name: str
    trainer: str
    """What Lightning calls it"""
    fp8: bool = False
    """Linear layers of ESM-2 in float8"""
    fp16_accumulation: bool = False
    """Sums of products in float16"""

    @property
    def plain(self) -> bool:
        """Whether other programs can compute so too."""
        return not self.fp8 and not self.fp16_accumulation


REFERENCE = Precision("32-true", "32-true")
PRECISIONS = (
    REFERENCE,
    Precision("16-true", "16-true"),
    Precision("bf16-true", "bf16-true"),
    Precision("fp8", "16-true", fp8=True),
    Precision("fp16-accumulation", "16-true", fp16_accumulation=True),
)


def choose_precisions(names: list[str] | None, device: torch.device) -> list[Precision]:
    """Return the precisions asked for that the device can do; None asks for what is of use on it.

    Raises:
        UserError: a name is unknown, or nothing is left.
    """
    known = {precision.name: precision for precision in PRECISIONS}
    asked = names
    if names is None:
        names = [name for name in known if name != REFERENCE.name] if device.type == "cuda" else [REFERENCE.name]
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"precisions: {', '.join(map(str, unknown))}: unknown; choose from {', '.join(known)}")
    chosen = [known[name] for name in dict.fromkeys(names) if can_compute(known[name], device)]
    if not chosen:
        raise UserError(f"precisions=[{','.join(names)}]: none of them on {device}; 32-true works everywhere")
    for name in asked or []:
        if known[name] not in chosen:
            log.warning("precisions: %s is left out: not on %s", name, device)
    return chosen


def can_compute(precision: Precision, device: torch.device) -> bool:
    """Whether the device has units for it; what is only imitated on it says nothing of speed."""
    if precision.fp8:
        return device.type == "cuda" and can_multiply_fp8(device)
    if precision.fp16_accumulation:  # other cards sum in float32 as fast
        return device.type == "cuda" and "GeForce" in torch.cuda.get_device_name(device)
    return True


class Effect(NamedTuple):
    """How far embeddings are from those in float32."""

    cosine_min: float
    cosine_mean: float
    sqnr_db: float | None
    """Power of the float32 embeddings over that of the difference, in decibels; None where they are equal"""


def effect(embeddings: Tensor, reference: Tensor) -> Effect:
    """Compare (N, D) embeddings with their reference."""
    ours, exact = embeddings.double(), reference.double()
    cosine = torch.cosine_similarity(ours, exact, dim=1).clamp(max=1.0)
    noise = (ours - exact).square().sum()
    sqnr = None if noise == 0 else float(10 * torch.log10(exact.square().sum() / noise))
    return Effect(float(cosine.min()), float(cosine.mean()), sqnr)


class Calls:
    """Calls of a head without training, fitted so that it calls half of the reference embeddings viral.

    Unfitted it would give nearly all sequences of random encoders the same call, and no precision could change it.

    Args:
        head: a head with random weights; its batch norm and bias are replaced.
        reference: (N, D) embeddings of both encoders in float32.
    """

    @torch.inference_mode()
    def __init__(self, head: Head, reference: Tensor):
        self._head = head.to(reference.device)
        hidden = head.hidden_layer(reference)
        head.bn1.running_mean, head.bn1.running_var = hidden.mean(dim=0), hidden.var(dim=0)
        sorted_margins = self._margins(reference).sort().values
        middle = len(sorted_margins) // 2
        # Between two sequences: on the margin of one, that one's call would be chance.
        self._threshold = sorted_margins[max(0, middle - 1) : middle + 1].mean()
        self._expected = self._called_viral(reference)

    def _margins(self, embeddings: Tensor) -> Tensor:
        logits = self._head(embeddings)
        return logits[:, VIRUS] - logits[:, OTHERS]  # type: ignore[no-any-return]

    def _called_viral(self, embeddings: Tensor) -> Tensor:
        return self._margins(embeddings) >= self._threshold

    @torch.inference_mode()
    def agreement(self, embeddings: Tensor) -> float:
        """Share of (N, D) embeddings called as their reference is."""
        return float((self._called_viral(embeddings) == self._expected).float().mean())
