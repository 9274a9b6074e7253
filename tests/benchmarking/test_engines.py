"""benchmarks/engines.py: other engines compute the same embeddings from the same weights, in the stated batches."""

import sys

import numpy as np
import pytest
import torch

from support import CHECKOUT
from virnucpro_pl.benchmarking.random_weights import RandomEsm2
from virnucpro_pl.data.tokenizers import protein_tokenizer
from virnucpro_pl.errors import UserError
from virnucpro_pl.models.encoders.esm2 import Esm2Config

sys.path.append(str(CHECKOUT / "benchmarks"))
from engines import fair_esm, hugging_face_esm, longest_first, one_by_one, pack_sample

LENGTHS = (30, 7, 166, 1, 49, 50, 49, 300, 166)
CPU = torch.device("cpu")


def random_proteins(lengths: tuple[int, ...]) -> list[bytes]:
    generator = np.random.default_rng(3)
    return ["".join(generator.choice(list("ACDEFGHIKLMNPQRSTVWY"), length)).encode() for length in lengths]


@pytest.mark.parametrize("make", [fair_esm, lambda *given: hugging_face_esm(*given, token_budget=700)])
def test_protein_embeddings_are_ours_in_the_given_order(esm2, make) -> None:
    proteins = random_proteins(LENGTHS)
    ours = pack_sample(protein_tokenizer()(proteins), 512, CPU).embeddings(esm2)
    baseline = make(esm2, proteins)
    torch.testing.assert_close(baseline.embeddings(), ours, atol=1e-5, rtol=1e-5)
    assert baseline.tokens == sum(LENGTHS) + 2 * len(LENGTHS)
    assert baseline.processed > baseline.tokens


def test_weights_are_shared_and_not_copied(esm2) -> None:
    baseline = hugging_face_esm(esm2, random_proteins((9,)), token_budget=700)
    esm2.layers[0].fc1.weight.zero_()
    esm2.layers[0].fc1.bias.zero_()
    ours = pack_sample(protein_tokenizer()(random_proteins((9,))), 512, CPU).embeddings(esm2)
    torch.testing.assert_close(baseline.embeddings(), ours, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_runs_and_is_near(esm2, dtype) -> None:
    proteins = random_proteins(LENGTHS)
    expected = pack_sample(protein_tokenizer()(proteins), 512, CPU).embeddings(esm2)
    half = esm2.to(dtype)
    for baseline in (fair_esm(half, proteins), hugging_face_esm(half, proteins, token_budget=700)):
        assert torch.cosine_similarity(baseline.embeddings(), expected).min() > 0.999


def test_published_batches_hold_2048_tokens_at_most(esm2) -> None:
    """As the published tool counts: one token more than residues, which leaves out <eos>."""
    baseline = fair_esm(esm2, random_proteins((100,) * 50 + (101,)))
    rows = [len(step.args[1]) for step in baseline.steps]
    assert rows == [20, 20, 11]
    assert max(step.args[0].shape[0] * (step.args[0].shape[1] - 1) for step in baseline.steps) <= 2048


@pytest.mark.parametrize("budget", [64, 700, 10_000])
def test_padded_batches_stay_within_the_budget(esm2, budget) -> None:
    baseline = hugging_face_esm(esm2, random_proteins(LENGTHS), token_budget=budget)
    sizes = [step.args[0].shape for step in baseline.steps]
    assert sum(rows for rows, _ in sizes) == len(LENGTHS)
    assert all(rows * tokens <= budget or rows == 1 for rows, tokens in sizes)
    assert baseline.processed == sum(rows * tokens for rows, tokens in sizes)


def test_nucleotides_one_by_one_are_ours(dnabert_s) -> None:
    tokens = [np.random.default_rng(length).integers(5, 256, length) for length in (30, 5, 80, 30)]
    ours = pack_sample(tokens, 100, CPU)
    baseline = one_by_one(dnabert_s, tokens)
    assert len(baseline.steps) == 4
    assert baseline.tokens == baseline.processed == 145
    torch.testing.assert_close(baseline.embeddings(), ours.embeddings(dnabert_s), atol=1e-5, rtol=1e-5)


def test_groups_hold_every_sequence_once() -> None:
    groups = longest_first([5, 900, 3, 5], token_budget=10)
    assert sorted(np.concatenate(groups).tolist()) == [0, 1, 2, 3]
    assert groups[0].tolist() == [1], "one longer than the budget is by itself"


def test_sizes_fair_esm_does_not_have_are_refused() -> None:
    narrow = RandomEsm2(Esm2Config(num_layers=1, width=16, num_heads=2, ffn_width=32), seed=0).load()
    with pytest.raises(UserError, match=r"ffn_width=32.*64"):
        fair_esm(narrow, [b"MKV"])
