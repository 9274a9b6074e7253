"""Where records come from: their file, and a name no other record has."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virnucpro_pl.sequence.mates import final_names
from virnucpro_pl.sequence.stored_array import StoredArray


class UniqueNames:
    """Names mates ``NAME/1`` and ``NAME/2``; a record that repeats an earlier name gets a suffix with its number.

    Args:
        store: the ORF store.
        manifest: what its ``manifest.json`` holds.
    """

    def __init__(self, store: Path, manifest: dict[str, Any]):
        self._inputs = manifest["inputs"]
        self._suffix = manifest["duplicate_suffix"]
        self._repeats = StoredArray(store / "duplicate_names.npy")
        self._row = 0

    def of(self, first_record: int, names: Sequence[str]) -> list[str]:
        """Name the next records, given the number of the first, from 0, and their names in their files."""
        unique = final_names(self._inputs, first_record, names)
        repeats = self._repeats[self._row : self._row + len(names)]
        repeats = repeats[repeats[:, 0] < first_record + len(names)]
        self._row += len(repeats)
        for record, number in repeats.tolist():
            unique[record - first_record] += f"{self._suffix}{number}"
        return unique


def files_of(inputs: Sequence[dict[str, Any]], first_record: int, count: int) -> NDArray[np.int64]:
    """Tell which of the inputs each of ``count`` consecutive records comes from.

    >>> files_of([{"records": 2}, {"records": 0}, {"records": 1}], 1, 2).tolist()
    [0, 2]
    """
    ends = np.cumsum([source["records"] for source in inputs])
    return np.searchsorted(ends, np.arange(first_record, first_record + count), side="right")
