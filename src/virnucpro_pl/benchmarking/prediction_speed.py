"""Speed of the whole of ``predict``: preparing batches, both encoders, head, and writing scores."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from virnucpro_pl.benchmarking.measurement import BOTH, PREDICT, PREDICT_STAGE, PREDICT_STEADY, Measurement
from virnucpro_pl.benchmarking.rates import flops, synchronise
from virnucpro_pl.data.batch import OrfBatch
from virnucpro_pl.data.datamodule import FastaDataModule
from virnucpro_pl.host.stage_clock import DNABERT_S, ESM2
from virnucpro_pl.models.virnucpro import VirNucPro
from virnucpro_pl.results.summary import merge_metrics
from virnucpro_pl.runs.rank_metrics import RankMetrics
from virnucpro_pl.runs.score_shards import ScoreShards


class Watch(Callback):
    """Callback that measures the time from the first batch on, and counts operations."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.flops = {DNABERT_S: 0, ESM2: 0}
        self._began: float | None = None

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: OrfBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Start the clock with the first batch."""
        if self._began is None:
            self._began = time.perf_counter()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: OrfBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the operations of a batch, whose lengths are on the host."""
        assert isinstance(pl_module, VirNucPro)
        for name, encoder, packed in (
            (DNABERT_S, pl_module.dna_encoder, batch.dna),
            (ESM2, pl_module.protein_encoder, batch.protein),
        ):
            assert encoder is not None
            self.flops[name] += flops(encoder.config, packed)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        assert self._began is not None
        synchronise(pl_module.device)
        self.seconds = time.perf_counter() - self._began


def _check_complete(datamodule: FastaDataModule, shards: ScoreShards) -> None:
    """Raise MissingScoresError unless every ORF was scored; the speed of an incomplete run means nothing."""
    repeats = datamodule.duplicates.blocks() if datamodule.duplicates else ()
    shards.gather(datamodule.plan, repeats, np.full((datamodule.store.num_orfs, 2), np.nan, dtype=np.float32))


def measure_prediction(
    trainer: Trainer,
    model: VirNucPro,
    datamodule: FastaDataModule,
    shards: ScoreShards,
    metrics: RankMetrics,
    matrix_rates: dict[str, float],
    precision: str,
    mix: str,
) -> list[Measurement]:
    """Run the trainer over all batches, as ``predict`` does, with its callbacks.

    Args:
        trainer: trainer with the callbacks that write ``metrics``.
        model: model whose weights are not loaded.
        datamodule: data module; its store may exist.
        shards: score shards that the callbacks write.
        metrics: metrics that the callbacks write.
        matrix_rates: operations per second of each encoder's matrix products alone.
        precision: name of the precision.
        mix: length of the reads.

    Returns:
        Measurements of the whole, of the whole from the first batch on, and of each encoder within it.
    """
    watch = Watch()
    trainer.callbacks.append(watch)  # type: ignore[attr-defined]
    metrics.clear()
    trainer.predict(model, datamodule=datamodule, return_predictions=False)
    _check_complete(datamodule, shards)
    found = merge_metrics(metrics.read("stages", 1), metrics.read("throughput", 1), datamodule.token_budget, {})
    shared: dict[str, Any] = {"precision": precision, "mix": mix, "sequences": found["embedded_orfs"]}
    whole = Measurement(
        part=PREDICT,
        encoder=BOTH,
        tokens=found["encoders"][ESM2]["tokens"],
        seconds=found["predict_seconds"],
        flops=sum(watch.flops.values()),
        matrix_seconds=sum(work / matrix_rates[name] for name, work in watch.flops.items()),
        packing_efficiency=found["packing_efficiency"],
        gpu_utilisation_percent=found["gpu_utilisation_percent"],
        wait_share=found["wait_share"],
        **shared,
    )
    steady = replace(whole, part=PREDICT_STEADY, seconds=watch.seconds, wait_share=None)
    stages = [
        Measurement(
            part=PREDICT_STAGE,
            encoder=name,
            tokens=encoder["tokens"],
            seconds=found["stages"][name]["seconds"],
            flops=watch.flops[name],
            matrix_seconds=watch.flops[name] / matrix_rates[name],
            packing_efficiency=encoder["packing_efficiency"],
            **shared,
        )
        for name, encoder in found["encoders"].items()
    ]
    return [whole, steady, *stages]
