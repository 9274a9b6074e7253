"""The LightningDataModule of prediction: input files to packed batches."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from virnucpro_pl.data.batch import Modality, OrfBatch
from virnucpro_pl.data.batching import Batching, FindTokenBudget, Progress, RunFingerprints, default_token_budget
from virnucpro_pl.data.dataset import OrfBatches, Tokenizers, cached_widths
from virnucpro_pl.data.embedding_cache import CacheSettings, EncoderCaches, open_caches
from virnucpro_pl.data.loading import BatchesOfRank, ReadAheadLoader, as_it_is
from virnucpro_pl.data.orf_source import OrfSource
from virnucpro_pl.data.packing import Plan, plan_batches
from virnucpro_pl.data.tokenizers import DnaTokenizer, protein_tokenizer
from virnucpro_pl.errors import UserError
from virnucpro_pl.host.stage_clock import PLANNING, StageClock
from virnucpro_pl.sequence.alphabet import Alphabet
from virnucpro_pl.sequence.chunks import Geometry
from virnucpro_pl.sequence.store import OrfStore, StoreSettings
from virnucpro_pl.sequence.stored_array import StoredArray
from virnucpro_pl.sequence.translation import Ambiguity

_Decision = TypeVar("_Decision")


class FastaDataModule(LightningDataModule):
    """Plans the batches of an ORF store and serves them, tokenized and packed.

    Args:
        source: input files and their store.
        dna_tokenizer: function that loads the tokenizer of the DNA encoder.
        batching: settings of the batch plan.
        cache: embedding cache; None for none.
        modality: encoders in use; the inputs of the other one are not prepared.
        num_workers: processes that prepare batches; 0: a thread, which is fast enough for one GPU.
        progress: finished batches, which are not served; None: all are served.
        fingerprints: called on the first rank in ``setup``.
    """

    def __init__(
        self,
        source: OrfSource,
        dna_tokenizer: Callable[[], DnaTokenizer],
        batching: Batching,
        cache: CacheSettings | None = None,
        modality: Modality = "both",
        num_workers: int = 0,
        progress: Progress | None = None,
        fingerprints: Callable[[], RunFingerprints] = RunFingerprints,
    ):
        super().__init__()
        self.prepare_data_per_node = source.per_node
        self.allow_zero_length_dataloader_with_multiple_devices = True  # fewer batches than devices is no mistake
        batching.check()
        if num_workers < 0:
            raise UserError(f"data.num_workers={num_workers}: give a number of processes, or 0 for none")
        self.source = source
        self._batching = batching
        self._cache = cache
        self._read_dna_tokenizer = dna_tokenizer
        self._modality = modality
        self._num_workers = num_workers
        self._progress = progress
        self._fingerprints = fingerprints
        self._run = RunFingerprints()
        self._times_rebuilt = 0
        self.token_budget: int
        self.store: OrfStore
        self.duplicates: StoredArray | None = None
        self.plan: Plan
        self.missing_batches: NDArray[np.int64]
        self.caches: EncoderCaches | None = None

    @classmethod
    def from_settings(
        cls,
        input: str | Sequence[str],
        store_dir: str | Path,
        dna_tokenizer: Callable[[], DnaTokenizer],
        chunk_length: int,
        chunking: Geometry = "published",
        ambiguity: Ambiguity = "published",
        alphabet: Alphabet = "iupac",
        token_budget: int | Literal["auto"] | None = None,
        find_token_budget: FindTokenBudget | None = None,
        deduplicate: bool = True,
        embedding_cache: str | Path | None = None,
        embedding_dtype: Literal["float32", "float16"] = "float32",
        num_workers: int = 0,
        store_per_node: bool = False,
        whole_chunks: bool = False,
        modality: Modality = "both",
        progress: Progress | None = None,
        fingerprints: Callable[[], RunFingerprints] | None = None,
        clock: StageClock | None = None,
    ) -> "FastaDataModule":
        """Build the data module from the settings under ``data`` and what the command adds to them.

        Args:
            input: see ``OrfSource``.
            store_dir: folder of the ORF stores.
            dna_tokenizer: function that loads the tokenizer of the DNA encoder.
            chunk_length: most bases of a chunk.
            chunking: ``published`` copies the published geometry, ``even`` gives full-length chunks.
            ambiguity: ``published`` drops codons with letters other than ACGT, ``resolved`` reads IUPAC codes and U.
            alphabet: ``iupac`` refuses inputs of which more than half of the letters are no nucleotides, and does not
                call records with more than 0.1 % of them; ``any`` takes them for bases, as published.
            token_budget: see ``Batching``.
            find_token_budget: see ``Batching``.
            deduplicate: see ``Batching``.
            embedding_cache: folder of embeddings that later runs use again; None for none.
            embedding_dtype: dtype in which new embeddings are cached.
            num_workers: processes that prepare batches; 0: a thread.
            store_per_node: see ``OrfSource``.
            whole_chunks: serve chunks without ORF, too, for a head that scores nucleotides alone.
            modality: encoders in use.
            progress: finished batches.
            fingerprints: function that returns the fingerprints of the run; a cache needs them.
            clock: clock of the stages.

        Raises:
            UserError: a setting is out of range, or an input is missing.
        """
        settings = StoreSettings(chunk_length, chunking, ambiguity, alphabet, whole_chunks)
        source = OrfSource(input, Path(store_dir), settings, store_per_node, clock)
        cache = None
        if embedding_cache is not None:
            if fingerprints is None:
                raise ValueError("an embedding cache needs the fingerprints of the encoders; give fingerprints")
            cache = CacheSettings.of(embedding_cache, embedding_dtype)
        batching = Batching(token_budget, deduplicate, find_token_budget)
        return cls(
            source, dna_tokenizer, batching, cache, modality, num_workers, progress, fingerprints or RunFingerprints
        )

    def prepare_data(self) -> None:
        """Build the ORF store, once per machine."""
        self.source.prepare()

    def setup(self, stage: str) -> None:
        """Open the store and plan the batches, on every rank.

        Raises:
            NodesDifferError: this node has no store, or one of another input than the first.
        """
        self._open_store()
        budget: int | None
        if self._batching.token_budget == "auto":
            budget = self._first_rank_decides(self._noted_token_budget)
        else:
            budget = self._batching.token_budget or self._default_token_budget()
        if budget is not None:  # else it is found once the model is on its device
            self._make_plan(budget)

    def restore(self, token_budget: int) -> None:
        """Make the plan again in a process whose child processes have predicted.

        Args:
            token_budget: budget that the children used.
        """
        if not hasattr(self, "plan"):
            self._open_store()
            self._make_plan(token_budget)

    def saved(self) -> dict[str, int]:
        """Return the numbers of ORFs and of proteins that are not embedded because they repeat others."""
        planned = len(self.plan.rows)
        return {"orfs": self.store.num_orfs - planned, "proteins": planned - self.plan.num_proteins}

    def cached_widths(self) -> tuple[int | None, int | None]:
        """Return the widths of the DNA and the protein embeddings whose encoder is not needed, None for the others.

        An encoder is not needed if the embedding cache holds the embeddings of all batches to be served.
        """
        if self.caches is None or not hasattr(self, "plan"):
            return None, None
        with self.source.clock(PLANNING):
            return cached_widths(self.store, self.plan, self.missing_batches, self.caches)

    def predict_dataloader(self) -> "DataLoader[OrfBatch]":
        """Return the loader of this rank; an item is one packed batch."""
        tokenizers = self.tokenizers()
        if not hasattr(self, "plan"):
            self._make_plan(self._found_token_budget(tokenizers))
        workers = self._num_workers
        batches = OrfBatches(
            self.store, self.plan, self.missing_batches, *tokenizers, self._batching.deduplicate, self.caches
        )
        rank, num_ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return ReadAheadLoader(
            batches,
            batch_size=None,
            sampler=BatchesOfRank(batches, rank, num_ranks),
            collate_fn=as_it_is,
            num_workers=workers,
            pin_memory=self._device.type == "cuda",
            # Forking a process that runs threads can deadlock; a fresh interpreter cannot.
            multiprocessing_context="spawn" if workers else None,
            prefetch_factor=4 if workers else None,
        )

    def tokenizers(self) -> Tokenizers:
        """Return the tokenizers of both encoders, None for an encoder that is not used."""
        dna = None if self._modality == "protein" else self._read_dna_tokenizer()
        return dna, None if self._modality == "dna" else protein_tokenizer()

    def _open_store(self) -> None:
        name, self._run = self._first_rank_decides(lambda: (self.source.folder.name, self._fingerprints()))
        self.store = self.source.open(name)
        # Scores of a store that was damaged and built again may come from damaged ORFs.
        self._times_rebuilt = self._first_rank_decides(self.store.times_rebuilt)
        if self._batching.deduplicate:
            with self.source.clock(PLANNING):
                self.duplicates = self.store.duplicate_orfs()
        if self._cache and self._run.encoders:
            self.caches = open_caches(self._cache.folder, self._run.encoders, self._cache.dtype)

    def _plan_with(self, token_budget: int) -> Plan:
        order = self.store.by_length(self._batching.deduplicate)
        return plan_batches(order, token_budget, self._plan_key(token_budget))

    def _plan_key(self, token_budget: int | None) -> str:
        """Return the key of a plan, which is known before ``auto`` has found a budget."""
        budget = "auto" if self._batching.token_budget == "auto" else token_budget
        return " ".join(
            map(
                str, (self.store.folder.name, self._times_rebuilt, budget, self._batching.deduplicate, self._run.scores)
            )
        )

    def _make_plan(self, token_budget: int) -> None:
        with self.source.clock(PLANNING):
            self.token_budget = token_budget
            self.plan = self._plan_with(token_budget)
            self.missing_batches = self._first_rank_decides(self._find_missing_batches)

    def _find_missing_batches(self) -> NDArray[np.int64]:
        return self._progress.missing(self.plan) if self._progress else np.arange(self.plan.num_batches)

    def _noted_token_budget(self) -> int | None:
        return self._progress.noted_token_budget(self._plan_key(None)) if self._progress else None

    def _first_rank_decides(self, decide: Callable[[], _Decision]) -> _Decision:
        """Return on every rank the decision of the first one, which alone reads files that others may be writing."""
        if self.trainer is None:
            return decide()
        return self.trainer.strategy.broadcast(decide() if self.trainer.is_global_zero else None)  # type: ignore[return-value]

    def _found_token_budget(self, tokenizers: Tokenizers) -> int:
        """Find the budget on every rank, and note it before any rank writes its first score shard."""

        def longest_batch(token_budget: int) -> OrfBatch:
            deduplicate = self._batching.deduplicate
            return OrfBatches(self.store, self._plan_with(token_budget), np.arange(1), *tokenizers, deduplicate)[0]

        assert self.trainer is not None, "a budget is found with a trainer's model"
        budget = None
        default = self._default_token_budget()
        tokens = -(-self._plan_with(default).protein_tokens // self.trainer.world_size)
        if self._batching.find_token_budget and tokens:
            with self.source.clock(PLANNING), self.source.clock.paused():
                budget = self._batching.find_token_budget(self.trainer, longest_batch, tokens)
        budget = budget or default
        if self._progress and self.trainer.is_global_zero:
            self._progress.note_token_budget(self._plan_key(None), budget)
        self.trainer.strategy.barrier("token budget noted")
        return budget

    def _default_token_budget(self) -> int:
        return default_token_budget(self._device)

    @property
    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
