"""Writer of score shards during prediction."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from virnucpro_pl.data.batch import OrfBatch
from virnucpro_pl.models.virnucpro import ScoredOrfs
from virnucpro_pl.runs.score_shards import ScoredBatch, ScoreShards


class ScoreShardWriter(BasePredictionWriter):
    """Writer of the finished batches of a rank; nothing is gathered between ranks.

    Args:
        folder: folder of the score shards.
        max_orfs: ORFs at which a shard is written.
        max_seconds: age of its first batch at which a shard is written, in seconds.
    """

    def __init__(self, folder: str | Path, max_orfs: int, max_seconds: float):
        super().__init__(write_interval="batch")
        self._shards = ScoreShards(Path(folder))
        self._max_orfs = max_orfs
        self._max_seconds = max_seconds
        self._in_flight: ScoredOrfs | None = None
        self._waiting: list[ScoredBatch] = []
        self._since = 0.0

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: ScoredOrfs,
        batch_indices: Sequence[int] | None,
        batch: OrfBatch,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Receive the scores of the previous batch while the device works on this one."""
        if self._in_flight:
            self._in_flight.wait()  # most interrupts arrive here, and must not lose the batch
        before, self._in_flight = self._in_flight, prediction
        self._receive(before)
        num_orfs = sum(len(waiting.orfs) for waiting in self._waiting)
        if num_orfs >= self._max_orfs or (self._waiting and time.monotonic() - self._since >= self._max_seconds):
            self._write(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the remaining batches."""
        last, self._in_flight = self._in_flight, None
        self._receive(last)
        self._write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the batches that are finished."""
        last, self._in_flight = self._in_flight, None
        with suppress(RuntimeError, FloatingPointError):  # the device may have failed
            self._receive(last)
        with suppress(OSError):  # the disk may still be full
            self._write(trainer)

    def _receive(self, prediction: ScoredOrfs | None) -> None:
        if prediction is None:
            return
        prediction.wait()
        scores = prediction.scores.numpy()
        if not np.isfinite(scores).all():
            raise FloatingPointError(
                f"batch {prediction.number}: some scores are NaN or infinite; start over with trainer.precision=32-true"
                " overwrite=true"
            )
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append(ScoredBatch(prediction.number, prediction.orfs.numpy(), scores))

    def _write(self, trainer: Trainer) -> None:
        if self._waiting:
            self._shards.write(trainer.datamodule.plan.key, self._waiting)  # type: ignore[attr-defined]
            self._waiting = []
