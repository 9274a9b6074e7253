"""Packed sequences: token sequences of different lengths laid end to end, without padding."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class PackedTokens(NamedTuple):
    """N token sequences laid end to end, T tokens in total, ordered so that equal lengths are neighbours."""

    tokens: Tensor
    """(T,) int64, ids in the encoder's vocabulary, special tokens included"""
    positions: Tensor
    """(T,) int64, position of each token in its sequence"""
    cu_seqlens: Tensor
    """(N + 1,) int32; sequence i is ``tokens[cu_seqlens[i]:cu_seqlens[i + 1]]``"""
    max_seqlen: int
    """number of tokens of the longest sequence"""
    runs: tuple[tuple[int, int, int], ...]
    """maximal runs of sequences of equal length: first token, number of sequences, tokens of each"""

    @property
    def num_sequences(self) -> int:
        """Return N."""
        return len(self.cu_seqlens) - 1

    @property
    def num_tokens(self) -> int:
        """Return the number of tokens, computed from the runs so that the device is not synchronised."""
        return sum(count * length for _, count, length in self.runs)


def pack(sequences: Sequence[NDArray[np.integer]]) -> PackedTokens:
    """Lay token sequences end to end, in the given order.

    >>> packed = pack([np.array([0, 5, 2]), np.array([0, 7, 2]), np.array([0, 2])])
    >>> packed.cu_seqlens.tolist(), packed.positions.tolist(), packed.runs
    ([0, 3, 6, 8], [0, 1, 2, 0, 1, 2, 0, 1], ((0, 2, 3), (6, 1, 2)))
    """
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    first = np.flatnonzero(np.diff(lengths, prepend=-1))
    counts = np.diff(first, append=len(lengths))
    tokens = np.concatenate([np.empty(0, dtype=np.int64), *sequences]).astype(np.int64)
    return PackedTokens(
        tokens=torch.from_numpy(tokens),
        positions=torch.from_numpy(np.arange(len(tokens)) - np.repeat(starts, lengths)),
        cu_seqlens=torch.from_numpy(np.concatenate([[0], ends]).astype(np.int32)),
        max_seqlen=int(lengths.max(initial=0)),
        runs=tuple(zip(starts[first].tolist(), counts.tolist(), lengths[first].tolist(), strict=True)),
    )


def mean_pool(hidden: Tensor, packed: PackedTokens, *, skip: int = 0, most: int | None = None) -> Tensor:
    """Average each sequence's hidden states in float32: (T, D) -> (N, D).

    Args:
        hidden: (T, D), any floating dtype.
        packed: the sequences.
        skip: number of tokens left out at both ends of each sequence.
        most: largest number of tokens to average, from the first one that is not skipped.
    """
    means = [
        hidden[start : start + count * length]
        .view(count, length, -1)[:, skip : length - skip][:, :most]
        .mean(dim=1, dtype=torch.float32)
        for start, count, length in packed.runs
    ]
    return torch.cat(means) if means else hidden.new_zeros((0, hidden.shape[-1]), dtype=torch.float32)
