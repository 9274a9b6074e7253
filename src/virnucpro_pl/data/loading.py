"""How batches come to a rank: which of them, and ahead of time."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, DistributedSampler

from virnucpro_pl.data.batch import OrfBatch
from virnucpro_pl.data.dataset import OrfBatches
from virnucpro_pl.host.read_ahead import read_ahead

_BATCHES_AHEAD = 3


def as_it_is(batch: Any) -> Any:
    """Keep what is for the host, the keys of cached embeddings, from becoming tensors that move to the device."""
    return batch


class ReadAheadLoader(DataLoader[Any]):
    """Prepares the next batches in a thread while the device is busy with one.

    Tokenising runs outside Python's lock, so a thread suffices, and starts in no time where a process takes seconds.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches."""
        return read_ahead(super().__iter__(), depth=_BATCHES_AHEAD)


class BatchesOfRank(DistributedSampler[OrfBatch]):
    """Every N-th batch for one of N ranks, none twice. Lightning's own sampler fails where a rank gets none."""

    def __init__(self, batches: OrfBatches, rank: int, num_ranks: int):
        super().__init__(batches, num_ranks, rank, shuffle=False)
        self._numbers = range(rank, len(batches), num_ranks)

    def __iter__(self) -> Iterator[int]:  # type: ignore[override]
        """Yield the places of its batches, longest first."""
        return iter(self._numbers)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._numbers)
