"""DNABERT-S against hidden states recorded from the published program's own model code."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from virnucpro_pl.data.packed import mean_pool, pack
from virnucpro_pl.models.encoders import dnabert_s, pointwise
from virnucpro_pl.models.encoders.dnabert_s import DnabertS, DnabertSConfig
from virnucpro_pl.models.weights.checkpoints import read_file
from virnucpro_pl.models.weights.convert import load_dnabert_s

TOLERANCE = 1e-5
RECORDED = ("s3", "s4", "s17", "s64", "s513", "s700")  # longer than alibi_starting_size, too
WITH_HIDDEN_STATES = ("s3", "s4", "s17", "s64")


@pytest.fixture(scope="session")
def twelve_heads(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> DnabertS:
    """A model with the real one's number of heads, which is no power of two; read from a checkpoint folder."""
    file = golden / "unit" / "bert12.safetensors"
    folder = tmp_path_factory.mktemp("bert12")
    shutil.copy(file, folder / "model.safetensors")
    sizes = read_file(file).metadata
    config = {key: float(value) if key == "layer_norm_eps" else int(value) for key, value in sizes.items()}
    (folder / "config.json").write_text(json.dumps(config))
    encoder = load_dnabert_s(folder)
    assert encoder.config.num_heads == 12
    return encoder


@pytest.fixture(scope="session")
def recorded(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "unit" / "bert12.npz") as arrays:
        return dict(arrays)


def hidden_and_means(encoder: DnabertS, sequences: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    packed = pack(sequences)
    with torch.inference_mode():
        hidden = encoder.hidden_states(packed)
        means = encoder(packed)
    return [part.numpy() for part in hidden.split([len(sequence) for sequence in sequences])], means.numpy()


def test_every_recorded_sequence_agrees_all_in_one_pack(twelve_heads, recorded):
    hidden, means = hidden_and_means(twelve_heads, [recorded[f"{name}_ids"][0] for name in RECORDED])

    for name, states, mean in zip(RECORDED, hidden, means, strict=True):
        np.testing.assert_allclose(mean, recorded[f"{name}_mean"][0], atol=TOLERANCE, err_msg=name)
        if name in WITH_HIDDEN_STATES:
            np.testing.assert_allclose(states, recorded[f"{name}_hidden"][0], atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("name", RECORDED)
def test_every_recorded_sequence_agrees_alone(twelve_heads, recorded, name):
    _, means = hidden_and_means(twelve_heads, [recorded[f"{name}_ids"][0]])

    np.testing.assert_allclose(means, recorded[f"{name}_mean"], atol=TOLERANCE)


def test_a_padded_batch_of_the_published_model_equals_our_pack_without_padding(twelve_heads, recorded):
    mask = recorded["batch_mask"].astype(bool)
    assert not mask.all(), "the recorded batch holds padding"
    sequences = [ids[real] for ids, real in zip(recorded["batch_ids"], mask, strict=True)]

    hidden, means = hidden_and_means(twelve_heads, sequences)

    np.testing.assert_allclose(means, recorded["batch_masked_mean"], atol=TOLERANCE)
    for states, published, real in zip(hidden, recorded["batch_hidden"], mask, strict=True):
        np.testing.assert_allclose(states, published[real], atol=TOLERANCE)


def _tanh_gelu(encoder, monkeypatch):
    monkeypatch.setattr(pointwise, "gelu_", lambda x, exact: torch.nn.functional.gelu(x, approximate="tanh"))


def _no_alibi(encoder, monkeypatch):
    monkeypatch.setattr(dnabert_s, "alibi_slopes", lambda heads: (0.0,) * heads)


def _slopes_of_a_power_of_two(encoder, monkeypatch):
    monkeypatch.setattr(
        dnabert_s, "alibi_slopes", lambda heads: tuple(2 ** (-8 * (i + 1) / heads) for i in range(heads))
    )


def _mean_without_ends(encoder, monkeypatch):
    monkeypatch.setattr(dnabert_s, "mean_pool", lambda hidden, packed: mean_pool(hidden, packed, skip=1))


def _halves_of_the_gate_swapped(encoder, monkeypatch):
    for layer in encoder.layers:
        layer.gated_layers.weight.data = layer.gated_layers.weight.data.roll(encoder.config.ffn_width, dims=0)


def _no_token_type(encoder, monkeypatch):
    encoder.embeddings.token_type_embeddings.weight.data.zero_()


def _larger_epsilon(encoder, monkeypatch):
    for module in encoder.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-5


@pytest.mark.parametrize(
    "mistake",
    [
        _tanh_gelu,
        _no_alibi,
        _slopes_of_a_power_of_two,
        _mean_without_ends,
        _halves_of_the_gate_swapped,
        _no_token_type,
        _larger_epsilon,
    ],
)
def test_the_comparison_notices_known_mistakes(twelve_heads, recorded, monkeypatch, mistake):
    encoder = copy.deepcopy(twelve_heads)
    mistake(encoder, monkeypatch)
    _, means = hidden_and_means(encoder, [recorded[f"{name}_ids"][0] for name in RECORDED])

    published = np.concatenate([recorded[f"{name}_mean"] for name in RECORDED])
    assert np.abs(means - published).max() > 1.5 * TOLERANCE


def test_the_real_architecture_has_the_published_number_of_parameters():
    with torch.device("meta"):
        encoder = DnabertS(DnabertSConfig(num_layers=12, width=768, num_heads=12, ffn_width=3072, vocabulary=4096))
    pooler = 768 * 768 + 768  # in the file, unused by the published program
    tensors = encoder.state_dict()

    assert sum(tensor.numel() for tensor in tensors.values()) == 117_068_544 - pooler
    assert len(tensors) == 138 - 2
    assert tensors["layers.11.Wqkv.weight"].shape == (2304, 768)
    assert tensors["layers.0.gated_layers.weight"].shape == (6144, 768)
    assert "layers.0.gated_layers.bias" not in tensors
    assert encoder.embedding_width == 768
