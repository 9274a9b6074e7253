"""The LightningDataModule of training: labelled ORFs as embeddings or as tokens."""

from typing import Any

import numpy as np
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from virnucpro_pl.data.loading import ReadAheadLoader, as_it_is
from virnucpro_pl.errors import UserError
from virnucpro_pl.training.batches import EpochBatches
from virnucpro_pl.training.splits import TRAIN, VALIDATION

EMBEDDED_BATCH = 4096
"""Embedded ORFs that are scored at once"""


class LabelledOrfs(LightningDataModule):
    """Data module of the splits of a dataset.

    Args:
        examples: dataset of batches, indexed by rows of ORFs.
        parts: (O,) int8, split of each ORF.
        batch_size: ORFs of a batch in training.
        scoring_batch_size: ORFs of a batch that is only scored.
        seed: seed of the shuffling.

    Raises:
        UserError: the batch size is too small.
    """

    def __init__(
        self,
        examples: "Dataset[Any]",
        parts: NDArray[np.int8],
        batch_size: int,
        seed: int,
        scoring_batch_size: int = EMBEDDED_BATCH,
    ):
        super().__init__()
        if batch_size < 2:
            raise UserError(f"batch_size={batch_size}: batch normalisation needs at least 2; 32 is the published size")
        self._examples = examples
        self._parts = parts
        self._batch_size = batch_size
        self._scoring_batch_size = scoring_batch_size
        self._seed = seed

    def train_dataloader(self) -> "DataLoader[Any]":
        """Return the shuffled batches of the training split."""
        return self._loader(TRAIN, self._batch_size, self._seed)

    def val_dataloader(self) -> "DataLoader[Any]":
        """Return the batches of the validation split."""
        return self._loader(VALIDATION, self._scoring_batch_size, None)

    def predict_dataloader(self) -> "DataLoader[Any]":
        """Return the batches of all ORFs that are in a split."""
        return self._loader(None, self._scoring_batch_size, None)

    def _loader(self, part: int | None, batch_size: int, seed: int | None) -> "DataLoader[Any]":
        rows = np.flatnonzero(self._parts >= 0 if part is None else self._parts == part)
        rank, num_ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        batches: Any = EpochBatches(rows, batch_size, seed, rank, num_ranks)
        if self.trainer:  # a resumed Lightning takes the first batch before it sets the epoch
            batches.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed)  # type: ignore[attr-defined]
        return ReadAheadLoader(self._examples, batch_size=None, sampler=batches, collate_fn=as_it_is)
