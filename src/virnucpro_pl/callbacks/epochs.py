"""Telling how training goes, an epoch at a time."""

import logging
import time

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

log = logging.getLogger(__name__)


class EpochLines(Callback):
    """Logs the losses and the average precision of every epoch, and what is still to come at the most."""

    def __init__(self) -> None:
        self._began = 0.0
        self._first_epoch = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the watch."""
        self._began = time.monotonic()
        self._first_epoch = trainer.current_epoch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log a line."""
        if not trainer.is_global_zero:
            return
        epoch, last, figures = trainer.current_epoch + 1, trainer.max_epochs or 0, trainer.callback_metrics
        each = (time.monotonic() - self._began) / (epoch - self._first_epoch)
        log.info(
            "Epoch %d of at most %d: training loss %.4f, validation loss %.4f, average precision %.4f (%.1f s an epoch,"
            " at most %s left)",
            epoch,
            last,
            figures["train_loss"],
            figures["val_loss"],
            figures["val_average_precision"],
            each,
            time.strftime("%H:%M:%S", time.gmtime(each * (last - epoch))),
        )
