"""The attention seam against softmax written out in float64."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro_pl.data.packed import pack
from virnucpro_pl.models.encoders.attention import alibi_slopes, attend


def attention_by_loops(qkv, lengths, slopes):
    """Every token against every token of its own sequence, head by head."""
    q, k, v = (x.double().numpy() for x in qkv.unbind(1))
    out = np.zeros_like(q)
    start = 0
    for length in lengths:
        own = slice(start, start + length)
        for head in range(q.shape[1]):
            scores = q[own, head] @ k[own, head].T / math.sqrt(q.shape[2])
            if slopes is not None:
                for i in range(length):
                    for j in range(length):
                        scores[i, j] -= slopes[head] * abs(i - j)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[own, head] = weights / weights.sum(axis=1, keepdims=True) @ v[own, head]
        start += length
    return out.reshape(len(out), -1)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=6),
    st.sampled_from([1, 3, 4]),
    st.booleans(),
    st.sampled_from(["auto", "runs", "exact"]),
)
def test_attention_equals_loops_in_float64(lengths, heads, with_alibi, backend):
    packed = pack([np.zeros(length, dtype=np.int64) for length in lengths])
    generator = torch.Generator().manual_seed(sum(lengths))
    qkv = torch.randn(sum(lengths), 3, heads, 8, generator=generator)
    slopes = alibi_slopes(heads) if with_alibi else None

    found = attend(qkv, packed, alibi_slopes=slopes, backend=backend)

    np.testing.assert_allclose(found.numpy(), attention_by_loops(qkv, lengths, slopes), atol=1e-5)


@pytest.mark.parametrize("length", [63, 64, 65, 129])
def test_alibi_is_right_where_the_cached_bias_grows(length):
    packed = pack([np.zeros(length, dtype=np.int64)])
    generator = torch.Generator().manual_seed(1)
    qkv = torch.randn(length, 3, 2, 4, generator=generator)

    found = attend(qkv, packed, alibi_slopes=alibi_slopes(2))

    np.testing.assert_allclose(found.numpy(), attention_by_loops(qkv, [length], alibi_slopes(2)), atol=1e-5)


def test_slopes_are_those_of_the_published_model_for_every_number_of_heads(golden):
    published = json.loads((golden / "unit" / "alibi_slopes.json").read_text())

    assert sorted(map(int, published)) == list(range(1, 33))
    for heads, slopes in published.items():
        np.testing.assert_allclose(alibi_slopes(int(heads)), slopes, rtol=1e-7, err_msg=f"{heads} heads")


def test_slopes_of_twelve_heads():
    expected = [2**-power for power in range(1, 9)] + [2 ** -(power + 0.5) for power in range(4)]  # Press et al.
    np.testing.assert_allclose(alibi_slopes(12), expected, rtol=1e-12)
