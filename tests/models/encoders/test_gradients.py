"""Encoders that learn: gradients against fair-esm and against plain attention, adapters, files."""

import re
from itertools import pairwise
from pathlib import Path

import esm
import numpy as np
import pytest
import torch
from torch import Tensor

from support import CHECKOUT
from virnucpro_pl.data.packed import PackedTokens, pack
from virnucpro_pl.data.tokenizers import DnaTokenizer, protein_tokenizer
from virnucpro_pl.models.encoders.dnabert_s import DnabertS, DnabertSConfig
from virnucpro_pl.models.encoders.esm2 import Esm2
from virnucpro_pl.models.weights.convert import load_dnabert_s, load_esm2
from virnucpro_pl.models.weights.encoder_export import write_dnabert_s, write_esm2
from virnucpro_pl.training.fine_tuning import merge, unfreeze

DEMO = CHECKOUT / "src" / "virnucpro_pl" / "demo"
PROTEINS = [b"MKVLAAGGHRTE" * 4, b"MKVLAAGGHRTE" * 4, b"PEPTIDEPEPTIDE", b"MK"]


def demo_esm2() -> Esm2:
    return load_esm2(DEMO / "esm2_t1_demo_UR50D.pt")


def weighted(embeddings: Tensor) -> Tensor:
    """A loss that no symmetry makes zero."""
    return (embeddings * torch.linspace(-1, 1, embeddings.shape[1], dtype=embeddings.dtype)).sum()


def packed_dna() -> PackedTokens:
    rng = np.random.default_rng(0)
    sequences = ["".join(rng.choice(list("ACGT"), length)).encode() for length in (200, 180, 60)]
    return pack(sorted(DnaTokenizer(str(DEMO / "DNABERT-S"))(sequences), key=len, reverse=True))


def test_gradients_of_esm2_are_those_of_fair_esm(tmp_path: Path) -> None:
    ours = demo_esm2()
    write_esm2(ours, tmp_path / "x.pt", torch.float32)
    unfreeze(ours, "full")
    weighted(ours(pack(protein_tokenizer()(PROTEINS)))).backward()

    config = ours.config
    theirs = esm.model.esm2.ESM2(config.num_layers, config.width, config.num_heads, "ESM-1b").eval()
    with torch.serialization.safe_globals([__import__("argparse").Namespace]):
        tensors = torch.load(tmp_path / "x.pt", weights_only=True)["model"]
    named = {re.sub(r"^encoder\.(sentence_encoder\.)?", "", name): tensor for name, tensor in tensors.items()}
    assert not theirs.load_state_dict(named, strict=False).unexpected_keys
    _, _, tokens = theirs.alphabet.get_batch_converter()([("", protein.decode()) for protein in PROTEINS])
    hidden = theirs(tokens, repr_layers=[config.num_layers])["representations"][config.num_layers]
    weighted(torch.stack([one[1 : len(p) + 1].mean(0) for one, p in zip(hidden, PROTEINS, strict=True)])).backward()

    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        if ".qkv_proj." in name:
            expected = torch.cat([gradients[name.replace("qkv_proj", f"self_attn.{one}_proj")] for one in "qkv"])
        else:
            expected = gradients[name.replace(".out_proj.", ".self_attn.out_proj.")]
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def test_gradients_of_dnabert_s_are_those_of_differences() -> None:
    torch.manual_seed(0)
    encoder = DnabertS(DnabertSConfig(num_layers=2, width=8, num_heads=2, ffn_width=6, vocabulary=9)).double().eval()
    packed = pack([np.array([1, 5, 6, 7, 2]), np.array([1, 8, 2])])

    def loss(weight: Tensor) -> Tensor:
        hidden = torch.func.functional_call(encoder, {"layers.0.Wqkv.weight": weight}, (), {"packed": packed})
        return weighted(hidden)

    encoder.forward = encoder.hidden_states  # type: ignore[method-assign]  # means are float32, too coarse here
    weight = encoder.layers[0].Wqkv.weight.detach().clone().requires_grad_(True)
    assert torch.autograd.gradcheck(loss, (weight,), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("encoder", ["dna", "protein"])
def test_learning_changes_no_embedding_and_no_neighbour_changes_a_gradient(encoder: str) -> None:
    model = demo_esm2() if encoder == "protein" else load_dnabert_s(DEMO / "DNABERT-S")
    packed = packed_dna() if encoder == "dna" else pack(protein_tokenizer()(PROTEINS))
    before = model(packed)
    unfreeze(model, "full")
    torch.testing.assert_close(model(packed), before, rtol=1e-5, atol=1e-5)
    weighted(model(packed)).backward()
    together = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    bounds = packed.cu_seqlens.tolist()
    for start, end in pairwise(bounds):
        weighted(model(pack([packed.tokens[start:end].numpy()]))).backward()
    apart = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max() + 1e-9))


@pytest.mark.parametrize("encoder", ["dna", "protein"])
def test_what_prediction_has_cached_serves_training(encoder: str) -> None:
    from virnucpro_pl.models.encoders import attention, esm2

    for cached in (attention._build_alibi_bias, attention._slopes_on, esm2._rotation_table):
        cached.cache_clear()
    model = demo_esm2() if encoder == "protein" else load_dnabert_s(DEMO / "DNABERT-S")
    packed = packed_dna() if encoder == "dna" else pack(protein_tokenizer()(PROTEINS))
    with torch.inference_mode():
        model(packed)
    unfreeze(model, "full")
    weighted(model(packed)).backward()


def test_adapters_alone_learn_and_merge_into_the_weights() -> None:
    encoder = demo_esm2()
    names, packed = list(encoder.state_dict()), pack(protein_tokenizer()(PROTEINS))
    unfreeze(encoder, "lora", rank=2, alpha=4)
    learning = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]
    assert len(learning) == 8  # two for each of four linear layers
    assert all("lora_" in name for name in learning)
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    adapted = encoder(packed).detach()
    assert (adapted - demo_esm2()(packed)).abs().max() > 1e-3
    merged = merge(encoder)
    assert list(merged.state_dict()) == names
    assert not any(parameter.requires_grad for parameter in merged.parameters())
    torch.testing.assert_close(merged(packed), adapted, rtol=1e-5, atol=1e-5)


def test_written_encoders_are_read_as_they_were(tmp_path: Path) -> None:
    protein, dna = demo_esm2(), load_dnabert_s(DEMO / "DNABERT-S")
    write_esm2(protein, tmp_path / "esm2.pt")
    write_dnabert_s(dna, DEMO / "DNABERT-S", tmp_path / "dna")
    for encoder, again in ((protein, load_esm2(tmp_path / "esm2.pt")), (dna, load_dnabert_s(tmp_path / "dna"))):
        assert again.config == encoder.config
        for name, tensor in encoder.state_dict().items():
            assert torch.equal(again.state_dict()[name], tensor), name
    assert DnaTokenizer(str(tmp_path / "dna")).vocabulary == dna.config.vocabulary
