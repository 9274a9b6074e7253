"""Counts of calls."""

from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from virnucpro_pl.results.consensus import CALLS, Consensus, call_orfs
from virnucpro_pl.results.slices import Chunks, Records
from virnucpro_pl.sequence.translation import WHOLE_CHUNK


class CallCounts:
    """Counts of the calls of records, chunks and ORFs.

    Args:
        num_files: number of input files.
    """

    def __init__(self, num_files: int) -> None:
        self._by_file = np.zeros((num_files, len(CALLS)), dtype=np.int64)
        self._chunks = np.zeros(len(CALLS), dtype=np.int64)
        self._orfs = np.zeros(2, dtype=np.int64)
        self._out_of_domain = 0

    def add(self, part: Records, chunks: Consensus, records: Consensus, domain_length: int) -> None:
        """Add consecutive records with all their chunks."""
        lengths = pc.binary_length(part.records.column("sequence")).to_numpy()
        self._out_of_domain += int(np.count_nonzero(lengths < domain_length))
        np.add.at(self._by_file, (part.files, records.calls), 1)
        self._chunks += np.bincount(chunks.calls, minlength=len(CALLS))

    def add_orfs(self, part: Chunks, threshold: float) -> None:
        """Add the ORFs of consecutive chunks."""
        self._orfs += np.bincount(call_orfs(part.scores[part.frames != WHOLE_CHUNK], threshold), minlength=2)

    def as_dict(self) -> dict[str, Any]:
        """Return the counts for ``run.json``."""
        return {
            "records": _by_call(self._by_file.sum(axis=0)),
            "chunks": _by_call(self._chunks),
            "orfs": _by_call(self._orfs),
            "files": [*map(_by_call, self._by_file)],
            "out_of_domain": self._out_of_domain,
        }


def _by_call(counts: NDArray[np.int64]) -> dict[str, int]:
    return dict(zip([call or "not_called" for call in CALLS], counts.tolist(), strict=False))
