"""ESM-2 against fair-esm's own model, against transformers' model, and against recorded outputs of the former."""

import argparse
import dataclasses
import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from esm.data import Alphabet
from esm.model.esm2 import ESM2

from random_weights import randomise
from virnucpro_pl.data.packed import mean_pool, pack
from virnucpro_pl.models.encoders import esm2
from virnucpro_pl.models.encoders.attention import Rotation
from virnucpro_pl.models.encoders.esm2 import MOST_RESIDUES, Esm2, Esm2Config, exact_inverse_frequencies
from virnucpro_pl.models.weights.convert import load_esm2

TOLERANCE = 1e-5
RESIDUES = (1, 3, 50, 166, 400, 1030)
SIZES = ((1, 24, 2), (2, 40, 4), (3, 48, 3))  # layers, width, heads
ALPHABET = Alphabet.from_architecture("ESM-1b")


def random_proteins(lengths: tuple[int, ...]) -> list[str]:
    generator = np.random.default_rng(7)
    return ["".join(generator.choice(list("ACDEFGHIKLMNPQRSTVWY"), length)) for length in lengths]


def save_as_fair_esm(model: ESM2, path: Path) -> Path:
    """As the published files are: names below ``encoder``, sizes in a Namespace."""
    state = {
        f"encoder.{name}" if name.startswith("lm_head") else f"encoder.sentence_encoder.{name}": tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith("contact_head")
    }
    sizes = argparse.Namespace(
        encoder_layers=model.num_layers,
        encoder_embed_dim=model.embed_dim,
        encoder_attention_heads=model.attention_heads,
        token_dropout=model.token_dropout,
    )
    torch.save({"cfg": {"model": sizes}, "model": state}, path)
    return path


def fair_esm_hidden_states(model: ESM2, proteins: list[str]) -> list[np.ndarray]:
    """Per token, from one padded batch, padding taken off."""
    _, _, tokens = ALPHABET.get_batch_converter()([("", protein) for protein in proteins])
    with torch.inference_mode():
        hidden = model(tokens, repr_layers=[model.num_layers])["representations"][model.num_layers]
    return [states[: len(protein) + 2].numpy() for states, protein in zip(hidden, proteins, strict=True)]


def means_over_residues(hidden: list[np.ndarray]) -> np.ndarray:
    return np.stack([states[1:-1][:1024].astype(np.float64).mean(axis=0) for states in hidden])


def our_hidden_states_and_means(encoder: Esm2, tokenize, proteins: list[str]) -> tuple[list[np.ndarray], np.ndarray]:
    tokens = tokenize([protein.encode() for protein in proteins])
    packed = pack(tokens)
    with torch.inference_mode():
        hidden = encoder.hidden_states(packed).split([len(sequence) for sequence in tokens])
        return [states.numpy() for states in hidden], encoder(packed).numpy()


@pytest.fixture(scope="session", params=SIZES, ids=lambda sizes: "x".join(map(str, sizes)))
def pair(request, tmp_path_factory) -> tuple[ESM2, Esm2]:
    """fair-esm's model with random weights, and ours read from the file saved from it."""
    layers, width, heads = request.param
    theirs = ESM2(layers, width, heads, ALPHABET).eval()
    randomise(theirs)
    return theirs, load_esm2(save_as_fair_esm(theirs, tmp_path_factory.mktemp("esm") / "model.pt"))


def test_hidden_states_and_means_equal_those_of_fair_esm(pair, proteins_to_tokens):
    theirs, ours = pair
    proteins = random_proteins(RESIDUES)
    expected = fair_esm_hidden_states(theirs, proteins)
    hidden, means = our_hidden_states_and_means(ours, proteins_to_tokens, proteins)

    for length, found, wanted in zip(RESIDUES, hidden, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=TOLERANCE, rtol=TOLERANCE, err_msg=f"{length} residues")
    np.testing.assert_allclose(means, means_over_residues(expected), atol=TOLERANCE, rtol=TOLERANCE)


def test_what_enters_each_layer_equals_fair_esms(pair, proteins_to_tokens):
    theirs, ours = pair
    proteins = random_proteins((1, 3, 50, 166, 400))
    _, _, padded = ALPHABET.get_batch_converter()([("", protein) for protein in proteins])
    with torch.inference_mode():
        expected = theirs(padded, repr_layers=range(theirs.num_layers))["representations"]
    entered = []

    def note(_, args) -> None:
        stream, to_add = args[:2]  # what the layer before adds is not added yet
        entered.append(stream.clone() if to_add is None else stream + to_add)

    with ExitStack() as hooks:
        for layer in ours.layers:
            hooks.callback(layer.register_forward_pre_hook(note).remove)
        with torch.inference_mode():
            ours(pack(proteins_to_tokens([protein.encode() for protein in proteins])))

    lengths = [len(protein) + 2 for protein in proteins]
    assert len(entered) == theirs.num_layers
    for number, states in enumerate(entered):
        for index, own in enumerate(states.split(lengths)):
            wanted = expected[number][index, : lengths[index]]
            np.testing.assert_allclose(own, wanted, atol=TOLERANCE, rtol=TOLERANCE, err_msg=f"layer {number}")


def test_model_without_token_dropout_equals_fair_esm(tmp_path, proteins_to_tokens):
    theirs = ESM2(1, 16, 2, ALPHABET, token_dropout=False).eval()
    randomise(theirs)
    ours = load_esm2(save_as_fair_esm(theirs, tmp_path / "model.pt"))
    proteins = random_proteins((1, 40))

    hidden, _ = our_hidden_states_and_means(ours, proteins_to_tokens, proteins)

    for found, wanted in zip(hidden, fair_esm_hidden_states(theirs, proteins), strict=True):
        np.testing.assert_allclose(found, wanted, atol=TOLERANCE, rtol=TOLERANCE)


def test_no_more_than_the_published_number_of_residues_are_averaged(pair, proteins_to_tokens):
    theirs, ours = pair
    protein = random_proteins((1030,))[0]
    (states,) = fair_esm_hidden_states(theirs, [protein])
    _, means = our_hidden_states_and_means(ours, proteins_to_tokens, [protein])

    assert MOST_RESIDUES == 1024
    all_of_them = states[1:-1].mean(axis=0)
    assert np.abs(means[0] - all_of_them).max() > 3 * TOLERANCE


# What rewrites of the published program got wrong; each must show in the comparison with fair-esm.


def _end_in_the_mean(encoder, monkeypatch):
    monkeypatch.setattr(esm2, "mean_pool", lambda hidden, packed, **_: mean_pool(hidden, packed))


def _no_rescaling_for_token_dropout(encoder, monkeypatch):
    monkeypatch.setattr(encoder, "config", dataclasses.replace(encoder.config, token_dropout=False))


def _tanh_gelu(encoder, monkeypatch):
    monkeypatch.setattr(esm2, "gelu_", lambda x, exact: torch.nn.functional.gelu(x, approximate="tanh"))


def _rotary_frequencies_in_half_precision(encoder, monkeypatch):
    rounded = np.array(encoder.config.inverse_frequencies, np.float16).tolist()
    monkeypatch.setattr(encoder, "config", dataclasses.replace(encoder.config, inverse_frequencies=tuple(rounded)))


def _rotation_in_half_precision(encoder, monkeypatch):
    table = esm2._rotation_table
    monkeypatch.setattr(esm2, "_rotation_table", lambda *args: Rotation(*(x.half().float() for x in table(*args))))


def _positions_started_anew_within_a_protein(encoder, monkeypatch):
    """Rotary positions are relative, so a shift alone changes nothing; positions that jump within a protein do."""
    table = esm2._rotation_table
    monkeypatch.setattr(esm2, "_rotation_table", lambda *args: Rotation(*(x[:20].repeat(20, 1) for x in table(*args))))


@pytest.mark.parametrize(
    "mistake",
    [
        _end_in_the_mean,
        _no_rescaling_for_token_dropout,
        _tanh_gelu,
        _rotary_frequencies_in_half_precision,
        _rotation_in_half_precision,
        _positions_started_anew_within_a_protein,
    ],
)
def test_the_comparison_notices_known_mistakes(pair, proteins_to_tokens, monkeypatch, mistake):
    theirs, ours = pair
    proteins = random_proteins((50,))
    expected = means_over_residues(fair_esm_hidden_states(theirs, proteins))
    mistake(ours, monkeypatch)
    _, means = our_hidden_states_and_means(ours, proteins_to_tokens, proteins)

    assert np.abs(means - expected).max() > 3 * TOLERANCE


# Recorded from the published program: weights stored as float16, rotary frequencies among them.


@pytest.fixture(scope="session")
def half_stored(golden: Path) -> Esm2:
    return load_esm2(golden / "unit" / "esm2_t2_fp16.pt")


@pytest.fixture(scope="session")
def recorded(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "unit" / "esm_fp16.npz") as arrays:
        return dict(arrays)


def test_recorded_proteins_agree(half_stored, recorded, proteins_to_tokens):
    proteins = recorded["seqs"].tolist()
    assert {1, 2, 1024, 1333} < {len(protein) for protein in proteins}
    hidden, means = our_hidden_states_and_means(half_stored, proteins_to_tokens, proteins)

    for number, protein in enumerate(proteins):
        assert proteins_to_tokens([protein.encode()])[0].tolist() == recorded[f"tok{number}"].tolist()
        np.testing.assert_allclose(means[number], recorded[f"mean{number}"], atol=TOLERANCE, err_msg=f"{number}")
        if f"hidden{number}" in recorded:
            np.testing.assert_allclose(hidden[number], recorded[f"hidden{number}"], atol=TOLERANCE)


def test_recorded_padded_batch_equals_our_pack(half_stored, recorded):
    tokens = [row[row != ALPHABET.padding_idx] for row in recorded["batch_tok"].astype(np.int64)]
    with torch.inference_mode():
        hidden = half_stored.hidden_states(pack(tokens)).split([len(row) for row in tokens])

    assert len({len(row) for row in tokens}) > 1, "the recorded batch holds padding"
    for found, wanted in zip(hidden, recorded["batch_hidden"], strict=True):
        np.testing.assert_allclose(found, wanted[: len(found)], atol=TOLERANCE)


def test_rotary_frequencies_are_used_as_the_file_rounds_them(half_stored, recorded, proteins_to_tokens):
    config = half_stored.config
    exact = exact_inverse_frequencies(config.width // config.num_heads)
    assert config.inverse_frequencies != exact
    np.testing.assert_allclose(config.inverse_frequencies, exact, rtol=1e-3)
    longest = int(np.argmax([len(protein) for protein in recorded["seqs"]]))
    exact_encoder = load_exact(half_stored)
    _, means = our_hidden_states_and_means(exact_encoder, proteins_to_tokens, [str(recorded["seqs"][longest])])

    assert np.abs(means[0] - recorded[f"mean{longest}"]).max() > 3 * TOLERANCE


def load_exact(encoder: Esm2) -> Esm2:
    exact = Esm2(dataclasses.replace(encoder.config, inverse_frequencies=None))
    exact.load_state_dict(encoder.state_dict())
    return exact.eval()


# transformers' model, from the folders it saves.


@pytest.fixture(scope="session")
def hugging_face():
    from transformers import EsmConfig, EsmForMaskedLM

    config = EsmConfig(
        vocab_size=33,
        pad_token_id=1,
        mask_token_id=32,
        hidden_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=160,
        position_embedding_type="rotary",
        token_dropout=True,
        emb_layer_norm_before=False,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-5,
    )
    model = EsmForMaskedLM(config).eval()
    randomise(model)
    return model


def save_as_pickled_shards(model, folder: Path) -> None:
    """As the published 3B folder is: two .bin files and an index, rotary frequencies and position ids among them."""
    model.config.save_pretrained(folder)
    state = dict(model.state_dict())
    state["esm.embeddings.position_ids"] = torch.arange(1026)[None]
    for layer in range(model.config.num_hidden_layers):
        name = f"esm.encoder.layer.{layer}.attention.self.rotary_embeddings.inv_freq"
        state[name] = torch.tensor(exact_inverse_frequencies(10))
    names = sorted(state)
    shards = {f"pytorch_model-{i + 1:05d}-of-00002.bin": names[i::2] for i in range(2)}
    for shard, part in shards.items():
        torch.save({name: state[name].clone() for name in part}, folder / shard)
    weight_map = {name: shard for shard, part in shards.items() for name in part}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize("layout", ["whole", "sharded", "pickled shards", "without language model head"])
def test_hidden_states_equal_those_of_transformers(hugging_face, tmp_path, proteins_to_tokens, layout):
    if layout == "pickled shards":
        save_as_pickled_shards(hugging_face, tmp_path)
    else:
        model = hugging_face.esm if layout == "without language model head" else hugging_face
        model.save_pretrained(tmp_path, max_shard_size="50KB" if layout == "sharded" else "5GB")
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (layout == "sharded")
    proteins = random_proteins((1, 3, 50, 166))
    _, _, tokens = ALPHABET.get_batch_converter()([("", protein) for protein in proteins])
    with torch.inference_mode():
        expected = hugging_face.esm(tokens, attention_mask=tokens != ALPHABET.padding_idx).last_hidden_state

    hidden, means = our_hidden_states_and_means(load_esm2(tmp_path), proteins_to_tokens, proteins)

    wanted = [states[: len(protein) + 2].numpy() for states, protein in zip(expected, proteins, strict=True)]
    for found, states in zip(hidden, wanted, strict=True):
        np.testing.assert_allclose(found, states, atol=TOLERANCE, rtol=TOLERANCE)
    np.testing.assert_allclose(means, means_over_residues(wanted), atol=TOLERANCE, rtol=TOLERANCE)


def test_the_real_architecture_is_fair_esms_with_fused_projections():
    with torch.device("meta"):
        ours = Esm2(Esm2Config(num_layers=36, width=2560, num_heads=40, ffn_width=10240))
        theirs = ESM2(36, 2560, 40, ALPHABET)
    published = 2_839_005_634
    assert sum(parameter.numel() for parameter in theirs.parameters()) == published
    unused = sum(
        parameter.numel()
        for name, parameter in theirs.named_parameters()
        if name.startswith(("lm_head.", "contact_head."))
    )
    tensors = ours.state_dict()

    assert sum(tensor.numel() for tensor in tensors.values()) == published - unused
    # 615 entries are needed for embeddings; in each layer six become two and the frequencies go.
    assert len(tensors) == 615 - 36 * (4 + 1)
    assert tensors["layers.35.qkv_proj.weight"].shape == (7680, 2560)
    assert ours.embedding_width == 2560
