"""Synthetic reads against Biopython's translation and the program's own sequence half."""

from pathlib import Path

import numpy as np
import pytest
from Bio.Seq import Seq
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro_pl.benchmarking.synthetic_reads import synthetic_reads, write_reads
from virnucpro_pl.host.stage_clock import StageClock
from virnucpro_pl.sequence.layout import StoreSettings
from virnucpro_pl.sequence.store import prepare_store


def stop_free_frames(read: str) -> set[str]:
    """By Biopython: F1 to R3."""
    found = set()
    for strand, letters in (("F", Seq(read)), ("R", Seq(read).reverse_complement())):
        for offset in range(3):
            frame = letters[offset:]
            if "*" not in frame[: len(frame) // 3 * 3].translate():
                found.add(f"{strand}{offset + 1}")
    return found


@given(num_reads=st.integers(1, 20), length=st.integers(3, 400), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=50)
def test_every_read_has_a_frame_without_stop(num_reads: int, length: int, seed: int) -> None:
    reads = synthetic_reads(num_reads, length, seed)
    assert reads.shape == (num_reads, length)
    for read in reads:
        letters = read.tobytes().decode()
        assert set(letters) <= set("ACGT")
        assert stop_free_frames(letters)


def test_each_of_the_six_frames_is_the_open_one_of_as_many_reads() -> None:
    frames = [stop_free_frames(read.tobytes().decode()) for read in synthetic_reads(600, 600, seed=0)]
    assert {len(open_frames) for open_frames in frames} == {1}, "600 bases leave chance no second frame"
    counts = {name: sum(name in names for names in frames) for name in ("F1", "F2", "F3", "R1", "R2", "R3")}
    assert min(counts.values()) > 60


def test_reads_depend_on_nothing_but_number_length_and_seed() -> None:
    reads = synthetic_reads(50, 90, seed=1)
    np.testing.assert_array_equal(reads, synthetic_reads(50, 90, seed=1))
    assert (reads != synthetic_reads(50, 90, seed=2)).any()
    assert len({read.tobytes() for read in reads}) == 50


@pytest.mark.parametrize("length", [3, 150, 500])
def test_the_program_calls_every_read(length: int, tmp_path: Path) -> None:
    reads = write_reads(40, length, seed=0, folder=tmp_path / "new")
    store = prepare_store([str(reads.path)], tmp_path / "store", StoreSettings(length), StageClock())
    manifest = (store / "manifest.json").read_text()
    assert '"called": 40' in manifest
    assert '"chunks": 40' in manifest
    assert reads.name == f"{length} nt"
