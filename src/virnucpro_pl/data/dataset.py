"""The dataset whose items are packed batches; worker processes import it without lightning."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from virnucpro_pl.data.batch import OrfBatch
from virnucpro_pl.data.packing import Plan
from virnucpro_pl.encoders.dnabert_s import DnaTokenizer
from virnucpro_pl.encoders.esm2 import ProteinTokenizer
from virnucpro_pl.encoders.packed import pack
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
