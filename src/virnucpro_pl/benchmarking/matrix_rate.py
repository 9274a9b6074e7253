"""What the device can multiply: the ceiling that the encoders are held against."""

import torch
from torch import nn

from virnucpro_pl.benchmarking.flops import matrix_flops_per_token
from virnucpro_pl.benchmarking.timing import sustained_seconds
from virnucpro_pl.models.encoders.dnabert_s import DnabertS
from virnucpro_pl.models.encoders.esm2 import Esm2
from virnucpro_pl.models.encoders.fp8 import Fp8Linear
from virnucpro_pl.models.encoders.pointwise import quantise

_Linear = nn.Linear | Fp8Linear


@torch.inference_mode()
def matrix_rate(encoder: Esm2 | DnabertS, num_tokens: int, at_least_seconds: float) -> float:
    """Operations per second of the encoder's linear layers alone, one after another and over again.

    Every layer multiplies its own weights, in the precision it computes in, by random activations, so nothing stays
    in a cache that would not in a forward pass. Float8 activations are there already: quantising is no product.

    Args:
        encoder: on its device, in its precision.
        num_tokens: rows of the activations.
        at_least_seconds: time to multiply for.
    """
    layers: list[_Linear] = [layer for layer in encoder.layers.modules() if isinstance(layer, _Linear)]
    dtype = next(encoder.parameters()).dtype
    device = layers[0].weight.device
    widths = {layer.weight.shape[1] for layer in layers}
    activations = {width: torch.randn(num_tokens, width, device=device).to(dtype) for width in widths}
    quantised = {
        width: quantise(activations[width])
        for width in {layer.weight.shape[1] for layer in layers if isinstance(layer, Fp8Linear)}
    }

    def multiply_all() -> None:
        for layer in layers:
            width = layer.weight.shape[1]
            if isinstance(layer, Fp8Linear):
                layer.multiply(*quantised[width], dtype)
            else:
                layer(activations[width])

    operations = num_tokens * matrix_flops_per_token(encoder.config)
    return operations / sustained_seconds(multiply_all, device, at_least_seconds)
