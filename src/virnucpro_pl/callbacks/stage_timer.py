"""Callback that writes the seconds of each stage."""

from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from virnucpro_pl.host.stage_clock import StageClock
from virnucpro_pl.runs.rank_metrics import RankMetrics


class StageTimer(Callback):
    """Writer of the seconds of each stage of this rank, for the summary.

    Args:
        folder: folder of the metrics of the ranks.
        clock: clock that data module and module share.
    """

    def __init__(self, folder: str | Path, clock: StageClock | None = None):
        self._metrics = RankMetrics(Path(folder))
        self._clock = clock or StageClock()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the metrics, also if there was nothing to predict."""
        self._metrics.write("stages", trainer.global_rank, self._clock.seconds())
