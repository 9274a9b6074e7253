"""Telling the user how far the run is."""

import logging
import sys
import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar

log = logging.getLogger(__name__)


def progress(seconds: float) -> ProgressBar:
    """Return a bar on a terminal, and a log line every ``seconds`` elsewhere."""
    return RichProgressBar(console_kwargs={"stderr": True}) if sys.stderr.isatty() else Heartbeat(seconds)


class Heartbeat(ProgressBar):
    """Logs batches done, share, speed and time left at regular times; for captured output.

    Args:
        seconds: time between two lines.
    """

    def __init__(self, seconds: float):
        super().__init__()
        self._seconds = seconds
        self._began = self._last = 0.0
        self._tokens = 0

    def disable(self) -> None:
        """Ranks other than the first stay silent."""
        self._seconds = float("inf")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the watch."""
        self._began = self._last = time.monotonic()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Log a line when it is time."""
        self._tokens += len(batch.protein.tokens)
        now = time.monotonic()
        if now - self._last >= self._seconds:
            self._last = now
            total = int(sum(trainer.num_predict_batches))
            done, elapsed = batch_idx + 1, now - self._began
            log.info(
                "Predicting: %d of %d batches (%.0f %%), %.0f ESM-2 tokens/s, about %s left",
                done,
                total,
                100 * done / total,
                self._tokens / elapsed,
                time.strftime("%H:%M:%S", time.gmtime(elapsed / done * (total - done))),
            )
