"""Memory does not grow with the input; benchmarks/memory.py has the figures of whole predictions."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from virnucpro_pl.runs.score_file import ScoreFile

WITHOUT_MODELS = """
import sys
from functools import partial
from pathlib import Path

import numpy as np

from virnucpro_pl.data.packing import plan_batches
from virnucpro_pl.results.consensus import CallingRules
from virnucpro_pl.runs.score_file import ScoreFile
from virnucpro_pl.results import tables
from virnucpro_pl.sequence.store import OrfStore, StoreSettings, prepare_store
from virnucpro_pl.host.stage_clock import StageClock

# Small enough that both inputs fill them.
tables.MAX_CHUNKS = 1 << 13
tables.SortedRows = partial(tables.SortedRows, max_rows=1 << 12)
reads, folder = Path(sys.argv[1]), Path(sys.argv[2])
store = OrfStore(prepare_store([str(reads)], folder, StoreSettings(300), StageClock()))
plan = plan_batches(store.by_length(deduplicate=True), 4096)
scores = ScoreFile(folder / "scores", store.num_orfs)
for number in range(plan.num_batches):
    rows = plan.batch(number)
    store.nucleotides.take(rows)
    scores[rows] = np.random.default_rng(number).random((len(rows), 2))
for pairs in store.duplicate_orfs().blocks():
    scores[pairs[:, 0]] = scores[pairs[:, 1]]
tables.write_results(store.folder, [str(reads)], scores, folder / "results", CallingRules(), StageClock())
assert "torch" not in sys.modules
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(store.num_orfs, status["VmHWM"].split()[0])
"""
"""Everything but the encoders; prints ORFs and peak memory in KiB"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc is not here: run on Linux")
def test_all_but_the_encoders_takes_the_same_memory_for_four_times_the_reads(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    codons = np.char.add(*np.meshgrid(["GC", "AC"], list("ACGT"))).ravel()
    peaks, num_orfs = [], []
    for count in (30_000, 120_000):
        path = tmp_path / f"{count}.fa"
        reads = ["".join(read) for read in generator.choice(codons, (count // 2, 20))]
        reads += [reads[i] for i in generator.integers(0, len(reads), count - len(reads))]  # half of them repeat
        path.write_text("".join(f">r{number}\n{read}\n" for number, read in enumerate(reads)))
        command = [sys.executable, "-c", WITHOUT_MODELS, str(path), str(tmp_path / f"{count}")]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        num_orfs.append(int(found[0]))
        peaks.append(int(found[1]))
    assert num_orfs[1] == pytest.approx(4 * num_orfs[0], rel=0.02)
    assert num_orfs[1] > 300_000
    assert peaks[1] < 1.3 * peaks[0]  # threads that write lag behind on a busy machine


@pytest.mark.parametrize("num_orfs", [0, 1, 5000])
def test_scores_on_disk_are_those_that_were_given(tmp_path: Path, num_orfs: int) -> None:
    """Against an array, with rows in any order and more of them than are touched at once."""
    generator = np.random.default_rng(0)
    scores, expected = ScoreFile(tmp_path / "scores", num_orfs), np.full((num_orfs, 2), np.nan, dtype=np.float32)
    for _ in range(3):
        rows = generator.permutation(num_orfs)[: num_orfs // 2 + 1]
        scores[rows] = expected[rows] = generator.random((len(rows), 2), dtype=np.float32)
        assert np.array_equal(scores[rows[::-1]], expected[rows[::-1]], equal_nan=True)
    assert len(scores) == num_orfs
    assert np.array_equal(scores[:], expected, equal_nan=True)
    assert np.array_equal(scores[3:17], expected[3:17], equal_nan=True)
