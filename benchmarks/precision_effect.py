"""Effect of each precision on embeddings and calls, beside its speed.

    python benchmarks/precision_effect.py [--architecture esm2_35m] [--device cpu] [--length 150]

Weights and head are random. Embeddings of random encoders are similar to each other, so calls change more easily than
those of a trained model: compare the precisions with each other only.
"""

import argparse
from functools import partial
from typing import NamedTuple

import torch
from engines import arguments, pack_sample, random_encoders, sample
from torch import Tensor

from virnucpro_pl.benchmarking.precisions import PRECISIONS, can_compute
from virnucpro_pl.benchmarking.random_weights import RandomHead
from virnucpro_pl.benchmarking.rates import Encoder, median_seconds
from virnucpro_pl.data.tokenizers import protein_tokenizer
from virnucpro_pl.models.encoders.numerics import Numerics
from virnucpro_pl.models.head import OTHERS, VIRUS, Head

_DTYPES = {"32-true": torch.float32, "16-true": torch.float16, "bf16-true": torch.bfloat16}


class Effect(NamedTuple):
    """Distance of embeddings from those in float32."""

    cosine_min: float
    cosine_mean: float
    sqnr_db: float | None
    """Power of the float32 embeddings over that of the difference, in decibels; None if they are equal"""


def effect(embeddings: Tensor, reference: Tensor) -> Effect:
    """Compare (N, D) embeddings with their reference."""
    ours, exact = embeddings.double(), reference.double()
    cosine = torch.cosine_similarity(ours, exact, dim=1).clamp(max=1.0)
    noise = (ours - exact).square().sum()
    sqnr = None if noise == 0 else float(10 * torch.log10(exact.square().sum() / noise))
    return Effect(float(cosine.min()), float(cosine.mean()), sqnr)


class Calls:
    """Calls of an untrained head, fitted so that it calls half of the reference embeddings viral.

    Without fitting, nearly all sequences of random encoders get the same call in every precision.

    Args:
        head: a head with random weights; its batch norm and bias are replaced.
        reference: (N, D) embeddings of both encoders in float32.
    """

    @torch.inference_mode()
    def __init__(self, head: Head, reference: Tensor):
        self._head = head.to(reference.device)
        hidden = head.hidden_layer(reference)
        head.bn1.running_mean, head.bn1.running_var = hidden.mean(dim=0), hidden.var(dim=0)
        sorted_margins = self._margins(reference).sort().values
        middle = len(sorted_margins) // 2
        # Between two sequences: the call of a sequence on the threshold would be chance.
        self._threshold = sorted_margins[max(0, middle - 1) : middle + 1].mean()
        self._expected = self._called_viral(reference)

    def _margins(self, embeddings: Tensor) -> Tensor:
        logits = self._head(embeddings)
        return logits[:, VIRUS] - logits[:, OTHERS]  # type: ignore[no-any-return]

    def _called_viral(self, embeddings: Tensor) -> Tensor:
        return self._margins(embeddings) >= self._threshold

    @torch.inference_mode()
    def agreement(self, embeddings: Tensor) -> float:
        """Return the share of (N, D) embeddings with the call of their reference."""
        return float((self._called_viral(embeddings) == self._expected).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options = arguments(parser)
    device = torch.device(options.device)
    nucleotides, proteins = sample(options.sequences, options.length)
    protein_tokens = protein_tokenizer()(proteins)
    reference: dict[str, Tensor] = {}
    calls: Calls | None = None
    print(f"{'precision':18} {'encoder':10} {'tokens/s':>10} {'cosine min':>11} {'SQNR':>9} {'same calls':>11}")
    for precision in PRECISIONS:
        if not can_compute(precision, device):
            print(f"{precision.name:18} not available on {device}")
            continue
        esm2, dnabert_s, tokenizer = random_encoders(options.architecture, device, _DTYPES[precision.trainer])
        encoders: dict[str, Encoder] = {"DNABERT-S": dnabert_s, "ESM-2": esm2}
        tokens = {"DNABERT-S": tokenizer(nucleotides), "ESM-2": protein_tokens}
        samples = {name: pack_sample(tokens[name], options.token_budget, device) for name in encoders}
        numerics = Numerics(exact=not reference, fp8=precision.fp8, fp16_accumulation=precision.fp16_accumulation)
        for encoder in encoders.values():
            numerics.apply(encoder)
        with torch.inference_mode():
            found = {name: samples[name].embeddings(encoder) for name, encoder in encoders.items()}
        both = torch.cat([*found.values()], dim=1)
        if calls is None:
            reference = found
            head = RandomHead(found["DNABERT-S"].shape[1], found["ESM-2"].shape[1], seed=0).load()
            calls = Calls(head, both)
        same = calls.agreement(both)
        for name, encoder in encoders.items():
            compared = effect(found[name], reference[name])
            with torch.inference_mode():
                steps = [partial(encoder, batch) for batch in samples[name].batches]
                seconds = median_seconds(steps, device, options.repeats)
            speed = sum(map(len, tokens[name])) / seconds
            noise = "exact" if compared.sqnr_db is None else f"{compared.sqnr_db:.1f} dB"
            print(f"{precision.name:18} {name:10} {speed:10,.0f} {compared.cosine_min:11.7f} {noise:>9} {same:11.1%}")


if __name__ == "__main__":
    main()
