"""Fine-tuning of encoders, as a whole or by low-rank adapters."""

from importlib.util import find_spec
from typing import Literal, TypeVar, get_args

from torch import nn

from virnucpro_pl.errors import UserError
from virnucpro_pl.models.encoders.dnabert_s import DnabertS
from virnucpro_pl.models.encoders.esm2 import Esm2

Mode = Literal["full", "lora"]
_Encoder = TypeVar("_Encoder", DnabertS, Esm2)


def check_settings(mode: str, rank: int = 8, alpha: float = 16.0) -> None:
    """Check the settings of fine-tuning.

    Args:
        mode: ``full`` or ``lora``.
        rank: rank of the adapters.
        alpha: scale of the adapters times the rank.

    Raises:
        UserError: a setting is out of range, or a package is missing.
    """
    if mode not in get_args(Mode):
        raise UserError(f"fine_tuning.mode={mode}: choose one of {', '.join(get_args(Mode))}")
    if mode == "full":
        return
    if not isinstance(rank, int) or not isinstance(alpha, int | float) or rank < 1 or alpha <= 0:
        raise UserError(f"fine_tuning.rank={rank}, fine_tuning.alpha={alpha}: give numbers above 0; 8 and 16 are usual")
    if find_spec("peft") is None:
        raise UserError("fine_tuning=lora needs peft: pip install 'virnucpro-pl[lora]'")


def unfreeze(encoder: DnabertS | Esm2, mode: Mode, rank: int = 8, alpha: float = 16.0) -> None:
    """Make the weights of an encoder trainable, in place.

    Args:
        encoder: loaded encoder, which is frozen.
        mode: ``full``: all weights; ``lora``: adapters of all linear layers (Hu et al. 2021, arXiv:2106.09685).
        rank: rank of the adapters.
        alpha: scale of the adapters times the rank.
    """
    encoder.train()
    if mode == "full":
        encoder.requires_grad_(True)
        return
    from peft import LoraConfig, inject_adapter_in_model

    linear = [name for name, module in encoder.named_modules() if isinstance(module, nn.Linear)]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=linear), encoder)


def merge(encoder: _Encoder) -> _Encoder:
    """Merge adapters into the weights, in place, and freeze the encoder; return it."""
    for name, module in list(encoder.named_modules()):
        if hasattr(module, "merge") and hasattr(module, "get_base_layer"):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(encoder.get_submodule(parent), child, module.get_base_layer())
    return encoder.requires_grad_(False).eval()
