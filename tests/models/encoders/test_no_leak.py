"""What a sequence's embedding is must not depend on the company it is packed with."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from virnucpro_pl.data.packed import pack

LENGTHS = st.lists(st.integers(1, 40), min_size=2, max_size=7)
RELAXED = settings(max_examples=25, deadline=None)


@pytest.fixture(scope="session", params=["DNABERT-S", "ESM-2"])
def embed(request, dna_encoder, protein_encoder):
    """Token sequences to embeddings, by either encoder, with its special tokens around random ids."""
    encoder, first, last, ids = {
        "DNABERT-S": (dna_encoder, 1, 2, (5, dna_encoder.config.vocabulary)),
        "ESM-2": (protein_encoder, 0, 2, (4, 24)),
    }[request.param]

    def make(length: int, seed: int) -> np.ndarray:
        inner = np.random.default_rng([length, seed]).integers(*ids, length)
        return np.concatenate([[first], inner, [last]])

    def run(sequences: list[np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            return encoder(pack(sequences)).numpy()

    return make, run


@RELAXED
@given(lengths=LENGTHS)
def test_packed_equals_one_by_one(embed, lengths):
    make, run = embed
    sequences = [make(length, seed) for seed, length in enumerate(lengths)]

    alone = np.concatenate([run([sequence]) for sequence in sequences])

    np.testing.assert_allclose(run(sequences), alone, atol=5e-6)


@RELAXED
@given(lengths=LENGTHS, changed=st.integers(0, 100), new_length=st.integers(1, 40))
def test_changing_one_sequence_leaves_the_others_alone(embed, lengths, changed, new_length):
    make, run = embed
    changed %= len(lengths)
    sequences = [make(length, seed) for seed, length in enumerate(lengths)]
    before = run(sequences)
    after = run([*sequences[:changed], make(new_length, 99), *sequences[changed + 1 :]])

    others = np.arange(len(lengths)) != changed
    np.testing.assert_allclose(after[others], before[others], atol=5e-6)
    if lengths[changed] > 10 and new_length > 10:
        assert np.abs(after[changed] - before[changed]).max() > 1e-3


@RELAXED
@given(lengths=LENGTHS, data=st.data())
def test_permuting_the_sequences_permutes_the_embeddings(embed, lengths, data):
    make, run = embed
    order = data.draw(st.permutations(range(len(lengths))))
    sequences = [make(length, seed) for seed, length in enumerate(lengths)]

    permuted = run([sequences[i] for i in order])

    np.testing.assert_allclose(permuted, run(sequences)[order], atol=5e-6)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch has no MKL here: run on x86-64")
@RELAXED
@given(lengths=st.lists(st.integers(2, 40), min_size=2, max_size=12), per_batch=st.integers(1, 11))
@example(lengths=[40, 40, 40, 39, 2], per_batch=3)
@example(lengths=[*[40] * 7, 39, 4], per_batch=4)
def test_an_embedding_has_the_same_bits_in_any_batch(embed, lengths, per_batch):
    """So nothing changes in the results when some sequences need not be embedded."""
    make, run = embed
    sequences = [make(length, seed) for seed, length in enumerate(lengths)]
    batches = [run(sequences[i : i + per_batch]) for i in range(0, len(sequences), per_batch)]

    np.testing.assert_array_equal(np.concatenate(batches), run(sequences))


def test_a_long_neighbour_changes_nothing(embed):
    make, run = embed
    short = make(3, 0)

    np.testing.assert_allclose(run([make(700, 1), short, make(65, 2)])[1], run([short])[0], atol=5e-6)


def test_the_order_of_tokens_matters(embed):
    make, run = embed
    sequence = make(30, 0)
    turned = np.concatenate([sequence[:1], sequence[-2:0:-1], sequence[-1:]])

    assert np.abs(run([sequence]) - run([turned])).max() > 1e-3


def test_an_empty_pack_gives_no_embeddings(embed):
    make, run = embed
    found = run([])

    assert found.shape == (0, run([make(1, 0)]).shape[1])
    assert found.dtype == np.float32
