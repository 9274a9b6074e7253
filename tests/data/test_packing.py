"""The plan of batches: every ORF once, within the budget, longest first."""

import itertools
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_pl.data.packing import plan_batches

ORFS = st.lists(st.tuples(st.integers(1, 60), st.integers(3, 180)), max_size=60)


def plan_of(orfs, token_budget, first_row=0):
    rows = np.arange(first_row, first_row + len(orfs))
    lengths = np.array(orfs, dtype=np.int64).reshape(-1, 2)
    return plan_batches(rows, lengths[:, 0], lengths[:, 1], token_budget)


def batches_of(plan):
    return [plan.batch(number).tolist() for number in range(plan.num_batches)]


@given(ORFS, st.integers(1, 200))
def test_every_orf_is_planned_exactly_once(orfs, token_budget):
    plan = plan_of(orfs, token_budget, first_row=7)

    assert Counter(row for batch in batches_of(plan) for row in batch) == Counter(range(7, 7 + len(orfs)))
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


@given(ORFS, st.integers(1, 200), st.randoms())
def test_the_plan_does_not_depend_on_the_order_of_the_rows(orfs, token_budget, random):
    rows = np.arange(len(orfs))
    lengths = np.array(orfs, dtype=np.int64).reshape(-1, 2)
    order = random.sample(range(len(orfs)), len(orfs))

    shuffled = plan_batches(rows[order], lengths[order, 0], lengths[order, 1], token_budget)

    assert batches_of(shuffled) == batches_of(plan_of(orfs, token_budget))


def test_an_orf_longer_than_the_budget_has_a_batch_to_itself():
    assert batches_of(plan_of([(10, 30), (100, 300), (200, 600), (10, 30)], token_budget=24)) == [[2], [1], [0, 3]]


def test_nothing_to_embed_is_no_batch():
    plan = plan_of([], 100)

    assert (plan.num_batches, plan.protein_tokens, batches_of(plan)) == (0, 0, [])
