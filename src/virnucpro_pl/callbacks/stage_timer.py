"""Reporting the seconds each stage took."""

from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from virnucpro_pl.host.stage_clock import StageClock
from virnucpro_pl.runs.rank_metrics import RankMetrics


class StageTimer(Callback):
    """Leaves the seconds of every stage of this rank for the summary.

    Args:
        folder: where the figures of the ranks go.
        clock: the clock that data module and module share.
    """

    def __init__(self, folder: str | Path, clock: StageClock | None = None):
        self._figures = RankMetrics(Path(folder))
        self._clock = clock or StageClock()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the figures; called also where there was nothing to predict."""
        self._figures.write("stages", trainer.global_rank, self._clock.seconds())
