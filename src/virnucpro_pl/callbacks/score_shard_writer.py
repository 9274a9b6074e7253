"""Writing scored batches to disk while prediction runs."""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from virnucpro_pl.data.batch import OrfBatch
from virnucpro_pl.models.virnucpro import ScoredOrfs
from virnucpro_pl.runs.score_shards import ScoredBatch, ScoreShards


class ScoreShardWriter(BasePredictionWriter):
    """Each rank writes its finished batches as Parquet parts; nothing is gathered between ranks.

    Args:
        max_orfs: a part is written once it holds this many ORFs.
        max_seconds: or once its first batch is this old.
    """

    def __init__(self, max_orfs: int, max_seconds: float):
        super().__init__(write_interval="batch")
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
        """Take over the scores of the batch before, while the device works on this one."""
        if self._in_flight:
            self._in_flight.wait()  # an interrupt comes here more often than not, and must not lose it
        before, self._in_flight = self._in_flight, prediction
        self._take_over(before)
        num_orfs = sum(len(waiting.orfs) for waiting in self._waiting)
        if num_orfs >= self._max_orfs or (self._waiting and time.monotonic() - self._since >= self._max_seconds):
            self._write(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what is left."""
        last, self._in_flight = self._in_flight, None
        self._take_over(last)
        self._write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Lose nothing that is computed already."""
        last, self._in_flight = self._in_flight, None
        with suppress(RuntimeError, FloatingPointError):  # a device that failed gives nothing back
            self._take_over(last)
        with suppress(OSError):  # the disk that was full may still be
            self._write(trainer)

    def _take_over(self, prediction: ScoredOrfs | None) -> None:
        if prediction is None:
            return
        prediction.wait()
        scores = prediction.scores.numpy()
        if not np.isfinite(scores).all():
            raise FloatingPointError(
                f"batch {prediction.number}: some scores are not numbers; start over with trainer.precision=32-true"
                " overwrite=true"
            )
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append(ScoredBatch(prediction.number, prediction.orfs.numpy(), scores))

    def _write(self, trainer: Trainer) -> None:
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        parts: ScoreShards | None = getattr(datamodule, "parts", None)
        if self._waiting and parts is not None:
            parts.write(self._waiting)
            self._waiting = []
