"""How long ``report`` and ``compare`` take for a million records, how large the report is, how fast it opens.

The tables are made up, in the form ``predict`` writes; nothing is predicted. Opening is timed by headless Chromium, if
there is one, from the start of navigation to the end of the load event, when all charts are drawn.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from virnucpro_pl.files.output_files import CHUNK_TABLE, CONSENSUS_TABLE, ORF_TABLE, RECORD_TABLE, REPORT, VIRAL_FASTA
from virnucpro_pl.sequence.translation import FRAMES


def run_demo(folder: Path) -> dict:
    """Return the record of a small run, whose folder is filled with other tables later."""
    program("predict", f"output={folder}", "formats.report=false")
    return json.loads((folder / "run.json").read_text())


def program(*words: str) -> float:
    """Run a command and return its seconds."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "virnucpro_pl", *words], check=True, capture_output=True)
    return time.perf_counter() - began


def write_table(path: Path, columns: dict) -> None:
    """Tab-separated text without quotes, the header included."""
    with path.open("wb") as stream:
        stream.write("\t".join(columns).encode() + b"\n")
        csv.write_csv(
            pa.table(columns),
            stream,
            csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none"),
        )


def fill(folder: Path, run: dict, records: int, seed: int, noise: float) -> None:
    """Write the result files of reads of 50 to 300 nt, one chunk each, and some contigs of hundreds of chunks."""
    generator = np.random.default_rng(1)
    lengths = generator.integers(50, 301, records)
    lengths[:: max(1, records // 40)] = generator.integers(20_000, 120_000, len(lengths[:: max(1, records // 40)]))
    chunks = -(-lengths // 300)
    owners = np.repeat(np.arange(records), chunks)
    numbers = np.arange(len(owners)) - np.repeat(np.cumsum(chunks) - chunks, chunks)
    uncalled = generator.random(len(owners)) < 0.3
    scores = generator.random(len(owners))
    scores = np.clip(scores + np.random.default_rng(seed).normal(0, noise, len(scores)), 0, 1)
    viral = (scores >= 0.5) & ~uncalled
    calls = np.select([uncalled, viral], ["", "virus"], "others")
    names = np.char.add("read_", owners.astype(str))
    ids = pa.array(np.char.add(np.char.add(names, "_chunk_"), (numbers + 1).astype(str)))
    shown = pa.array(scores.astype(np.float32), mask=uncalled)
    pq.write_table(
        pa.table(
            {
                "record": owners + 1,
                "sequence_id": pa.array(names),
                "chunk_id": ids,
                "start": numbers * 300,
                "end": np.minimum((numbers + 1) * 300, lengths[owners]),
                "max_virus_score": shown,
                "call": pa.array(calls, mask=uncalled),
                **{f"virus_score_{frame}": shown for frame in FRAMES},
            }
        ),
        folder / CHUNK_TABLE,
        row_group_size=1 << 16,
    )
    called = np.bincount(owners, ~uncalled, records).astype(np.int64)
    num_viral = np.bincount(owners, viral, records).astype(np.int64)
    best = np.zeros(records)
    np.maximum.at(best, owners, np.where(uncalled, 0, scores))
    call = np.select([called == 0, num_viral * 2 >= called], ["NA", "virus"], "others")
    table = {
        "record": np.arange(1, records + 1), "sequence_id": np.char.add("read_", np.arange(records).astype(str)),
        "length": lengths, "chunks": chunks, "called_chunks": called, "viral_chunks": num_viral,
        "viral_chunk_fraction": num_viral / np.maximum(called, 1), "orfs": called, "viral_orfs": num_viral,
        "max_virus_score": best, "call": call, "status": np.where(called > 0, "called", "no_orf"),
        "dna_only_chunks": np.zeros(records, int), "out_of_domain": np.full(records, "no"),
        "file": np.full(records, "reads.fa"),
    }  # fmt: skip
    write_table(folder / RECORD_TABLE, table)
    kept = ~uncalled
    orfs = {
        "Sequence_ID": pa.array(np.char.add(ids.to_numpy(False)[kept].astype(str), "F1")),
        "Prediction": np.where(viral[kept], "virus", "others"), "score1": 1 - scores[kept], "score2": scores[kept],
    }  # fmt: skip
    write_table(folder / ORF_TABLE, orfs)
    consensus = {"Modified_ID": ids.filter(pa.array(kept)), "Is_Virus": np.where(viral[kept], "True", "False")}
    write_table(folder / CONSENSUS_TABLE, consensus)
    (folder / VIRAL_FASTA).write_text("")
    by_call = {name: int((call == name).sum()) for name in ("others", "virus")}
    run["counts"]["calls"]["records"] = {**by_call, "ambiguous": 0, "not_called": int((call == "NA").sum())}
    run["counts"] |= {"records": records, "chunks": len(owners), "orfs": int(kept.sum())}
    statuses = {"called": int((called > 0).sum()), "no_orf": int((called == 0).sum())}
    run["counts"]["record_status"] = dict.fromkeys(run["counts"]["record_status"], 0) | statuses
    (folder / "run.json").write_text(json.dumps(run))


def seconds_to_open(page: Path) -> float | None:
    """Milliseconds from navigation to the end of loading, told by the browser itself."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        tab = browser.new_page()
        tab.goto(page.as_uri(), wait_until="load")
        told = tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
        browser.close()
    return float(told) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        reference, candidate = Path(temporary, "reference"), Path(temporary, "candidate")
        run = run_demo(reference)
        candidate.mkdir()
        fill(reference, run, arguments.records, seed=2, noise=0.0)
        fill(candidate, run, arguments.records, seed=3, noise=1e-3)
        start = program("compare", "--help")
        print(f"{arguments.records:,} records; the start of the program alone takes {start:.2f} s")
        print(f"report     {program('report', f'output={reference}'):6.2f} s")
        print(f"           {(reference / REPORT).stat().st_size / 2**20:6.2f} MiB")
        if (opening := seconds_to_open(reference / REPORT)) is not None:
            print(f"           {opening:6.2f} s to open")
        for mode in ("per-frame", "consensus", "record"):
            words = [f"reference={reference}", f"candidate={candidate}", f"mode={mode}", f"output={temporary}/{mode}"]
            print(f"compare    {program('compare', *words):6.2f} s, {mode}")


if __name__ == "__main__":
    main()
