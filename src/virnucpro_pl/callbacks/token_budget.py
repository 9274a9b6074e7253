"""Search for the largest token budget that fits the device, for ``data.token_budget=auto``."""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from lightning import Trainer

from virnucpro_pl.data.batch import OrfBatch
from virnucpro_pl.errors import OutOfMemoryError, is_out_of_memory

_PROBES = 2048, 8192  # tokens; small for any GPU, and far enough apart to measure the memory of a token
_MOST = 131072  # tokens; in twice as many, offsets into ESM-2 3B's feed-forward layer pass 32 bits
_SHARE = 0.85  # of the memory; the rest is for fragmentation and for the next batches

log = logging.getLogger(__name__)


class Peak(NamedTuple):
    """Size and peak memory of one batch."""

    tokens: int
    """number of protein tokens of the batch"""
    bytes: int
    """peak memory in bytes, weights included"""


class DeviceMemory(Protocol):
    """Memory of one device."""

    def room(self) -> int:
        """Return the bytes that this process may use, including those in use."""

    def peak(self, step: Callable[[], object]) -> int:
        """Return the peak memory while ``step`` runs, in bytes."""

    def release(self) -> None:
        """Release cached memory that is not in use."""


class CudaMemory:
    """Memory of a CUDA device, as torch's allocator counts it."""

    def __init__(self, device: torch.device):
        self._device = device

    def room(self) -> int:
        """Return the bytes that are free or reserved by this process, less a margin."""
        free, _ = torch.cuda.mem_get_info(self._device)
        return int(_SHARE * (free + torch.cuda.memory_reserved(self._device)))

    def peak(self, step: Callable[[], object]) -> int:
        """Return the peak memory of tensors, in bytes."""
        torch.cuda.reset_peak_memory_stats(self._device)
        step()
        torch.cuda.synchronize(self._device)
        return torch.cuda.max_memory_allocated(self._device)

    def release(self) -> None:
        """Empty the allocator's cache."""
        torch.cuda.empty_cache()


def device_memory(device: torch.device) -> DeviceMemory | None:
    """Return the memory of a GPU; None on the CPU, whose memory other programs share."""
    return CudaMemory(device) if device.type == "cuda" else None


def find_token_budget(trainer: Trainer, longest_batch: Callable[[int], OrfBatch], most: int) -> int | None:
    """Find the largest budget whose longest batch fits every device; called on every rank.

    Args:
        trainer: trainer whose model is on its device.
        longest_batch: function that returns the first batch of the plan with a given budget.
        most: budget beyond which batches do not grow.

    Returns:
        A power of two, the same on all ranks; None if memory cannot be measured.

    Raises:
        OutOfMemoryError: not even one sequence fits.
    """
    strategy = trainer.strategy
    device = strategy.root_device
    memory = device_memory(device)
    if memory is None:
        return None
    model: Any = trainer.lightning_module
    model.apply_numerics()  # the trial must compute as the run will

    def try_batch(token_budget: int) -> Peak | None:
        try:
            batch = strategy.batch_to_device(longest_batch(token_budget), device)
            with torch.inference_mode(), trainer.precision_plugin.predict_step_context():
                return Peak(len(batch.protein.tokens), memory.peak(lambda: model.embed(batch)))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        memory.release()  # after the except block: the traceback of the error holds tensors
        return None

    budget, peak = largest_budget(try_batch, memory.room(), most)
    memory.release()
    budget = int(strategy.reduce(torch.tensor(budget, device=device), reduce_op="min"))
    log.info(
        "Token budget: %s (%.2f GiB for %s tokens, of %.2f GiB that may be used)",
        f"{budget:,}",
        peak.bytes / 2**30,
        f"{peak.tokens:,}",
        memory.room() / 2**30,
    )
    return budget


def largest_budget(try_batch: Callable[[int], Peak | None], room: int, most: int) -> tuple[int, Peak]:
    """Find the largest power of two whose longest batch fits into the memory.

    The peak memory of a step is affine in the tokens of its batch, so two small batches predict the budget. The
    predicted budget is tried, and halved until it fits.

    Args:
        try_batch: function that runs the longest batch of a budget; returns None if memory ran out.
        room: memory that may be used, in bytes.
        most: budget beyond which batches do not grow.

    Raises:
        OutOfMemoryError: not even one sequence fits.
    """
    limit = min(_MOST, 1 << max(0, most - 1).bit_length())
    budget = _predicted_budget(try_batch, room, limit)
    while budget:
        peak = try_batch(budget)
        if peak and peak.bytes <= room:
            return budget, peak
        budget //= 2
    raise OutOfMemoryError(
        f"not even the longest sequence alone fits into the {room / 2**30:.1f} GiB that may be used; give a device with"
        " more memory, a smaller model, or half precision (trainer.precision=16-true)"
    )


def _predicted_budget(try_batch: Callable[[int], Peak | None], room: int, limit: int) -> int:
    """Return the largest power of two of tokens that fit into the memory, ``limit`` if it cannot be predicted."""
    peaks = []
    for budget in _PROBES:
        if budget >= limit:
            return limit
        peak = try_batch(budget)
        if peak is None:
            return budget // 2
        peaks.append(peak)
    small, large = peaks
    if large.tokens <= small.tokens or large.bytes <= small.bytes:
        return limit
    tokens = large.tokens + (room - large.bytes) * (large.tokens - small.tokens) // (large.bytes - small.bytes)
    return min(limit, 1 << max(1, tokens).bit_length() - 1)
