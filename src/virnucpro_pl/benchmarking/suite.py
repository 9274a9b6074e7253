"""Everything a benchmark measures: in each precision the encoders by themselves, then the whole of ``predict``."""

import gc
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from lightning import Trainer

from virnucpro_pl.benchmarking.baselines import fair_esm, hugging_face_esm, one_by_one
from virnucpro_pl.benchmarking.encoder_speed import Encoder, EncoderBench
from virnucpro_pl.benchmarking.matrix_rate import matrix_rate
from virnucpro_pl.benchmarking.measurement import Measurement
from virnucpro_pl.benchmarking.precision_effect import PrecisionEffect
from virnucpro_pl.benchmarking.precisions import REFERENCE, Precision
from virnucpro_pl.benchmarking.prediction_speed import measure_prediction
from virnucpro_pl.benchmarking.sampling import ReadsSample, join, pack_sample, sample_reads
from virnucpro_pl.benchmarking.settings import Settings
from virnucpro_pl.benchmarking.synthetic_reads import Reads
from virnucpro_pl.data.datamodule import FastaDataModule
from virnucpro_pl.host.stage_clock import DNABERT_S, ESM2
from virnucpro_pl.models.encoders.dnabert_s import DnabertS
from virnucpro_pl.models.encoders.esm2 import Esm2
from virnucpro_pl.models.head import Head
from virnucpro_pl.models.virnucpro import VirNucPro
from virnucpro_pl.runs.rank_metrics import RankMetrics
from virnucpro_pl.runs.score_shards import ScoreShards

log = logging.getLogger(__name__)


class Prediction(NamedTuple):
    """What ``predict`` builds from its configuration."""

    trainer: Trainer
    model: VirNucPro
    datamodule: FastaDataModule
    shards: ScoreShards


class Suite:
    """Runs the measurements and hands each to ``report`` when it is there.

    Args:
        build: builds what ``predict`` runs, anew for each precision and kind of reads.
        settings: how much is measured.
        reads: what is measured on.
        figures: what the callbacks of ``predict`` leave.
        report: takes each measurement.
    """

    def __init__(
        self,
        build: Callable[[Precision, Reads], Prediction],
        settings: Settings,
        reads: Sequence[Reads],
        figures: RankMetrics,
        report: Callable[[Measurement], None],
    ):
        self._build = build
        self._settings = settings
        self._reads = reads
        self._figures = figures
        self._report = report
        self._samples: list[ReadsSample] = []
        self._effect: PrecisionEffect | None = None

    def run(self, precisions: Sequence[Precision]) -> None:
        """Measure in each precision; float32 comes first where the others are compared with it."""
        reference = [REFERENCE] if self._settings.precision_sequences else []
        for precision in dict.fromkeys([*reference, *precisions]):
            log.info("Encoders in %s", precision.name)
            rates = self._measure_encoders(precision, in_full=precision in precisions)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # the next encoders need the memory in other pieces
            for reads in self._reads if precision in precisions else ():
                log.info("Whole predict in %s, reads of %s", precision.name, reads.name)
                self._measure_prediction(precision, reads, rates)

    @torch.inference_mode()
    def _measure_encoders(self, precision: Precision, in_full: bool) -> dict[str, float]:
        """Measure what needs only the encoders; return the rates of their matrix products."""
        trainer, model, _, _ = self._build(precision, self._reads[0])
        with trainer.init_module():
            model.configure_model()
        assert model.dna_encoder is not None
        assert model.protein_encoder is not None
        assert model.head is not None
        encoders: dict[str, Encoder] = {DNABERT_S: model.dna_encoder, ESM2: model.protein_encoder}
        device = trainer.strategy.root_device
        if not self._samples:
            self._samples = [self._sample(precision, reads, device) for reads in self._reads]
        if self._settings.precision_sequences and self._effect is None:
            self._effect = self._reference(encoders, model.head.float(), device)
        model.on_predict_start()  # from here on they compute as the precision says
        for found in self._effect.measure(encoders, precision.name) if self._effect else ():
            self._report(found)
        if not in_full:
            return {}
        benches = {}
        for name, encoder in encoders.items():
            budget = self._samples[0].token_budget
            rate = matrix_rate(encoder, budget, self._settings.matrix_seconds)
            benches[name] = EncoderBench(name, encoder, precision.name, rate, device, self._settings.repeats)
            self._report(benches[name].matrix_products(budget))
        for sample in self._samples:
            for name, bench in benches.items():
                self._report(bench.measure(sample.batches[name], sample.mix))
            if precision.plain:
                self._measure_baselines(benches, sample)
        return {name: bench.matrix_rate for name, bench in benches.items()}

    def _sample(self, precision: Precision, reads: Reads, device: torch.device) -> ReadsSample:
        """Plan the batches of the reads as ``predict`` would, and take some of them."""
        trainer, model, datamodule, _ = self._build(precision, reads)
        datamodule.trainer = trainer
        datamodule.prepare_data()
        datamodule.setup("predict")
        return sample_reads(datamodule, model.dna_source.tokenizer(), reads.name, self._settings, device)

    def _reference(self, encoders: dict[str, Encoder], head: Head, device: torch.device) -> PrecisionEffect:
        """What every precision is compared with, from encoders in float32."""
        orfs = join([sample.compared for sample in self._samples])
        budget = self._samples[0].token_budget
        samples = {
            DNABERT_S: pack_sample(orfs.dna_tokens, budget, device),
            ESM2: pack_sample(orfs.protein_tokens, budget, device),
        }
        return PrecisionEffect(samples, encoders, head, device, self._settings.repeats)

    def _measure_baselines(self, benches: dict[str, EncoderBench], sample: ReadsSample) -> None:
        """Measure other engines in the precision of the benches, where the settings want them."""
        bench, budget = benches[ESM2], sample.token_budget
        if proteins := sample.baseline.proteins:
            ours = pack_sample(sample.baseline.protein_tokens, budget, bench.device)
            assert isinstance(bench.encoder, Esm2)
            self._report(bench.measure_baseline(fair_esm(bench.encoder, proteins), ours, sample.mix))
            self._report(bench.measure_baseline(hugging_face_esm(bench.encoder, proteins, budget), ours, sample.mix))
        bench = benches[DNABERT_S]
        if tokens := sample.one_by_one.dna_tokens:
            ours = pack_sample(tokens, budget, bench.device)
            assert isinstance(bench.encoder, DnabertS)
            self._report(bench.measure_baseline(one_by_one(bench.encoder, tokens), ours, sample.mix))

    def _measure_prediction(self, precision: Precision, reads: Reads, rates: dict[str, float]) -> None:
        prediction = self._build(precision, reads)
        for found in measure_prediction(*prediction, self._figures, rates, precision=precision.name, mix=reads.name):
            self._report(found)
