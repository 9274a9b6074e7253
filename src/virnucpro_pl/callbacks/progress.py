"""Progress of a run: a bar on a terminal, log lines elsewhere."""

import logging
import sys
import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar
from rich.progress import ProgressColumn, Task
from rich.text import Text

from virnucpro_pl.data.batch import OrfBatch
from virnucpro_pl.models.virnucpro import ScoredOrfs

log = logging.getLogger(__name__)


def progress(seconds: float) -> ProgressBar:
    """Return a progress bar on a terminal that shows log lines, otherwise a callback that logs every ``seconds``."""
    handlers = [one for one in logging.getLogger().handlers if getattr(one, "stream", None) is sys.stderr]
    is_quiet = any(handler.level > logging.INFO for handler in handlers)
    shows_bar = sys.stderr.isatty() and not is_quiet
    return PredictionBar(console_kwargs={"stderr": True}) if shows_bar else Heartbeat(seconds)


class Tally:
    """Counts of the tokens and ORFs that this rank has embedded, and of the viral ones."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._tokens = 0
        self._orfs = self._viral = 0
        self._in_flight: ScoredOrfs | None = None
        self.text = ""
        """Tokens per second, and the share of viral ORFs once scores have arrived"""

    def add(self, scored: ScoredOrfs | None, batch: OrfBatch) -> None:
        """Count a batch now, and its scores with the next batch, when they have arrived."""
        self._tokens += len(batch.protein.tokens)
        before, self._in_flight = self._in_flight, scored
        if before is not None and before.scores.shape[1] == 2:
            before.wait()
            self._orfs += len(before.scores)
            self._viral += int((before.scores[:, 1] > before.scores[:, 0]).sum())
        self.text = f"{self._tokens / max(self.seconds, 1e-9):,.0f} ESM-2 tokens/s"
        if self._orfs:
            self.text += f", {self._viral / self._orfs:.1%} of ORFs viral so far"

    @property
    def seconds(self) -> float:
        """Return the seconds since the first batch."""
        return time.monotonic() - self._began


class _TallyColumn(ProgressColumn):
    """Column of the progress bar with the tally."""

    def __init__(self, tally: Tally):
        super().__init__()
        self._tally = tally

    def render(self, task: Task) -> Text:
        return Text(self._tally.text, style="dim")


class PredictionBar(RichProgressBar):
    """Lightning's progress bar with the tally of a prediction."""

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to count."""
        self._tally = Tally()
        super().on_predict_start(trainer, pl_module)

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        """Return Lightning's columns and the tally."""
        columns: list[Any] = super().configure_columns(trainer)
        return [*columns, _TallyColumn(self._tally)] if hasattr(self, "_tally") else columns

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the batch and move the bar."""
        self._tally.add(outputs, batch)
        super().on_predict_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)


class Heartbeat(ProgressBar):
    """Logger of batches, speed, share of viral ORFs and time left, for output that is no terminal.

    Args:
        seconds: time between two log lines.
    """

    def __init__(self, seconds: float):
        super().__init__()
        self._seconds = seconds
        self._last = 0.0
        self._tally = Tally()

    def disable(self) -> None:
        """Log nothing, as on ranks other than the first."""
        self._seconds = float("inf")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to count."""
        self._tally = Tally()
        self._last = 0.0

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the batch, and log a line when it is due."""
        self._tally.add(outputs, batch)
        elapsed = self._tally.seconds
        if elapsed - self._last >= self._seconds:
            self._last = elapsed
            total = int(sum(trainer.num_predict_batches))
            done = batch_idx + 1
            log.info(
                "Predicting: %d of %d batches (%.0f %%), %s, about %s left",
                done,
                total,
                100 * done / total,
                self._tally.text,
                time.strftime("%H:%M:%S", time.gmtime(elapsed / done * (total - done))),
            )
