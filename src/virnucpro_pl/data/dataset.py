"""The dataset whose items are packed batches; worker processes import it without lightning."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from virnucpro_pl.data.batch import OrfBatch
from virnucpro_pl.data.packing import Plan
from virnucpro_pl.encoders.dnabert_s import DnaTokenizer
from virnucpro_pl.encoders.esm2 import ProteinTokenizer
from virnucpro_pl.encoders.packed import PackedTokens, pack
from virnucpro_pl.sequence.store import OrfStore


class OrfBatches(Dataset[OrfBatch]):
    """The batches of a plan that are still to be embedded; an item is one packed batch."""

    def __init__(
        self,
        store: OrfStore,
        plan: Plan,
        numbers: NDArray[np.int64],
        dna_tokenizer: DnaTokenizer,
        protein_tokenizer: ProteinTokenizer,
        deduplicate: bool,
    ):
        self.numbers = numbers
        self._store = store
        self._plan = plan
        self._dna_tokenizer = dna_tokenizer
        self._protein_tokenizer = protein_tokenizer
        self._deduplicate = deduplicate

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> OrfBatch:
        number = int(self.numbers[index])
        orfs = self._plan.batch(number)
        dna, dna_places = self._packed(self._store.nucleotides.take(orfs), self._dna_tokenizer)
        protein, protein_places = self._packed(self._store.proteins.take(orfs), self._protein_tokenizer)
        return OrfBatch(number, torch.from_numpy(orfs), dna, dna_places, protein, protein_places)

    def _packed(
        self, sequences: list[bytes], tokenizer: Callable[[list[bytes]], list[NDArray[np.int64]]]
    ) -> tuple[PackedTokens, Tensor]:
        """Pack (N) sequences, longest first, and return where each of them is, (N,)."""
        places = np.arange(len(sequences))
        if self._deduplicate:
            sequences, places = _distinct(sequences)
        tokens = tokenizer(sequences)
        by_length = np.argsort([-len(one) for one in tokens], kind="stable")
        place_of = np.empty_like(by_length)
        place_of[by_length] = np.arange(len(by_length))
        return pack([tokens[i] for i in by_length]), torch.from_numpy(place_of[places])


def _distinct(values: list[bytes]) -> tuple[list[bytes], NDArray[np.int64]]:
    """Return the M distinct values, as they first appear, and which of them each of the N values is, (N,)."""
    numbers: dict[bytes, int] = {}
    places = [numbers.setdefault(value, len(numbers)) for value in values]
    return list(numbers), np.array(places, dtype=np.int64)
