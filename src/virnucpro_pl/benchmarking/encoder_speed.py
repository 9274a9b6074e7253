"""The speed of each encoder by itself: ours on batches of the plan, other engines on a sample of its ORFs."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch

from virnucpro_pl.benchmarking.baselines import Baseline
from virnucpro_pl.benchmarking.flops import flops, matrix_flops_per_token
from virnucpro_pl.benchmarking.measurement import ENCODER, MATRIX_PRODUCTS, OURS, Measurement
from virnucpro_pl.benchmarking.precisions import effect
from virnucpro_pl.benchmarking.sampling import PackedSample
from virnucpro_pl.benchmarking.timing import median_seconds
from virnucpro_pl.data.packed import PackedTokens
from virnucpro_pl.models.encoders.dnabert_s import DnabertS
from virnucpro_pl.models.encoders.esm2 import Esm2

Encoder = Esm2 | DnabertS


class EncoderBench(NamedTuple):
    """One encoder in one precision, and what it is held against."""

    name: str
    encoder: Encoder
    precision: str
    matrix_rate: float
    """Operations per second of its matrix products alone"""
    device: torch.device
    repeats: int

    def matrix_products(self, num_tokens: int) -> Measurement:
        """What was measured of them already, as an entry of its own."""
        work = num_tokens * matrix_flops_per_token(self.encoder.config)
        return Measurement(
            part=MATRIX_PRODUCTS,
            encoder=self.name,
            engine="torch",
            precision=self.precision,
            tokens=num_tokens,
            seconds=work / self.matrix_rate,
            flops=work,
        )

    @torch.inference_mode()
    def measure(self, batches: Sequence[PackedTokens], mix: str) -> Measurement:
        """Embed batches that lie on the device."""
        seconds = median_seconds([partial(self.encoder, batch) for batch in batches], self.device, self.repeats)
        work = self.work(batches)
        tokens = sum(batch.num_tokens for batch in batches)
        return Measurement(
            part=ENCODER,
            encoder=self.name,
            engine=OURS,
            precision=self.precision,
            mix=mix,
            sequences=sum(batch.num_sequences for batch in batches),
            tokens=tokens,
            seconds=seconds,
            flops=work,
            matrix_seconds=work / self.matrix_rate,
            packing_efficiency=tokens / sum(len(batch.tokens) for batch in batches),
        )

    @torch.inference_mode()
    def measure_baseline(self, baseline: Baseline, ours: PackedSample, mix: str) -> Measurement:
        """Embed a sample by another engine, and compare the embeddings with ours."""
        compared = effect(baseline.embeddings(), ours.embeddings(self.encoder))
        seconds = median_seconds(baseline.steps, self.device, self.repeats)
        work = self.work(ours.batches)
        return Measurement(
            part=ENCODER,
            encoder=self.name,
            engine=baseline.engine,
            precision=self.precision,
            mix=mix,
            sequences=len(baseline.order),
            tokens=baseline.tokens,
            seconds=seconds,
            flops=work,
            matrix_seconds=work / self.matrix_rate,
            packing_efficiency=baseline.tokens / baseline.processed,
            cosine_min=compared.cosine_min,
            cosine_mean=compared.cosine_mean,
        )

    def work(self, batches: Sequence[PackedTokens]) -> int:
        """Operations by formula."""
        return sum(flops(self.encoder.config, batch) for batch in batches)
