"""Finished batches on disk: what is gathered is what was written, or nothing is."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro_pl.errors import MissingScoresError
from virnucpro_pl.runs.score_shards import ScoredBatch, ScoreShards


class PlanOf(NamedTuple):
    """Plan given as the rows of its batches."""

    batches: list[list[int]]
    key: str = "this run"

    @property
    def num_batches(self) -> int:
        return len(self.batches)

    def batch(self, number: int) -> np.ndarray:
        return np.array(self.batches[number], dtype=np.int64)


PLAN = PlanOf([[3, 1], [4, 0], [2]])
KEY = PLAN.key


def scored(number: int, plan: PlanOf = PLAN, *, rows: list[int] | None = None) -> ScoredBatch:
    """A batch whose scores tell the ORF."""
    orfs = plan.batch(number) if rows is None else np.array(rows, dtype=np.int64)
    virus = orfs.astype(np.float32) / 1000
    return ScoredBatch(number, orfs, np.stack([1 - virus, virus], axis=1))


def gathered(parts: ScoreShards, plan: PlanOf = PLAN) -> list[int]:
    scores = np.full((sum(map(len, plan.batches)), 2), -1, dtype=np.float32)
    parts.gather(plan, (), scores)
    return [round(float(score) * 1000) for score in scores[:, 1]]


@pytest.fixture
def parts(tmp_path: Path) -> ScoreShards:
    return ScoreShards(tmp_path / "parts")


def files(parts: ScoreShards) -> list[Path]:
    return sorted(parts.root.glob("*/part-*.parquet"))


def test_scores_come_back_at_their_rows(parts: ScoreShards) -> None:
    parts.write(KEY, [scored(0), scored(2)])
    assert parts.missing(PLAN).tolist() == [1]
    parts.write(KEY, [scored(1)])

    assert parts.missing(PLAN).tolist() == []
    assert gathered(parts) == [0, 1, 2, 3, 4]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), max_size=5), st.randoms())
def test_any_cut_into_batches_and_parts_gives_the_same_scores(tmp_path_factory, sizes, random) -> None:
    parts = ScoreShards(tmp_path_factory.mktemp("parts"))
    rows = random.sample(range(sum(map(sum, sizes))), sum(map(sum, sizes)))
    lengths = [length for part in sizes for length in part]
    starts = np.cumsum([0, *lengths])
    plan = PlanOf([rows[start : start + length] for start, length in zip(starts, lengths, strict=False)])
    numbers = iter(range(len(lengths)))
    written = [[scored(next(numbers), plan) for _ in part] for part in sizes]
    random.shuffle(written)
    for batches in written:
        parts.write(KEY, batches)

    assert gathered(parts, plan) == list(range(len(rows)))
    assert parts.missing(plan).tolist() == []


def test_scores_keep_every_bit(parts: ScoreShards) -> None:
    scores = np.nextafter(np.float32([[0.1, 0.9], [1e-30, 1]]), np.float32(1))
    parts.write(KEY, [ScoredBatch(0, np.arange(2), scores)])
    found = np.zeros((2, 2), dtype=np.float32)
    parts.gather(PlanOf([[0, 1]]), (), found)

    assert found.tobytes() == scores.tobytes()


def test_no_parts_and_nothing_planned_is_no_mistake(parts: ScoreShards) -> None:
    assert parts.missing(PlanOf([])).tolist() == []
    assert gathered(parts, PlanOf([])) == []


def test_missing_batches_are_told(parts: ScoreShards) -> None:
    parts.write(KEY, [scored(1)])

    with pytest.raises(MissingScoresError, match=r"2 of 3 batches are missing.*no result file was written"):
        gathered(parts)


def test_a_folder_may_look_like_a_key_and_its_value(tmp_path: Path) -> None:
    """Parquet readers like to take folder=names for columns."""
    parts = ScoreShards(tmp_path / "sample=1" / "parts")
    parts.write(KEY, [scored(0), scored(1), scored(2)])

    assert gathered(parts) == [0, 1, 2, 3, 4]


# --- what is not as it was written


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip_a_bit(path: Path) -> None:
    """In a score, where the file stays readable."""
    table = pq.read_table(path)
    content = bytearray(path.read_bytes())
    score = table["virus_score"].to_numpy()[:1].tobytes()
    content[content.index(score)] ^= 1
    path.write_bytes(content)


def drop_a_row(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)


def take_another_ones(path: Path) -> None:
    stranger = ScoreShards(path.parent.with_name("stranger"))
    stranger.write("other run", [scored(1)])
    files(stranger)[0].replace(path)


def take_an_old_format(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata(None), path)


def take_another_table(path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), path)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (truncate, "damaged"),
        (empty, "damaged"),
        (flip_a_bit, "checksum"),
        (drop_a_row, "checksum"),
        (take_another_ones, "of another run"),
        (take_an_old_format, "of this version"),
        (take_another_table, "of this version"),
    ],
)
def test_an_unusable_part_is_set_aside_and_its_batches_wait_again(
    parts: ScoreShards, damage: Callable[[Path], None], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """R23"""
    for number in range(3):
        parts.write(KEY, [scored(number)])
    part = files(parts)[1]
    damage(part)

    with caplog.at_level(logging.WARNING):
        assert parts.missing(PLAN).tolist() == [1]
    (message,) = caplog.messages
    assert str(part) in message
    assert told in message
    assert "set aside" in message
    assert part.with_name(f"{part.name}.set-aside").exists()
    parts.write(KEY, [scored(1)])
    assert gathered(parts) == [0, 1, 2, 3, 4]


def test_damage_that_comes_late_is_noticed_when_scores_are_gathered(parts: ScoreShards) -> None:
    parts.write(KEY, [scored(0), scored(1), scored(2)])
    assert parts.missing(PLAN).tolist() == []
    flip_a_bit(files(parts)[0])

    with pytest.raises(MissingScoresError, match="3 of 3 batches"):
        gathered(parts)
    assert parts.missing(PLAN).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "batch",
    [
        scored(1, rows=[4]),
        scored(1, rows=[0, 4]),
        scored(1, rows=[4, 0, 0]),
        scored(1, rows=[4, 9]),
        scored(7, rows=[0]),
        scored(-1, rows=[0]),
    ],
)
def test_rows_that_were_not_planned_so_are_never_used(parts: ScoreShards, batch: ScoredBatch) -> None:
    parts.write(KEY, [scored(0)])
    parts.write(KEY, [batch])

    assert parts.missing(PLAN).tolist() == [1, 2]
    assert len(files(parts)) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_never_used(parts: ScoreShards, value: float) -> None:
    batch = scored(0)
    batch.scores[1, 0] = value
    parts.write(KEY, [batch])

    assert 0 in parts.missing(PLAN)


def test_a_batch_in_two_parts_counts_once(parts: ScoreShards) -> None:
    parts.write(KEY, [scored(0), scored(1)])
    parts.write(KEY, [scored(1), scored(2)])
    assert parts.missing(PLAN).tolist() == [2]
    parts.write(KEY, [scored(2)])

    assert gathered(parts) == [0, 1, 2, 3, 4]


def test_a_batch_twice_in_one_part_is_never_used(parts: ScoreShards) -> None:
    parts.write(KEY, [scored(0), scored(1), scored(0)])

    assert parts.missing(PLAN).tolist() == [0, 1, 2]


def test_a_part_that_was_being_written_when_the_run_was_killed_does_not_count(parts: ScoreShards) -> None:
    parts.write(KEY, [scored(0)])
    unfinished = parts.folder(KEY) / "part-000000001.parquet.0123.tmp"
    unfinished.write_bytes(b"PAR1 half a file")
    assert parts.missing(PLAN).tolist() == [1, 2]
    parts.clear_unfinished()

    assert not unfinished.exists()
    assert len(files(parts)) == 1


def test_writing_a_batch_again_replaces_its_part(parts: ScoreShards) -> None:
    for _ in range(2):
        parts.write(KEY, [scored(0), scored(1), scored(2)])

    assert gathered(parts) == [0, 1, 2, 3, 4]
    assert [path.name for path in parts.folder(KEY).iterdir()] == ["part-000000000.parquet"]


def test_parts_are_readable_by_other_tools(parts: ScoreShards) -> None:
    parts.write(KEY, [scored(2)])
    table = pq.read_table(files(parts)[0])

    assert table.column_names == ["batch", "orf", "others_score", "virus_score"]
    assert table.to_pylist() == [
        {"batch": 2, "orf": 2, "others_score": pytest.approx(0.998), "virus_score": pytest.approx(0.002)}
    ]
    assert table.schema.metadata[b"rows"] == b"1"
    assert len(table.schema.metadata[b"sha256"]) == 64


def test_shards_of_other_plans_lie_elsewhere(parts: ScoreShards) -> None:
    parts.write(KEY, [scored(0)])

    assert parts.missing(PLAN).tolist() == [1, 2]
    assert parts.missing(PLAN._replace(key="other weights")).tolist() == [0, 1, 2]


def test_repeated_orfs_get_the_scores_of_the_first_one(parts: ScoreShards) -> None:
    parts.write(KEY, [scored(0), scored(1), scored(2)])
    scores = np.full((7, 2), np.nan, dtype=np.float32)
    parts.gather(PLAN, [np.array([[5, 3]]), np.array([[6, 0]])], scores)

    assert scores[5].tolist() == scores[3].tolist()
    assert scores[6].tolist() == scores[0].tolist()


def test_an_orf_that_no_batch_holds_is_noticed(parts: ScoreShards) -> None:
    parts.write(KEY, [scored(0), scored(1), scored(2)])

    with pytest.raises(MissingScoresError, match=r"does not cover all ORFs; start over with overwrite=true"):
        parts.gather(PLAN, (), np.full((6, 2), np.nan, dtype=np.float32))
