"""The measurements of a benchmark: in each precision both encoders alone, then the whole of ``predict``."""

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from lightning import Trainer
from lightning.fabric.utilities.apply_func import move_data_to_device
from numpy.typing import NDArray

from virnucpro_pl.benchmarking.measurement import ENCODER, MATRIX_PRODUCTS, Measurement
from virnucpro_pl.benchmarking.precisions import Precision
from virnucpro_pl.benchmarking.prediction_speed import measure_prediction
from virnucpro_pl.benchmarking.rates import Encoder, flops, matrix_flops_per_token, matrix_rate, median_seconds
from virnucpro_pl.benchmarking.synthetic_reads import Reads
from virnucpro_pl.data.datamodule import FastaDataModule
from virnucpro_pl.data.dataset import OrfBatches
from virnucpro_pl.data.packed import PackedTokens
from virnucpro_pl.errors import UserError
from virnucpro_pl.host.stage_clock import DNABERT_S, ESM2
from virnucpro_pl.models.virnucpro import VirNucPro
from virnucpro_pl.runs.rank_metrics import RankMetrics
from virnucpro_pl.runs.score_shards import ScoreShards

log = logging.getLogger(__name__)

_CUDA_READS, _CPU_READS = 20_000, 200  # keep the device busy for a while


class Settings(NamedTuple):
    """Amount of work of a benchmark."""

    reads: int | None
    """synthetic reads of each length; None: the default of the device"""
    read_lengths: list[int]
    """bases of a read; each length is measured separately"""
    encoder_batches: int
    """batches, spread over the plan, on which each encoder is timed alone"""
    repeats: int
    """passes, of which the median counts"""
    matrix_seconds: float
    """duration of the matrix products, in seconds"""
    seed: int
    """seed of reads and weights"""

    def check(self) -> None:
        """Raise UserError for a value with which nothing can be measured."""
        for key, least in (("reads", 1), ("encoder_batches", 1), ("repeats", 1), ("seed", 0)):
            if key != "reads" or self.reads is not None:
                _check(key, getattr(self, key), least)
        if not self.read_lengths:
            raise UserError("read_lengths=[]: give at least one length in bases, such as read_lengths=[150,500]")
        for length in self.read_lengths:
            _check("read_lengths", length, 3)
        if not isinstance(self.matrix_seconds, int | float) or self.matrix_seconds <= 0:
            raise UserError(f"matrix_seconds={self.matrix_seconds}: give a time above 0, in seconds")

    def num_reads(self, device: torch.device) -> int:
        """Return the number of reads of each length."""
        return self.reads or (_CUDA_READS if device.type == "cuda" else _CPU_READS)


class Prediction(NamedTuple):
    """Objects that ``predict`` builds from its configuration."""

    trainer: Trainer
    model: VirNucPro
    datamodule: FastaDataModule
    shards: ScoreShards


class Suite:
    """Runner of the measurements.

    Args:
        build: builds the objects of ``predict``, anew for each precision and read length.
        settings: amount of work.
        reads: files of reads.
        metrics: folder in which the callbacks of ``predict`` write their metrics.
        report: called with each measurement.
    """

    def __init__(
        self,
        build: Callable[[Precision, Reads], Prediction],
        settings: Settings,
        reads: Sequence[Reads],
        metrics: RankMetrics,
        report: Callable[[Measurement], None],
    ):
        self._build = build
        self._settings = settings
        self._reads = reads
        self._metrics = metrics
        self._report = report

    def run(self, precisions: Sequence[Precision]) -> None:
        """Measure in each precision."""
        for precision in precisions:
            log.info("Encoders in %s", precision.name)
            rates = self._measure_encoders(precision)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # the next encoders need other sizes of blocks
            for reads in self._reads:
                log.info("Whole predict in %s, reads of %s", precision.name, reads.name)
                prediction = self._build(precision, reads)
                for found in measure_prediction(
                    *prediction, self._metrics, rates, precision=precision.name, mix=reads.name
                ):
                    self._report(found)

    @torch.inference_mode()
    def _measure_encoders(self, precision: Precision) -> dict[str, float]:
        """Measure both encoders alone; return the rates of their matrix products, in operations per second."""
        trainer, model, _, _ = self._build(precision, self._reads[0])
        device = trainer.strategy.root_device
        with trainer.init_module():
            model.configure_model()
        assert model.dna_encoder is not None
        assert model.protein_encoder is not None
        model.on_predict_start()
        encoders: dict[str, Encoder] = {DNABERT_S: model.dna_encoder, ESM2: model.protein_encoder}
        batches = [self._batches(precision, reads, device) for reads in self._reads]
        token_budget = batches[0].token_budget
        rates = {}
        for name, encoder in encoders.items():
            rates[name] = matrix_rate(encoder, token_budget, self._settings.matrix_seconds)
            work = token_budget * matrix_flops_per_token(encoder.config)
            self._report(
                Measurement(
                    part=MATRIX_PRODUCTS,
                    encoder=name,
                    precision=precision.name,
                    tokens=token_budget,
                    seconds=work / rates[name],
                    flops=work,
                )
            )
        for reads, sample in zip(self._reads, batches, strict=True):
            for name, encoder in encoders.items():
                steps = [partial(encoder, batch) for batch in sample.of_encoder[name]]
                seconds = median_seconds(steps, device, self._settings.repeats)
                found = encoder_speed(name, encoder, sample.of_encoder[name], seconds, rates[name])
                self._report(replace(found, precision=precision.name, mix=reads.name))
        return rates

    def _batches(self, precision: Precision, reads: Reads, device: torch.device) -> "_Batches":
        """Plan the batches of reads as ``predict`` does, and return some of them, on the device."""
        _, _, datamodule, _ = self._build(precision, reads)
        datamodule.prepare_data()
        datamodule.setup("predict")
        dataset = datamodule.predict_dataloader().dataset
        assert isinstance(dataset, OrfBatches)
        some = [dataset[int(number)] for number in evenly(len(dataset), self._settings.encoder_batches)]
        return _Batches(
            datamodule.token_budget,
            {
                DNABERT_S: [move_data_to_device(batch.dna, device) for batch in some],
                ESM2: [move_data_to_device(batch.protein, device) for batch in some],
            },
        )


class _Batches(NamedTuple):
    token_budget: int
    of_encoder: dict[str, list[PackedTokens]]


def encoder_speed(
    name: str, encoder: Encoder, batches: Sequence[PackedTokens], seconds: float, rate: float
) -> Measurement:
    """Return the measurement of an encoder that has embedded batches.

    Args:
        name: name of the encoder.
        encoder: the encoder.
        batches: the batches.
        seconds: time for all batches.
        rate: operations per second of the encoder's matrix products.
    """
    work = sum(flops(encoder.config, batch) for batch in batches)
    tokens = sum(batch.num_tokens for batch in batches)
    return Measurement(
        part=ENCODER,
        encoder=name,
        precision="",
        sequences=sum(batch.num_sequences for batch in batches),
        tokens=tokens,
        seconds=seconds,
        flops=work,
        matrix_seconds=work / rate,
        packing_efficiency=tokens / sum(len(batch.tokens) for batch in batches),
    )


def evenly(total: int, wanted: int) -> NDArray[np.int64]:
    """Return at most ``wanted`` numbers below ``total``, evenly spread.

    >>> evenly(10, 3).tolist(), evenly(2, 5).tolist()
    ([1, 5, 8], [0, 1])
    """
    count = min(total, wanted)
    return ((np.arange(count) + 0.5) * total / max(count, 1)).astype(np.int64)


def _check(key: str, value: object, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise UserError(f"{key}={value}: give a whole number of at least {least}")
