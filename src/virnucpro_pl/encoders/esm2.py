"""ESM-2 (Lin et al. 2023, doi:10.1126/science.ade2574) on packed proteins, for inference.

Written from the architecture; parameter names follow fair-esm, with the three attention projections fused.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from virnucpro_pl.encoders.attention import attend
from virnucpro_pl.encoders.packed import PackedTokens, mean_pool
from virnucpro_pl.encoders.pointwise import cos_sin, gelu_

_MASK_RATIO_TRAIN = 0.15 * 0.8
_ROTARY_BASE = 10000.0
_TABLE_STEP = 256  # rotation tables are built for lengths rounded up to this
MOST_RESIDUES = 1024
"""The published tool averages over at most this many residues of a protein."""


@dataclass(frozen=True)
class Esm2Config:
    """Sizes of an ESM-2 model, as its checkpoint gives them."""

    num_layers: int
    width: int
    num_heads: int
    ffn_width: int
    vocabulary: int = 33
    token_dropout: bool = True
    inverse_frequencies: tuple[float, ...] | None = None
    """Rotary frequencies of the checkpoint, one per pair of a head's channels; None for the exact ones.

    A file in float16 holds them rounded, and both the published tool and fair-esm use them so.
    """


class Esm2(nn.Module):
    """Packed tokens to one embedding per protein: the mean over its residues of the last, normalised layer."""

    def __init__(self, config: Esm2Config):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_layers))
        self.emb_layer_norm_after = nn.LayerNorm(config.width)

    @property
    def embedding_width(self) -> int:
        """D of the embeddings."""
        return self.config.width

    def hidden_states(self, packed: PackedTokens) -> Tensor:
        """(T,) tokens -> (T, D), after the final layer normalisation; no token may be ``<mask>``."""
        x = self.embed_tokens(packed.tokens)
        if self.config.token_dropout:  # the model expects the scale that masking gave it in training
            x = x * (1 - _MASK_RATIO_TRAIN)
        frequencies = self.config.inverse_frequencies or exact_inverse_frequencies(
            self.config.width // self.config.num_heads
        )
        rotation = _rotation(packed, frequencies)
        for layer in self.layers:
            x = layer(x, packed, rotation)
        return self.emb_layer_norm_after(x)  # type: ignore[no-any-return]

    def forward(self, packed: PackedTokens) -> Tensor:
        """Packed proteins -> (N, D) float32: means over residues, ``<cls>`` and ``<eos>`` left out."""
        return mean_pool(self.hidden_states(packed), packed, skip=1, most=MOST_RESIDUES)


class _Layer(nn.Module):
    """Pre-norm transformer layer with rotary positions."""

    def __init__(self, config: Esm2Config):
        super().__init__()
        self.num_heads = config.num_heads
        self.self_attn_layer_norm = nn.LayerNorm(config.width)
        self.qkv_proj = nn.Linear(config.width, 3 * config.width)
        self.out_proj = nn.Linear(config.width, config.width)
        self.final_layer_norm = nn.LayerNorm(config.width)
        self.fc1 = nn.Linear(config.width, config.ffn_width)
        self.fc2 = nn.Linear(config.ffn_width, config.width)

    def forward(self, x: Tensor, packed: PackedTokens, rotation: tuple[Tensor, Tensor]) -> Tensor:
        qkv = self.qkv_proj(self.self_attn_layer_norm(x)).unflatten(-1, (3, self.num_heads, -1))
        q, k = _rotate(qkv[:, :2], rotation).unbind(1)
        x = x + self.out_proj(attend(q, k, qkv[:, 2], packed).flatten(1))
        return x + self.fc2(gelu_(self.fc1(self.final_layer_norm(x))))  # type: ignore[no-any-return]


def exact_inverse_frequencies(head_width: int) -> tuple[float, ...]:
    """Rotary frequencies of Su et al. 2021 (arXiv:2104.09864) for heads of this width."""
    return tuple(_ROTARY_BASE ** -(i / head_width) for i in range(0, head_width, 2))


@lru_cache(maxsize=8)
def _rotation_table(frequencies: tuple[float, ...], num_positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(num_positions, head_width / 2) cosines and sines, in float32 whatever the model's precision."""
    positions = torch.arange(num_positions, dtype=torch.float32, device=device)
    return cos_sin(positions[:, None] * torch.tensor(frequencies, dtype=torch.float32, device=device))


def _rotation(packed: PackedTokens, frequencies: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """(T, 1, 1, head_width / 2) cosines and sines of each token's position."""
    table_size = -(-packed.max_seqlen // _TABLE_STEP) * _TABLE_STEP
    cos, sin = _rotation_table(frequencies, table_size, packed.positions.device)
    return cos[packed.positions, None, None], sin[packed.positions, None, None]


def _rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the two halves of each head of (T, 2, H, D) queries and keys by its position."""
    cos, sin = rotation
    a, b = x.float().chunk(2, dim=-1)
    rotated = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    first, second = rotated.chunk(2, dim=-1)
    torch.mul(a, cos, out=first).addcmul_(b, sin, value=-1)
    torch.mul(b, cos, out=second).addcmul_(a, sin)
    return rotated.to(x.dtype)


def protein_tokenizer() -> "ProteinTokenizer":
    """Tokenizer of every ESM-2 model, from fair-esm's alphabet."""
    from esm.data import Alphabet  # takes a second to import

    return ProteinTokenizer(Alphabet.from_architecture("ESM-1b").to_dict())


class ProteinTokenizer:
    """Residue letters to token ids by table look-up, ``<cls>`` before and ``<eos>`` after each protein."""

    def __init__(self, vocabulary: dict[str, int]):
        self._table = np.full(256, vocabulary["<unk>"], dtype=np.int64)
        for token, number in vocabulary.items():
            if len(token) == 1:
                self._table[ord(token)] = number
        self._ends = vocabulary["<cls>"], vocabulary["<eos>"]

    def __call__(self, proteins: list[bytes]) -> list[NDArray[np.int64]]:
        """Return the token ids of each protein."""
        first, last = self._ends
        return [
            np.concatenate(([first], self._table[np.frombuffer(protein, dtype=np.uint8)], [last]))
            for protein in proteins
        ]
