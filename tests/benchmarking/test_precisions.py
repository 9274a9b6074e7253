"""Choosing precisions, and what is said of their effect."""

import math
import sys

import pytest
import torch

from support import CHECKOUT
from virnucpro_pl.benchmarking.precisions import choose_precisions
from virnucpro_pl.benchmarking.random_weights import RandomHead
from virnucpro_pl.errors import UserError

sys.path.append(str(CHECKOUT / "benchmarks"))
from precision_effect import Calls, effect

CPU = torch.device("cpu")


def names(asked: list[str] | None) -> list[str]:
    return [precision.name for precision in choose_precisions(asked, CPU)]


def test_the_cpu_computes_in_float32_unless_asked() -> None:
    assert names(None) == ["32-true"]
    assert names(["bf16-true", "32-true", "bf16-true"]) == ["bf16-true", "32-true"]


def test_what_the_device_cannot_do_is_left_out() -> None:
    assert names(["fp8", "fp16-accumulation", "32-true"]) == ["32-true"]


@pytest.mark.parametrize(
    ("asked", "word"), [(["fp4"], "fp4"), ([16], "16: unknown"), (["fp8"], "none of them is available on cpu")]
)
def test_useless_choices_are_refused(asked: list, word: str) -> None:
    with pytest.raises(UserError, match=word):
        names(asked)


@pytest.mark.parametrize("decibels", [20.0, 40.0, 80.0])
def test_sqnr_is_the_power_of_the_embeddings_over_that_of_the_noise(decibels: float) -> None:
    reference = torch.randn(50, 64, dtype=torch.float64)
    noise = torch.randn(50, 64, dtype=torch.float64)
    noise *= reference.norm() / noise.norm() * 10 ** (-decibels / 20)
    found = effect(reference + noise, reference)
    assert math.isclose(found.sqnr_db, decibels, abs_tol=1e-6)
    assert found.cosine_min <= found.cosine_mean < 1


def test_cosine_is_that_of_the_worst_and_of_the_mean_sequence() -> None:
    reference = torch.eye(4)
    turned = reference.clone()
    turned[2] = torch.tensor([0.0, 0.6, 0.8, 0.0])
    found = effect(turned, reference)
    assert found.cosine_min == pytest.approx(0.8)
    assert found.cosine_mean == pytest.approx(3.8 / 4)


def test_equal_embeddings_have_no_noise() -> None:
    reference = torch.randn(9, 16)
    assert effect(reference, reference).sqnr_db is None
    assert effect(reference, reference).cosine_min == pytest.approx(1.0)


def test_calls_are_balanced_on_the_reference_and_change_with_embeddings() -> None:
    # Near one another, as embeddings of random encoders are.
    reference = 5 + 0.01 * torch.randn(200, 96, generator=torch.Generator().manual_seed(0))
    head = RandomHead(dna_width=32, protein_width=64, seed=0).load()
    unfitted = head(reference).argmax(dim=1)
    assert unfitted.float().mean() in (0, 1)
    calls = Calls(head, reference)
    assert calls.agreement(reference) == 1
    assert calls._expected.sum() == 100
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        noise = 2e-6 * torch.randn(200, 96, generator=generator)
        assert calls.agreement(reference + noise) == 1, "none is on the border"
    assert 0.3 < calls.agreement(reference.flip(0)) < 0.7, "other sequences' embeddings are chance"
