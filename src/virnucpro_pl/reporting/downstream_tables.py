"""Writers of formats for other programs: Kraken 2 output, BED and MultiQC content (``docs/formats.md``)."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from virnucpro_pl.errors import escaped
from virnucpro_pl.files.durable import replacing
from virnucpro_pl.files.file_names import open_arrow
from virnucpro_pl.files.output_files import BED, CHUNK_TABLE, KRAKEN, MULTIQC_CALLS, MULTIQC_GENERAL, RECORD_TABLE
from virnucpro_pl.reporting.gathering import record_batches
from virnucpro_pl.runs.record_types import Calls, RunRecord
from virnucpro_pl.sequence.translation import FRAMES

VIRUSES = 10239
"""NCBI taxon of Viruses"""
_ENDINGS = (".gz", ".bz2", ".xz", ".zst", ".bgz", ".fasta", ".fa", ".fna", ".fastq", ".fq", ".sam", ".bam", ".cram")
_SHADES = {"virus": "#c8553d", "ambiguous": "#b08d2e", "others": "#2f7f96", "not_called": "#a9b3bd"}
_NAMES = {"virus": "Viral", "ambiguous": "Undecided", "others": "Not viral", "not_called": "No call"}


def write_kraken(folder: Path) -> list[str]:
    """Write ``kraken.tsv``: one row for each sequence, as Kraken 2 writes for each read.

    Viral sequences have ``C`` and taxon 10239 (Viruses), all others ``U`` and 0. The last column counts chunks:
    ``10239:3 0:2 A:1`` stands for three viral chunks, two others, and one that is not called.
    """
    return _write_lines(folder / KRAKEN, kraken_rows(folder))


def kraken_rows(folder: Path) -> Iterator[str]:
    """Yield the lines of ``kraken.tsv``."""
    names = ("sequence_id", "length", "call", "chunks", "called_chunks", "viral_chunks")
    for batch in record_batches(folder / RECORD_TABLE):
        for name, length, call, chunks, called, viral in zip(*(batch[key].to_pylist() for key in names), strict=True):
            is_viral = call == "virus"
            counts = ((VIRUSES, viral), (0, called - viral), ("A", chunks - called))
            hits = " ".join(f"{taxon}:{count}" for taxon, count in counts if count) or "0:0"
            yield f"{'C' if is_viral else 'U'}\t{name}\t{VIRUSES if is_viral else 0}\t{length}\t{hits}\n"


def write_bed(folder: Path) -> list[str]:
    """Write ``viral_chunks.bed``: BED6 of all viral chunks, with the strand of the best frame."""
    return _write_lines(folder / BED, bed_rows(folder))


def bed_rows(folder: Path) -> Iterator[str]:
    """Yield the lines of ``viral_chunks.bed``."""
    frames = [f"virus_score_{frame}" for frame in FRAMES]
    columns = ["sequence_id", "start", "end", "chunk_id", "max_virus_score", "call", *frames]
    with open_arrow(folder / CHUNK_TABLE) as stream, pq.ParquetFile(stream) as file:
        for batch in file.iter_batches(columns=columns):
            viral = np.flatnonzero(batch["call"].to_numpy(zero_copy_only=False) == "virus")
            by_frame = np.stack([batch[name].to_numpy(zero_copy_only=False)[viral] for name in frames])
            by_frame = np.where(np.isnan(by_frame), -1.0, by_frame)
            # A chunk that a fallback head called has no frame and no strand.
            strands = np.where(by_frame.max(axis=0) < 0, ".", np.where(by_frame.argmax(axis=0) < 3, "+", "-"))
            rows = batch.take(viral).to_pydict()
            for name, start, end, chunk, score, strand in zip(
                *(rows[key] for key in columns[:5]), strands.tolist(), strict=True
            ):
                yield f"{name}\t{start}\t{end}\t{chunk}\t{round(1000 * score)}\t{strand}\n"


def _write_lines(path: Path, lines: Iterator[str]) -> list[str]:
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(lines)
    return [path.name]


def write_multiqc(folder: Path, run: RunRecord) -> list[str]:
    """Write the files that MultiQC finds: a bar of calls and a column of the general table, by input file."""
    content = multiqc_sections(run)
    for name, section in content.items():
        with replacing(folder / name) as unfinished:
            unfinished.write_text(json.dumps(section, indent=2) + "\n", encoding="utf-8")
    return [*content]


def multiqc_sections(run: RunRecord) -> dict[str, Any]:
    """Return the content of each file for MultiQC, by name."""
    samples = _sample_names([escaped(source["path"]) for source in run["counts"]["inputs"]])
    calls = {name: source["calls"] for name, source in zip(samples, run["counts"]["inputs"], strict=True)}
    note = f"{'; '.join(run['warnings'])}. " if run["warnings"] else ""
    return {
        MULTIQC_CALLS: {
            "id": "virnucpro_calls",
            "section_name": "virnucpro_pl: viral calls",
            "description": f"{note}Records called by model {run['model']['name']}, virnucpro_pl {run['version']}."
            " Records without an open reading frame get no call, which is not a negative.",
            "plot_type": "bargraph",
            "pconfig": {"id": "virnucpro_calls_plot", "title": "virnucpro_pl: calls of records", "ylab": "records"},
            "categories": {key: {"name": name, "color": _SHADES[key]} for key, name in _NAMES.items()},
            "data": calls,
        },
        MULTIQC_GENERAL: {
            "id": "virnucpro_general",
            "plot_type": "generalstats",
            "headers": {
                "viral_percent": {
                    "title": "% viral",
                    "description": "Records called viral, of those that could be called",
                    "min": 0,
                    "max": 100,
                    "suffix": "%",
                }
            },
            "data": {name: _viral_percent(of) for name, of in calls.items()},
        },
    }


def _viral_percent(calls: Calls) -> dict[str, float]:
    """Return the viral share of called sequences in percent; empty if none is called."""
    called = calls["virus"] + calls["others"] + calls["ambiguous"]
    return {"viral_percent": round(100 * calls["virus"] / called, 4)} if called else {}


def _sample_names(paths: list[str]) -> list[str]:
    """Return the names of samples as in MultiQC: file names without suffixes, or whole paths if they are not unique.

    >>> _sample_names(["a/x.fastq.gz", "b/y.fa"]), _sample_names(["a/x.fa", "b/x.fa"])
    (['x', 'y'], ['a/x.fa', 'b/x.fa'])
    """
    names = []
    for path in paths:
        name = Path(path).name
        while stripped := next((name[: -len(end)] for end in _ENDINGS if name.endswith(end) and name != end), None):
            name = stripped
        names.append("stdin" if path == "-" else name)
    unique = Counter(names)
    return [path if unique[name] > 1 else name for path, name in zip(paths, names, strict=True)]
