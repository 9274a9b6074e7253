"""What a user may choose besides the precision."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from random_weights import randomise
from virnucpro_pl.data.packed import pack
from virnucpro_pl.errors import UserError
from virnucpro_pl.models.encoders import attention, pointwise
from virnucpro_pl.models.encoders.dnabert_s import DnabertS, DnabertSConfig
from virnucpro_pl.models.encoders.esm2 import Esm2, Esm2Config
from virnucpro_pl.models.encoders.numerics import Numerics, used_attention


@pytest.fixture(params=["DNABERT-S", "ESM-2"])
def encoder(request) -> DnabertS | Esm2:
    if request.param == "ESM-2":
        made = Esm2(Esm2Config(num_layers=3, width=64, num_heads=2, ffn_width=128))
    else:
        made = DnabertS(DnabertSConfig(num_layers=3, width=64, num_heads=2, ffn_width=128, vocabulary=33))
    randomise(made)
    return made.eval().requires_grad_(False)


def some_tokens():
    generator = np.random.default_rng(0)
    return pack([generator.integers(4, 24, length) for length in (40, 40, 9)])


def test_exact_needs_no_kernel_and_no_fused_attention(encoder, monkeypatch):
    expected = encoder(some_tokens())
    # Wherever there are kernels, exact must still go without: here they would be interpreted, and are not imported.
    for module in (attention, pointwise):
        monkeypatch.setattr(module, "has_kernels", lambda device_type: True)
    monkeypatch.setitem(sys.modules, "virnucpro_pl.models.encoders.kernels", None)

    Numerics(exact=True).apply(encoder)

    with torch.profiler.profile() as profile:
        torch.testing.assert_close(encoder(some_tokens()), expected, atol=1e-5, rtol=1e-5)
    called = {event.key for event in profile.key_averages()}
    assert not any("flash" in name or "efficient" in name for name in called)
    assert used_attention(encoder) == "exact"


@pytest.mark.parametrize(
    ("choices", "word"),
    [
        ({"attention": "fast"}, "triton, flash, varlen, runs"),
        ({"attention": "exact"}, "triton, flash, varlen, runs"),
        ({"exact": True, "fp8": True}, "reference"),
        ({"exact": True, "attention": "runs"}, "reference"),
        ({"exact": True, "fp16_accumulation": True}, "reference"),
    ],
)
def test_choices_that_make_no_sense_are_refused(choices, word):
    with pytest.raises(UserError, match=word):
        Numerics(**choices).check()


@pytest.mark.parametrize(
    ("choices", "word"),
    [({"attention": "varlen"}, "attention=varlen"), ({"fp16_accumulation": True}, "CUDA device")],
)
def test_what_the_cpu_cannot_do_is_refused(choices, word):
    esm2 = Esm2(Esm2Config(num_layers=1, width=32, num_heads=2, ffn_width=32))
    with pytest.raises(UserError, match=word):
        Numerics(**choices).apply(esm2)


def test_float8_changes_esm2_a_little_and_dnabert_s_not_at_all(encoder):
    expected = encoder(some_tokens())

    Numerics(fp8=True).apply(encoder)

    found = encoder(some_tokens())
    assert torch.equal(found, expected) == isinstance(encoder, DnabertS)
    assert F.cosine_similarity(found, expected).min() > 0.99


def test_float8_is_refused_where_it_would_change_nothing():
    esm2 = Esm2(Esm2Config(num_layers=2, width=32, num_heads=2, ffn_width=32))
    with pytest.raises(UserError, match="first and the last layer"):
        Numerics(fp8=True).apply(esm2)


def test_arithmetic_can_be_settled_again(encoder):
    Numerics(fp8=True).apply(encoder)
    once = encoder(some_tokens())
    Numerics(fp8=True).apply(encoder)
    assert torch.equal(encoder(some_tokens()), once)
