"""Settings of the batch plan, and what a data module learns from the run it belongs to."""

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from lightning import Trainer
from numpy.typing import NDArray

from virnucpro_pl.data.batch import OrfBatch
from virnucpro_pl.data.embedding_cache import EncoderFingerprints
from virnucpro_pl.data.packing import Plan
from virnucpro_pl.errors import UserError

_CUDA_TOKENS, _CPU_TOKENS = 16384, 4096  # a GPU needs large matrices, a CPU matrices that fit its caches
FindTokenBudget = Callable[[Trainer, Callable[[int], OrfBatch], int], int | None]
"""Function of the trainer, the longest batch of a given budget and the tokens of one device; returns a budget that fits
or None"""


class Batching(NamedTuple):
    """Settings of the batch plan."""

    token_budget: int | Literal["auto"] | None = None
    """Most protein tokens in a batch; None: the default of the device; ``auto``: found by ``find_token_budget``"""
    deduplicate: bool = True
    """Embed identical ORFs once, and the protein that different ORFs share once"""
    find_token_budget: FindTokenBudget | None = None

    def check(self) -> None:
        """Raise UserError if the budget is no positive number."""
        budget = self.token_budget
        if not (budget in (None, "auto") or (isinstance(budget, int) and budget >= 1)):
            raise UserError(f"data.token_budget={budget}: give a number of tokens, 16384 is usual, or auto")


class RunFingerprints(NamedTuple):
    """Fingerprints of a run, which the first rank computes and sends to the others."""

    scores: str = ""
    """Fingerprint of all that scores depend on, beside the plan; part of the key of the plan"""
    encoders: EncoderFingerprints | None = None
    """Fingerprints of the encoders, for the embedding cache"""


class Progress(Protocol):
    """Record of the batches that earlier starts of a run have finished; read and written by the first rank."""

    def missing(self, plan: Plan) -> NDArray[np.int64]:
        """Return the numbers of the batches that are not finished, (M,), ascending."""

    def noted_token_budget(self, plan_key: str) -> int | None:
        """Return the token budget that an earlier start has found."""

    def note_token_budget(self, plan_key: str, token_budget: int) -> None:
        """Note a token budget, so that later starts make the same plan."""


def default_token_budget(device: torch.device) -> int:
    """Return the token budget of a device if none is set."""
    return _CUDA_TOKENS if device.type == "cuda" else _CPU_TOKENS
