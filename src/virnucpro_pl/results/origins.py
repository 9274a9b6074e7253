"""Unique names and input files of records."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.runs.record_types import InputFile
from virnucpro_pl.sequence.mates import final_names
from virnucpro_pl.sequence.stored_array import StoredArray


class UniqueNames:
    """Unique names: mates are ``NAME/1`` and ``NAME/2``, repeated names get a suffix with their number.

    Args:
        store: folder of the ORF store.
        manifest: content of its ``manifest.json``.
    """

    def __init__(self, store: Path, manifest: dict[str, Any]):
        self._inputs = manifest["inputs"]
        self._suffix = manifest["duplicate_suffix"]
        self._repeats = StoredArray(store / "duplicate_names.npy")
        self._row = 0

    def of(self, first_record: int, names: Sequence[str]) -> list[str]:
        """Return the names of the next records, given the number of the first, from 0, and their names in the input."""
        unique = final_names(self._inputs, first_record, names)
        repeats = self._repeats[self._row : self._row + len(names)]
        repeats = repeats[repeats[:, 0] < first_record + len(names)]
        self._row += len(repeats)
        for record, number in repeats.tolist():
            unique[record - first_record] += f"{self._suffix}{number}"
        return unique


def files_of(inputs: Sequence[InputFile], first_record: int, count: int) -> NDArray[np.int64]:
    """Return the index of the input of each of ``count`` consecutive records.

    >>> files_of([{"records": 2}, {"records": 0}, {"records": 1}], 1, 2).tolist()
    [0, 2]
    """
    ends = np.cumsum([source["records"] for source in inputs])
    return np.searchsorted(ends, np.arange(first_record, first_record + count), side="right")
