"""Packing and pooling against plain loops."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_pl.data.packed import mean_pool, pack

LENGTHS = st.lists(st.integers(1, 9), max_size=12)


def sequences_of(lengths: list[int]) -> list[np.ndarray]:
    """Sequences whose every token is different, so that a misplaced one shows."""
    borders = np.cumsum([0, *lengths])
    return [np.arange(start, end) for start, end in itertools.pairwise(borders)]


@given(LENGTHS)
def test_every_token_is_packed_once_and_in_order(lengths):
    sequences = sequences_of(lengths)
    packed = pack(sequences)

    assert packed.tokens.tolist() == list(range(sum(lengths)))
    assert packed.num_sequences == len(lengths)
    assert packed.max_seqlen == max(lengths, default=0)
    assert packed.positions.tolist() == [place for length in lengths for place in range(length)]
    borders = packed.cu_seqlens.tolist()
    assert [packed.tokens[a:b].tolist() for a, b in itertools.pairwise(borders)] == [
        sequence.tolist() for sequence in sequences
    ]


@given(LENGTHS)
def test_runs_cover_the_sequences_and_are_maximal(lengths):
    runs = pack(sequences_of(lengths)).runs

    assert [length for _, count, length in runs for _ in range(count)] == lengths
    assert [start for start, _, _ in runs] == np.cumsum([0, *(count * length for _, count, length in runs)])[
        :-1
    ].tolist()
    assert all(before[2] != after[2] for before, after in itertools.pairwise(runs))
    assert all(count > 0 for _, count, _ in runs)


def test_dtypes_are_those_the_attention_kernels_take():
    packed = pack([np.array([1, 2], dtype=np.int16), np.array([3], dtype=np.int16)])

    assert packed.tokens.dtype == torch.int64
    assert packed.positions.dtype == torch.int64
    assert packed.cu_seqlens.dtype == torch.int32


def test_nothing_packs_to_nothing():
    packed = pack([])

    assert (packed.num_sequences, len(packed.tokens), packed.runs, packed.cu_seqlens.tolist()) == (0, 0, (), [0])
    assert mean_pool(torch.empty(0, 7, dtype=torch.bfloat16), packed).shape == (0, 7)
    assert mean_pool(torch.empty(0, 7, dtype=torch.bfloat16), packed).dtype == torch.float32


@given(st.lists(st.integers(3, 9), max_size=8), st.integers(0, 1), st.one_of(st.none(), st.integers(1, 5)))
def test_mean_pool_equals_a_loop_over_the_sequences(lengths, skip, most):
    packed = pack(sequences_of(lengths))
    hidden = torch.randn(sum(lengths), 3, generator=torch.Generator().manual_seed(len(lengths)))
    expected = np.zeros((len(lengths), 3))
    for row, tokens in enumerate(sequences_of(lengths)):
        inner = tokens[skip : len(tokens) - skip][:most]
        expected[row] = sum(hidden[token].double().numpy() for token in inner) / len(inner)

    np.testing.assert_allclose(mean_pool(hidden, packed, skip=skip, most=most).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mean_pool_is_in_float32_whatever_the_precision(dtype):
    neighbour = 1 + torch.finfo(dtype).eps  # half-way to it lies no number of this precision

    pooled = mean_pool(torch.tensor([[1.0], [neighbour]], dtype=dtype), pack([np.arange(2)]))

    assert pooled.dtype == torch.float32
    assert pooled.item() == (1 + neighbour) / 2
