"""Finished batches on disk, so that a killed run loses at most what was in flight."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from virnucpro_pl.errors import MissingScoresError
from virnucpro_pl.files.durable import UNFINISHED, replacing, write_text
from virnucpro_pl.files.file_names import open_arrow
from virnucpro_pl.runs.score_file import ScoreFile

log = logging.getLogger(__name__)

_FORMAT = "2"
_COLUMNS = pa.schema(
    [("batch", pa.int64()), ("orf", pa.int64()), ("others_score", pa.float32()), ("virus_score", pa.float32())]
)


class BatchRows(Protocol):
    """What parts need to know of a plan."""

    @property
    def num_batches(self) -> int:
        """How many batches there are."""
        ...

    def batch(self, number: int) -> NDArray[np.int64]:
        """Rows of the ORF store in one batch."""
        ...


class ScoredBatch(NamedTuple):
    """One batch of the plan, scored."""

    number: int
    orfs: NDArray[np.int64]
    """(N,) rows of the ORF store"""
    scores: NDArray[np.float32]
    """(N, 2) probabilities of ``others`` and ``virus``"""


class DamagedShardError(Exception):
    """The file holds something else than scores of this run; the message says what."""


@dataclass(frozen=True)
class ScoreShardsOfModel:
    """Where the parts of one model's runs are kept; parts of other weights or settings are never mixed in."""

    root: Path
    fingerprint: str
    """Tells input, weights and numerics apart"""

    def __call__(self, plan_key: str) -> "ScoreShards":
        """Return the parts of one plan."""
        key = hashlib.sha256(f"{self.fingerprint} {plan_key}".encode()).hexdigest()[:32]
        return ScoreShards(self.root / key[:16], key)


class ScoreShards:
    """A folder of small Parquet files, each holding whole batches.

    A file is there complete or not at all, and carries its number of rows, a checksum of them, and the key of the run
    it belongs to.

    Args:
        folder: made when the first part is written.
        key: of the plan and all that its scores depend on.
    """

    def __init__(self, folder: Path, key: str):
        self.folder = folder
        self._key = key

    def write(self, batches: Sequence[ScoredBatch]) -> None:
        """Write batches as one part.

        Raises:
            OSError: it cannot be written; there is no trace of it then.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        scores = np.concatenate([batch.scores for batch in batches])
        columns = [
            np.repeat([batch.number for batch in batches], [len(batch.orfs) for batch in batches]),
            np.concatenate([batch.orfs for batch in batches]),
            scores[:, 0],
            scores[:, 1],
        ]
        table = pa.table(columns, schema=_COLUMNS)
        metadata = {"format": _FORMAT, "key": self._key, "rows": str(len(table)), "sha256": _checksum(table)}
        part = self.folder / f"part-{batches[0].number:09d}.parquet"
        with replacing(part) as unfinished, open_arrow(unfinished, "wb") as stream:
            pq.write_table(table.replace_schema_metadata(metadata), stream)

    def note_token_budget(self, token_budget: int) -> None:
        """Leave the budget that was found for this plan, so that a later start makes the same plan."""
        write_text(self.folder / "token_budget", str(token_budget))

    def noted_token_budget(self) -> int | None:
        """Return the budget an earlier start found, None if there was none."""
        try:
            return int((self.folder / "token_budget").read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None

    def clear_unfinished(self) -> None:
        """Remove what was being written when an earlier run was killed; nobody else may be writing."""
        for path in self.folder.glob(f"*{UNFINISHED}"):
            path.unlink(missing_ok=True)

    def waiting_batches(self, plan: BatchRows) -> NDArray[np.int64]:
        """(W,) numbers, ascending, of the batches of a plan that are not on disk; unusable parts are set aside."""
        done = np.zeros(plan.num_batches, dtype=np.bool_)
        for _ in self._read_all(plan, done):
            pass
        return np.flatnonzero(~done)

    def gather(self, plan: BatchRows, scores: ScoreFile | NDArray[np.float32]) -> None:
        """Fill in the scores of all ORFs of a plan, each from exactly one part.

        Args:
            plan: every batch of it must be there.
            scores: (orfs, 2) filled in place.

        Raises:
            MissingScoresError: batches are missing, or in parts that had to be set aside.
        """
        done = np.zeros(plan.num_batches, dtype=np.bool_)
        for part in self._read_all(plan, done):
            columns = [part[name].to_numpy() for name in ("others_score", "virus_score")]
            scores[part["orf"].to_numpy()] = np.stack(columns, axis=1)
        if missing := int(np.count_nonzero(~done)):
            raise MissingScoresError(
                f"scores of {missing} of {plan.num_batches} batches are missing from the parts in {self.folder}; no"
                " result file was written"
            )

    def _read_all(self, plan: BatchRows, done: NDArray[np.bool_]) -> Iterator[pa.Table]:
        """Yield the parts that are as they were written, marking their batches ``done``; set the others aside."""
        for path in sorted(self.folder.glob("part-*.parquet")):
            try:
                part = self._read(path)
                numbers = _check_rows(part, plan, done)
            except DamagedShardError as error:
                aside = path.with_name(f"{path.name}.set-aside")
                path.replace(aside)
                log.warning("%s: %s; set aside as %s, its scores are computed again", path, error, aside.name)
                continue
            done[numbers] = True
            yield part

    def _read(self, path: Path) -> pa.Table:
        try:
            with open_arrow(path) as stream:
                part = pq.read_table(stream)
        except (pa.ArrowException, ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's mistake, not the file's
            raise DamagedShardError(f"damaged ({' '.join(str(error).split())})") from error
        found = {name.decode(): value.decode() for name, value in (part.schema.metadata or {}).items()}
        if not part.schema.equals(_COLUMNS) or found.get("format") != _FORMAT:
            raise DamagedShardError("no part of this version of the program")
        if found.get("key") != self._key:
            raise DamagedShardError("a part of another run")
        if found.get("rows") != str(len(part)) or found.get("sha256") != _checksum(part):
            raise DamagedShardError("damaged (its checksum is another)")
        return part


def _checksum(part: pa.Table) -> str:
    digest = hashlib.sha256()
    for column in part.columns:
        digest.update(np.ascontiguousarray(column.to_numpy()).data)
    return digest.hexdigest()


def _check_rows(part: pa.Table, plan: BatchRows, done: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the numbers of the batches in a part, after making sure that it has all their rows and nobody else has."""
    batches, orfs = part["batch"].to_numpy(), part["orf"].to_numpy()
    is_first = np.ones(len(batches), dtype=np.bool_)
    is_first[1:] = np.diff(batches) != 0
    starts = np.flatnonzero(is_first)
    numbers = batches[starts]
    if len(set(numbers.tolist())) < len(numbers) or not ((numbers >= 0) & (numbers < plan.num_batches)).all():
        raise DamagedShardError("holds batches that were not planned")
    if done[numbers].any():
        raise DamagedShardError("holds batches that another part has too")
    for number, start, end in zip(numbers.tolist(), starts, [*starts[1:], len(batches)], strict=True):
        if not np.array_equal(orfs[start:end], plan.batch(number)):
            raise DamagedShardError(f"holds other rows of batch {number} than planned")
    if not all(np.isfinite(part[name].to_numpy()).all() for name in ("others_score", "virus_score")):
        raise DamagedShardError("holds scores that are no numbers")
    return numbers  # type: ignore[no-any-return]
