"""Each precision's speed beside its effect on embeddings and calls."""

from functools import partial

import torch
from torch import Tensor

from virnucpro_pl.benchmarking.encoder_speed import Encoder
from virnucpro_pl.benchmarking.flops import flops
from virnucpro_pl.benchmarking.measurement import OURS, PRECISION, Measurement
from virnucpro_pl.benchmarking.precisions import Calls, effect
from virnucpro_pl.benchmarking.sampling import PackedSample
from virnucpro_pl.benchmarking.timing import median_seconds
from virnucpro_pl.host.stage_clock import DNABERT_S, ESM2
from virnucpro_pl.models.encoders.numerics import Numerics
from virnucpro_pl.models.head import Head


class PrecisionEffect:
    """Embeds one sample in every precision and compares it with exact float32.

    Args:
        samples: the same ORFs for each encoder.
        encoders: in float32; they are left computing by plain torch operations.
        head: a head without training for both embeddings.
        device: where all of them are.
        repeats: passes of which the median counts.
    """

    def __init__(
        self,
        samples: dict[str, PackedSample],
        encoders: dict[str, Encoder],
        head: Head,
        device: torch.device,
        repeats: int,
    ):
        self._samples = samples
        self._device = device
        self._repeats = repeats
        for encoder in encoders.values():
            Numerics(exact=True).apply(encoder)
        self._reference = self._embed(encoders)
        self._calls = Calls(head, _both(self._reference))

    @torch.inference_mode()
    def measure(self, encoders: dict[str, Encoder], precision: str) -> list[Measurement]:
        """Measure both encoders, which are given in one precision."""
        embeddings = self._embed(encoders)
        agreement = self._calls.agreement(_both(embeddings))
        found = []
        for name, encoder in encoders.items():
            batches = self._samples[name].batches
            compared = effect(embeddings[name], self._reference[name])
            found.append(
                Measurement(
                    part=PRECISION,
                    encoder=name,
                    engine=OURS,
                    precision=precision,
                    sequences=len(self._samples[name].order),
                    tokens=sum(len(batch.tokens) for batch in batches),
                    seconds=median_seconds([partial(encoder, batch) for batch in batches], self._device, self._repeats),
                    flops=sum(flops(encoder.config, batch) for batch in batches),
                    cosine_min=compared.cosine_min,
                    cosine_mean=compared.cosine_mean,
                    sqnr_db=compared.sqnr_db,
                    call_agreement=agreement,
                )
            )
        return found

    def _embed(self, encoders: dict[str, Encoder]) -> dict[str, Tensor]:
        return {name: self._samples[name].embeddings(encoder) for name, encoder in encoders.items()}


def _both(embeddings: dict[str, Tensor]) -> Tensor:
    """(N, dna + protein), as the head takes them."""
    return torch.cat([embeddings[DNABERT_S], embeddings[ESM2]], dim=1)
