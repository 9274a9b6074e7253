"""Callback that writes new embeddings to the embedding cache."""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray

from virnucpro_pl.data.batch import CachedEmbeddings, OrfBatch
from virnucpro_pl.data.embedding_cache import EncoderCaches
from virnucpro_pl.models.virnucpro import ScoredOrfs

log = logging.getLogger(__name__)


class _NewEmbeddings(NamedTuple):
    """New embeddings of one encoder."""

    keys: NDArray[np.uint64]
    embeddings: NDArray[np.float32]


class EmbeddingCaching(Callback):
    """Writer of new embeddings; idle without an embedding cache. Without this callback a cache is only read.

    Args:
        max_bytes: size of the new embeddings in memory at which they are written.
    """

    def __init__(self, max_bytes: int):
        self._max_bytes = max_bytes
        self._caches: EncoderCaches | None = None
        self._in_flight: tuple[ScoredOrfs, CachedEmbeddings] | None = None
        self._waiting: tuple[list[_NewEmbeddings], list[_NewEmbeddings]] = [], []
        self._num_bytes = 0
        self._writer: ThreadPoolExecutor | None = None
        self._written: Future[None] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Open the caches of the data module, which is set up before."""
        self._caches = trainer.datamodule.caches  # type: ignore[attr-defined]
        if self._caches:
            self._writer = ThreadPoolExecutor(1)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: ScoredOrfs,
        batch: OrfBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Receive the new embeddings of the previous batch while the device works on this one."""
        if self._caches is None or batch.cached is None:
            return
        self._receive()
        self._in_flight = outputs, batch.cached
        if self._num_bytes >= self._max_bytes:
            self._write()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the remaining embeddings."""
        self._receive()
        self._write()
        self._wait()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the embeddings that have arrived; the device may no longer answer."""
        self._write()
        self._wait()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop the writing thread."""
        if self._writer:
            self._writer.shutdown()
        self._writer = None

    def _receive(self) -> None:
        if self._in_flight is None:
            return
        prediction, cached = self._in_flight
        self._in_flight = None
        assert prediction.new_embeddings is not None
        prediction.wait()
        keys_of_both = cached.dna_keys, cached.protein_keys
        for waiting, keys, new in zip(self._waiting, keys_of_both, prediction.new_embeddings, strict=True):
            embeddings = new.numpy()
            is_finite = np.isfinite(embeddings).all(axis=1)
            waiting.append(_NewEmbeddings(keys[is_finite], embeddings[is_finite]))
            self._num_bytes += waiting[-1].embeddings.nbytes

    def _write(self) -> None:
        """Pass the waiting embeddings to the writing thread."""
        self._wait()
        if self._caches and self._writer and self._num_bytes:
            self._written = self._writer.submit(_write_all, self._caches, self._waiting)
        self._waiting, self._num_bytes = ([], []), 0

    def _wait(self) -> None:
        """Wait for the writing thread. A full disk does not stop the run, whose results need no cache."""
        written, self._written = self._written, None
        if written is None:
            return
        try:
            written.result()
        except OSError as error:
            log.warning("New embeddings are no longer cached: %s; check the free space of data.embedding_cache", error)
            self._caches = None


def _write_all(caches: EncoderCaches, waiting: tuple[list[_NewEmbeddings], list[_NewEmbeddings]]) -> None:
    for cache, batches in zip(caches, waiting, strict=True):
        if cache is None:
            continue
        keys = np.concatenate([np.empty((0, 2), dtype=np.uint64), *(batch.keys for batch in batches)])
        if len(keys):
            cache.write(keys, np.concatenate([batch.embeddings for batch in batches]))
