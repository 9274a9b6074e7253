"""The LightningModules of training: a head on embeddings, and a head together with its encoders."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryAveragePrecision,
    BinaryCalibrationError,
    BinaryConfusionMatrix,
    BinaryF1Score,
    BinaryPrecision,
    BinaryRecall,
)

from virnucpro_pl.errors import UserError
from virnucpro_pl.models.head import VIRUS, Head
from virnucpro_pl.models.virnucpro import VirNucPro
from virnucpro_pl.training.batches import EmbeddedBatch, TokenBatch

MakeOptimizer = Callable[[Iterable[dict[str, Any]]], Optimizer]
MakeScheduler = Callable[[Optimizer], LRScheduler]
_CELLS = ("tn", "fp", "fn", "tp")
"""Cells of a confusion matrix"""


def orf_metrics(prefix: str) -> MetricCollection:
    """Return the metrics of single ORFs; ``test`` computes those of chunks."""
    return MetricCollection(
        {
            "accuracy": BinaryAccuracy(),
            "precision": BinaryPrecision(),
            "recall": BinaryRecall(),
            "f1": BinaryF1Score(),
            "auroc": BinaryAUROC(),
            "average_precision": BinaryAveragePrecision(),
            "calibration_error": BinaryCalibrationError(n_bins=15),
            "confusion": BinaryConfusionMatrix(),
        },
        prefix=prefix,
    )


def logged_metrics() -> tuple[str, ...]:
    """Return the names of the metrics that a training logs, which callbacks can monitor."""
    names = [str(name) for name in orf_metrics("val_") if name != "val_confusion"]
    return ("train_loss", "val_loss", *names, *(f"val_{cell}" for cell in _CELLS))


class ScoredRows(NamedTuple):
    """Logits of some ORFs."""

    orfs: Tensor
    """(N,) int64, rows of the ORF store"""
    logits: Tensor
    """(N, 2) float32, ``others`` first"""


class HeadTraining(LightningModule):
    """Training of a head on embeddings by cross-entropy.

    Each epoch has its own random seed, so that a resumed training equals an uninterrupted one.

    Args:
        head: head to train.
        optimizer: makes the optimizer of parameter groups; None: no training.
        scheduler: makes the scheduler of the learning rate, stepped after each epoch; None: constant.
        class_weights: weights of ``others`` and ``virus`` in the loss; None: equal.
        seed: seed of dropout.
    """

    def __init__(
        self,
        head: Head,
        optimizer: MakeOptimizer | None = None,
        scheduler: MakeScheduler | None = None,
        class_weights: tuple[float, float] | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.head = head
        self._make_optimizer = optimizer
        self._make_scheduler = scheduler
        self._seed = seed
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        self.class_weights: Tensor | None
        self._metrics = orf_metrics("val_")
        self._val_loss = MeanMetric()
        self.history: list[dict[str, float]] = []
        """Metrics of the validation split after each epoch"""

    def embeddings(self, batch: Any) -> Tensor:
        """Return the embeddings of a batch, (N, D)."""
        embedded: EmbeddedBatch = batch
        return embedded.embeddings

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the random numbers of an epoch; a resumed Lightning skips the hook for the start of its first epoch."""
        if batch_idx == 0:
            torch.manual_seed(self._seed + 1_000_003 * (1 + self.current_epoch) + self.global_rank)

    def training_step(self, batch: EmbeddedBatch | TokenBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        loss = F.cross_entropy(self.head(self.embeddings(batch)), batch.labels, self.class_weights)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch.labels))
        return loss

    def on_train_epoch_end(self) -> None:
        """Store the loss; abort training if it is NaN or infinite.

        Raises:
            UserError: the loss is NaN or infinite.
        """
        loss = self.trainer.callback_metrics["train_loss"]
        self._check(loss, "training")
        if self.history:
            self.history[-1]["train_loss"] = float(loss)

    def _check(self, loss: Tensor, kind: str) -> None:
        if not torch.isfinite(loss):
            raise UserError(
                f"the {kind} loss is {float(loss)} in epoch {self.current_epoch + 1}: give a smaller optimizer.lr, or"
                " trainer.precision=32-true; the best weights so far are in the folder checkpoints"
            )

    def validation_step(self, batch: EmbeddedBatch | TokenBatch, batch_idx: int) -> None:
        """Add one batch to the metrics."""
        logits = self.head(self.embeddings(batch)).float()
        loss = F.cross_entropy(logits, batch.labels, self.class_weights)
        self._check(loss, "validation")
        self._val_loss.update(loss, weight=len(batch.labels))
        self._metrics.update(logits.softmax(dim=-1)[:, VIRUS], batch.labels)

    def on_validation_epoch_end(self) -> None:
        """Log and store the metrics of the validation split."""
        figures = {"val_loss": float(self._val_loss.compute())}
        for name, value in self._metrics.compute().items():
            cells = zip(_CELLS, value.flatten().tolist(), strict=True) if value.ndim else ()
            figures |= {f"val_{cell}": count for cell, count in cells} or {name: float(value)}
        for name, value in figures.items():
            self.log(name, float(value), prog_bar=name in ("val_loss", "val_average_precision"))
        self.history.append({"epoch": self.current_epoch, **figures})
        self._val_loss.reset()
        self._metrics.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the metrics of the epochs to the checkpoint."""
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the metrics of earlier epochs."""
        self.history = list(checkpoint["history"])

    def predict_step(self, batch: EmbeddedBatch | TokenBatch, batch_idx: int) -> ScoredRows:
        """Return the logits of one batch."""
        return ScoredRows(batch.orfs, self.head(self.embeddings(batch)).float())

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the parameters to optimise."""
        return [{"params": [*self.head.parameters()]}]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer and its schedule."""
        assert self._make_optimizer is not None, "training needs an optimizer"
        optimizer = self._make_optimizer(self.parameter_groups())
        if self._make_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self._make_scheduler(optimizer)}}


class EncoderTraining(HeadTraining):
    """Training of a head together with its encoders, as a whole or by adapters.

    Checkpoints hold only the trained parameters.

    Args:
        model: model without head, with loaded and unfrozen encoders.
        head: head to train on their embeddings.
        encoder_lr: learning rate of the encoders.
        arguments: arguments of ``HeadTraining``.
    """

    def __init__(self, model: VirNucPro, head: Head, encoder_lr: float, **arguments: Any):
        super().__init__(head, **arguments)
        self.strict_loading = False
        self.model = model
        self._encoder_lr = encoder_lr

    def on_fit_start(self) -> None:
        """Apply the numerics to the encoders, which are on their device."""
        self.model.apply_numerics()

    def embeddings(self, batch: Any) -> Tensor:
        """Return the embeddings of a batch by the current encoders, (N, D)."""
        tokens: TokenBatch = batch
        return self.model.embed(tokens.tokens)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the parameters of head and encoders, with separate learning rates."""
        learned = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return [*super().parameter_groups(), {"params": learned, "lr": self._encoder_lr}]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remove the parameters that are not trained."""
        super().on_save_checkpoint(checkpoint)
        frozen = {name for name, parameter in self.named_parameters() if not parameter.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k not in frozen}
