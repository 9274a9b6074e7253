"""Published checkpoints at full size, name by name and shape by shape, on the meta device: nothing is left over.

``docs/manifests`` writes down what the files hold; fair-esm, transformers and GOLDEN.md's counts say the same.
"""

import argparse
import math
import re
from pathlib import Path

import pytest
import torch

from support import CHECKOUT
from virnucpro_pl.errors import UserError
from virnucpro_pl.models.weights import convert
from virnucpro_pl.models.weights.checkpoints import Checkpoint

MANIFESTS = CHECKOUT / "docs" / "manifests"
LAYERS = {"DNABERT-S": 12, "esm2_t36_3B_UR50D.fair-esm": 36, "esm2_t36_3B_UR50D.hugging-face": 36, "head": 0}
ESM2 = {"encoder_layers": 36, "encoder_embed_dim": 2560, "encoder_attention_heads": 40, "token_dropout": True}
CONFIGS = {
    "DNABERT-S": {
        "num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072,
        "vocab_size": 4096, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
    },
    "esm2_t36_3B_UR50D.fair-esm": {"cfg": {"model": argparse.Namespace(**ESM2)}},
    "esm2_t36_3B_UR50D.hugging-face": {
        "num_hidden_layers": 36, "hidden_size": 2560, "num_attention_heads": 40, "token_dropout": True,
        "position_embedding_type": "rotary", "emb_layer_norm_before": False,
    },
    "head": {},
}  # fmt: skip


def manifest(name: str) -> dict[str, tuple[tuple[int, ...], str, str]]:
    """Shape, dtype and use of every tensor of a file."""
    lines = [line for line in (MANIFESTS / f"{name}.tsv").read_text().splitlines() if not line.startswith("#")]
    tensors = {}
    for row in lines[1:]:
        pattern, shape, dtype, use = row.split("\t")
        for layer in range(LAYERS[name]) if "{layer}" in pattern else [0]:
            tensors[pattern.format(layer=layer)] = tuple(map(int, shape.split())), dtype, use
    return tensors


def tensors_of(name: str) -> dict[str, torch.Tensor]:
    """Without memory, but for the frequencies, which are read."""
    made = {}
    for key, (shape, dtype, use) in manifest(name).items():
        if use == "frequencies":
            made[key] = 1.0 / 10000 ** (torch.arange(0, 64, 2).float() / 64)
        else:
            made[key] = torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
    return made


def load(name: str, tensors: dict[str, torch.Tensor], tmp_path: Path, patch: pytest.MonkeyPatch) -> torch.nn.Module:
    checkpoint = Checkpoint(tensors, CONFIGS[name])
    patch.setattr(convert, "read_file", lambda _: checkpoint)
    patch.setattr(convert, "read_folder", lambda _: checkpoint)
    with torch.device("meta"):
        if name == "head":
            return convert.load_head(checkpoint, tmp_path)
        if name == "DNABERT-S":
            return convert.load_dnabert_s(tmp_path)
        return convert.load_esm2(tmp_path if name.endswith("face") else tmp_path / "esm2_t36_3B_UR50D.pt")


@pytest.mark.parametrize("name", LAYERS)
def test_the_full_size_model_takes_exactly_what_the_file_holds(name: str, tmp_path, monkeypatch) -> None:
    model = load(name, tensors_of(name), tmp_path, monkeypatch)
    used = sum(math.prod(shape) for shape, dtype, use in manifest(name).values() if use == "yes" and dtype != "int64")
    held = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
    assert sum(tensor.numel() for tensor in held) == used


@pytest.mark.parametrize("name", LAYERS)
def test_a_tensor_that_is_missing_or_too_many_or_of_another_shape_is_told(name: str, tmp_path, monkeypatch) -> None:
    used = [key for key, (_, _, use) in manifest(name).items() if use == "yes"]
    for key in (used[0], used[len(used) // 2], used[-1]):
        tensors = tensors_of(name)
        with pytest.raises(UserError):
            load(name, {other: tensor for other, tensor in tensors.items() if other != key}, tmp_path, monkeypatch)
        if tensors[key].dim() == 1:
            wrong = torch.empty(tensors[key].shape[0] + 1, device="meta")
            with pytest.raises(UserError):
                load(name, {**tensors, key: wrong}, tmp_path, monkeypatch)
    extra = re.sub(r"[^.]+$", "surprise", used[-1])
    with pytest.raises(UserError, match="is not part of the model"):
        load(name, {**tensors_of(name), extra: torch.empty(3, device="meta")}, tmp_path, monkeypatch)


def test_fair_esms_own_module_has_these_parameters() -> None:
    import esm

    with torch.device("meta"):
        reference = esm.model.esm2.ESM2(36, 2560, 40, "ESM-1b", token_dropout=True).state_dict()
    names = {re.sub(r"^encoder\.sentence_encoder\.|^encoder\.", "", key): told[0] for key, told in
             manifest("esm2_t36_3B_UR50D.fair-esm").items()}  # fmt: skip
    assert names == {key: tuple(tensor.shape) for key, tensor in reference.items() if "contact_head" not in key}


def test_transformers_own_module_has_these_parameters() -> None:
    from transformers import EsmConfig, EsmForMaskedLM

    with torch.device("meta"):
        reference = EsmForMaskedLM(
            EsmConfig(
                vocab_size=33, hidden_size=2560, num_hidden_layers=36, num_attention_heads=40,
                intermediate_size=10240, position_embedding_type="rotary", token_dropout=True, pad_token_id=1,
                mask_token_id=32, emb_layer_norm_before=False, max_position_embeddings=1026,
            )
        ).state_dict()  # fmt: skip
    told = {key: shape for key, (shape, _, use) in manifest("esm2_t36_3B_UR50D.hugging-face").items()}
    now = {key: tuple(tensor.shape) for key, tensor in reference.items() if not key.endswith("inv_freq")}
    older = {key for key in told if key.endswith(("inv_freq", "position_embeddings.weight"))}
    assert {key: shape for key, shape in told.items() if key not in older} == now


def test_counts_are_those_that_were_measured() -> None:
    dna = manifest("DNABERT-S")
    assert len(dna) == 138
    assert sum(math.prod(shape) for shape, _, _ in dna.values()) == 117_068_544
    parameters = manifest("esm2_t36_3B_UR50D.fair-esm")
    needed = [key for key, (_, _, use) in parameters.items() if use == "yes" or use == "frequencies"]
    assert len(needed) == 615
    numbers = sum(math.prod(shape) for key, (shape, _, use) in parameters.items() if use != "frequencies"
                  and not key.endswith("lm_head.weight"))  # fmt: skip
    assert numbers + 1441 == 2_839_005_634, "with the contact head of the other file; lm_head.weight is tied"
