"""Calls and statuses counted in the result files, for comparison with the run record."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from virnucpro_pl.files.output_files import CHUNK_TABLE, ORF_TABLE, RECORD_TABLE
from virnucpro_pl.results.consensus import CALLS
from virnucpro_pl.results.row_streams import DisagreementError
from virnucpro_pl.sequence.layout import STATUSES


class CallTally:
    """Counts of the rows of a run's tables.

    Args:
        counts: counts of the run record.
    """

    def __init__(self, counts: Mapping[str, Any]):
        self._counts = counts
        self._calls = np.zeros((len(counts["inputs"]), len(CALLS)), dtype=np.int64)
        self._chunk_calls = np.zeros(len(CALLS), dtype=np.int64)
        self._orf_calls = np.zeros(2, dtype=np.int64)
        self._status = np.zeros(len(STATUSES), dtype=np.int64)
        self._chunk_status = np.zeros(len(STATUSES), dtype=np.int64)
        self._letters = np.zeros(len(counts["inputs"]), dtype=np.int64)
        self._bases = 0
        self._domain = _Domain()

    def add_records(
        self,
        files: NDArray[np.int64],
        calls: NDArray[np.uint8],
        status: NDArray[np.int64],
        lengths: NDArray[np.int64],
        out_of_domain: pa.ChunkedArray,
    ) -> None:
        """Add records: the number of the input, call, status, length in bases and domain of each."""
        np.add.at(self._calls, (files, calls), 1)
        np.add.at(self._letters, files, lengths)
        self._status += np.bincount(status, minlength=len(STATUSES))
        self._bases += int(lengths.sum())
        self._domain.add(lengths, out_of_domain)

    def add_chunks(self, calls: NDArray[np.uint8], status: NDArray[np.int64]) -> None:
        """Add the calls and statuses of chunks."""
        self._chunk_calls += np.bincount(calls, minlength=len(CALLS))
        self._chunk_status += np.bincount(status, minlength=len(STATUSES))

    def add_orfs(self, is_viral: NDArray[np.bool_]) -> None:
        """Add ORFs."""
        self._orf_calls += np.bincount(is_viral, minlength=2)

    def check_against_run_record(self) -> None:
        """Raise DisagreementError if a count of the run record differs."""
        counts, calls = self._counts, self._counts["calls"]
        for source, found, letters in zip(counts["inputs"], self._calls, self._letters.tolist(), strict=True):
            _compare(RECORD_TABLE, f"calls of {source['path']}", _by_call(found), source["calls"])
            _compare(RECORD_TABLE, f"bases of {source['path']}", {"all": letters}, {"all": source["letters"]})
        _compare(
            RECORD_TABLE, "statuses", dict(zip(STATUSES, self._status.tolist(), strict=True)), counts["record_status"]
        )
        _compare(RECORD_TABLE, "bases", {"all": self._bases}, {"all": counts["bases"]})
        self._domain.check(calls["out_of_domain"])
        statuses = dict(zip(STATUSES, self._chunk_status.tolist(), strict=True))
        _compare(CHUNK_TABLE, "statuses", statuses, counts["chunk_status"])
        _compare(CHUNK_TABLE, "calls", _by_call(self._chunk_calls), calls["chunks"])
        _compare(ORF_TABLE, "calls", dict(zip(CALLS, self._orf_calls.tolist(), strict=False)), calls["orfs"])


def _by_call(counts: NDArray[np.int64]) -> dict[str | None, int]:
    return dict(zip([call or "not_called" for call in CALLS], counts.tolist(), strict=True))


def _compare(file: str, what: str, found: Mapping[Any, int], wanted: Mapping[str, int]) -> None:
    filled = [{name: count for name, count in counts.items() if count} for counts in (found, wanted)]
    if filled[0] != filled[1]:
        raise DisagreementError(file, f"{what}: {_shown(filled[0])}, but run.json counts {_shown(filled[1])}")


def _shown(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"


class _Domain:
    """Check that the records marked as too short are those below some length."""

    def __init__(self) -> None:
        self._marked = self._unmarked = self._unknown = self._records = 0
        self._longest, self._shortest = -1, np.iinfo(np.int64).max
        """Longest record that is marked, and shortest one that is not"""

    def add(self, lengths: NDArray[np.int64], marks: pa.ChunkedArray) -> None:
        yes, no, unknown = (pc.equal(marks, word).to_numpy() for word in ("yes", "no", "NA"))
        self._marked += int(yes.sum())
        self._unknown += int(unknown.sum())
        self._unmarked += int(no.sum())
        self._records += len(marks)
        self._longest = max(self._longest, int(lengths[yes].max(initial=-1)))
        self._shortest = min(self._shortest, int(lengths[no].min(initial=self._shortest)))

    def check(self, out_of_domain: int) -> None:
        _compare(RECORD_TABLE, "out_of_domain", {"yes": self._marked}, {"yes": out_of_domain})
        judged = self._marked + self._unmarked
        if self._longest >= self._shortest or (judged, self._unknown) not in ((0, self._records), (self._records, 0)):
            raise DisagreementError(RECORD_TABLE, "out_of_domain does not follow the length of the records")
