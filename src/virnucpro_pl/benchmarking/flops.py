"""Floating-point operations by formula: matrix products and attention; what lies between them is not counted."""

from virnucpro_pl.data.packed import PackedTokens
from virnucpro_pl.models.encoders.dnabert_s import DnabertSConfig
from virnucpro_pl.models.encoders.esm2 import Esm2Config


def matrix_flops_per_token(config: Esm2Config | DnabertSConfig) -> int:
    """Operations in the linear layers: two for each weight.

    A layer D wide with an FFN of F has 4 D² weights in attention, and 2 D F in the FFN, or 3 D F where it is gated.

    >>> round(matrix_flops_per_token(Esm2Config(num_layers=36, width=2560, num_heads=40, ffn_width=10240)) / 1e9, 4)
    5.6623
    """
    matrices = 3 if isinstance(config, DnabertSConfig) else 2
    weights = 4 * config.width**2 + matrices * config.width * config.ffn_width
    return 2 * config.num_layers * weights


def flops(config: Esm2Config | DnabertSConfig, packed: PackedTokens) -> int:
    """Operations of one forward pass over a batch; attention takes 4 L D per layer and token of L tokens."""
    matrix = matrix_flops_per_token(config)
    attention = 4 * config.width * config.num_layers
    return sum(count * length * (matrix + attention * length) for _, count, length in packed.runs)
