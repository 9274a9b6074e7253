"""Callback that records the starts of a run."""

import logging
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from virnucpro_pl.runs.starts import Starts

log = logging.getLogger(__name__)


class RunHistory(Callback):
    """Recorder of each start and of the batches that earlier starts have finished, for ``run.json``.

    Args:
        folder: work folder.
    """

    def __init__(self, folder: str | Path):
        self._starts = Starts(Path(folder))

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record this start."""
        if trainer.is_global_zero:
            datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
            batches = datamodule.plan.num_batches
            done = batches - len(datamodule.missing_batches)
            if done:
                log.info("Resuming: %s of %s batches are finished", f"{done:,}", f"{batches:,}")
            device = pl_module.device
            name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
            self._starts.add(trainer.world_size, done, batches, torch=torch.__version__, device=name)
