"""Sparing the encoders what the embedding cache has, and giving it what they compute."""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray

from virnucpro_pl.data.batch import CachedEmbeddings, OrfBatch
from virnucpro_pl.data.embedding_cache import EncoderCaches
from virnucpro_pl.models.virnucpro import ScoredOrfs, VirNucPro

log = logging.getLogger(__name__)


class _NewEmbeddings(NamedTuple):
    """New embeddings of one encoder."""

    keys: NDArray[np.uint64]
    embeddings: NDArray[np.float32]


class EmbeddingCaching(Callback):
    """Does nothing unless the data module has an embedding cache; without this callback a cache is only read.

    Args:
        max_bytes: new embeddings go to disk once they take this much memory.
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
        """Tell the module which encoder it need not load; the data module is set up before, weights are read after."""
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        self._caches = getattr(datamodule, "caches", None)
        if isinstance(pl_module, VirNucPro):
            pl_module.widths_at_hand = datamodule.widths_at_hand() if self._caches else (None, None)
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
        """Take over the new embeddings of the batch before, while the device works on this one."""
        if self._caches is None or batch.cached is None:
            return
        self._take_over()
        self._in_flight = outputs, batch.cached
        if self._num_bytes >= self._max_bytes:
            self._write()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what is left."""
        self._take_over()
        self._write()
        self._wait()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write what has arrived; the device may no longer answer."""
        self._write()
        self._wait()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the thread."""
        if self._writer:
            self._writer.shutdown()
        self._writer = None

    def _take_over(self) -> None:
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
        """Hand what waits to the thread that writes."""
        self._wait()
        if self._caches and self._writer and self._num_bytes:
            self._written = self._writer.submit(_write_all, self._caches, self._waiting)
        self._waiting, self._num_bytes = ([], []), 0

    def _wait(self) -> None:
        """Wait for what is being written; results do not depend on it, so a full disk stops no run."""
        written, self._written = self._written, None
        if written is None:
            return
        try:
            written.result()
        except OSError as error:
            log.warning("New embeddings are not kept any more: %s; is there space for the cache?", error)
            self._caches = None


def _write_all(caches: EncoderCaches, waiting: tuple[list[_NewEmbeddings], list[_NewEmbeddings]]) -> None:
    for cache, batches in zip(caches, waiting, strict=True):
        if cache is None:
            continue
        keys = np.concatenate([np.empty((0, 2), dtype=np.uint64), *(batch.keys for batch in batches)])
        if len(keys):
            cache.write(keys, np.concatenate([batch.embeddings for batch in batches]))
