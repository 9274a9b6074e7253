"""Batches of examples for training a head, and their order."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from virnucpro_pl.data.batch import Modality, OrfBatch
from virnucpro_pl.data.dataset import OrfBatches, Tokenizers
from virnucpro_pl.data.embeddings import Embeddings
from virnucpro_pl.sequence.store import OrfStore


class EmbeddedBatch(NamedTuple):
    """Embeddings of N ORFs."""

    embeddings: Tensor
    """(N, D) float32, DNA first"""
    labels: Tensor
    """(N,) int64, 0 for others and 1 for virus"""
    orfs: Tensor
    """(N,) int64, rows of the ORF store"""


class TokenBatch(NamedTuple):
    """Tokens of N ORFs, for encoders that are trained."""

    tokens: OrfBatch
    labels: Tensor
    """(N,) int64, in the order of ``tokens.orfs``"""
    orfs: Tensor
    """(N,) int64, rows of the ORF store"""


class EpochBatches(Sampler[NDArray[np.int64]]):
    """Sampler of batches of rows, shuffled in each epoch; the order depends on seed and epoch only.

    Each rank gets the same number of shuffled batches; the remaining rows are skipped in that epoch, as is a last batch
    of one row, which batch normalisation does not support.

    Args:
        rows: (N,) rows.
        batch_size: rows of a batch.
        seed: seed of the shuffling; None: keep the order and skip no rows.
        rank: number of this process.
        num_ranks: number of processes that share the batches.
    """

    def __init__(
        self, rows: NDArray[np.int64], batch_size: int, seed: int | None = None, rank: int = 0, num_ranks: int = 1
    ):
        self._rows = rows if seed is not None else rows[rank::num_ranks]
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0
        whole, left = divmod(len(self._rows), batch_size)
        if seed is None:
            self._numbers = range(whole + (left > 0))
        else:
            count = whole + (left > (1 if whole else 0))
            self._numbers = range(rank, count // num_ranks * num_ranks, num_ranks)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        rows, size = self._rows, self._batch_size
        if self._seed is not None:
            rows = np.random.default_rng([self._seed, self._epoch]).permutation(rows)
        return (rows[number * size : (number + 1) * size] for number in self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


class EmbeddedOrfs(Dataset[EmbeddedBatch]):
    """Dataset of batches of embeddings, indexed by rows of ORFs.

    Args:
        embeddings: embeddings of all ORFs.
        labels: (O,) classes of all ORFs.
        inputs: modality.
    """

    def __init__(self, embeddings: Embeddings, labels: NDArray[np.uint8], inputs: Modality):
        self._embeddings = embeddings
        self._labels = labels
        self._inputs = inputs

    def __getitem__(self, rows: NDArray[np.int64]) -> EmbeddedBatch:
        embeddings = torch.from_numpy(self._embeddings.take(rows, self._inputs))
        return EmbeddedBatch(embeddings, _labels(self._labels, rows), torch.from_numpy(rows))


class TokenisedOrfs(Dataset[TokenBatch]):
    """Dataset of batches of tokens, indexed by rows of ORFs, for encoders that are trained.

    Args:
        store: ORF store.
        labels: (O,) classes of all ORFs.
        tokenizers: tokenizers of both encoders; None for an encoder that is not used.
    """

    def __init__(self, store: OrfStore, labels: NDArray[np.uint8], tokenizers: Tokenizers):
        self._store = store
        self._labels = labels
        self._tokenizers = tokenizers

    def __getitem__(self, rows: NDArray[np.int64]) -> TokenBatch:
        batches = OrfBatches(self._store, _OneBatch(rows), np.zeros(1, dtype=np.int64), *self._tokenizers, True)
        return TokenBatch(batches[0], _labels(self._labels, rows), torch.from_numpy(rows))


class _OneBatch(NamedTuple):
    """Batch plan of a single batch."""

    rows: NDArray[np.int64]

    def batch(self, number: int) -> NDArray[np.int64]:
        """Return the rows."""
        return self.rows


def _labels(labels: NDArray[np.uint8], rows: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(labels[rows].astype(np.int64))
