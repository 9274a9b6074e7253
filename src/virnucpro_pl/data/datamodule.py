"""The LightningDataModule of prediction: input files to packed batches."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from lightning import LightningDataModule, Trainer
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from virnucpro_pl.data.batch import Modality, OrfBatch
from virnucpro_pl.data.dataset import OrfBatches, Tokenizers, widths_at_hand
from virnucpro_pl.data.embedding_cache import (
    EmbeddingDtype,
    EncoderCaches,
    EncoderFingerprints,
    make_cache_folder,
    open_caches,
)
from virnucpro_pl.data.loading import BatchesOfRank, ReadAheadLoader, as_it_is
from virnucpro_pl.data.packing import Plan, plan_batches
from virnucpro_pl.data.tokenizers import DnaTokenizer, protein_tokenizer
from virnucpro_pl.errors import MissingScoresError, NodesDifferError, UserError
from virnucpro_pl.host.stage_clock import PLANNING, StageClock
from virnucpro_pl.runs.score_file import ScoreFile
from virnucpro_pl.runs.score_shards import ScoreShards
from virnucpro_pl.sequence.alphabet import Alphabet
from virnucpro_pl.sequence.chunks import Geometry
from virnucpro_pl.sequence.records import resolve_inputs
from virnucpro_pl.sequence.store import OrfStore, StoreSettings, check_dataset, input_digests, inputs_of, prepare_store
from virnucpro_pl.sequence.stored_array import BLOCK_ROWS, StoredArray
from virnucpro_pl.sequence.streams import can_be_read_again
from virnucpro_pl.sequence.translation import Ambiguity

_CUDA_TOKENS, _CPU_TOKENS = 16384, 4096  # a GPU wants large matrices, a CPU what its caches hold

_Decided = TypeVar("_Decided")
_NO_STORE = (
    "data.store_dir is not shared by the nodes (data.store_per_node=true has each build its own), or they read inputs"
    " that differ"
)
FindTokenBudget = Callable[[Trainer, Callable[[int], OrfBatch], int], int | None]
"""From the trainer, the longest batch of a given budget, and the tokens of one device, to a budget that fits."""


class FastaDataModule(LightningDataModule):
    """Reads, chunks and translates sequence files into the ORF store, plans batches, and serves them tokenised.

    Args:
        input: FASTA or FASTQ, plain or compressed: a path, several, a pattern, or ``-`` for standard input; or the
            folder of a store, such as a dataset, whose chunks and ORFs are taken as they are.
        store_dir: folder the ORF store is kept in.
        dna_tokenizer: gives the tokenizer of the DNA encoder.
        chunk_length: most bases of a chunk.
        chunking: ``published`` copies the published geometry, ``even`` gives full-length chunks.
        ambiguity: ``published`` drops codons with letters other than ACGT, ``resolved`` reads IUPAC codes and U.
        alphabet: ``iupac`` refuses inputs of which more than half of the letters are no nucleotides, and calls no
            record with more than 0.1 % of them; ``any`` takes them for bases, as published.
        token_budget: most protein tokens in a batch; None chooses what suits the device, ``auto`` has it found.
        deduplicate: embed identical ORFs once, and the protein that different ORFs share once.
        embedding_cache: folder that keeps embeddings for later runs; None for none.
        whole_chunks: whether chunks without open frame are batched too, for a head that scores nucleotides alone.
        num_workers: processes that prepare batches; with none, a thread does, which is fast enough for one GPU.
        store_per_node: every node reads the input and builds a store of its own, in its own ``store_dir``; else the
            first rank builds it for all.
        encoders: tells which encoders will be used, for the embedding cache.
        parts: gives the parts on disk of a plan, told by its key; their batches need no work any more. Asked on the
            first rank only, and may be set until ``setup``.
        find_token_budget: finds the budget for ``auto``, where it can be found.
        embedding_dtype: what the embedding cache keeps new embeddings as.
        modality: which encoders will be used; the others' inputs are not prepared.
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
        alphabet: Alphabet = "iupac",
        token_budget: int | Literal["auto"] | None = None,
        deduplicate: bool = True,
        embedding_cache: str | Path | None = None,
        whole_chunks: bool = False,
        num_workers: int = 0,
        store_per_node: bool = False,
        encoders: Callable[[], EncoderFingerprints] | None = None,
        parts: Callable[[str], ScoreShards] | None = None,
        find_token_budget: FindTokenBudget | None = None,
        embedding_dtype: EmbeddingDtype = "float32",
        modality: Modality = "both",
        clock: StageClock | None = None,
    ):
        super().__init__()
        self.prepare_data_per_node = store_per_node
        self.allow_zero_length_dataloader_with_multiple_devices = True  # fewer batches than devices is no mistake
        self.settings = StoreSettings(chunk_length, chunking, ambiguity, alphabet, whole_chunks)
        self.settings.check()
        if not (token_budget in (None, "auto") or (isinstance(token_budget, int) and token_budget >= 1)):
            raise UserError(f"data.token_budget={token_budget}: give a number of tokens, 16384 is usual, or auto")
        if num_workers < 0:
            raise UserError(f"data.num_workers={num_workers}: give a number of processes, or 0 for none")
        stored = inputs_of(Path(input)) if isinstance(input, str) else None
        given = Path(str(input)) if stored is not None else None
        self.inputs = resolve_inputs(input) if stored is None else stored
        self._cache_folder: Path | None = None
        if embedding_cache is not None:
            if encoders is None:
                raise ValueError("an embedding cache must know whose embeddings it holds; give encoders")
            self._cache_folder = make_cache_folder(embedding_cache)
        self._embedding_dtype: EmbeddingDtype = embedding_dtype
        self._fingerprint_encoders = encoders
        self._encoders: EncoderFingerprints | None = None
        self._token_budget = token_budget
        self.deduplicate = deduplicate
        self._store_dir = given.parent if given else Path(store_dir)
        self._read_dna_tokenizer = dna_tokenizer
        self._num_workers = num_workers
        self.find_parts: Callable[[str], ScoreShards] | None = parts
        self._find_token_budget = find_token_budget
        self._encoder_inputs = modality
        self._clock = clock or StageClock()
        self._store_folder: Path | None = given
        self._is_prepared = False
        self.token_budget: int
        self.store: OrfStore
        self.duplicates: StoredArray | None = None
        self.plan: Plan
        self.waiting_batches: NDArray[np.int64]
        self.parts: ScoreShards | None = None
        self.caches: EncoderCaches | None = None

    def prepare_data(self) -> None:
        """Build the ORF store, unless an earlier run left it, whose files are checked then (once per machine)."""
        if self._store_folder is None:
            self._store_folder = prepare_store(self.inputs, self._store_dir, self.settings, self._clock)
        elif not self._is_prepared:
            check_dataset(self._store_folder)
        self._is_prepared = True
        if self._cache_folder and self._fingerprint_encoders and self._encoders is None:
            self._encoders = self._fingerprint_encoders()

    def setup(self, stage: str) -> None:
        """Open the store and plan the batches (every rank).

        Raises:
            NodesDifferError: this node has no store, or of another input than the first.
        """
        name, self._encoders = self._first_rank_says(lambda: (self.store_folder.name, self._encoders))
        folder = self._store_dir / name
        if not folder.is_dir():
            raise NodesDifferError(f"{folder} is not there: {_NO_STORE}")
        self.store = OrfStore(folder)
        if self.deduplicate:
            with self._clock(PLANNING):
                self.duplicates = self.store.duplicate_orfs()
        if self._cache_folder and self._encoders:
            self.caches = open_caches(self._cache_folder, self._encoders, self._embedding_dtype)
        asked: int | Literal["auto"] | None = self._token_budget or self._usual_token_budget()
        self.parts, noted = self._first_rank_says(lambda: self._parts_on_disk(f"{name} {asked} {self.deduplicate}"))
        if asked == "auto":
            asked = noted
        if asked is not None:  # else it is found once the model is on its device
            self._make_plan(asked)

    @property
    def store_folder(self) -> Path:
        """Where the ORF store is, once it is prepared."""
        assert self._store_folder is not None, "prepare_data runs before setup"
        return self._store_folder

    @property
    def is_prepared(self) -> bool:
        """Whether the input has been looked at in this process."""
        return self._is_prepared

    def can_be_read_twice(self) -> bool:
        """Whether all inputs are files, not streams."""
        return all(map(can_be_read_again, self.inputs))

    def input_digests(self) -> list[str]:
        """SHA-256 of the inputs, in their order: those of the store, or of what is read now if there is none yet."""
        if self._store_folder is None:
            return input_digests(self.inputs, self._store_dir)
        return [source["sha256"] for source in OrfStore(self._store_folder).manifest["inputs"]]

    def _parts_on_disk(self, plan_key: str) -> tuple[ScoreShards | None, int | None]:
        """Return the parts of a plan, and the token budget an earlier start has noted for it."""
        if self.find_parts is None:
            return None, None
        rebuilt = self.store.times_rebuilt()  # what was scored before may come of damaged ORFs
        parts = self.find_parts(f"{plan_key} {rebuilt}" if rebuilt else plan_key)
        parts.clear_unfinished()
        return parts, parts.noted_token_budget()

    def _first_rank_says(self, decide: Callable[[], _Decided]) -> _Decided:
        """Return on every rank what the first one decides: only it looks at the disk, where others may write soon."""
        if self.trainer is None:
            return decide()
        return self.trainer.strategy.broadcast(decide() if self.trainer.is_global_zero else None)  # type: ignore[return-value]

    def gather(self, scores: ScoreFile | NDArray[np.float32]) -> None:
        """Fill in the scores of all ORFs from the parts on disk.

        Args:
            scores: (orfs, 2) filled in place.

        Raises:
            MissingScoresError: batches are missing.
        """
        assert self.parts is not None, "scores were not kept"
        repeats = self.duplicates
        if len(self.plan.rows) + (len(repeats) if repeats else 0) != self.store.num_orfs:
            raise RuntimeError(f"{self.store.folder}: the plan does not cover its ORFs")
        self.parts.gather(self.plan, scores)
        for pairs in repeats.blocks() if repeats else ():
            scores[pairs[:, 0]] = scores[pairs[:, 1]]
        for start in range(0, self.store.num_orfs, BLOCK_ROWS):
            if np.isnan(scores[start : start + BLOCK_ROWS]).any():
                raise MissingScoresError(f"{self.store.folder}: its plan is damaged; start over with overwrite=true")

    def saved(self) -> dict[str, int]:
        """ORFs that need no embedding, as repeats of others, and proteins that do not, as others' ORFs have them."""
        planned = len(self.plan.rows)
        return {"orfs": self.store.num_orfs - planned, "proteins": planned - self.plan.num_proteins}

    def widths_at_hand(self) -> tuple[int | None, int | None]:
        """Widths of the DNA and the protein embeddings if all of them are in the embedding cache, else None."""
        if self.caches is None or not hasattr(self, "plan"):
            return None, None
        with self._clock(PLANNING):
            return widths_at_hand(self.store, self.plan, self.waiting_batches, self.caches)

    def predict_dataloader(self) -> "DataLoader[OrfBatch]":
        """One item is one packed batch; the ranks share whole batches."""
        tokenizers = self.tokenizers()
        if not hasattr(self, "plan"):
            self._make_plan(self._found_token_budget(tokenizers))
        workers = self._num_workers
        batches = OrfBatches(self.store, self.plan, self.waiting_batches, *tokenizers, self.deduplicate, self.caches)
        rank, num_ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return ReadAheadLoader(
            batches,
            batch_size=None,
            sampler=BatchesOfRank(batches, rank, num_ranks),
            collate_fn=as_it_is,
            num_workers=workers,
            pin_memory=self._on_cuda(),
            # Forking a process that runs threads can deadlock; a fresh interpreter cannot.
            multiprocessing_context="spawn" if workers else None,
            prefetch_factor=4 if workers else None,
        )

    def tokenizers(self) -> Tokenizers:
        """Tokenizers of both encoders, None for one that is not used."""
        used = self._encoder_inputs
        return self._read_dna_tokenizer() if used != "protein" else None, protein_tokenizer() if used != "dna" else None

    def _plan(self, token_budget: int) -> Plan:
        return plan_batches(self.store.by_length(self.deduplicate), token_budget)

    def _make_plan(self, token_budget: int) -> None:
        with self._clock(PLANNING):
            self.token_budget = token_budget
            self.plan = self._plan(token_budget)
            self.waiting_batches = self._first_rank_says(self._batches_to_do)

    def _batches_to_do(self) -> NDArray[np.int64]:
        return self.parts.waiting_batches(self.plan) if self.parts else np.arange(self.plan.num_batches)

    def _found_token_budget(self, tokenizers: Tokenizers) -> int:
        """Have the budget found on every rank, and noted before any rank writes its first part."""

        def longest_batch(token_budget: int) -> OrfBatch:
            return OrfBatches(self.store, self._plan(token_budget), np.arange(1), *tokenizers, self.deduplicate)[0]

        assert self.trainer is not None, "a budget is found with a trainer's model"
        budget = None
        usual = self._usual_token_budget()
        tokens = -(-self._plan(usual).protein_tokens // self.trainer.world_size)
        if self._find_token_budget and tokens:
            with self._clock(PLANNING), self._clock.paused():
                budget = self._find_token_budget(self.trainer, longest_batch, tokens)
        budget = budget or usual
        if self.parts and self.trainer.is_global_zero:
            self.parts.note_token_budget(budget)
        self.trainer.strategy.barrier("token budget noted")
        return budget

    def _usual_token_budget(self) -> int:
        return _CUDA_TOKENS if self._on_cuda() else _CPU_TOKENS

    def _on_cuda(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
