"""Real genomes and reads: every record is accounted for, and memory does not grow with the input."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from Bio.SeqIO.FastaIO import SimpleFastaParser
from Bio.SeqIO.QualityIO import FastqGeneralIterator

from support import read_table
from virnucpro_pl.host.stage_clock import StageClock
from virnucpro_pl.sequence.store import STATUSES, StoreSettings, prepare_store


def biopython_lengths(path: Path) -> list[int]:
    with gzip.open(path, "rt") as stream:
        parse = FastqGeneralIterator if ".fastq" in path.name else SimpleFastaParser
        return [len(record[1].replace(" ", "").replace("\t", "")) for record in parse(stream)]


@pytest.mark.parametrize("chunk_length", [300, 500])
def test_every_record_of_real_files_has_a_status(real_data: Path, tmp_path: Path, chunk_length: int) -> None:
    """R1: viral, host, messy headers and reads, against Biopython's count of records and letters."""
    files = [path for path in sorted(real_data.glob("*/*.gz")) if path.stat().st_size < 100_000]
    assert len(files) > 40
    for number, path in enumerate(files):
        folder = prepare_store([str(path)], tmp_path / str(number), StoreSettings(chunk_length), StageClock())
        manifest = json.loads((folder / "manifest.json").read_text())
        records, chunks = (read_table(folder / f"{name}.arrow") for name in ("records", "chunks"))
        lengths = biopython_lengths(path)
        assert [len(sequence) for sequence in records["sequence"].to_pylist()] == lengths, path.name
        assert sum(manifest["record_status"].values()) == manifest["records"] == len(lengths)
        assert sum(manifest["chunk_status"].values()) == manifest["chunks"] == len(chunks)
        assert manifest["orfs"] == sum(chunks["orfs"].to_pylist())
        called = np.array(chunks["status"].to_pylist()) == STATUSES.index("called")
        assert (called == (np.array(chunks["orfs"].to_pylist()) > 0)).all()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc is not here: run on Linux")
def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    """R28: six times the reads, the same peak within a tenth; benchmarks/sequence_half.py has the large figures."""
    code = (
        "import sys; from pathlib import Path;"
        "from virnucpro_pl.sequence.store import StoreSettings, prepare_store;"
        "from virnucpro_pl.host.stage_clock import StageClock;"
        "prepare_store([sys.argv[1]], Path(sys.argv[2]), StoreSettings(300), StageClock());"
        # not getrusage, which begins with the peak of the process that started this one
        "print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    random_numbers = np.random.default_rng(0)
    peaks = []
    for count in (50_000, 300_000):
        path = tmp_path / f"{count}.fa"
        letters = np.frombuffer(b"ACGT", dtype=np.uint8)[random_numbers.integers(0, 4, (count, 250))].tobytes().decode()
        path.write_text("".join(f">r{i}\n{letters[250 * i : 250 * i + 250]}\n" for i in range(count)))
        command = [sys.executable, "-c", code, str(path), str(tmp_path / f"store{count}")]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] < 1.1 * peaks[0]
