"""Checking a finished folder: whether its files are those that were written and account for everything."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from virnucpro_pl.digests import sha256_of
from virnucpro_pl.file_names import open_arrow
from virnucpro_pl.output_files import CHUNK_TABLE, CONSENSUS_TABLE, ORF_TABLE, RECORD_TABLE, VIRAL_FASTA
from virnucpro_pl.sequence.streams import can_be_read_again

_Counts = Mapping[str, Any]


def verify_files(folder: Path, run: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Yield each result file with what is wrong with it, None if nothing is.

    Args:
        folder: the output folder.
        run: its run record.
    """
    for name, known in run["files"].items():
        yield name, _mistake(folder / name, known, run["counts"])


def _mistake(file: Path, known: Mapping[str, Any], counts: _Counts) -> str | None:
    if not file.is_file():
        return "is missing"
    if (size := file.stat().st_size) != known["bytes"]:
        return f"has {size:,} bytes and was written with {known['bytes']:,}"
    if sha256_of(file)[file.name] != known["sha256"]:
        return "was changed: its SHA-256 is another"
    try:
        return _CONTENT[file.name](file, counts) if file.name in _CONTENT else None
    except (UnicodeDecodeError, IndexError, pa.ArrowException) as error:
        return f"cannot be read ({' '.join(str(error).split())})"


def _orfs(file: Path, counts: _Counts) -> str | None:
    return _rows(file, counts["orfs"], "ORFs")


def _called_chunks(file: Path, counts: _Counts) -> str | None:
    return _rows(file, counts.get("chunks_with_orf", counts["chunk_status"]["called"]), "chunks with an ORF")


def _records(file: Path, counts: _Counts) -> str | None:
    with file.open(encoding="utf-8", newline="\n") as lines:
        header = next(lines).rstrip("\n").split("\t")
        column = header.index("status")
        found = Counter(line.rstrip("\n").split("\t")[column] for line in lines)
    wanted = {status: number for status, number in counts["record_status"].items() if number}
    return None if found == wanted else f"has {dict(found)} and run.json tells {wanted}"


def _chunks(file: Path, counts: _Counts) -> str | None:
    with open_arrow(file) as stream:
        return _compare(pq.read_metadata(stream).num_rows, counts["chunks"], "chunks")


def _viral_records(file: Path, counts: _Counts) -> str | None:
    with file.open("rb") as lines:
        found = sum(line.startswith(b">") for line in lines)
    return _compare(found, counts["calls"]["records"]["virus"], "viral records")


def _rows(file: Path, wanted: int, what: str) -> str | None:
    with file.open("rb") as lines:
        return _compare(sum(1 for _ in lines) - 1, wanted, what)


def _compare(found: int, wanted: int, what: str) -> str | None:
    return None if found == wanted else f"has {found:,} rows and run.json tells {wanted:,} {what}"


_CONTENT: dict[str, Callable[[Path, _Counts], str | None]] = {
    ORF_TABLE: _orfs,
    CONSENSUS_TABLE: _called_chunks,
    RECORD_TABLE: _records,
    CHUNK_TABLE: _chunks,
    VIRAL_FASTA: _viral_records,
}


def input_state(source: Mapping[str, Any]) -> str:
    """Say whether an input is still what was read, for those who wonder; results do not depend on it any more."""
    path = Path(source["path"])
    if not can_be_read_again(source["path"]):
        return "not here to compare"
    return "as it was read" if sha256_of(path)[path.name] == source["sha256"] else "changed since it was read"
