"""Score shards: the scores of finished batches on disk, so that a killed run loses only the batches in flight."""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
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
from virnucpro_pl.sequence.stored_array import BLOCK_ROWS

log = logging.getLogger(__name__)

_FORMAT = "2"
_COLUMNS = pa.schema(
    [("batch", pa.int64()), ("orf", pa.int64()), ("others_score", pa.float32()), ("virus_score", pa.float32())]
)


class BatchPlan(Protocol):
    """Part of a batch plan that score shards read."""

    @property
    def key(self) -> str:
        """Return the text that tells this plan, and the scores of its run, from others."""
        ...

    @property
    def num_batches(self) -> int:
        """Return the number of batches."""
        ...

    def batch(self, number: int) -> NDArray[np.int64]:
        """Return the rows of the ORF store in one batch."""
        ...


class ScoredBatch(NamedTuple):
    """Scores of one batch of the plan."""

    number: int
    orfs: NDArray[np.int64]
    """(N,) rows of the ORF store"""
    scores: NDArray[np.float32]
    """(N, 2) probabilities of ``others`` and ``virus``"""


class DamagedShardError(Exception):
    """A score shard is damaged or of another run."""


class ScoreShards:
    """The score shards of a run: small Parquet files that each hold whole batches, in one folder for each plan.

    A shard appears complete or not at all. It carries its number of rows, a checksum of them, and the digest of the
    plan's key.

    Args:
        root: folder of the folders; made when the first shard is written.
    """

    def __init__(self, root: Path):
        self.root = root

    def folder(self, plan_key: str) -> Path:
        """Return the folder of the shards of a plan."""
        return self.root / _digest(plan_key)[:16]

    def write(self, plan_key: str, batches: Sequence[ScoredBatch]) -> None:
        """Write batches as one shard.

        Raises:
            OSError: the shard cannot be written; nothing is left of it.
        """
        folder = self.folder(plan_key)
        folder.mkdir(parents=True, exist_ok=True)
        scores = np.concatenate([batch.scores for batch in batches])
        columns = [
            np.repeat([batch.number for batch in batches], [len(batch.orfs) for batch in batches]),
            np.concatenate([batch.orfs for batch in batches]),
            scores[:, 0],
            scores[:, 1],
        ]
        table = pa.table(columns, schema=_COLUMNS)
        metadata = {"format": _FORMAT, "key": _digest(plan_key), "rows": str(len(table)), "sha256": _checksum(table)}
        shard = folder / f"part-{batches[0].number:09d}.parquet"
        with replacing(shard) as unfinished, open_arrow(unfinished, "wb") as stream:
            pq.write_table(table.replace_schema_metadata(metadata), stream)

    def note_token_budget(self, plan_key: str, token_budget: int) -> None:
        """Note the token budget that was found, so that a later start makes the same plan."""
        write_text(self.folder(plan_key) / "token_budget", str(token_budget))

    def noted_token_budget(self, plan_key: str) -> int | None:
        """Return the token budget that an earlier start has found, None if there is none."""
        try:
            return int((self.folder(plan_key) / "token_budget").read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None

    def clear_unfinished(self) -> None:
        """Remove the temporary files of a run that was killed; no process may be writing."""
        for path in self.root.glob(f"*/*{UNFINISHED}"):
            path.unlink(missing_ok=True)

    def missing(self, plan: BatchPlan) -> NDArray[np.int64]:
        """Return the numbers of the batches that no shard holds, (M,), ascending; damaged shards are set aside."""
        done = np.zeros(plan.num_batches, dtype=np.bool_)
        for _ in self._read_all(plan, done):
            pass
        return np.flatnonzero(~done)

    def gather(
        self, plan: BatchPlan, repeats: Iterable[NDArray[np.int64]], scores: ScoreFile | NDArray[np.float32]
    ) -> None:
        """Fill in the scores of all ORFs, each from exactly one shard.

        Args:
            plan: plan whose batches must all be there.
            repeats: blocks of (R, 2) rows: ORFs that are not in the plan, and the ORF of the plan that each repeats.
            scores: (orfs, 2) filled in place.

        Raises:
            MissingScoresError: batches are missing, or in shards that were set aside, or an ORF is in no batch.
        """
        done = np.zeros(plan.num_batches, dtype=np.bool_)
        for shard in self._read_all(plan, done):
            columns = [shard[name].to_numpy() for name in ("others_score", "virus_score")]
            scores[shard["orf"].to_numpy()] = np.stack(columns, axis=1)
        if missing := int(np.count_nonzero(~done)):
            raise MissingScoresError(
                f"scores of {missing} of {plan.num_batches} batches are missing from the score shards in"
                f" {self.folder(plan.key)}; no result file was written"
            )
        for pairs in repeats:
            scores[pairs[:, 0]] = scores[pairs[:, 1]]
        for start in range(0, len(scores), BLOCK_ROWS):
            if np.isnan(scores[start : start + BLOCK_ROWS]).any():
                raise MissingScoresError(
                    f"{self.folder(plan.key)}: the batch plan does not cover all ORFs; start over with overwrite=true"
                )

    def _read_all(self, plan: BatchPlan, done: NDArray[np.bool_]) -> Iterator[pa.Table]:
        """Yield the intact shards and mark their batches as done; set the others aside."""
        for path in sorted(self.folder(plan.key).glob("part-*.parquet")):
            try:
                shard = _read(path, _digest(plan.key))
                numbers = _check_rows(shard, plan, done)
            except DamagedShardError as error:
                aside = path.with_name(f"{path.name}.set-aside")
                path.replace(aside)
                log.warning("%s: %s; set aside as %s, its scores are computed again", path, error, aside.name)
                continue
            done[numbers] = True
            yield shard


def _read(path: Path, key: str) -> pa.Table:
    try:
        with open_arrow(path) as stream:
            shard = pq.read_table(stream)
    except (pa.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a fault of the disk, not of the file
        raise DamagedShardError(f"damaged ({' '.join(str(error).split())})") from error
    found = {name.decode(): value.decode() for name, value in (shard.schema.metadata or {}).items()}
    if not shard.schema.equals(_COLUMNS) or found.get("format") != _FORMAT:
        raise DamagedShardError("not a score shard of this version of the program")
    if found.get("key") != key:
        raise DamagedShardError("a score shard of another run")
    if found.get("rows") != str(len(shard)) or found.get("sha256") != _checksum(shard):
        raise DamagedShardError("damaged (wrong checksum)")
    return shard


def _digest(plan_key: str) -> str:
    return hashlib.sha256(plan_key.encode()).hexdigest()[:32]


def _checksum(shard: pa.Table) -> str:
    digest = hashlib.sha256()
    for column in shard.columns:
        digest.update(np.ascontiguousarray(column.to_numpy()).data)
    return digest.hexdigest()


def _check_rows(shard: pa.Table, plan: BatchPlan, done: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the numbers of the batches in a shard.

    Raises:
        DamagedShardError: the shard holds other rows than planned, a batch of another shard, or scores that are NaN or
            infinite.
    """
    batches, orfs = shard["batch"].to_numpy(), shard["orf"].to_numpy()
    is_first = np.ones(len(batches), dtype=np.bool_)
    is_first[1:] = np.diff(batches) != 0
    starts = np.flatnonzero(is_first)
    numbers = batches[starts]
    if len(set(numbers.tolist())) < len(numbers) or not ((numbers >= 0) & (numbers < plan.num_batches)).all():
        raise DamagedShardError("holds batches that are not in the plan")
    if done[numbers].any():
        raise DamagedShardError("holds batches that another score shard holds, too")
    for number, start, end in zip(numbers.tolist(), starts, [*starts[1:], len(batches)], strict=True):
        if not np.array_equal(orfs[start:end], plan.batch(number)):
            raise DamagedShardError(f"holds other rows of batch {number} than planned")
    if not all(np.isfinite(shard[name].to_numpy()).all() for name in ("others_score", "virus_score")):
        raise DamagedShardError("holds scores that are NaN or infinite")
    return numbers  # type: ignore[no-any-return]
