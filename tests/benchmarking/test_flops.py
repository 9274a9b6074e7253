"""Operations by formula against torch's own count of what the encoders do, and against published sizes."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from virnucpro_pl.benchmarking.rates import flops, matrix_flops_per_token
from virnucpro_pl.data.packed import pack
from virnucpro_pl.models.encoders.dnabert_s import DnabertS, DnabertSConfig
from virnucpro_pl.models.encoders.esm2 import Esm2, Esm2Config

ESM2 = Esm2(Esm2Config(num_layers=3, width=48, num_heads=4, ffn_width=80))
DNABERT_S = DnabertS(DnabertSConfig(num_layers=2, width=32, num_heads=4, ffn_width=56, vocabulary=40))


@pytest.mark.parametrize("encoder", [ESM2, DNABERT_S], ids=["ESM-2", "DNABERT-S"])
def test_formula_is_what_torch_counts(encoder: Esm2 | DnabertS) -> None:
    encoder.attention = "exact"  # as plain matrix products, which the counter knows
    packed = pack([torch.randint(4, 24, (length,)).numpy() for length in (40, 40, 17, 5)])
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        encoder(packed)
    assert flops(encoder.config, packed) == counter.get_total_flops()


@pytest.mark.parametrize("encoder", [ESM2, DNABERT_S], ids=["ESM-2", "DNABERT-S"])
def test_matrix_products_take_two_operations_for_each_weight_of_a_linear_layer(encoder: Esm2 | DnabertS) -> None:
    weights = sum(layer.weight.numel() for layer in encoder.modules() if isinstance(layer, nn.Linear))
    assert matrix_flops_per_token(encoder.config) == 2 * weights
