"""The same sequences through the same weights by other ways, for comparison.

Batches lie on the device before the clock starts, so only forward passes and means over tokens are compared.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from virnucpro_pl.benchmarking.sampling import in_given_order, longest_first, on_device
from virnucpro_pl.data.packed import pack
from virnucpro_pl.data.tokenizers import protein_tokenizer
from virnucpro_pl.errors import UserError
from virnucpro_pl.models.encoders.dnabert_s import DnabertS
from virnucpro_pl.models.encoders.esm2 import Esm2

_PUBLISHED_TOKENS = 2048
# As our encoders choose: cuDNN's attention would build a plan for every new shape.
_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
_HUGGING_FACE = (
    (r"^embed_tokens\.", "embeddings.word_embeddings."),
    (r"^emb_layer_norm_after\.", "encoder.emb_layer_norm_after."),
    (r"^layers\.(\d+)\.self_attn\.out_proj\.", r"encoder.layer.\1.attention.output.dense."),
    (r"^layers\.(\d+)\.self_attn\.q_proj\.", r"encoder.layer.\1.attention.self.query."),
    (r"^layers\.(\d+)\.self_attn\.k_proj\.", r"encoder.layer.\1.attention.self.key."),
    (r"^layers\.(\d+)\.self_attn\.v_proj\.", r"encoder.layer.\1.attention.self.value."),
    (r"^layers\.(\d+)\.self_attn_layer_norm\.", r"encoder.layer.\1.attention.LayerNorm."),
    (r"^layers\.(\d+)\.final_layer_norm\.", r"encoder.layer.\1.LayerNorm."),
    (r"^layers\.(\d+)\.fc1\.", r"encoder.layer.\1.intermediate.dense."),
    (r"^layers\.(\d+)\.fc2\.", r"encoder.layer.\1.output.dense."),
)


class Baseline(NamedTuple):
    """Another way to the embeddings of N sequences."""

    engine: str
    steps: Sequence[Callable[[], Tensor]]
    """Each embeds one batch: (n, D)"""
    order: NDArray[np.int64]
    """(N,) which sequence each row of the batches embeds"""
    tokens: int
    """Padding left out"""
    processed: int
    """Padding included"""

    @torch.inference_mode()
    def embeddings(self) -> Tensor:
        """(N, D) float32, in the order in which the sequences were given."""
        return in_given_order(torch.cat([step() for step in self.steps]).float(), self.order)


def fair_esm(encoder: Esm2, proteins: Sequence[bytes]) -> Baseline:
    """fair-esm's ESM2 on padded batches of 2,048 tokens, made as the published tool makes them.

    Raises:
        UserError: fair-esm has no model of these sizes.
    """
    from esm.data import FastaBatchedDataset
    from esm.model.esm2 import ESM2

    weight = encoder.embed_tokens.weight
    sizes = encoder.config
    if sizes.ffn_width != 4 * sizes.width:
        raise UserError(
            f"architecture.protein_encoder.config.ffn_width={sizes.ffn_width}: fair-esm's is always four times the"
            f" width, {4 * sizes.width}; say so, or baseline_sequences=0"
        )
    with weight.device:
        model = ESM2(sizes.num_layers, sizes.width, sizes.num_heads, "ESM-1b", sizes.token_dropout)
    _give(model, _fair_esm_state(encoder)).to(weight.dtype)
    texts = [protein.decode("ascii") for protein in proteins]
    dataset = FastaBatchedDataset([""] * len(texts), texts)
    batches = dataset.get_batch_indices(_PUBLISHED_TOKENS, extra_toks_per_seq=1)
    convert = model.alphabet.get_batch_converter()
    padded = [convert([dataset[i] for i in batch])[2].to(weight.device) for batch in batches]

    def embed(tokens: Tensor, lengths: list[int]) -> Tensor:
        layer = sizes.num_layers
        hidden = model(tokens, repr_layers=[layer])["representations"][layer]
        return torch.stack([row[1 : length + 1].mean(dim=0) for row, length in zip(hidden, lengths, strict=True)])

    steps = [
        partial(embed, tokens, [len(texts[i]) for i in batch]) for tokens, batch in zip(padded, batches, strict=True)
    ]
    order = np.array([i for batch in batches for i in batch])
    real, processed = sum(map(len, texts)) + 2 * len(texts), sum(tokens.numel() for tokens in padded)
    return Baseline("fair-esm", steps, order, real, processed)


def hugging_face_esm(encoder: Esm2, proteins: Sequence[bytes], token_budget: int) -> Baseline:
    """The ESM-2 of transformers, with torch's fused attention, on padded batches as large as ours."""
    from transformers import EsmConfig, EsmModel

    weight = encoder.embed_tokens.weight
    sizes = encoder.config
    config = EsmConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.width,
        num_hidden_layers=sizes.num_layers,
        num_attention_heads=sizes.num_heads,
        intermediate_size=sizes.ffn_width,
        position_embedding_type="rotary",
        token_dropout=sizes.token_dropout,
        emb_layer_norm_before=False,
        layer_norm_eps=encoder.emb_layer_norm_after.eps,
        pad_token_id=1,
        mask_token_id=32,
        attn_implementation="sdpa",
    )
    with weight.device:
        model = EsmModel(config, add_pooling_layer=False)
    state = {_renamed(name): tensor for name, tensor in _fair_esm_state(encoder).items()}
    _give(model, state)  # not cast: it computes rotary positions in float32
    tokens = protein_tokenizer()(list(proteins))
    lengths = np.array([len(sequence) for sequence in tokens])
    groups = longest_first(lengths.tolist(), token_budget)

    def embed(padded: Tensor, mask: Tensor, residues: Tensor) -> Tensor:
        with sdpa_kernel(_KERNELS):
            hidden: Tensor = model(padded, attention_mask=mask).last_hidden_state
        return (hidden * residues[..., None]).sum(dim=1, dtype=torch.float32) / residues.sum(dim=1, keepdim=True)

    steps = []
    for group in groups:
        place = np.arange(lengths[group[0]])
        padded = np.full((len(group), len(place)), config.pad_token_id)
        for row, i in enumerate(group):
            padded[row, : lengths[i]] = tokens[i]
        residues = (place > 0) & (place < lengths[group, None] - 1)
        inputs = (torch.from_numpy(array).to(weight.device) for array in (padded, padded != 1, residues))
        steps.append(partial(embed, *inputs))
    processed = sum(len(group) * int(lengths[group[0]]) for group in groups)
    return Baseline("transformers", steps, np.concatenate(groups), int(lengths.sum()), processed)


def one_by_one(encoder: DnabertS, tokens: Sequence[NDArray[np.int64]]) -> Baseline:
    """DNABERT-S one sequence at a time, as the published tool does; the layers are ours."""
    device = encoder.embeddings.word_embeddings.weight.device
    steps = [partial(encoder, on_device(pack([sequence]), device)) for sequence in tokens]
    total = sum(map(len, tokens))
    return Baseline("one by one", steps, np.arange(len(tokens)), total, total)


def _fair_esm_state(encoder: Esm2) -> dict[str, Tensor]:
    """Our parameters under fair-esm's names, without copies."""
    state = {}
    for name, tensor in encoder.state_dict().items():
        if ".qkv_proj." in name:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                state[name.replace("qkv_proj", f"self_attn.{part}_proj")] = piece
        else:
            state[name.replace(".out_proj.", ".self_attn.out_proj.")] = tensor
    return state


def _renamed(name: str) -> str:
    for pattern, replacement in _HUGGING_FACE:
        name = re.sub(pattern, replacement, name)
    return name


def _give(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Give a model these weights; what else it has keeps its own."""
    unknown = model.load_state_dict(state, strict=False, assign=True).unexpected_keys
    assert not unknown, f"{type(model).__name__} has no {unknown}"
    return model.requires_grad_(False).eval()
