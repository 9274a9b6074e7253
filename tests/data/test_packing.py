"""The plan of batches: every ORF once, within the budget, longest first."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plans import plan_in_memory, plan_of_lengths
from virnucpro_pl.sequence import length_order, stored_array

ORFS = st.lists(
    st.integers(1, 60).flatmap(
        lambda residues: st.tuples(st.just(residues), st.integers(3 * residues, 3 * residues + 1))
    ),
    max_size=60,
)
PROTEINS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 1)), max_size=60)
"""ORFs of nine proteins, with or without the base that may follow"""


def plan_of(orfs, token_budget):
    lengths = np.array(orfs, dtype=np.int64).reshape(-1, 2)
    return plan_of_lengths(lengths[:, 0], lengths[:, 1], token_budget)


def batches_of(plan):
    return [plan.batch(number).tolist() for number in range(plan.num_batches)]


@given(ORFS, st.integers(1, 200))
def test_every_orf_is_planned_exactly_once(orfs, token_budget):
    plan = plan_of(orfs, token_budget)

    assert Counter(row for batch in batches_of(plan) for row in batch) == Counter(range(len(orfs)))
    assert plan.offsets[0] == 0
    assert plan.offsets[-1] == len(orfs)


@given(ORFS, st.integers(1, 200))
def test_batches_keep_to_the_budget_and_are_never_empty(orfs, token_budget):
    plan = plan_of(orfs, token_budget)
    tokens = [[orfs[row][0] + 2 for row in batch] for batch in batches_of(plan)]

    assert all(batch for batch in tokens)
    assert all(sum(batch) <= token_budget or len(batch) == 1 for batch in tokens)
    assert plan.protein_tokens == sum(map(sum, tokens))


@given(ORFS, st.integers(1, 200))
def test_no_batch_could_have_taken_the_next_orf(orfs, token_budget):
    tokens = [[orfs[row][0] + 2 for row in batch] for batch in batches_of(plan_of(orfs, token_budget))]

    for batch, following in itertools.pairwise(tokens):
        assert sum(batch) + following[0] > token_budget


@given(ORFS, st.integers(1, 200))
def test_longest_proteins_come_first_then_longest_nucleotides_then_input_order(orfs, token_budget):
    planned = [row for batch in batches_of(plan_of(orfs, token_budget)) for row in batch]

    assert planned == sorted(range(len(orfs)), key=lambda row: (-orfs[row][0], -orfs[row][1], row))


def plan_of_proteins(orfs, token_budget):
    """Plan ORFs whose protein number p has 2 * p + 1 residues; return also the protein of each row."""
    proteins = [protein for protein, _ in orfs]
    lengths = np.array([(2 * protein + 1, 3 * (2 * protein + 1) + more) for protein, more in orfs], dtype=np.int64)
    firsts = np.array([proteins.index(protein) for protein in proteins], dtype=np.int64)
    lengths = lengths.reshape(-1, 2)
    repeats = np.flatnonzero(firsts != np.arange(len(orfs)))
    pairs = np.column_stack([repeats, firsts[repeats]])
    return plan_of_lengths(lengths[:, 0], lengths[:, 1], token_budget, pairs), proteins, lengths


@given(PROTEINS, st.integers(1, 60))
def test_orfs_that_share_a_protein_are_neighbours_and_it_counts_once_in_a_batch(orfs, token_budget):
    plan, proteins, lengths = plan_of_proteins(orfs, token_budget)
    batches = batches_of(plan)
    planned = [row for batch in batches for row in batch]
    distinct = [{proteins[row] for row in batch} for batch in batches]
    tokens = [sum(2 * protein + 3 for protein in batch) for batch in distinct]

    assert sorted(planned) == list(range(len(orfs)))
    assert len([key for key, _ in itertools.groupby(planned, key=proteins.__getitem__)]) == len(set(proteins))
    assert plan.protein_tokens == sum(tokens)
    assert plan.num_proteins == sum(map(len, distinct))
    for batch, spent, (here, there) in zip(batches, tokens, itertools.pairwise([*distinct, set()]), strict=True):
        bases = sum(lengths[row, 1] for row in batch)
        assert spent <= token_budget or len(here) == 1
        assert bases <= 12 * token_budget or len(batch) == 1
        if here & there:
            assert bases + lengths[batch[-1], 1] + 1 > 12 * token_budget, "a protein was cut off for nothing"


def test_the_protein_that_many_orfs_share_does_not_gather_them_all_in_one_batch():
    plan, _, _ = plan_of_proteins([(4, 0)] * 100, token_budget=33)  # 9 residues, 27 bases, at most 396 in a batch

    assert [len(batch) for batch in batches_of(plan)] == [14] * 7 + [2]
    assert (plan.num_proteins, plan.protein_tokens) == (8, 88)


def test_a_protein_cut_off_from_its_first_orfs_counts_in_the_next_batch_too():
    orfs = [*[(4, 0)] * 15, (3, 0), (2, 0), (1, 0), (0, 0)]  # 11 tokens for the first 15, then 9, 7, 5 and 3
    plan, _, _ = plan_of_proteins(orfs, token_budget=33)

    assert [len(batch) for batch in batches_of(plan)] == [14, 4, 1]
    assert plan.protein_tokens == 11 + (11 + 9 + 7 + 5) + 3


def test_an_orf_longer_than_the_budget_has_a_batch_to_itself():
    assert batches_of(plan_of([(10, 30), (100, 300), (200, 600), (10, 30)], token_budget=24)) == [[2], [1], [0, 3]]


def test_nothing_to_embed_is_no_batch():
    plan = plan_of([], 100)

    assert (plan.num_batches, plan.protein_tokens, batches_of(plan)) == (0, 0, [])


@pytest.mark.parametrize("devices", [2, 3])
def test_devices_get_equal_shares_of_the_tokens(devices):
    """Lightning deals batches out in turn; what a device gets differs from its share by less than 2 %."""
    generator = np.random.default_rng(0)
    residues = generator.choice([49, 50, 99, 166], size=60_000, p=[0.4, 0.2, 0.3, 0.1]) - generator.integers(
        0, 3, 60_000
    )
    plan = plan_of_lengths(residues, 3 * residues + 1, token_budget=16384)
    tokens = np.add.reduceat(residues[np.asarray(plan.rows)] + 2, plan.offsets[:-1])

    shares = np.array([tokens[rank::devices].sum() for rank in range(devices)]) / tokens.sum()

    assert plan.num_batches > 100
    assert np.abs(shares * devices - 1).max() < 0.02


@st.composite
def repeating_orfs(draw):
    """Residues, bases, rows that repeat an ORF and rows that repeat a protein, each with the first."""
    orfs = draw(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2), st.integers(0, 2)), max_size=50))
    residues = np.array([protein // 2 + 1 for protein, _, _ in orfs], dtype=np.int64)
    bases = 3 * residues + np.array([more for _, more, _ in orfs], dtype=np.int64)
    repeats = []
    for keys in (orfs, [protein for protein, _, _ in orfs]):
        firsts = np.array([keys.index(key) for key in keys], dtype=np.int64)
        rows = np.flatnonzero(firsts != np.arange(len(orfs)))
        repeats.append(np.column_stack([rows, firsts[rows]]))
    return residues, bases, *repeats


@given(repeating_orfs(), st.integers(1, 60), st.integers(1, 9), st.booleans())
def test_planning_block_by_block_gives_the_plan_made_in_memory(orfs, token_budget, block_rows, deduplicate):
    residues, bases, copies, shared = orfs
    with pytest.MonkeyPatch.context() as patch:
        for module in (length_order, stored_array):
            patch.setattr(module, "BLOCK_ROWS", block_rows)
        plan = plan_of_lengths(residues, bases, token_budget, shared, copies, deduplicate)

    found = np.asarray(plan.rows).tolist(), plan.offsets.tolist(), plan.protein_tokens, plan.num_proteins
    assert found == plan_in_memory(residues, bases, token_budget, shared, copies, deduplicate)
