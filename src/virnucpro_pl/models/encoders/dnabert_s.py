"""DNABERT-S (Zhou et al. 2024, arXiv:2402.08777) on packed DNA.

The architecture is MosaicBERT (Portes et al. 2023, arXiv:2312.17482): post-norm, symmetric ALiBi, gated MLP. The
parameter names are those of the published checkpoint.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from virnucpro_pl.data.packed import PackedTokens, mean_pool
from virnucpro_pl.models.encoders.attention import Backend, alibi_slopes, attend
from virnucpro_pl.models.encoders.pointwise import add_layer_norm, gated_gelu


@dataclass(frozen=True)
class DnabertSConfig:
    """Sizes of a DNABERT-S model, as in its checkpoint."""

    num_layers: int
    width: int
    num_heads: int
    ffn_width: int
    vocabulary: int
    token_types: int = 2
    layer_norm_eps: float = 1e-12


class DnabertS(nn.Module):
    """Encoder of packed DNA: the embedding of a sequence is the mean of the last layer over all its tokens."""

    def __init__(self, config: DnabertSConfig):
        super().__init__()
        self.config = config
        self.attention: Backend = "auto"
        self.embeddings = _Embeddings(config)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_layers))

    @property
    def embedding_width(self) -> int:
        """Return D of the embeddings."""
        return self.config.width

    def hidden_states(self, packed: PackedTokens) -> Tensor:
        """Return the last layer, (T,) tokens -> (T, D)."""
        x = self.embeddings(packed.tokens)
        slopes = alibi_slopes(self.config.num_heads)
        for layer in self.layers:
            x = layer(x, packed, slopes, self.attention)
        return x  # type: ignore[no-any-return]

    def forward(self, packed: PackedTokens) -> Tensor:
        """Return the embeddings, (N, D) float32: means over all tokens, with ``[CLS]`` and ``[SEP]``."""
        return mean_pool(self.hidden_states(packed), packed)


class _Embeddings(nn.Module):
    def __init__(self, config: DnabertSConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocabulary, config.width)
        self.token_type_embeddings = nn.Embedding(config.token_types, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.LayerNorm(  # type: ignore[no-any-return]
            self.word_embeddings(tokens) + self.token_type_embeddings.weight[0]
        )


class _Layer(nn.Module):
    """Post-norm transformer layer with a gated MLP."""

    def __init__(self, config: DnabertSConfig):
        super().__init__()
        self.num_heads = config.num_heads
        self.Wqkv = nn.Linear(config.width, 3 * config.width)
        self.dense = nn.Linear(config.width, config.width)
        self.attention_norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.gated_layers = nn.Linear(config.width, 2 * config.ffn_width, bias=False)
        self.wo = nn.Linear(config.ffn_width, config.width)
        self.mlp_norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, packed: PackedTokens, slopes: tuple[float, ...], backend: Backend) -> Tensor:
        exact = backend == "exact"
        qkv = self.Wqkv(x).unflatten(-1, (3, self.num_heads, -1))
        attended = self.dense(attend(qkv, packed, alibi_slopes=slopes, backend=backend))
        _, x = add_layer_norm(attended, x, self.attention_norm, exact)
        return add_layer_norm(self.wo(gated_gelu(self.gated_layers(x), exact)), x, self.mlp_norm, exact)[1]
