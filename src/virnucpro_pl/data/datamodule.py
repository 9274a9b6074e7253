"""The LightningDataModule of prediction: input files to packed batches."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from virnucpro_pl.data.batch import OrfBatch
from virnucpro_pl.data.dataset import OrfBatches
from virnucpro_pl.data.packing import Plan, plan_batches
from virnucpro_pl.encoders.dnabert_s import DnaTokenizer
from virnucpro_pl.encoders.esm2 import protein_tokenizer
from virnucpro_pl.errors import UserError
from virnucpro_pl.read_ahead import read_ahead
from virnucpro_pl.results.parts import Parts
from virnucpro_pl.sequence.chunks import Geometry
from virnucpro_pl.sequence.records import resolve_inputs
from virnucpro_pl.sequence.store import OrfStore, StoreSettings, prepare_store
from virnucpro_pl.sequence.translation import Ambiguity
from virnucpro_pl.stages import PLANNING, StageClock

_BATCHES_AHEAD = 3
_CUDA_TOKENS, _CPU_TOKENS = 16384, 4096  # a GPU wants large matrices, a CPU what its caches hold


class ReadAheadLoader(DataLoader[OrfBatch]):
    """Prepares the next batches in a thread while the device is busy with one.

    Tokenising runs outside Python's lock, so a thread suffices, and starts in no time where a process takes seconds.
    """

    def __iter__(self) -> Iterator[OrfBatch]:  # type: ignore[override]
        """Yield the batches."""
        return read_ahead(super().__iter__(), depth=_BATCHES_AHEAD)


class FastaDataModule(LightningDataModule):
    """Reads, chunks and translates sequence files into the ORF store, plans batches, and serves them tokenised.

    Args:
        input: FASTA or FASTQ, plain or compressed: a path, several, a pattern, or ``-`` for standard input.
        store_dir: folder the ORF store is kept in.
        dna_tokenizer: gives the tokenizer of the DNA encoder.
        chunk_length: most bases of a chunk.
        chunking: ``published`` copies the published geometry, ``even`` gives full-length chunks.
        ambiguity: ``published`` drops codons with letters other than ACGT, ``resolved`` reads IUPAC codes and U.
        token_budget: most protein tokens in a batch; None chooses what suits the device.
        deduplicate: embed identical ORFs once.
        num_workers: processes that prepare batches; with none, a thread does, which is fast enough for one GPU.
        parts: gives the parts on disk of a plan, told by its key; their batches need no work any more.
        clock: takes the time of the stages.
    """

    def __init__(
        self,
        input: str | Sequence[str],
        store_dir: str | Path,
        dna_tokenizer: Callable[[], DnaTokenizer],
        chunk_length: int,
        chunking: Geometry = "published",
        ambiguity: Ambiguity = "published",
        token_budget: int | None = None,
        deduplicate: bool = True,
        num_workers: int = 0,
        parts: Callable[[str], Parts] | None = None,
        clock: StageClock | None = None,
    ):
        super().__init__()
        self.prepare_data_per_node = False  # all nodes share the store
        self.allow_zero_length_dataloader_with_multiple_devices = True  # fewer batches than devices is no mistake
        self.settings = StoreSettings(chunk_length, chunking, ambiguity)
        self.settings.check()
        if token_budget is not None and token_budget < 1:
            raise UserError(f"data.token_budget={token_budget}: a batch needs at least one token; 16384 is usual")
        if num_workers < 0:
            raise UserError(f"data.num_workers={num_workers}: give a number of processes, or 0 for none")
        self.inputs = resolve_inputs(input)
        self._token_budget = token_budget
        self.deduplicate = deduplicate
        self._store_dir = Path(store_dir)
        self._read_dna_tokenizer = dna_tokenizer
        self._num_workers = num_workers
        self._find_parts = parts
        self._clock = clock or StageClock()
        self._store_folder: Path | None = None
        self.token_budget: int
        self.store: OrfStore
        self.duplicates: NDArray[np.int64] = np.empty((0, 2), dtype=np.int64)
        self.plan: Plan
        self.waiting_batches: NDArray[np.int64]
        self.parts: Parts | None = None

    def prepare_data(self) -> None:
        """Build the ORF store, unless an earlier run left it (once per machine)."""
        if self._store_folder is None:
            self._store_folder = prepare_store(self.inputs, self._store_dir, self.settings, self._clock)

    def setup(self, stage: str) -> None:
        """Open the store and plan the batches (every rank)."""
        folder = self._store_folder
        if self.trainer is not None:
            folder = self.trainer.strategy.broadcast(folder)
        assert folder is not None, "prepare_data runs before setup"
        self.store = OrfStore(folder)
        self.token_budget = self._token_budget or (_CUDA_TOKENS if self._on_cuda() else _CPU_TOKENS)
        with self._clock(PLANNING):
            if self.deduplicate:
                self.duplicates = self.store.duplicate_orfs()
            rows = np.delete(np.arange(self.store.num_orfs), self.duplicates[:, 0])
            proteins, nucleotides = self.store.proteins.lengths(), self.store.nucleotides.lengths()
            self.plan = plan_batches(rows, proteins[rows], nucleotides[rows], self.token_budget)
        # Asked for here, between two barriers: later, another rank might have written its first batches already.
        batches = np.arange(self.plan.num_batches)
        if self._find_parts:
            self.parts = self._find_parts(f"{folder.name} {self.token_budget} {self.deduplicate}")
            self.waiting_batches = np.setdiff1d(batches, self.parts.done_batches())
        else:
            self.waiting_batches = batches

    def predict_dataloader(self) -> "DataLoader[OrfBatch]":
        """One item is one packed batch, so Lightning's own sampler shares whole batches among the ranks."""
        workers = self._num_workers
        batches = OrfBatches(
            self.store, self.plan, self.waiting_batches, self._read_dna_tokenizer(), protein_tokenizer()
        )
        return ReadAheadLoader(
            batches,
            batch_size=None,
            num_workers=workers,
            pin_memory=self._on_cuda(),
            # Forking a process that runs threads can deadlock; a fresh interpreter cannot.
            multiprocessing_context="spawn" if workers else None,
            prefetch_factor=4 if workers else None,
        )

    def _on_cuda(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
