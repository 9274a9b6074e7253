"""How fast and how lean the sequence half is: records to stored ORFs, without torch.

Reads of 150-300 nt are cut from real genomes (``--data``, or VIRNUCPRO_DATA, or ``shared/data`` beside the checkout:
a folder with ``viral/*.fa.gz`` and ``nonviral/*.fa.gz``). Two programs go from the same FASTA file to ORFs on disk:

- ``loop``: a straightforward loop over the records, chunk by chunk, codon by codon with a dictionary, that writes one
  FASTA file of nucleotides and one of proteins, as the published tool does;
- ``store``: ``prepare_store``, which also keeps the records and chunks, finds duplicates and takes checksums.

They run in turn, each time in a fresh process: ``loop`` once, then ``store`` five times, of which the median counts, as
a run this short meets a busy or an idle moment of the machine. Each of ``--rounds`` such pairs gives a ratio, and the
median of the ratios counts. Imports are not timed. Seconds are wall time; CPU seconds are those of all threads. The
memory of ``store`` is taken again with five times the reads. Run from the checkout::

    python benchmarks/sequence_half.py [--reads 200000] [--rounds 3] [--data DIR]
"""

import argparse
import gzip
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

CHUNK_LENGTH = 300
STORE_RUNS = 5
BASES = "TCAG"
CODE = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"
RESIDUE = {a + b + c: CODE[16 * i + 4 * j + k] for i, a in enumerate(BASES) for j, b in enumerate(BASES)
           for k, c in enumerate(BASES)}  # fmt: skip
COMPLEMENT = str.maketrans("ACGT", "TGCA")


def chunks(sequence: str) -> Iterator[str]:
    """Yield the chunks of a record, by the published rule."""
    count = -(-len(sequence) // CHUNK_LENGTH)
    if count == 1:
        yield sequence
        return
    surplus = count * CHUNK_LENGTH - len(sequence)
    overlap = surplus // count
    wider = surplus - overlap * (count - 1)
    start = 0
    for k in range(count):
        yield sequence[start : start + CHUNK_LENGTH]
        start += CHUNK_LENGTH - overlap - (k < wider)


def orfs(chunk: str) -> Iterator[tuple[str, str, str]]:
    """Yield frame, nucleotides and protein of each stop-free frame."""
    forward = chunk.upper()
    for strand, bases in (("F", forward), ("R", forward.translate(COMPLEMENT)[::-1])):
        for skipped in range(3):
            protein = ""
            for i in range(skipped, len(bases) - 2, 3):
                protein += RESIDUE.get(bases[i : i + 3], "")
            if protein and "*" not in protein:
                yield f"{strand}{skipped + 1}", bases[skipped : skipped + 3 * len(protein) + 1], protein


def now() -> tuple[float, float]:
    """Wall and CPU clock."""
    return time.perf_counter(), time.process_time()


def since(begin: tuple[float, float]) -> dict[str, float]:
    """Seconds since ``begin``, by both clocks."""
    return {name: end - start for name, end, start in zip(("seconds", "CPU seconds"), now(), begin, strict=True)}


def loop(reads: Path, folder: Path) -> dict[str, float]:
    """Find the ORFs record by record; return their number."""
    from Bio.SeqIO.FastaIO import SimpleFastaParser

    count, begin = 0, now()
    with reads.open() as stream, (folder / "nt.fa").open("w") as nucleotides, (folder / "aa.fa").open("w") as proteins:
        for title, sequence in SimpleFastaParser(stream):
            name = title.split(None, 1)[0]
            for number, chunk in enumerate(chunks(sequence), start=1):
                for frame, bases, protein in orfs(chunk):
                    nucleotides.write(f">{name}_chunk_{number}{frame}\n{bases}\n")
                    proteins.write(f">{name}_chunk_{number}{frame}\n{protein}\n")
                    count += 1
    return {**since(begin), "orfs": count}


def store(reads: Path, folder: Path) -> dict[str, float]:
    """Build the ORF store; return the number of ORFs and the seconds of each stage."""
    from virnucpro_pl.host.stage_clock import StageClock
    from virnucpro_pl.sequence.store import StoreSettings, prepare_store

    clock, begin = StageClock(), now()
    built = prepare_store([str(reads)], folder, StoreSettings(CHUNK_LENGTH), clock)
    spent = since(begin)
    manifest = json.loads((built / "manifest.json").read_text())
    return {**spent, "orfs": manifest["orfs"], **{k: s for k, s in clock.seconds().items() if s}}


def peak_mb() -> float:
    """Peak resident memory of this process, in MB (Linux; ``ru_maxrss`` would count the parent's)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split(None, 1)[0]) / 1024


def measure(program: str, reads: Path) -> dict[str, float]:
    """Run ``loop`` or ``store`` in a fresh process."""
    with tempfile.TemporaryDirectory(dir=reads.parent) as folder:
        command = [sys.executable, __file__, "--measure", program, str(reads), folder]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def show(program: str, result: dict[str, float], reads: int) -> str:
    """Say how long a program took."""
    seconds, cpu_seconds = result["seconds"], result["CPU seconds"]
    return f"{program} {seconds:.2f} s ({cpu_seconds:.2f} CPU), {reads / seconds:,.0f} records/s"


def ratio(slow: dict[str, float], fast: dict[str, float], clock: str = "seconds") -> float:
    """How many times as long ``slow`` took."""
    return slow[clock] / fast[clock]


def write_reads(path: Path, count: int, genomes: list[str]) -> None:
    """Cut reads at random places, wrapped at 60 as public FASTA files are."""
    chance = random.Random(0)
    with path.open("w") as stream:
        for i, genome in enumerate(chance.choices(genomes, weights=map(len, genomes), k=count)):
            length = chance.randint(150, 300)
            start = chance.randrange(len(genome) - length)
            lines = (genome[k : min(k + 60, start + length)] for k in range(start, start + length, 60))
            stream.write(f">read_{i}\n" + "\n".join(lines) + "\n")


def read_genomes(data: Path) -> list[str]:
    """Sequences long enough to cut reads from."""
    genomes = []
    for file in sorted(data.glob("*viral/*.fa.gz")):
        for entry in gzip.decompress(file.read_bytes()).decode().split(">"):
            genomes.append(entry.partition("\n")[2].replace("\n", ""))
    return [genome for genome in genomes if len(genome) > 400]


def main() -> None:
    """Measure and print."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reads", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("VIRNUCPRO_DATA", beside)))
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        program, reads, folder = options.measure
        result = {"loop": loop, "store": store}[program](Path(reads), Path(folder))
        print(json.dumps({**result, "peak MB": peak_mb()}))
        return

    genomes = read_genomes(options.data)
    if not genomes:
        sys.exit(f"{options.data}: no *viral/*.fa.gz there; name a folder with --data")
    with tempfile.TemporaryDirectory() as folder:
        reads, more_reads = Path(folder) / "reads.fa", Path(folder) / "more_reads.fa"
        write_reads(reads, options.reads, genomes)
        pairs = []
        for number in range(1, options.rounds + 1):
            slow = measure("loop", reads)
            runs = sorted((measure("store", reads) for _ in range(STORE_RUNS)), key=lambda run: run["seconds"])
            fast = runs[STORE_RUNS // 2]
            assert slow["orfs"] == fast["orfs"], "the two programs disagree"
            pairs.append((slow, fast))
            print(f"pair {number}: {show('loop', slow, options.reads)}; {show('store', fast, options.reads)}; "
                  f"ratio {ratio(slow, fast):.1f}, of CPU seconds {ratio(slow, fast, 'CPU seconds'):.1f}")  # fmt: skip
        _, fast = min(pairs, key=lambda pair: pair[1]["seconds"])
        print("store:", json.dumps({key: round(value, 3) for key, value in fast.items()}))
        print(f"median ratio of {len(pairs)} pairs: {statistics.median(ratio(*pair) for pair in pairs):.1f}")
        write_reads(more_reads, 5 * options.reads, genomes)
        more = measure("store", more_reads)
        print(f"peak memory: {fast['peak MB']:.0f} MB at {options.reads:,} reads, {more['peak MB']:.0f} MB at "
              f"{5 * options.reads:,} reads, ratio {more['peak MB'] / fast['peak MB']:.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
