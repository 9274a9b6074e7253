"""Random weights are sources like any other, the same in every precision, and keep activations within float16."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from virnucpro_pl.benchmarking.random_weights import RandomDnabertS, RandomEsm2, RandomHead
from virnucpro_pl.data.packed import pack
from virnucpro_pl.errors import UserError

HALVES = [torch.float16, torch.bfloat16]


def loaded(source, dtype: torch.dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return source.load()
    finally:
        torch.set_default_dtype(before)


@pytest.fixture(params=["ESM-2", "DNABERT-S"])
def source(request, esm2_source, dnabert_s_source) -> RandomEsm2 | RandomDnabertS:
    return esm2_source if request.param == "ESM-2" else dnabert_s_source


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_holds_the_numbers_of_float32_rounded(source, dtype) -> None:
    exact, rounded = loaded(source, torch.float32).state_dict(), loaded(source, dtype).state_dict()
    assert exact.keys() == rounded.keys()
    for name, tensor in exact.items():
        assert rounded[name].dtype == dtype
        torch.testing.assert_close(rounded[name], tensor.to(dtype), atol=0, rtol=0)


def test_every_parameter_is_drawn_but_those_of_layer_norms(source) -> None:
    for name, tensor in source.load().state_dict().items():
        if "norm" in name.lower():
            assert torch.all(tensor == (1 if name.endswith("weight") else 0)), name
        else:
            assert 0.01 < tensor.std() < 0.03, name
            assert abs(tensor.mean()) < 0.02, name


def test_the_seed_and_nothing_else_decides(source) -> None:
    torch.manual_seed(1)
    first = source.load().state_dict()
    torch.manual_seed(2)
    again, other = source.load().state_dict(), replace(source, seed=6).load().state_dict()
    name = next(name for name in first if name.endswith("embeddings.weight") or name == "embed_tokens.weight")
    torch.testing.assert_close(again, first, atol=0, rtol=0)
    assert not torch.equal(other[name], first[name])
    assert source.fingerprint() != replace(source, seed=6).fingerprint()


def test_activations_of_a_wide_and_deep_model_stay_within_float16(esm2_source) -> None:
    sizes = replace(esm2_source.config, num_layers=12, width=640, num_heads=10, ffn_width=2560)
    encoder = RandomEsm2(sizes, seed=0).load()
    largest = []
    for layer in encoder.layers:
        layer.fc1.register_forward_hook(lambda module, inputs, output: largest.append(float(output.abs().max())))
        layer.register_forward_hook(lambda module, inputs, output: largest.append(float(output[0].abs().max())))
    with torch.inference_mode():
        encoder(pack([np.arange(4, 24)] * 3))
    assert len(largest) == 24
    assert max(largest) < torch.finfo(torch.float16).max / 100


def test_head_fits_both_encoders_and_is_float32_in_every_precision() -> None:
    source = RandomHead(dna_width=32, protein_width=64, seed=1)
    head = loaded(source, torch.float16)
    assert head.num_inputs == 96
    assert {parameter.dtype for parameter in head.parameters()} == {torch.float32}
    assert not head.training
    torch.testing.assert_close(head.state_dict(), loaded(source, torch.float16).state_dict())
    assert not torch.equal(head.output_layer.weight, loaded(replace(source, seed=2), torch.float16).output_layer.weight)


def test_tokens_are_those_of_the_folder(dnabert_s_source) -> None:
    tokenizer = dnabert_s_source.tokenizer()
    [tokens] = tokenizer([b"ACGTACGTTTGACCA"])
    assert 2 < len(tokens) <= 17
    assert tokens.max() < tokenizer.vocabulary <= dnabert_s_source.config.vocabulary


@pytest.mark.parametrize(
    ("change", "word"),
    [({"vocabulary": 100}, r"config\.vocabulary=512"), ({"folder": "missing"}, "tokenizer.weights=missing|missing")],
)
def test_a_tokenizer_that_does_not_fit_is_refused(dnabert_s_source, change, word) -> None:
    source = replace(
        dnabert_s_source,
        config=replace(dnabert_s_source.config, vocabulary=change.get("vocabulary", 600)),
        tokenizer_folder=change.get("folder", dnabert_s_source.tokenizer_folder),
    )
    with pytest.raises(UserError, match=word):
        source.tokenizer()
