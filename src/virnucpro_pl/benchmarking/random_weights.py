"""Models of any size with random weights: speed does not depend on what they hold, and nothing is fetched."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from virnucpro_pl.data.tokenizers import DnaTokenizer
from virnucpro_pl.errors import UserError
from virnucpro_pl.models.encoders.dnabert_s import DnabertS, DnabertSConfig
from virnucpro_pl.models.encoders.esm2 import Esm2, Esm2Config
from virnucpro_pl.models.head import Head
from virnucpro_pl.models.weights.sources import DnabertSSource

_Module = TypeVar("_Module", bound=nn.Module)
_DEVIATION = 0.02  # as both models were initialised for training; activations stay far from the ends of float16


@dataclass
class RandomEsm2:
    """ESM-2 of the given sizes, in place of a checkpoint."""

    config: Esm2Config
    seed: int

    def load(self) -> Esm2:
        """Build the encoder on torch's default device and in its default dtype."""
        return _randomised(lambda: Esm2(self.config), self.seed)

    def fingerprint(self) -> dict[str, Any]:
        """What tells these weights from others."""
        return {"weights": "random", **asdict(self)}


@dataclass
class RandomDnabertS:
    """DNABERT-S of the given sizes, in place of a checkpoint."""

    config: DnabertSConfig
    seed: int
    tokenizer_folder: str
    """Checkpoint folder its tokenizer is read from"""

    def load(self) -> DnabertS:
        """Build the encoder on torch's default device and in its default dtype."""
        return _randomised(lambda: DnabertS(self.config), self.seed)

    def tokenizer(self) -> DnaTokenizer:
        """Read the tokenizer.

        Raises:
            UserError: the folder holds none, or it makes tokens that the encoder does not know.
        """
        tokenizer = DnabertSSource(self.tokenizer_folder, key="tokenizer").tokenizer()
        if tokenizer.vocabulary > self.config.vocabulary:
            raise UserError(
                f"tokenizer={self.tokenizer_folder} knows {tokenizer.vocabulary} tokens, but the DNA encoder of this"
                f" architecture only {self.config.vocabulary}; give architecture.dna_encoder.config.vocabulary="
                f"{tokenizer.vocabulary}"
            )
        return tokenizer

    def fingerprint(self) -> dict[str, Any]:
        """What tells these weights from others."""
        return {"weights": "random", **asdict(self)}


@dataclass
class RandomHead:
    """A classifier for two encoders, in place of a trained one."""

    dna_width: int
    protein_width: int
    seed: int
    weights: str = "random"
    chunk_length: int | None = None
    """Any"""

    def load(self) -> Head:
        """Build the head on the CPU in float32, with torch's own initial values."""
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return Head(self.dna_width + self.protein_width).float().requires_grad_(False).eval()

    def trained_inputs(self) -> None:
        """It takes whatever encoders are used."""

    def fingerprint(self) -> dict[str, Any]:
        """What tells these weights from others."""
        return asdict(self)


def _randomised(build: Callable[[], _Module], seed: int) -> _Module:
    """Build a module in place and fill it with the same numbers in every dtype, rounded to it.

    Matrices and biases are drawn from N(0, 0.02), layer norms change nothing.
    """
    device = torch.get_default_device()
    with torch.device("meta"):
        module = build()
    module.to_empty(device=device).requires_grad_(False)
    generator = torch.Generator(device).manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.reset_parameters()
            continue
        for parameter in part.parameters(recurse=False):
            values = torch.empty(parameter.shape, dtype=torch.float32, device=device)
            parameter.copy_(values.normal_(std=_DEVIATION, generator=generator))
    return module.eval()
