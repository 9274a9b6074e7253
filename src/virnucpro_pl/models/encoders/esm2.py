"""ESM-2 (Lin et al. 2023, doi:10.1126/science.ade2574) on packed proteins.

Parameter names follow fair-esm; the three attention projections are fused.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from virnucpro_pl.data.packed import PackedTokens, mean_pool
from virnucpro_pl.models.encoders.attention import Backend, Rotation, attend
from virnucpro_pl.models.encoders.pointwise import add_layer_norm, cos_sin, gelu_

_MASK_RATIO_TRAIN = 0.15 * 0.8
_ROTARY_BASE = 10000.0
_TABLE_STEP = 256  # rotation tables are built for lengths rounded up to this
MOST_RESIDUES = 1024
"""Most residues of a protein over which the published tool averages"""


@dataclass(frozen=True)
class Esm2Config:
    """Sizes of an ESM-2 model, as in its checkpoint."""

    num_layers: int
    width: int
    num_heads: int
    ffn_width: int
    vocabulary: int = 33
    token_dropout: bool = True
    inverse_frequencies: tuple[float, ...] | None = None
    """Rotary frequencies of the checkpoint, one for each pair of a head's channels; None: the exact ones.

    A file in float16 holds rounded frequencies, which the published tool and fair-esm use.
    """


class Esm2(nn.Module):
    """Encoder of packed proteins: the embedding is the mean of the last, normalised layer over the residues."""

    def __init__(self, config: Esm2Config):
        super().__init__()
        self.config = config
        self.attention: Backend = "auto"
        self.embed_tokens = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_layers))
        self.emb_layer_norm_after = nn.LayerNorm(config.width)

    @property
    def embedding_width(self) -> int:
        """Return D of the embeddings."""
        return self.config.width

    def hidden_states(self, packed: PackedTokens) -> Tensor:
        """Return the last layer after its normalisation, (T,) tokens -> (T, D); ``<mask>`` tokens are not supported."""
        x = self.embed_tokens(packed.tokens)
        if self.config.token_dropout:  # scale of the masking in training
            x = x * (1 - _MASK_RATIO_TRAIN)
        rotation = self._rotation(packed.max_seqlen, x.device)
        delta = None
        for layer in self.layers:
            x, delta = layer(x, delta, packed, rotation, self.attention)
        return add_layer_norm(x, delta, self.emb_layer_norm_after, self.attention == "exact")[1]

    def forward(self, packed: PackedTokens) -> Tensor:
        """Return the embeddings, (N, D) float32: means over the residues, without ``<cls>`` and ``<eos>``."""
        return mean_pool(self.hidden_states(packed), packed, skip=1, most=MOST_RESIDUES)

    def _rotation(self, max_seqlen: int, device: torch.device) -> Rotation:
        config = self.config
        frequencies = config.inverse_frequencies or exact_inverse_frequencies(config.width // config.num_heads)
        return _rotation_table(frequencies, -(-max_seqlen // _TABLE_STEP) * _TABLE_STEP, device)


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

    def forward(
        self, x: Tensor, delta: Tensor | None, packed: PackedTokens, rotation: Rotation, backend: Backend
    ) -> tuple[Tensor, Tensor]:
        """Return the residual stream and its next update, from those of the previous layer; (T, D) each."""
        exact = backend == "exact"
        x, normed = add_layer_norm(x, delta, self.self_attn_layer_norm, exact)
        qkv = self.qkv_proj(normed).unflatten(-1, (3, self.num_heads, -1))
        delta = self.out_proj(attend(qkv, packed, rotation=rotation, backend=backend))
        x, normed = add_layer_norm(x, delta, self.final_layer_norm, exact)
        return x, self.fc2(gelu_(self.fc1(normed), exact))


def exact_inverse_frequencies(head_width: int) -> tuple[float, ...]:
    """Return the rotary frequencies of Su et al. 2021 (arXiv:2104.09864) for heads of a width."""
    return tuple(_ROTARY_BASE ** -(i / head_width) for i in range(0, head_width, 2))


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # must serve training, too
def _rotation_table(frequencies: tuple[float, ...], num_positions: int, device: torch.device) -> Rotation:
    """Return the rotations in float32, whatever the precision of the model."""
    positions = torch.arange(num_positions, dtype=torch.float32, device=device)
    return Rotation(*cos_sin(positions[:, None] * torch.tensor(frequencies, dtype=torch.float32, device=device)))
