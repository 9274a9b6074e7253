"""Operations by formula, the rate of bare matrix products, and timers for devices that work asynchronously."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from virnucpro_pl.data.packed import PackedTokens
from virnucpro_pl.models.encoders.dnabert_s import DnabertS, DnabertSConfig
from virnucpro_pl.models.encoders.esm2 import Esm2, Esm2Config
from virnucpro_pl.models.encoders.fp8 import Fp8Linear
from virnucpro_pl.models.encoders.pointwise import quantise

Encoder = Esm2 | DnabertS


def matrix_flops_per_token(config: Esm2Config | DnabertSConfig) -> int:
    """Return the operations of the linear layers for one token: two for each weight.

    A layer of width D with an FFN of F has 4 D² weights in attention, and 2 D F in the FFN, or 3 D F if it is gated.

    >>> round(matrix_flops_per_token(Esm2Config(num_layers=36, width=2560, num_heads=40, ffn_width=10240)) / 1e9, 4)
    5.6623
    """
    matrices = 3 if isinstance(config, DnabertSConfig) else 2
    weights = 4 * config.width**2 + matrices * config.width * config.ffn_width
    return 2 * config.num_layers * weights


def flops(config: Esm2Config | DnabertSConfig, packed: PackedTokens) -> int:
    """Return the operations of one forward pass over a batch: linear layers and attention, without padding.

    Attention takes 4 L D operations for each layer and token of a sequence of L tokens.
    """
    matrix = matrix_flops_per_token(config)
    attention = 4 * config.width * config.num_layers
    return sum(count * length * (matrix + attention * length) for _, count, length in packed.runs)


@torch.inference_mode()
def matrix_rate(encoder: Encoder, num_tokens: int, at_least_seconds: float) -> float:
    """Return the operations per second of the encoder's linear layers alone, the limit of its speed.

    Every layer multiplies random activations by its own weights, one after another, so that caches help no more than
    in a forward pass. Float8 activations are quantised beforehand.

    Args:
        encoder: encoder on its device and in its precision.
        num_tokens: rows of the activations.
        at_least_seconds: duration of the measurement, in seconds.
    """
    layers = [layer for layer in encoder.layers.modules() if isinstance(layer, nn.Linear | Fp8Linear)]
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


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(steps: Sequence[Callable[[], Any]], device: torch.device, repeats: int) -> float:
    """Return the median time of all steps together, in seconds; the first and the last step warm up."""
    for warming_up in dict.fromkeys((0, len(steps) - 1)):
        steps[warming_up]()
    return statistics.median(_seconds(steps, device) for _ in range(repeats))


def sustained_seconds(step: Callable[[], Any], device: torch.device, at_least: float) -> float:
    """Return the time of one step among so many in a row that they take ``at_least`` seconds.

    Short bursts run at higher clock rates.
    """
    step()
    once = _seconds([step], device)
    if once >= at_least:
        return once
    count = math.ceil(at_least / once)
    return _seconds([step] * count, device) / count


def _seconds(steps: Sequence[Callable[[], Any]], device: torch.device) -> float:
    synchronise(device)
    begin = time.perf_counter()
    for step in steps:
        step()
    synchronise(device)
    return time.perf_counter() - begin
