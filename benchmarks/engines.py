"""Comparison of the packed encoders with other engines: same weights, sequences, precision and device.

    python benchmarks/engines.py [--architecture esm2_35m] [--device cpu] [--dtype float32] [--length 150]

Prints a table of ESM-2 by fair-esm (padded batches of 2,048 tokens, as in the published tool) and by transformers
(padded batches of the token budget), and of DNABERT-S one sequence at a time (as in the published tool). Batches lie on
the device before the clock starts, so that only forward passes and means over tokens are compared.
"""

import argparse
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from virnucpro_pl.benchmarking.rates import Encoder, median_seconds
from virnucpro_pl.benchmarking.synthetic_reads import synthetic_reads
from virnucpro_pl.configuration.composition import composed
from virnucpro_pl.configuration.hydra_config import build
from virnucpro_pl.data.packed import PackedTokens, pack
from virnucpro_pl.data.tokenizers import DnaTokenizer, protein_tokenizer
from virnucpro_pl.errors import UserError
from virnucpro_pl.models.encoders.dnabert_s import DnabertS
from virnucpro_pl.models.encoders.esm2 import Esm2

_PUBLISHED_TOKENS = 2048
# As in our encoders: cuDNN's attention would build a plan for every new shape.
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


class PackedSample(NamedTuple):
    """N sequences in packed batches."""

    batches: list[PackedTokens]
    order: NDArray[np.int64]
    """(N,) index of the sequence of each row of the batches"""

    @torch.inference_mode()
    def embeddings(self, encoder: Esm2 | DnabertS) -> Tensor:
        """Return the embeddings, (N, D) float32, in the given order of the sequences."""
        return in_given_order(torch.cat([encoder(batch) for batch in self.batches]), self.order)


def pack_sample(sequences: Sequence[NDArray[np.int64]], token_budget: int, device: torch.device) -> PackedSample:
    """Pack token sequences, longest first, into batches on the device."""
    groups = longest_first([len(sequence) for sequence in sequences], token_budget)
    batches = [on_device(pack([sequences[i] for i in group]), device) for group in groups]
    return PackedSample(batches, np.concatenate(groups))


def on_device(packed: PackedTokens, device: torch.device) -> PackedTokens:
    """Return a batch on a device."""
    moved: PackedTokens = move_data_to_device(packed, device)
    return moved


def in_given_order(rows: Tensor, order: NDArray[np.int64]) -> Tensor:
    """Return rows (N, D) in the order that ``order`` is a permutation of."""
    return rows[torch.from_numpy(np.argsort(order)).to(rows.device)]


def longest_first(lengths: Sequence[int], token_budget: int) -> list[NDArray[np.int64]]:
    """Group sequences, longest first, into batches that stay within the budget when padded.

    >>> [group.tolist() for group in longest_first([3, 5, 2, 5, 4], token_budget=10)]
    [[1, 3], [4, 0], [2]]
    """
    order = np.argsort(-np.array(lengths), kind="stable")
    groups = []
    while len(order):
        count = max(1, token_budget // lengths[order[0]])
        groups.append(order[:count])
        order = order[count:]
    return groups


class Baseline(NamedTuple):
    """Embeddings of N sequences by another engine."""

    engine: str
    steps: Sequence[Callable[[], Tensor]]
    """functions that embed one batch each, (n, D)"""
    order: NDArray[np.int64]
    """(N,) index of the sequence of each row of the batches"""
    tokens: int
    """without padding"""
    processed: int
    """with padding"""

    @torch.inference_mode()
    def embeddings(self) -> Tensor:
        """Return the embeddings, (N, D) float32, in the given order of the sequences."""
        return in_given_order(torch.cat([step() for step in self.steps]).float(), self.order)


def fair_esm(encoder: Esm2, proteins: Sequence[bytes]) -> Baseline:
    """Return fair-esm's ESM-2 on padded batches of 2,048 tokens, made as in the published tool.

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
            f" width, {4 * sizes.width}"
        )
    with weight.device:
        model = ESM2(sizes.num_layers, sizes.width, sizes.num_heads, "ESM-1b", sizes.token_dropout)
    _load(model, _fair_esm_state(encoder)).to(weight.dtype)
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
    """Return the ESM-2 of transformers, with torch's fused attention, on padded batches of the token budget."""
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
    _load(model, state)  # not cast, as it computes rotary positions in float32
    tokens = protein_tokenizer()(list(proteins))
    lengths = np.array([len(sequence) for sequence in tokens])
    groups = longest_first(lengths.tolist(), token_budget)

    def embed(padded: Tensor, mask: Tensor, residues: Tensor) -> Tensor:
        with sdpa_kernel(_KERNELS):
            hidden: Tensor = model(padded, attention_mask=mask).last_hidden_state
        return (hidden * residues[..., None]).sum(dim=1, dtype=torch.float32) / residues.sum(dim=1, keepdim=True)

    steps = []
    for group in groups:
        positions = np.arange(lengths[group[0]])
        padded = np.full((len(group), len(positions)), config.pad_token_id)
        for row, i in enumerate(group):
            padded[row, : lengths[i]] = tokens[i]
        residues = (positions > 0) & (positions < lengths[group, None] - 1)
        inputs = (torch.from_numpy(array).to(weight.device) for array in (padded, padded != 1, residues))
        steps.append(partial(embed, *inputs))
    processed = sum(len(group) * int(lengths[group[0]]) for group in groups)
    return Baseline("transformers", steps, np.concatenate(groups), int(lengths.sum()), processed)


def one_by_one(encoder: DnabertS, tokens: Sequence[NDArray[np.int64]]) -> Baseline:
    """Return DNABERT-S on one sequence at a time, as in the published tool, with our layers."""
    device = encoder.embeddings.word_embeddings.weight.device
    steps = [partial(encoder, on_device(pack([sequence]), device)) for sequence in tokens]
    total = sum(map(len, tokens))
    return Baseline("one by one", steps, np.arange(len(tokens)), total, total)


def _fair_esm_state(encoder: Esm2) -> dict[str, Tensor]:
    """Return the parameters under fair-esm's names, without copies."""
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


def _load(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Load weights into a model; its other buffers stay."""
    unknown = model.load_state_dict(state, strict=False, assign=True).unexpected_keys
    assert not unknown, f"{type(model).__name__} has no {unknown}"
    return model.requires_grad_(False).eval()


def random_encoders(architecture: str, device: torch.device, dtype: torch.dtype) -> tuple[Esm2, DnabertS, DnaTokenizer]:
    """Return encoders of an architecture of ``benchmark`` with random weights, and the tokenizer of the DNA encoder."""
    cfg = composed("benchmark", [f"architecture={architecture}", "paths.output_dir=."])
    protein, dna = build(cfg.model.protein_encoder), build(cfg.model.dna_encoder)
    with torch.device(device):
        encoders = [source.load().to(dtype) for source in (protein, dna)]
    return encoders[0], encoders[1], dna.tokenizer()


def sample(num_sequences: int, length: int) -> tuple[list[bytes], list[bytes]]:
    """Return nucleotides of random reads without stop codons, and as many random proteins."""
    generator = np.random.default_rng(0)
    letters = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", dtype=np.uint8)
    proteins = [generator.choice(letters, length // 3).tobytes() for _ in range(num_sequences)]
    return [read.tobytes() for read in synthetic_reads(num_sequences, length, seed=0)], proteins


def arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return the arguments that comparisons of encoders share."""
    parser.add_argument("--architecture", default="esm2_35m")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--length", type=int, default=150, help="bases of a read")
    parser.add_argument("--sequences", type=int, default=200)
    parser.add_argument("--token-budget", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3, help="passes, of which the median counts")
    return parser.parse_args()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="float32")
    options = arguments(parser)
    device = torch.device(options.device)
    esm2, dnabert_s, tokenizer = random_encoders(options.architecture, device, getattr(torch, options.dtype))
    nucleotides, proteins = sample(options.sequences, options.length)
    dna_tokens = tokenizer(nucleotides)
    cases: list[tuple[str, Encoder, PackedSample, Baseline]] = []
    packed = pack_sample(protein_tokenizer()(proteins), options.token_budget, device)
    cases.append(("ESM-2", esm2, packed, fair_esm(esm2, proteins)))
    cases.append(("ESM-2", esm2, packed, hugging_face_esm(esm2, proteins, options.token_budget)))
    packed = pack_sample(dna_tokens, options.token_budget, device)
    cases.append(("DNABERT-S", dnabert_s, packed, one_by_one(dnabert_s, dna_tokens)))
    print(f"{'encoder':10} {'engine':14} {'tokens/s':>10} {'packed':>10} {'ratio':>7} {'cosine':>10}")
    with torch.inference_mode():
        for name, encoder, ours, other in cases:
            cosine = torch.cosine_similarity(ours.embeddings(encoder), other.embeddings()).min()
            theirs = other.tokens / median_seconds(other.steps, device, options.repeats)
            steps = [partial(encoder, batch) for batch in ours.batches]
            speed = other.tokens / median_seconds(steps, device, options.repeats)
            print(f"{name:10} {other.engine:14} {theirs:10,.0f} {speed:10,.0f} {speed / theirs:6.2f}x {cosine:10.7f}")


if __name__ == "__main__":
    main()
