"""Small encoders with random weights."""

import pytest
import torch

from support import CHECKOUT
from virnucpro_pl.benchmarking.random_weights import RandomDnabertS, RandomEsm2
from virnucpro_pl.models.encoders.dnabert_s import DnabertS, DnabertSConfig
from virnucpro_pl.models.encoders.esm2 import Esm2, Esm2Config

TOKENIZER = str(CHECKOUT / "src" / "virnucpro_pl" / "demo" / "DNABERT-S")


@pytest.fixture(scope="session")
def esm2_source() -> RandomEsm2:
    return RandomEsm2(Esm2Config(num_layers=3, width=64, num_heads=4, ffn_width=256), seed=5)


@pytest.fixture(scope="session")
def dnabert_s_source() -> RandomDnabertS:
    sizes = DnabertSConfig(num_layers=3, width=32, num_heads=4, ffn_width=48, vocabulary=600)
    return RandomDnabertS(sizes, seed=5, tokenizer_folder=TOKENIZER)


@pytest.fixture
def esm2(esm2_source: RandomEsm2) -> Esm2:
    return esm2_source.load()


@pytest.fixture
def dnabert_s(dnabert_s_source: RandomDnabertS) -> DnabertS:
    return dnabert_s_source.load()


@pytest.fixture(autouse=True)
def no_fp16_switches() -> None:
    """Numerics sets switches of torch that stay set."""
    torch.backends.cuda.matmul.allow_fp16_accumulation = False
