"""Finished batches on disk: what is gathered is what was written, or nothing is."""

import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro_pl.results.parts import Parts, PartsOfModel, ScoredBatch

NO_DUPLICATES = np.empty((0, 2), dtype=np.int64)


def scored(number: int, *orfs: int) -> ScoredBatch:
    """A batch whose scores tell the ORF."""
    virus = np.float32(orfs) / 1000
    return ScoredBatch(number, np.array(orfs, dtype=np.int64), np.stack([1 - virus, virus], axis=1))


def gathered(parts: Parts, planned: list[int], duplicates=NO_DUPLICATES, num_orfs: int | None = None) -> list[float]:
    scores = np.full((num_orfs or max(planned, default=-1) + 1, 2), -1, dtype=np.float32)
    parts.gather(np.array(planned, dtype=np.int64), duplicates, scores)
    return [round(float(score) * 1000) for score in scores[:, 1]]


@pytest.fixture
def parts(tmp_path) -> Parts:
    return Parts(tmp_path / "parts")


def test_scores_come_back_at_their_rows(parts):
    parts.write([scored(1, 4, 0), scored(3, 2)])
    parts.write([scored(0, 3, 1)])

    assert gathered(parts, [4, 0, 2, 3, 1]) == [0, 1, 2, 3, 4]
    assert parts.done_batches().tolist() == [0, 1, 3]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), max_size=5), st.randoms())
def test_any_cut_into_batches_and_parts_gives_the_same_scores(tmp_path_factory, sizes, random):
    parts = Parts(tmp_path_factory.mktemp("parts"))
    rows = random.sample(range(sum(map(sum, sizes))), sum(map(sum, sizes)))
    number = taken = 0
    written = []
    for part in sizes:
        batches = []
        for size in part:
            batches.append(scored(number, *rows[taken : taken + size]))
            number, taken = number + 1, taken + size
        written.append(batches)
    random.shuffle(written)
    for batches in written:
        parts.write(batches)

    assert gathered(parts, rows, num_orfs=len(rows)) == list(range(len(rows)))
    assert parts.done_batches().tolist() == list(range(number))


def test_scores_keep_every_bit(parts):
    scores = np.nextafter(np.float32([[0.1, 0.9], [1e-30, 1]]), np.float32(1))
    parts.write([ScoredBatch(0, np.arange(2), scores)])
    found = np.zeros((2, 2), dtype=np.float32)
    parts.gather(np.arange(2), NO_DUPLICATES, found)

    assert found.tobytes() == scores.tobytes()


def test_repeated_orfs_get_the_scores_of_the_first(parts):
    parts.write([scored(0, 0, 3)])

    assert gathered(parts, [0, 3], np.array([[1, 0], [2, 0], [4, 3]]), num_orfs=5) == [0, 0, 0, 3, 3]


def test_no_parts_and_nothing_planned_is_no_mistake(parts):
    assert parts.paths() == []
    assert parts.done_batches().tolist() == []
    assert gathered(parts, []) == []


def told_counts(message: str) -> list[int]:
    return [int(number) for number in re.findall(r"(\d+) (?:ORFs|are)", message)]


def test_a_missing_row_is_told(parts):
    parts.write([scored(0, 0, 1)])

    with pytest.raises(RuntimeError, match="3 ORFs were planned, 1 are missing") as caught:
        gathered(parts, [0, 1, 2])
    assert told_counts(str(caught.value)) == [3, 1, 0]


def test_a_missing_part_is_told(parts):
    parts.write([scored(0, 0, 1)])
    parts.write([scored(1, 2)])
    parts.paths()[1].unlink()

    with pytest.raises(RuntimeError, match="1 are missing"):
        gathered(parts, [0, 1, 2])


@pytest.mark.parametrize("second", [(1,), (1, 2)])
def test_a_doubled_row_is_told(parts, second):
    parts.write([scored(0, 0, 1)])
    parts.write([scored(1, *second)])

    with pytest.raises(RuntimeError, match="1 are there more than once"):
        gathered(parts, [0, *range(1, max(second) + 1)])


def test_a_row_doubled_within_one_batch_is_told(parts):
    parts.write([scored(0, 0, 1, 1)])

    with pytest.raises(RuntimeError, match="1 are there more than once"):
        gathered(parts, [0, 1])


@pytest.mark.parametrize("times", [256, 257, 512])
def test_a_row_there_very_often_is_told_too(parts, times):
    """A counter of eight bits would be back where it should be."""
    parts.write([scored(0, 0, *[1] * times)])

    with pytest.raises(RuntimeError, match=r"no result file was written"):
        gathered(parts, [0, 1])


def test_a_row_that_was_not_planned_is_told(parts):
    parts.write([scored(0, 0, 1)])

    with pytest.raises(RuntimeError, match=r"no result file was written"):
        gathered(parts, [0], num_orfs=2)


def test_a_row_beyond_the_store_is_told(parts):
    parts.write([scored(0, 0, 7)])

    with pytest.raises((RuntimeError, IndexError)):
        gathered(parts, [0], num_orfs=2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_score_that_is_no_number_is_told(parts, value):
    batch = scored(0, 0, 1)
    batch.scores[1, 0] = value
    parts.write([batch])

    with pytest.raises(RuntimeError, match="not numbers"):
        gathered(parts, [0, 1])


def test_a_part_that_was_being_written_when_the_run_was_killed_does_not_count(parts):
    parts.write([scored(0, 0)])
    (parts.folder / "part-000000001.tmp").write_bytes(b"PAR1 half a file")

    assert parts.done_batches().tolist() == [0]
    assert gathered(parts, [0]) == [0]


def test_writing_a_batch_again_replaces_its_part(parts):
    parts.write([scored(0, 0, 1)])
    parts.write([scored(0, 0, 1)])

    assert gathered(parts, [0, 1]) == [0, 1]
    assert not list(parts.folder.glob("*.tmp"))


def test_parts_are_readable_by_other_tools(parts):
    parts.write([scored(2, 5)])
    table = pq.read_table(parts.paths()[0])

    assert table.column_names == ["batch", "orf", "others_score", "virus_score"]
    assert table.to_pylist() == [
        {"batch": 2, "orf": 5, "others_score": pytest.approx(0.995), "virus_score": pytest.approx(0.005)}
    ]


def test_parts_of_other_weights_or_plans_lie_elsewhere(tmp_path):
    first, second = PartsOfModel(tmp_path, "weights A"), PartsOfModel(tmp_path, "weights B")

    assert first("plan").folder == PartsOfModel(tmp_path, "weights A")("plan").folder
    assert len({first("plan").folder, first("other plan").folder, second("plan").folder}) == 3
