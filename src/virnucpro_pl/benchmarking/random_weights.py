"""Models of any size with random weights, for measuring speed without downloads."""

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
_DEVIATION = 0.02  # as in the initialisation of both models; activations stay well within float16


@dataclass
class RandomEsm2:
    """Source of an ESM-2 model with random weights."""

    config: Esm2Config
    seed: int

    def load(self) -> Esm2:
        """Build the encoder on torch's default device and in its default dtype."""
        return _randomised(lambda: Esm2(self.config), self.seed)

    def fingerprint(self) -> dict[str, Any]:
        """Return the fingerprint of the weights."""
        return {"weights": "random", **asdict(self)}


@dataclass
class RandomDnabertS:
    """Source of a DNABERT-S model with random weights."""

    config: DnabertSConfig
    seed: int
    tokenizer_folder: str
    """checkpoint folder of the tokenizer"""

    def load(self) -> DnabertS:
        """Build the encoder on torch's default device and in its default dtype."""
        return _randomised(lambda: DnabertS(self.config), self.seed)

    def tokenizer(self) -> DnaTokenizer:
        """Read the tokenizer.

        Raises:
            UserError: the folder holds no tokenizer, or one with a larger vocabulary than the encoder.
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
        """Return the fingerprint of the weights."""
        return {"weights": "random", **asdict(self)}


@dataclass
class RandomHead:
    """Source of an untrained head for two encoders."""

    dna_width: int
    protein_width: int
    seed: int
    weights: str = "random"
    chunk_length: int | None = None

    def load(self) -> Head:
        """Build the head on the CPU in float32, with torch's own initial values."""
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return Head(self.dna_width + self.protein_width).float().requires_grad_(False).eval()

    def trained_inputs(self) -> None:
        """Return None, as the head takes any modality."""

    def fingerprint(self) -> dict[str, Any]:
        """Return the fingerprint of the weights."""
        return asdict(self)


def _randomised(build: Callable[[], _Module], seed: int) -> _Module:
    """Build a module on its device and fill it with values that are the same in every dtype, up to rounding.

    Matrices and biases are drawn from N(0, 0.02²); layer norms are the identity.
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
