"""Finished batches on disk, so that a killed run loses at most what was in flight."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

_SCHEMA = pa.schema(
    [("batch", pa.int64()), ("orf", pa.int64()), ("others_score", pa.float32()), ("virus_score", pa.float32())]
)


class ScoredBatch(NamedTuple):
    """One batch of the plan, scored."""

    number: int
    orfs: NDArray[np.int64]
    """(N,) rows of the ORF store"""
    scores: NDArray[np.float32]
    """(N, 2) probabilities of ``others`` and ``virus``"""


class PartsOfModel(NamedTuple):
    """Where the parts of one model's runs are kept; parts of other weights or settings are never mixed in."""

    root: Path
    identity: str
    """Tells the weights and precision apart"""

    def __call__(self, plan_key: str) -> "Parts":
        """Return the parts of one plan."""
        name = hashlib.sha256(f"{self.identity} {plan_key}".encode()).hexdigest()[:16]
        return Parts(self.root / name)


class Parts:
    """A folder of small Parquet files, each holding whole batches; a file is there complete or not at all."""

    def __init__(self, folder: Path):
        self.folder = folder

    def write(self, batches: Sequence[ScoredBatch]) -> None:
        """Write batches as one part: to a temporary file, flushed to the disk, then renamed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        scores = np.concatenate([batch.scores for batch in batches])
        table = pa.table(
            [
                np.repeat([batch.number for batch in batches], [len(batch.orfs) for batch in batches]),
                np.concatenate([batch.orfs for batch in batches]),
                scores[:, 0],
                scores[:, 1],
            ],
            schema=_SCHEMA,
        )
        part = self.folder / f"part-{batches[0].number:09d}.parquet"
        unfinished = part.with_suffix(".tmp")
        pq.write_table(table, unfinished)
        with unfinished.open("rb") as stream:
            os.fsync(stream.fileno())
        unfinished.replace(part)

    def note_token_budget(self, token_budget: int) -> None:
        """Leave the budget that was found for this plan, so that a later start makes the same plan."""
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / "token_budget.tmp"
        unfinished.write_text(str(token_budget), encoding="ascii")
        unfinished.replace(unfinished.with_suffix(""))

    def noted_token_budget(self) -> int | None:
        """Return the budget an earlier start found, None if there was none."""
        note = self.folder / "token_budget"
        return int(note.read_text(encoding="ascii")) if note.exists() else None

    def paths(self) -> list[Path]:
        """The parts on disk, in a fixed order."""
        return sorted(self.folder.glob("part-*.parquet"))

    def done_batches(self) -> NDArray[np.int64]:
        """Numbers of the batches that are on disk."""
        columns = [pq.read_table(path, columns=["batch"])["batch"].to_numpy() for path in self.paths()]
        return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *columns]))

    def gather(self, planned: NDArray[np.int64], duplicates: NDArray[np.int64], scores: NDArray[np.float32]) -> None:
        """Fill ``scores`` from all parts and check that every planned row is there exactly once.

        Args:
            planned: (U,) rows of the ORFs the plan embeds.
            duplicates: (M, 2) rows that share the scores of another row.
            scores: (orfs, 2) filled in place.

        Raises:
            RuntimeError: a row is missing or doubled, or a score is no number.
        """
        times_seen = np.zeros(len(scores), dtype=np.uint32)
        for path in self.paths():
            part = pq.read_table(path, schema=_SCHEMA)
            rows = part["orf"].to_numpy()
            np.add.at(times_seen, rows, 1)
            scores[rows, 0] = part["others_score"].to_numpy()
            scores[rows, 1] = part["virus_score"].to_numpy()
        expected = np.zeros(len(scores), dtype=np.uint8)
        expected[planned] = 1
        if wrong := int(np.count_nonzero(times_seen != expected)):
            missing = int(np.count_nonzero(times_seen < expected))
            raise RuntimeError(
                f"{len(planned)} ORFs were planned, {missing} are missing from the parts in {self.folder} and"
                f" {wrong - missing} are there more than once; no result file was written"
            )
        if not np.isfinite(scores[planned]).all():
            raise RuntimeError("some scores are not numbers; run again with trainer.precision=32-true")
        if len(duplicates):
            scores[duplicates[:, 0]] = scores[duplicates[:, 1]]
