"""Memory of the whole ``predict`` on the CPU as the input grows: it should not.

Synthetic reads of 150 bases, one in ten of which repeats another, go through ``predict`` with a model so small that
what surrounds it takes most of the time. Each number of reads is a fresh process, whose resident memory is read from
``/proc`` ten times a second: anonymous pages, pages of files (memory maps and libraries), and the peak of both
together, which the kernel keeps (``VmHWM``). Results go to ``--results``: ``peaks.tsv``, ``samples.tsv``,
``memory.png``. Run from the checkout (Linux)::

    python benchmarks/memory.py [--reads 100000 300000 1000000 3000000] [--results DIR]
"""

import argparse
import csv
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from random_models import write_models

from virnucpro_pl.benchmarking.synthetic_reads import synthetic_reads

CHECKOUT = Path(__file__).resolve().parents[1]
DEMO = CHECKOUT / "src" / "virnucpro_pl" / "demo"
LENGTH = 150
BLOCK = 50_000
REPEATED_SHARE = 0.1
SECONDS = 0.1
PHASES = {"store": "store/*/manifest.json", "parts": "parts/*/part-*", "results": "results/*"}
"""What is in the work folder once a phase has begun: planning, prediction, results"""
MOST_SAMPLES = 400
"""of one run, in the table and the picture"""


class Sample(NamedTuple):
    """Resident memory at one moment, in MiB."""

    reads: int
    seconds: float
    phase: str
    anonymous: float
    file: float
    peak: float


def main() -> None:
    """Measure, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reads", type=int, nargs="+", default=[100_000, 300_000, 1_000_000, 3_000_000])
    parser.add_argument("--results", type=Path, default=CHECKOUT / "benchmarks" / "results" / "memory")
    parser.add_argument("--scratch", type=Path, help="folder for reads and runs; 1 GB for each million reads")
    parser.add_argument("--at-once", type=int, default=1, help="runs side by side, each on one thread")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    runs, peaks = [], []
    with ThreadPoolExecutor(options.at_once) as pool:
        for samples in pool.map(lambda reads: measure(reads, options.scratch), options.reads):
            runs.append(samples)
            peaks.append(summary(samples, runs[0][-1].peak))
            print("  ".join(f"{key} {value}" for key, value in peaks[-1].items()), flush=True)
            # After each run, as the next may take hours.
            write_table(options.results / "peaks.tsv", peaks)
            write_table(options.results / "samples.tsv", [one._asdict() for run in runs for one in thinned(run)])
            draw(runs, options.results / "memory.png")


def measure(reads: int, scratch: Path | None) -> list[Sample]:
    """Predict this many reads in a fresh process and watch its memory."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        return predict(reads, Path(folder))


def predict(reads: int, folder: Path) -> list[Sample]:
    """Do so in an empty folder."""
    write_models(folder / "models", DEMO / "DNABERT-S", "tiny")
    write_reads(folder / "reads.fasta", reads)
    command = [sys.executable, "-m", "virnucpro_pl", "predict", f"input={folder / 'reads.fasta'}"]
    command += [f"output={folder / 'out'}", "trainer.accelerator=cpu", "model=virnucpro_300", "data.token_budget=16384"]
    command += [f"model.dna_encoder.weights={folder / 'models' / 'DNABERT-S'}"]
    command += [f"model.protein_encoder.weights={folder / 'models' / 'esm' / 'esm2_t1_tiny_random.pt'}"]
    command += [f"model.head.weights={folder / 'models' / 'mlp' / '300_model.pth'}"]
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(CHECKOUT / "src")}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        samples = list(watch(process, reads, folder / "out"))
    if process.returncode:
        sys.exit((folder / "log").read_text())
    assert json.loads((folder / "out" / "run.json").read_text())["counts"]["records"] == reads
    return samples


def write_reads(path: Path, count: int) -> None:
    """Write synthetic reads, block by block."""
    with path.open("wb") as stream:
        for first in range(0, count, BLOCK):
            letters = synthetic_reads(min(BLOCK, count - first), LENGTH, seed=first)
            chance = np.random.default_rng(first)
            repeated = np.flatnonzero(chance.random(len(letters)) < REPEATED_SHARE)
            letters[repeated] = letters[chance.integers(len(letters), size=len(repeated))]
            stream.writelines(b">read_%d\n%b\n" % (first + i, read.tobytes()) for i, read in enumerate(letters))


def watch(process: "subprocess.Popen[bytes]", reads: int, output: Path) -> Iterator[Sample]:
    """Yield samples until the process ends."""
    began, phase, coming = time.monotonic(), "reading", dict(PHASES)
    names = {"store": "predicting", "parts": "predicting", "results": "results"}
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        if "VmHWM" in fields:  # not once it has ended
            anonymous, file, peak = (int(fields[key].split()[0]) / 1024 for key in ("RssAnon", "RssFile", "VmHWM"))
            for name, pattern in tuple(coming.items()):
                if next(output.glob(f"*/{pattern}"), None):
                    phase = names[name]
                    del coming[name]
            yield Sample(reads, round(time.monotonic() - began, 2), phase, anonymous, file, peak)
        time.sleep(SECONDS)


def summary(samples: list[Sample], reference: float) -> dict[str, object]:
    """Return the peak of a run, its time, and its ratio to the peak of the first run."""
    peak = samples[-1].peak
    reached = next(sample for sample in samples if sample.peak == peak)
    return {
        "reads": samples[-1].reads,
        "peak_mib": round(peak),
        "ratio": round(peak / reference, 3),
        "reached_while": reached.phase,
        "reached_after_s": reached.seconds,
        "run_s": samples[-1].seconds,
        "most_anonymous_mib": round(max(sample.anonymous for sample in samples)),
        "most_file_mib": round(max(sample.file for sample in samples)),
    }


def thinned(samples: list[Sample]) -> list[Sample]:
    """At most MOST_SAMPLES of them, evenly spread."""
    return samples[:: -(-len(samples) // MOST_SAMPLES)]


def write_table(path: Path, rows: list[dict[str, object]]) -> None:
    """Write rows of equal keys, tab-separated."""
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0], delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: round(v, 1) if isinstance(v, float) and v > 10 else v for k, v in row.items()}
                         for row in rows)  # fmt: skip


def draw(runs: list[list[Sample]], path: Path) -> None:
    """Draw anonymous and file pages of each run over its time, and the peaks over the number of reads."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(runs) + 4, 4), layout="constrained")
    FigureCanvasAgg(figure)
    *panels, last = figure.subplots(1, len(runs) + 1, sharey=True)
    for ax, run in zip(panels, map(thinned, runs), strict=True):
        seconds = [sample.seconds for sample in run]
        ax.stackplot(seconds, [one.anonymous for one in run], [one.file for one in run],
                     labels=["anonymous", "of files"], colors=["#1f6f8b", "#b0b7bd"])  # fmt: skip
        ax.plot(seconds, [sample.peak for sample in run], color="#e07b39", label="peak so far")
        for before, after in itertools.pairwise(run):
            if before.phase != after.phase:
                ax.axvline(after.seconds, color="black", linewidth=0.6)
                ax.text(after.seconds, 5, f" {after.phase}", rotation=90, fontsize=8, va="bottom")
        ax.set(title=f"{run[0].reads:,} reads", xlabel="seconds")
    panels[0].set_ylabel("resident memory, MiB")
    panels[0].legend(loc="lower right", fontsize=8)
    last.plot([run[0].reads for run in runs], [run[-1].peak for run in runs], "o-", color="#e07b39")
    last.set(title="peak", xlabel="reads", xscale="log", ylim=(0, None))
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
