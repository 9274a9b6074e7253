"""The committed models, loaded once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from virnucpro_pl.models.encoders.dnabert_s import DnabertS
from virnucpro_pl.models.encoders.esm2 import Esm2
from virnucpro_pl.models.weights.convert import load_dnabert_s, load_esm2


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads take longer to meet than these small models to run, most of all beside other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def dna_encoder(mini: Path) -> DnabertS:
    return load_dnabert_s(mini / "models" / "DNABERT-S")


@pytest.fixture(scope="session")
def protein_encoder(mini: Path) -> Esm2:
    return load_esm2(mini / "models" / "esm" / "esm2_t2_mini_UR50D.pt")
