"""Tokenizers of both encoders."""

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.files.file_names import utf8_name


class DnaTokenizer:
    """Byte-pair tokenizer of a DNABERT-S checkpoint, which adds ``[CLS]`` before and ``[SEP]`` after each sequence.

    Args:
        folder: checkpoint folder with the files that ``transformers`` saves for a fast tokenizer.
    """

    def __init__(self, folder: str):
        from transformers import PreTrainedTokenizerFast  # takes a second to import

        self._folder = folder
        with utf8_name(folder) as name:
            fast = PreTrainedTokenizerFast.from_pretrained(name, local_files_only=True)
        self._tokenizer = fast.backend_tokenizer
        # The published file sets padding to 2,000 tokens, which the published program never applied.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    @property
    def vocabulary(self) -> int:
        """Return the number of tokens; ids are smaller."""
        return int(self._tokenizer.get_vocab_size())

    def __reduce__(self) -> tuple[type["DnaTokenizer"], tuple[str]]:
        return DnaTokenizer, (self._folder,)

    def __call__(self, sequences: list[bytes]) -> list[NDArray[np.int64]]:
        """Return the token ids of each sequence, which must be upper-case."""
        texts = [sequence.decode("latin-1") for sequence in sequences]
        return [np.array(encoding.ids, dtype=np.int64) for encoding in self._tokenizer.encode_batch_fast(texts)]


def protein_tokenizer() -> "ProteinTokenizer":
    """Return the tokenizer of all ESM-2 models, from fair-esm's alphabet."""
    from esm.data import Alphabet  # takes a second to import

    return ProteinTokenizer(Alphabet.from_architecture("ESM-1b").to_dict())


class ProteinTokenizer:
    """Table from residues to token ids, which adds ``<cls>`` before and ``<eos>`` after each protein."""

    def __init__(self, vocabulary: dict[str, int]):
        self._table = np.full(256, vocabulary["<unk>"], dtype=np.int64)
        for token, number in vocabulary.items():
            if len(token) == 1:
                self._table[ord(token)] = number
        self._ends = vocabulary["<cls>"], vocabulary["<eos>"]

    def __call__(self, proteins: list[bytes]) -> list[NDArray[np.int64]]:
        """Return the token ids of each protein."""
        first, last = self._ends
        return [
            np.concatenate(([first], self._table[np.frombuffer(protein, dtype=np.uint8)], [last]))
            for protein in proteins
        ]
