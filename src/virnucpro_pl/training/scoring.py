"""Scores of the chunks of a dataset by a head."""

from typing import NamedTuple

import numpy as np
from lightning import Trainer
from numpy.typing import NDArray

from virnucpro_pl.data.batch import Modality
from virnucpro_pl.data.embeddings import Embeddings
from virnucpro_pl.models.head import Head
from virnucpro_pl.training.batches import EmbeddedOrfs
from virnucpro_pl.training.datamodule import EMBEDDED_BATCH, LabelledOrfs
from virnucpro_pl.training.evaluation import ScoredChunks, chunk_scores
from virnucpro_pl.training.labelled_store import LabelledStore
from virnucpro_pl.training.module import HeadTraining
from virnucpro_pl.training.splits import Split


class OrfMargins(NamedTuple):
    """Margins of the ORFs of a dataset."""

    store: LabelledStore
    split: Split
    values: NDArray[np.float64]
    """(O,) logit of virus minus logit of others; NaN for ORFs in no split"""


def score(
    trainer: Trainer, head: Head, inputs: Modality, store: LabelledStore, embeddings: Embeddings, split: Split
) -> OrfMargins:
    """Score all ORFs that are in a split.

    Args:
        trainer: trainer.
        head: head to test.
        inputs: modality.
        store: the dataset.
        embeddings: embeddings of its ORFs.
        split: split of each record.
    """
    parts = split.parts[store.orf_records]
    labels = store.labels[store.orf_records]
    data = LabelledOrfs(EmbeddedOrfs(embeddings, labels, inputs), parts, EMBEDDED_BATCH, seed=0)
    values = np.full(store.num_orfs, np.nan)
    for rows in trainer.predict(HeadTraining(head), datamodule=data) or ():
        logits = rows.logits.double().numpy()  # type: ignore[union-attr]
        values[rows.orfs.numpy()] = logits[:, 1] - logits[:, 0]  # type: ignore[union-attr]
    return OrfMargins(store, split, values)


def chunks_of(margins: OrfMargins, part: int, temperature: float, group: str) -> ScoredChunks:
    """Return the scored chunks of a split that have an ORF.

    Args:
        margins: margins of the ORFs.
        part: index of the split in ``PARTS``.
        temperature: divisor of the logits.
        group: column of the groups.
    """
    store = margins.store
    orfs = np.flatnonzero(margins.split.parts[store.orf_records] == part)
    virus = 1 / (1 + np.exp(-margins.values[orfs] / temperature))
    scores = chunk_scores(virus, store.orf_records[orfs], len(store.labels))
    chosen = ~np.isnan(scores)
    return ScoredChunks(store.labels[chosen], scores[chosen], store.column(group)[chosen], store.lengths[chosen])


def join(parts: list[ScoredChunks]) -> ScoredChunks:
    """Concatenate the chunks of several datasets."""
    return ScoredChunks(*(np.concatenate(column) for column in zip(*parts, strict=True)))
