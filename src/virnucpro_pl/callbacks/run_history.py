"""Keeping account of how often a run was started."""

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from virnucpro_pl.results.starts import Starts


class RunHistory(Callback):
    """Notes each start and how far the starts before it had come, for ``run.json``.

    Args:
        folder: the work folder.
    """

    def __init__(self, folder: str | Path):
        self._starts = Starts(Path(folder))

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note this start."""
        if trainer.is_global_zero:
            datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
            batches = datamodule.plan.num_batches
            self._starts.add(trainer.world_size, batches - len(datamodule.waiting_batches), batches)
