"""The LightningDataModule of prediction: input files to packed batches."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from virnucpro_pl.data.batch import OrfBatch
from virnucpro_pl.data.packing import Plan, plan_batches
from virnucpro_pl.encoders.dnabert_s import DnaTokenizer
from virnucpro_pl.encoders.esm2 import ProteinTokenizer, protein_tokenizer
from virnucpro_pl.encoders.packed import pack
from virnucpro_pl.errors import UserError
from virnucpro_pl.results.parts import Parts
from virnucpro_pl.sequence.chunks import Geometry
from virnucpro_pl.sequence.records import resolve_inputs
from virnucpro_pl.sequence.store import OrfStore, StoreSettings, prepare_store
from virnucpro_pl.sequence.translation import Ambiguity
from virnucpro_pl.stages import PLANNING, StageClock

log = logging.getLogger(__name__)


class OrfBatches(Dataset[OrfBatch]):
    """The batches of a plan that are still to be embedded; an item is one packed batch."""

    def __init__(
        self,
        store: OrfStore,
        plan: Plan,
        numbers: NDArray[np.int64],
        dna_tokenizer: DnaTokenizer,
        protein_tokenizer: ProteinTokenizer,
    ):
        self.numbers = numbers
        self._store = store
        self._plan = plan
        self._dna_tokenizer = dna_tokenizer
        self._protein_tokenizer = protein_tokenizer

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> OrfBatch:
        number = int(self.numbers[index])
        orfs = self._plan.batch(number)
        dna = self._dna_tokenizer(self._store.nucleotides.take(orfs))
        by_length = np.argsort([-len(tokens) for tokens in dna], kind="stable")
        places = np.empty_like(by_length)
        places[by_length] = np.arange(len(by_length))
        return OrfBatch(
            number=number,
            orfs=torch.from_numpy(orfs),
            dna=pack([dna[i] for i in by_length]),
            dna_places=torch.from_numpy(places),
            protein=pack(self._protein_tokenizer(self._store.proteins.take(orfs))),
        )


class FastaDataModule(LightningDataModule):
    """Reads, chunks and translates sequence files into the ORF store, plans batches, and serves them tokenised.

    Args:
        input: FASTA or FASTQ, plain or compressed: a path, several, a pattern, or ``-`` for standard input.
        store_dir: folder the ORF store is kept in.
        dna_tokenizer: gives the tokenizer of the DNA encoder.
        chunk_length: most bases of a chunk.
        chunking: ``published`` copies the published geometry, ``even`` gives full-length chunks.
        ambiguity: ``published`` drops codons with letters other than ACGT, ``resolved`` reads IUPAC codes and U.
        token_budget: most protein tokens in a batch.
        deduplicate: embed identical ORFs once.
        num_workers: processes that tokenise ahead; None chooses 4 for a GPU, 0 for the CPU.
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
        token_budget: int = 16384,
        deduplicate: bool = True,
        num_workers: int | None = None,
        parts: Callable[[str], Parts] | None = None,
        clock: StageClock | None = None,
    ):
        super().__init__()
        self.prepare_data_per_node = False  # all nodes share the store
        self.allow_zero_length_dataloader_with_multiple_devices = True  # fewer batches than devices is no mistake
        self.settings = StoreSettings(chunk_length, chunking, ambiguity)
        self.settings.check()
        if token_budget < 1:
            raise UserError(f"data.token_budget={token_budget}: a batch needs at least one token; 16384 is usual")
        self.inputs = resolve_inputs(input)
        self.token_budget = token_budget
        self.deduplicate = deduplicate
        self._store_dir = Path(store_dir)
        self._read_dna_tokenizer = dna_tokenizer
        self._num_workers = num_workers
        self._find_parts = parts
        self._clock = clock or StageClock()
        self._store_folder: Path | None = None
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
        on_cuda = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        workers = self._num_workers
        if workers is None:
            workers = min(4, len(os.sched_getaffinity(0))) if on_cuda else 0
        batches = OrfBatches(
            self.store, self.plan, self.waiting_batches, self._read_dna_tokenizer(), protein_tokenizer()
        )
        return DataLoader(
            batches,
            batch_size=None,
            num_workers=workers,
            pin_memory=on_cuda,
            # Forking a process that runs threads can deadlock; a fresh interpreter cannot.
            multiprocessing_context="spawn" if workers else None,
        )
