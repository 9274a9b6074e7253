"""Dataset of packed batches; worker processes import it without Lightning."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from virnucpro_pl.data.batch import CachedEmbeddings, OrfBatch
from virnucpro_pl.data.embedding_cache import EmbeddingCache, EncoderCaches, content_keys
from virnucpro_pl.data.packed import PackedTokens, pack
from virnucpro_pl.data.packing import Plan
from virnucpro_pl.data.tokenizers import DnaTokenizer, ProteinTokenizer
from virnucpro_pl.sequence.store import OrfStore, RaggedColumn

Tokenizers = tuple[DnaTokenizer | None, ProteinTokenizer | None]
"""Of both encoders; None for one that is not used."""
_NO_KEYS = np.empty((0, 2), dtype=np.uint64)


class Batches(Protocol):
    """Part of a batch plan that serving batches needs."""

    def batch(self, number: int) -> NDArray[np.int64]:
        """Return the rows of the ORF store in one batch, (N,)."""
        ...


class OrfBatches(Dataset[OrfBatch]):
    """The batches of a plan that are still to be embedded; an item is one packed batch.

    The inputs of an encoder without tokenizer, which is not used, are empty.
    """

    def __init__(
        self,
        store: OrfStore,
        plan: Batches,
        numbers: NDArray[np.int64],
        dna_tokenizer: DnaTokenizer | None,
        protein_tokenizer: ProteinTokenizer | None,
        deduplicate: bool,
        caches: EncoderCaches | None = None,
    ):
        self.numbers = numbers
        self._store = store
        self._plan = plan
        self._dna_tokenizer = dna_tokenizer
        self._protein_tokenizer = protein_tokenizer
        self._deduplicate = deduplicate
        self._caches = caches

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> OrfBatch:
        number = int(self.numbers[index])
        orfs = self._plan.batch(number)
        dna_cache, protein_cache = self._caches or (None, None)
        dna = self._inputs(self._store.nucleotides, orfs, self._dna_tokenizer, dna_cache)
        protein = self._inputs(self._store.proteins, orfs, self._protein_tokenizer, protein_cache)
        cached = None
        if self._caches:
            cached = CachedEmbeddings(dna.cached, protein.cached, dna.keys, protein.keys)
        whole = self._is_whole(orfs)
        return OrfBatch(
            number, torch.from_numpy(orfs), dna.packed, dna.indices, protein.packed, protein.indices, cached, whole
        )

    def _is_whole(self, orfs: NDArray[np.int64]) -> Tensor | None:
        if not self._store.manifest["whole_chunks"]:
            return None
        return torch.tensor([not protein for protein in self._store.proteins.take(orfs)])

    def _inputs(
        self,
        column: RaggedColumn,
        orfs: NDArray[np.int64],
        tokenizer: Callable[[list[bytes]], list[NDArray[np.int64]]] | None,
        cache: EmbeddingCache | None,
    ) -> "_Inputs":
        if tokenizer is None:
            return _Inputs(pack([]), torch.zeros(len(orfs), dtype=torch.int64), None, _NO_KEYS)
        sequences, indices = column.take(orfs), np.arange(len(orfs))
        if self._deduplicate:
            sequences, indices = _distinct(sequences)
        keys, is_cached, cached = _NO_KEYS, np.zeros(len(sequences), dtype=np.bool_), None
        if cache:
            keys = content_keys(sequences)
            is_cached, cached = cache.find(keys)
        missing = np.flatnonzero(~is_cached)
        tokens = tokenizer([sequences[i] for i in missing])
        by_length = np.argsort([-len(one) for one in tokens], kind="stable")
        order = np.concatenate([missing[by_length], np.flatnonzero(is_cached)])
        index_of = np.empty_like(order)
        index_of[order] = np.arange(len(order))
        return _Inputs(
            packed=pack([tokens[i] for i in by_length]),
            indices=torch.from_numpy(index_of[indices]),
            cached=None if cached is None else torch.from_numpy(cached.view(np.int32)),
            keys=keys[missing[by_length]] if cache else keys,
        )


class _Inputs(NamedTuple):
    """Inputs of one encoder, as in ``OrfBatch`` and ``CachedEmbeddings``."""

    packed: PackedTokens
    indices: Tensor
    cached: Tensor | None
    keys: NDArray[np.uint64]


def cached_widths(
    store: OrfStore, plan: Plan, numbers: NDArray[np.int64], caches: EncoderCaches
) -> tuple[int | None, int | None]:
    """Return the width of the DNA and of the protein embeddings, None if a cache lacks some of these batches."""
    columns = (store.nucleotides, store.proteins)
    widths = [cache.width if cache else None for cache in caches]
    for number in numbers.tolist():
        if widths == [None, None]:
            break
        orfs = plan.batch(number)
        for side, (column, cache) in enumerate(zip(columns, caches, strict=True)):
            if cache and widths[side] is not None and not cache.holds_all(content_keys(column.take(orfs))):
                widths[side] = None
    return widths[0], widths[1]


def _distinct(values: list[bytes]) -> tuple[list[bytes], NDArray[np.int64]]:
    """Return the M distinct values in the order of their first appearance, and the index of each of N values, (N,)."""
    numbers: dict[bytes, int] = {}
    indices = [numbers.setdefault(value, len(numbers)) for value in values]
    return list(numbers), np.array(indices, dtype=np.int64)
