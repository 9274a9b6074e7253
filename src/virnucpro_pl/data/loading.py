"""Loader and sampler of the batches of a rank."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, DistributedSampler

from virnucpro_pl.data.batch import OrfBatch
from virnucpro_pl.data.dataset import OrfBatches
from virnucpro_pl.host.read_ahead import read_ahead

_BATCHES_AHEAD = 3


def as_it_is(batch: Any) -> Any:
    """Return a batch unchanged: default collation would make tensors of the keys, which belong on the host."""
    return batch


class ReadAheadLoader(DataLoader[Any]):
    """Loader that prepares the next batches in a thread while the device works.

    Tokenizers release Python's lock, so a thread is fast enough, and starts faster than a process.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches."""
        return read_ahead(super().__iter__(), depth=_BATCHES_AHEAD)


class BatchesOfRank(DistributedSampler[OrfBatch]):
    """Sampler of every N-th batch for one of N ranks. Lightning's own fails if a rank has no batch."""

    def __init__(self, batches: OrfBatches, rank: int, num_ranks: int):
        super().__init__(batches, num_ranks, rank, shuffle=False)
        self._numbers = range(rank, len(batches), num_ranks)

    def __iter__(self) -> Iterator[int]:  # type: ignore[override]
        """Yield the indices of the batches, longest sequences first."""
        return iter(self._numbers)

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._numbers)
